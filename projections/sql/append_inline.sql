SELECT a.position, a.version, a.timestamp, a.is_new
  FROM set_config('eventstore.tenant', %(tenant)s, true) AS asked (tenant),
       append_events(
           ARRAY[asked.tenant], ARRAY[%(conversation_id)s]::uuid[], ARRAY[%(expected)s]::integer[],
           array_fill(1, ARRAY[cardinality(%(ids)s::uuid[])]), %(ids)s::uuid[], %(types)s::text[],
           %(versions)s::smallint[], %(actors)s::text[], %(contents)s::jsonb[], %(metadatas)s::jsonb[]
       ) AS a
 ORDER BY a.ordinal
