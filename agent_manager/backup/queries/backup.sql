-- name: events
-- The events after a position, up to one up to which the log is final, as many as fit a segment.
COPY (
    SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
           e.actor, e.content, e.metadata, e.salt, e.digest
      FROM (SELECT e.*, sum(e.size) OVER (ROWS UNBOUNDED PRECEDING) AS total
              FROM (SELECT e.*, 500 + estimated_size(e.content) + estimated_size(e.metadata) AS size
                      FROM events e
                     WHERE e.position > %(after)s
                       AND (e.position, 0) <= (%(horizon)s, 0)
                     ORDER BY e.position
                     LIMIT %(limit)s) AS e) AS e
     WHERE e.total - e.size < %(bytes)s
) TO STDOUT

-- name: count_erased
-- How many events between positions are erased.
SELECT (SELECT count(*) FROM events e WHERE e.salt IS NULL AND e.position BETWEEN s.first AND s.last)
  FROM unnest(%(firsts)s::bigint[], %(lasts)s::bigint[]) WITH ORDINALITY AS s (first, last, number)
 ORDER BY s.number

-- name: forget_erased_users
-- Delete users who were erased after they were added, and their keys.
WITH erased AS (
    SELECT u.tenant_id, u.id
      FROM identity_users u
      JOIN received_identity_erasures r
        ON r.tenant_id = u.tenant_id
       AND r.hash = sha256(r.salt || convert_to(u.id, 'UTF8'))
       AND r.erased_at >= u.created_at
),
keys AS (
    DELETE FROM identity_keys k USING erased e WHERE k.tenant_id = e.tenant_id AND k.user_id = e.id
    RETURNING k.id
)
DELETE FROM identity_users u USING erased e WHERE u.tenant_id = e.tenant_id AND u.id = e.id

-- name: add_erased_users
INSERT INTO identity_erasures (tenant_id, salt, hash, erased_at)
SELECT r.tenant_id, r.salt, r.hash, r.erased_at
  FROM received_identity_erasures r
    ON CONFLICT DO NOTHING

-- name: output_format
-- The text of times and bytes, whatever the login's settings are.
SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true), set_config('bytea_output', 'hex', true)

-- name: lock
-- One backup (0), one drill (1) and one run of the retention rules (2; of one tenant, a number below 0) at a time, over
-- all processes. The lock ends with the transaction.
SELECT pg_try_advisory_xact_lock('identity_keys'::regclass::oid::bigint::bit(32)::integer, %(kind)s::integer)

-- name: last_position
SELECT last_position()

-- name: events_after
SELECT count(*) FROM events e WHERE e.position > %(after)s

-- name: time_after
-- When the first event between two positions was appended; null if there is none.
SELECT min(e.timestamp)
  FROM events e
 WHERE e.position > %(after)s
   AND (e.position, 0) <= (%(last)s, 0)

-- name: digest_at
SELECT encode(e.digest, 'hex') FROM events e WHERE e.position = %(position)s

-- name: is_empty
-- The tenant with which the migrations begin counts only if something was done with it.
SELECT NOT EXISTS (SELECT FROM events)
   AND NOT EXISTS (SELECT FROM identity_users)
   AND NOT EXISTS (SELECT FROM identity_keys)
   AND NOT EXISTS (SELECT FROM blobs)
   AND NOT EXISTS (SELECT FROM identity_tenants t WHERE t.id <> 'default' OR t.name <> '' OR t.suspended_at IS NOT NULL)

-- name: clear_tenants
DELETE FROM identity_tenants

-- name: begin_restore
-- As an append does: until the commit, the log is not final from here on, and workers wait. The table takes a segment
-- before it becomes part of the log, because COPY cannot write to a table with row-level security.
SELECT register_append()

-- name: stop_recording
-- What is restored was recorded when it was made.
ALTER TABLE identity_tenants DISABLE TRIGGER changes_are_recorded;
ALTER TABLE identity_users DISABLE TRIGGER changes_are_recorded;
ALTER TABLE identity_keys DISABLE TRIGGER changes_are_recorded;
ALTER TABLE legal_holds DISABLE TRIGGER changes_are_recorded;
ALTER TABLE retention_rules DISABLE TRIGGER changes_are_recorded

-- name: resume_recording
ALTER TABLE identity_tenants ENABLE TRIGGER changes_are_recorded;
ALTER TABLE identity_users ENABLE TRIGGER changes_are_recorded;
ALTER TABLE identity_keys ENABLE TRIGGER changes_are_recorded;
ALTER TABLE legal_holds ENABLE TRIGGER changes_are_recorded;
ALTER TABLE retention_rules ENABLE TRIGGER changes_are_recorded

-- name: received_events
CREATE TEMPORARY TABLE received_events (LIKE events) ON COMMIT DROP

-- name: delete_later
-- Everything from the first event on that is beyond a position or time. Times increase with positions, but not strictly:
-- what remains is a beginning of the log.
DELETE FROM received_events r
 WHERE r.position >= (SELECT min(b.position)
                        FROM received_events b
                       WHERE b.position > %(position)s
                          OR b.timestamp > %(time)s)

-- name: add_received
INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, actor,
                    content, metadata, salt, digest)
SELECT r.position, r.timestamp, r.version, r.schema_version, r.conversation_id, r.id, r.tenant_id, r.event_type, r.actor,
       r.content, r.metadata, r.salt, r.digest
  FROM received_events r
 ORDER BY r.position

-- name: clear_received
TRUNCATE received_events

-- name: add_blobs
INSERT INTO blobs (tenant_id, conversation_id, sha256, size, created_at)
SELECT r.tenant_id, r.conversation_id, r.sha256, r.size, r.created_at
  FROM received_blobs r

