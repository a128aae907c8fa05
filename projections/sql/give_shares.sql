SELECT pg_advisory_unlock('checkpoints'::regclass::oid::bigint::bit(32)::integer, s.share)
  FROM unnest(%(shares)s::integer[]) AS s (share)
