-- name: place_hold
SELECT h.id, h.conversation_id, h.user_id, h.reason, h.placed_by, h.placed_at
  FROM place_hold(%(tenant)s, %(id)s, %(conversation)s, %(user)s, %(reason)s, %(actor)s) AS h

-- name: release_hold
SELECT h.id, h.conversation_id, h.user_id, h.reason, h.placed_by, h.placed_at
  FROM release_hold(%(tenant)s, %(id)s, %(reason)s, %(actor)s) AS h

-- name: holds
SELECT h.id, h.conversation_id, h.user_id, h.reason, h.placed_by, h.placed_at
  FROM legal_holds h
 WHERE h.tenant_id = %(tenant)s
 ORDER BY h.placed_at, h.id

-- name: add_rule
SELECT r.id, r.age, r.since, r.state, r.user_id, r.metadata, r.reason, r.added_by, r.added_at, r.applied_at,
       r.outcome
  FROM add_retention_rule(%(tenant)s, %(id)s, %(age)s, %(since)s, %(state)s, %(user)s, %(metadata)s, %(reason)s,
                          %(actor)s) AS r

-- name: remove_rule
SELECT r.id, r.age, r.since, r.state, r.user_id, r.metadata, r.reason, r.added_by, r.added_at, r.applied_at,
       r.outcome
  FROM remove_retention_rule(%(tenant)s, %(id)s, %(actor)s) AS r

-- name: rules
SELECT r.id, r.age, r.since, r.state, r.user_id, r.metadata, r.reason, r.added_by, r.added_at, r.applied_at,
       r.outcome
  FROM retention_rules r
 WHERE r.tenant_id = %(tenant)s
 ORDER BY r.added_at, r.id

-- name: tenants_with_rules
SELECT DISTINCT r.tenant_id FROM retention_rules r ORDER BY r.tenant_id

-- name: seconds_since_run
-- Since the rule that has waited longest was applied, or added; null without rules.
SELECT extract(epoch FROM clock_timestamp() - min(coalesce(r.applied_at, r.added_at)))::float8 FROM retention_rules r

-- name: due
SELECT d.conversation_id, d.version, d.counted_from, d.hold
  FROM due_conversations(%(tenant)s, %(rule)s, %(after_time)s, %(after_id)s, %(limit)s) AS d

-- name: record_retention_run
SELECT record_retention_run(%(tenant)s, %(began_at)s, %(actor)s, %(receipt)s)

-- name: delete_orphaned_files
SELECT c.tenant_id, c.deleted, c.bytes FROM delete_orphaned_files(%(limit)s) AS c

-- name: retention_state
-- The rules and holds of all tenants that the login sees: since when the rule has waited that has waited longest, the
-- conversations that the last runs have erased, and those that stayed.
SELECT r.rules, r.tenants, r.waits_since, r.conversations, r.held, r.skipped, r.failed,
       (SELECT count(*) FROM legal_holds) AS holds
  FROM (SELECT count(*) AS rules, count(DISTINCT r.tenant_id) AS tenants,
               min(coalesce(r.applied_at, r.added_at)) AS waits_since,
               coalesce(sum((r.outcome ->> 'conversations')::bigint), 0)::bigint AS conversations,
               coalesce(sum((r.outcome ->> 'held')::bigint), 0)::bigint AS held,
               coalesce(sum((r.outcome ->> 'skipped')::bigint), 0)::bigint AS skipped,
               coalesce(sum((r.outcome ->> 'failed')::bigint), 0)::bigint AS failed
          FROM retention_rules r) AS r
