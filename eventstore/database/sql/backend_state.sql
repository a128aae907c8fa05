-- Whether a server process has nothing to do for its client, though the client waits for an answer: it waits for a
-- statement, or for the client to take what it sends. The time allows for an answer that is still on its way. No row: the
-- process is gone. Other accounts' processes, and those of a server that does not track activities, count as working.
SELECT coalesce((a.state LIKE 'idle%%' AND a.state_change < clock_timestamp() - interval '1 second')
                OR a.wait_event = 'ClientWrite', false)
  FROM pg_catalog.pg_stat_activity a
 WHERE a.pid = %(pid)s
