-- name: identity
-- The database, which all physical copies share, and the start of this server.
SELECT c.system_identifier, d.oid, pg_postmaster_start_time()
  FROM pg_control_system() AS c
 CROSS JOIN pg_database d
 WHERE d.datname = current_database()

-- name: may_set_tenant
-- Return whether a transaction of this login has the tenant that it sets.
SELECT current_tenant() IS NOT DISTINCT FROM scope.tenant
  FROM set_config('eventstore.tenant', 'any', true) AS scope (tenant)

-- name: wal_position
-- The end of the write-ahead log: as written, or as replayed if this server is a standby itself.
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text

-- name: has_replayed
-- Return whether this server has a position of the write-ahead log; a primary has all.
SELECT NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() >= %(position)s::pg_lsn
