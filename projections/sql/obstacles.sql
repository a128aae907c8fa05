SELECT o.obstacle FROM swap_obstacles(%(tables)s) AS o
