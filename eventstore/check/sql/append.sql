SELECT a."position", a.version
  FROM set_config('eventstore.tenant', %(tenant)s, true) AS asked (tenant),
       append_events(
           ARRAY[asked.tenant], ARRAY[%(conversation)s::uuid], ARRAY[%(expected)s::integer],
           array_fill(1, ARRAY[%(count)s::integer]), %(ids)s::uuid[],
           array_fill(%(event_type)s::text, ARRAY[%(count)s]), array_fill(1::smallint, ARRAY[%(count)s]),
           array_fill(''::text, ARRAY[%(count)s]), %(contents)s::jsonb[],
           array_fill('{}'::jsonb, ARRAY[%(count)s])
       ) AS a
 ORDER BY a.ordinal
