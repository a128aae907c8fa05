INSERT INTO seed_events (id, conversation_id, actor, content, timestamp, event_type)
SELECT e.id, e.conversation_id, e.actor, e.content, e.timestamp, e.event_type
  FROM events e
 WHERE e.position > %s
 ORDER BY e.position
