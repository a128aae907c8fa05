SELECT m.what, m.statement FROM missing_in_shadows(%(tables)s) AS m
