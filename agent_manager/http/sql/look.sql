-- How far the projections are, and a mark that changes whenever something in their tables may have changed: a share went
-- on, a table was emptied and refilled or swapped for another, something parked was applied.
SELECT applied.position,
       md5(concat_ws('|',
           (SELECT string_agg(c.position::text, ' ' ORDER BY c.projection, c.share)
              FROM checkpoints c
             WHERE c.projection = ANY (%(projections)s)
               AND c.stage = 'live'),
           (SELECT string_agg(pg_relation_filenode(to_regclass(t.name))::text, ' ' ORDER BY t.name)
              FROM unnest(%(tables)s::text[]) AS t (name)),
           (SELECT string_agg(format('%%s %%s %%s', p.projection, p.conversation_id, p.position), ' '
                              ORDER BY p.projection, p.tenant_id, p.conversation_id)
              FROM parked p
             WHERE p.projection = ANY (%(projections)s)
               AND p.stage = 'live')))
  FROM ({position}) AS applied (position)
