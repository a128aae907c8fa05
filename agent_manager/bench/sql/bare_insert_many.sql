INSERT INTO bare_events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                         event_type, actor, content, metadata, salt, digest)
SELECT nextval('bare_position'), clock_timestamp(), r.version, 1, r.conversation_id, r.id, 'bench',
       'message.added', r.actor, r.content, r.metadata, r.salt, r.digest
  FROM unnest(%b::integer[], %b::uuid[], %b::uuid[], %b::text[], %b::jsonb[], %b::jsonb[], %b::bytea[], %b::bytea[])
           AS r (version, conversation_id, id, actor, content, metadata, salt, digest)
