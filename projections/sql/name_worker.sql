SELECT set_config('application_name', left(%(name)s, 63), false)
