-- Takes free shares, not more than wanted.
SELECT s.share::smallint
  FROM (SELECT g.share
          FROM generate_series(0, 15) AS g (share)
         WHERE g.share <> ALL (%(held)s)
        OFFSET 0) AS s
 WHERE pg_try_advisory_lock('checkpoints'::regclass::oid::bigint::bit(32)::integer, s.share)
 LIMIT %(wanted)s
