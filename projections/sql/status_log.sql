-- The size of the log, and the appends in flight that hold its horizon back.
SELECT (SELECT count(*) FROM events) AS events,
       (SELECT coalesce(max(e.position), 0) FROM events e) AS last_position,
       (SELECT count(DISTINCT (e.tenant_id, e.conversation_id)) FROM events e) AS conversations,
       pg_total_relation_size('events') AS bytes,
       current_setting('server_version') AS server_version,
       pg_notification_queue_usage() AS notify_queue_usage