-- name: add_blob_chunks
INSERT INTO blob_chunks (tenant_id, sha256, number, content)
SELECT r.tenant_id, r.sha256, r.number, r.content
  FROM received_blob_chunks r

-- name: add_members
INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
SELECT m.tenant_id, m.conversation_id, m.user_id, m.access
  FROM members_of_log() AS m

-- name: check_events
-- The number of events, their last position, and the first one that has not the digest of its content. The salt of an
-- erased event is null; its digest cannot be computed any more.
SELECT count(*), coalesce(max(e.position), 0),
       min(e.position) FILTER (WHERE e.salt IS NOT NULL
                                 AND e.digest <> event_digest(e.salt, e.position, e.timestamp, e.version,
                                                              e.schema_version, e.conversation_id, e.id, e.tenant_id,
                                                              e.event_type, e.actor, e.content, e.metadata))
  FROM events e

-- name: first_gap
-- A conversation whose versions are not 1, 2, 3 and so on.
SELECT e.conversation_id
  FROM events e
 GROUP BY e.tenant_id, e.conversation_id
HAVING max(e.version) <> count(*)
 LIMIT 1

-- name: set_position
-- Later events follow the restored ones.
SELECT setval('events_position', greatest(%(position)s::bigint, 1), %(position)s > 0)

-- name: digest_of_segment
-- The number of the events between two positions, a digest of theirs, and the first one that has not the digest of its
-- content.
SELECT count(*), encode(sha256(coalesce(string_agg(e.digest, ''::bytea ORDER BY e.position), ''::bytea)), 'hex'),
       min(e.position) FILTER (WHERE e.salt IS NOT NULL
                                 AND e.digest <> event_digest(e.salt, e.position, e.timestamp, e.version,
                                                              e.schema_version, e.conversation_id, e.id, e.tenant_id,
                                                              e.event_type, e.actor, e.content, e.metadata))
  FROM events e
 WHERE e.position BETWEEN %(first)s AND %(last)s

-- name: sealed_ends
-- The last tile and the last checkpoint of events up to a position, by the positions of their last events; and the size
-- of the checkpoint before the last one.
SELECT (SELECT coalesce(max(t.last_position), 0) FROM audit_tiles t WHERE t.last_position <= %(position)s),
       coalesce((SELECT c.last_position
                   FROM audit_checkpoints c
                  WHERE c.last_position <= %(position)s
                  ORDER BY c.size DESC
                  LIMIT 1), 0),
       coalesce((SELECT c.size
                   FROM audit_checkpoints c
                  WHERE c.last_position <= %(position)s
                  ORDER BY c.size DESC
                 OFFSET 1
                  LIMIT 1), 0)

-- name: copy_audit_tiles
COPY (
    SELECT t.level, t.index, t.last_position, t.hash, t.content
      FROM audit_tiles t
     WHERE t.last_position > %(after)s
       AND t.last_position <= %(last)s
     ORDER BY t.last_position, t.level
) TO STDOUT

-- name: copy_audit_checkpoints
COPY (
    SELECT c.size, c.last_position, c.sealed_at, c.note, c.bundle
      FROM audit_checkpoints c
     WHERE c.last_position > %(after)s
       AND c.last_position <= %(last)s
     ORDER BY c.size
) TO STDOUT

-- name: copy_audit_cosignatures
COPY (
    SELECT s.size, s.line
      FROM audit_cosignatures s
     WHERE s.size > %(after)s
       AND s.size <= %(last)s
     ORDER BY s.size, s.line
) TO STDOUT

-- name: add_audit_tiles
INSERT INTO audit_tiles (level, index, last_position, hash, content)
SELECT r.level, r.index, r.last_position, r.hash, r.content
  FROM received_audit_tiles r
 WHERE r.last_position <= %(position)s

-- name: add_audit_checkpoints
INSERT INTO audit_checkpoints (size, last_position, sealed_at, note, bundle)
SELECT r.size, r.last_position, r.sealed_at, r.note, r.bundle
  FROM received_audit_checkpoints r
 WHERE r.last_position <= %(position)s

-- name: add_audit_cosignatures
INSERT INTO audit_cosignatures (size, line)
SELECT r.size, r.line
  FROM received_audit_cosignatures r
  JOIN audit_checkpoints c ON c.size = r.size
 WHERE c.last_position <= %(position)s

-- name: receipts_not_in_log
-- Those of receipts that the log does not have.
SELECT n.id
  FROM unnest(%(ids)s::uuid[]) AS n (id)
 WHERE n.id NOT IN (SELECT e.id FROM events e WHERE e.event_type IN ('conversation.erased', 'event.erased'))

-- name: receipts_not_applied
-- The numbers of the receipts whose events the log still holds; see erase_events.
SELECT r.number
  FROM unnest(%(tenants)s::text[], %(conversations)s::uuid[], %(versions)s::text[]::int4multirange[],
              %(untils)s::timestamptz[], %(erase_members)s::boolean[])
       WITH ORDINALITY AS r (tenant_id, conversation_id, versions, until, erases_members, number)
 WHERE EXISTS (
           SELECT
             FROM events e
            WHERE e.tenant_id = r.tenant_id
              AND e.conversation_id = r.conversation_id
              AND e.version <@ r.versions
              AND e.timestamp <= r.until
              AND e.event_type NOT IN ('conversation.erased', 'event.erased')
              AND (e.salt IS NOT NULL
                   OR r.erases_members AND (e.metadata ? 'eventstore.owner' OR e.content ? 'user'))
       )
 ORDER BY r.number
