INSERT INTO bare_events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                         event_type, actor, content, metadata, salt, digest)
VALUES (nextval('bare_position'), clock_timestamp(), 1, 1, gen_random_uuid(), gen_random_uuid(), 'bench',
        'message.added', '{actor}', '{content}', '{}', '\x{salt}', '\x{digest}');
