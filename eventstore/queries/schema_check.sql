-- name: position_sequence
SELECT is_sound, is_ahead, last_event, last_checkpoint FROM positions_are_sound()
