-- What one would write by hand who knows that every conversation has messages and nothing else.
INSERT INTO by_hand_conversations (id, tenant_id, name, created_at, updated_at, message_count, version)
SELECT e.conversation_id, e.tenant_id, '', min(e.timestamp), max(e.timestamp),
       count(*) FILTER (WHERE e.event_type = 'message.added'), max(e.version)
  FROM events e
 GROUP BY e.tenant_id, e.conversation_id;

INSERT INTO by_hand_messages (id, conversation_id, tenant_id, version, role, content, parts, created_at, actor, given_id,
                              extra, metadata)
SELECT e.id, e.conversation_id, e.tenant_id, e.version, e.content ->> 'role', coalesce(e.content ->> 'content', ''),
       e.content -> 'parts', e.timestamp, e.actor, e.content ->> 'given_id', e.content -> 'extra', e.content -> 'metadata'
  FROM events e
 WHERE e.event_type = 'message.added';

INSERT INTO by_hand_tasks (id, conversation_id, tenant_id, version, status, description, created_at, updated_at)
SELECT (e.content ->> 'task_id')::uuid, e.conversation_id, e.tenant_id, e.version, e.content ->> 'status',
       e.content ->> 'description', e.timestamp, e.timestamp
  FROM events e
 WHERE e.event_type = 'task.created';
