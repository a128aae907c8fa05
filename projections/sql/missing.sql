SELECT m.what, m.statement, m.is_key FROM missing_in_shadows(%(tables)s) AS m
