-- name: log_integrity
SELECT sequence_is_unaltered, sequence_is_ahead, last_event, last_checkpoint FROM log_integrity()
