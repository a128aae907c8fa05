SELECT swap_tables(%(projection)s, %(tables)s, %(stage)s)
