SELECT a.ordinal, a.position, a.version, a.timestamp, a.is_new
  FROM append_events(
           %(tenant_ids)b::text[],
           %(conversation_ids)b::uuid[],
           %(expected_versions)b::integer[],
           %(conversation_nos)b::integer[],
           %(event_ids)b::uuid[],
           %(event_types)b::text[],
           %(schema_versions)b::smallint[],
           %(actors)b::text[],
           %(contents)b::jsonb[],
           %(metadatas)b::jsonb[]
       ) AS a
