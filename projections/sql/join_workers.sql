-- A worker holds this lock, shared, for as long as its session lives: so they can be counted.
SELECT pg_advisory_lock_shared('checkpoints'::regclass::oid::bigint::bit(32)::integer, 16)
