SELECT bind_login(%(login)s, %(tenant)s)
