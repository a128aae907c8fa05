SELECT unbind_login(%(login)s)
