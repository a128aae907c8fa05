-- name: langgraph_threads
-- The threads in the order in which they began.
SELECT thread_id
  FROM checkpoints
 GROUP BY thread_id
 ORDER BY min(checkpoint_id), thread_id

-- name: langgraph_checkpoints
SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata
  FROM checkpoints
 WHERE thread_id = %(thread_id)s
 ORDER BY checkpoint_id, checkpoint_ns

-- name: langgraph_blobs
SELECT checkpoint_ns, channel, version, type, blob
  FROM checkpoint_blobs
 WHERE thread_id = %(thread_id)s

-- name: langgraph_writes
-- The column task_path is missing in older tables.
SELECT checkpoint_ns, checkpoint_id, task_id, {task_path} AS task_path, idx, channel, type, blob
  FROM checkpoint_writes
 WHERE thread_id = %(thread_id)s
 ORDER BY checkpoint_ns, checkpoint_id, task_path, task_id, idx
