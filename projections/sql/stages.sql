SELECT t.stage, t.source FROM projection_texts t WHERE t.projection = %(projection)s
