SELECT is_sound, is_ahead FROM positions_are_sound()
