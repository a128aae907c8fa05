INSERT INTO bare_events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                         event_type, actor, content, metadata, salt, digest)
VALUES (nextval('bare_position'), clock_timestamp(), %b, 1, %b, %b, 'bench', 'message.added', %b, %b, %b, %b, %b)
