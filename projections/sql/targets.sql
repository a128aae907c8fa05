SELECT c.share, c.position FROM checkpoints c WHERE c.projection = %(projection)s AND c.stage = 'live'
