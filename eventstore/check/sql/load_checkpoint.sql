SELECT position
  FROM check_checkpoints
 WHERE reader = %(reader)s
