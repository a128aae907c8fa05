SELECT drop_stage(%(projection)s, %(stage)s)
