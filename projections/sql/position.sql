SELECT coalesce(min(position), 0) FROM checkpoints WHERE projection = ANY (%(projections)s)
