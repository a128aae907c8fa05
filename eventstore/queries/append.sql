-- name: append_group
SELECT a.outcomes, a.positions, a.versions, a.timestamps, a.problems
  FROM append_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS a

-- name: append_one
SELECT append_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)

-- name: keep_plans
-- The planner's settings for a session that appends: a plan that was made while the log was short must serve when it is
-- long, and planning each append would take longer than the append. The query configure explains jit = off; it is set
-- again because a pooler may have lent another session.
SELECT set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('enable_seqscan', 'off', false),
       set_config('jit', 'off', false)

-- name: lock_holders
-- The transactions that hold the locks of conversations; their state only if the login may see it.
SELECT c.ordinality::integer - 1,
       l.pid,
       coalesce(a.application_name, p.gid, ''),
       a.state,
       coalesce(a.xact_start, p.prepared)
  FROM unnest(%(tenants)s::text[], %(conversations)s::uuid[])
           WITH ORDINALITY AS c (tenant_id, conversation_id, ordinality)
  JOIN pg_locks l
    ON l.locktype = 'advisory'
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND l.objsubid = 1
   AND l.granted
   AND (l.classid::bigint << 32 | l.objid::bigint) = conversation_lock_key(c.tenant_id, c.conversation_id)
  LEFT JOIN pg_stat_activity a
    ON a.pid = l.pid
  LEFT JOIN pg_prepared_xacts p
    ON l.pid IS NULL
   AND p.transaction::text = split_part(l.virtualtransaction, '/', 2)

-- name: set_append_role
-- The role and the settings (see keep_plans) of one transaction, for a session that a pooler has lent.
SELECT set_config('role', $1, true),
       set_config('plan_cache_mode', 'force_generic_plan', true),
       set_config('enable_seqscan', 'off', true),
       set_config('jit', 'off', true)
