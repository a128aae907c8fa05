-- name: lock
-- One process seals at a time. The lock ends with the transaction, which is durable before a checkpoint is published.
SELECT pg_try_advisory_xact_lock('audit_checkpoints'::regclass::oid::bigint::bit(32)::integer, 0),
       set_config('synchronous_commit',
                  replace(current_setting('synchronous_commit'), 'off', 'on'), true)

-- name: last_checkpoint
-- The newest checkpoint, its distance from now in seconds (the clock may have been set back since), its time, and its
-- cosignatures.
SELECT c.size, c.note, c.last_position, abs(extract(epoch FROM clock_timestamp() - c.sealed_at))::float8, c.sealed_at,
       coalesce((SELECT string_agg(s.line, '' ORDER BY s.line) FROM audit_cosignatures s WHERE s.size = c.size), '')
  FROM audit_checkpoints c
 ORDER BY c.size DESC
 LIMIT 1

-- name: checkpoint
SELECT c.note,
       coalesce((SELECT string_agg(s.line, '' ORDER BY s.line) FROM audit_cosignatures s WHERE s.size = c.size), '')
  FROM audit_checkpoints c
 WHERE c.size = %(size)s

-- name: checkpoints
-- The checkpoints after one, up to another, in order.
SELECT c.size, c.note, c.last_position, c.bundle
  FROM audit_checkpoints c
 WHERE c.size > %(after)s
   AND c.size <= %(newest)s
 ORDER BY c.size
 LIMIT %(limit)s

-- name: add_cosignatures
INSERT INTO audit_cosignatures (size, line)
SELECT %(size)s, given.line
  FROM unnest(%(lines)s::text[]) AS given (line)
    ON CONFLICT DO NOTHING
RETURNING size

-- name: entries
-- The entries of the events after a position, up to one up to which the log is final.
SELECT string_agg('\x0028'::bytea || int8send(e.position) || e.digest, ''::bytea ORDER BY e.position)
  FROM (SELECT e.position, e.digest
          FROM events e
         WHERE e.position > %(after)s
           AND (e.position, 0) <= (%(horizon)s, 0)
         ORDER BY e.position
         LIMIT %(limit)s) AS e

-- name: add_tiles
INSERT INTO audit_tiles (level, index, last_position, hash, content)
SELECT t.level, t.index, t.last_position, t.hash, t.content
  FROM unnest(%(levels)s::smallint[], %(indexes)s::bigint[], %(positions)s::bigint[], %(hashes)b::bytea[],
              %(contents)b::bytea[]) AS t (level, index, last_position, hash, content)

-- name: add_checkpoint
INSERT INTO audit_checkpoints (size, last_position, note, bundle)
VALUES (%(size)s, %(last_position)s, %(note)s, %(bundle)b)

-- name: tiles
-- Full tiles.
SELECT t.level, t.index, t.content
  FROM unnest(%(levels)s::smallint[], %(indexes)s::bigint[]) AS w (level, index)
  JOIN audit_tiles t
    ON t.level = w.level
   AND t.index = w.index

-- name: hashes
-- The hashes of the tiles in ranges of a level.
SELECT t.level, t.index, t.hash
  FROM unnest(%(levels)s::smallint[], %(firsts)s::bigint[], %(ends)s::bigint[]) AS w (level, first, "end")
  JOIN audit_tiles t
    ON t.level = w.level
   AND t.index >= w.first
   AND t.index < w."end"
 ORDER BY t.level, t.index

-- name: bundles
-- The entries of the incomplete tile at a size, in pieces.
SELECT c.bundle
  FROM audit_checkpoints c
 WHERE c.size > %(full)s
   AND (c.size, 0) <= (%(size)s, 0)
 ORDER BY c.size

-- name: tile_of_position
-- The tile of level 0 that has a position.
SELECT t.index, t.content
  FROM audit_tiles t
 WHERE t.level = 0
   AND t.last_position >= %(position)s
 ORDER BY t.last_position
 LIMIT 1

-- name: event
-- An event of a tenant as its digest needs it.
SELECT e.position, encode(e.salt, 'hex'), e.timestamp AT TIME ZONE 'UTC', e.version, e.schema_version,
       e.conversation_id::text, e.id::text, e.tenant_id, e.event_type, e.actor, e.content::text, e.metadata::text,
       e.digest
  FROM events e
 WHERE e.position = %(position)s
   AND e.tenant_id = %(tenant)s

-- name: position_of_message
-- The position of the event of a message.
SELECT e.position
  FROM messages m
  JOIN events e
    ON e.tenant_id = m.tenant_id
   AND e.conversation_id = m.conversation_id
   AND e.id = m.id
 WHERE m.id = %(id)s
   AND m.tenant_id = %(tenant)s
 LIMIT 2

-- name: position_in_conversation
SELECT e.position
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation)s
   AND e.id = %(id)s

-- name: position_of_event
-- The position of an event of any conversation. No index has the id alone.
SELECT e.position FROM events e WHERE e.id = %(id)s AND e.tenant_id = %(tenant)s LIMIT 2

-- name: causes
SELECT c.version, c.event_id, c.cause_id FROM audit_causes(%(tenant)s, %(conversation)s) AS c

-- name: cause_elsewhere
-- The event of another conversation that an event names as its cause.
SELECT c.conversation_id, c.id
  FROM events e
  JOIN events c
    ON c.tenant_id = e.tenant_id
   AND c.conversation_id <> e.conversation_id
   AND c.id::text = e.metadata ->> 'causation_id'
   AND c.position < e.position
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation)s
   AND e.version = %(version)s
 ORDER BY c.position DESC
 LIMIT 1

-- name: effects_elsewhere
-- The later events of other conversations that name one of these events as their cause.
SELECT e.conversation_id, e.id, e.metadata ->> 'causation_id'
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.metadata ->> 'causation_id' = ANY (%(ids)s::text[])
   AND e.position > (SELECT min(c.position)
                       FROM unnest(%(conversations)s::uuid[], %(versions)s::integer[]) AS n (conversation_id, version)
                       JOIN events c
                         ON c.tenant_id = %(tenant)s
                        AND c.conversation_id = n.conversation_id
                        AND c.version = n.version)
 ORDER BY e.position

-- name: window_end
-- The position of the last of the next events from a position on.
SELECT max(w.position)
  FROM (SELECT e.position
          FROM events e
         WHERE e.position >= %(first)s
           AND (e.position, 0) <= (%(until)s, 0)
         ORDER BY e.position
         LIMIT %(limit)s) AS w

-- name: recomputed
-- The entries of the events between two positions, with digests that are computed anew; the first position whose stored
-- digest is another one; and the first that is erased without a receipt. The digest of an erased event cannot be computed
-- any more: its entry is that with the stored one.
SELECT string_agg('\x0028'::bytea || int8send(e.position) || coalesce(e.computed, e.digest), ''::bytea
                  ORDER BY e.position),
       min(e.position) FILTER (WHERE e.salt IS NOT NULL AND e.computed IS DISTINCT FROM e.digest),
       min(e.position) FILTER (WHERE e.is_unreceipted)
  FROM (SELECT e.position, e.salt, e.digest,
               CASE WHEN e.salt IS NULL THEN unreceipted_erasure(e) END AS is_unreceipted,
               event_digest(e.salt, e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id,
                            e.tenant_id, e.event_type, e.actor, e.content, e.metadata) AS computed
          FROM events e
         WHERE e.position >= %(first)s
           AND (e.position, 0) <= (%(until)s, 0)
        OFFSET 0) AS e

-- name: stored_tiles
-- The tiles of a level from one on, each with the digest of its content.
SELECT t.index, t.last_position, t.hash, sha256(t.content)
  FROM audit_tiles t
 WHERE t.level = %(level)s
   AND t.index >= %(first)s
   AND (t.index, 0) < (%(end)s, 0)
 ORDER BY t.index

-- name: moved_to
-- Of the events from a position on, the one that has the digest that was sealed there: with its position alone changed,
-- or with the place of the event that is there now.
SELECT o.position
  FROM (SELECT *
          FROM events e
         WHERE e.position >= %(position)s
         ORDER BY e.position
         LIMIT %(limit)s) AS o
  LEFT JOIN events x ON x.position = %(position)s
 WHERE %(digest)s IN (event_digest(o.salt, %(position)s, o.timestamp, o.version, o.schema_version, o.conversation_id,
                                   o.id, o.tenant_id, o.event_type, o.actor, o.content, o.metadata),
                      event_digest(o.salt, %(position)s, x.timestamp, x.version, o.schema_version, o.conversation_id,
                                   o.id, o.tenant_id, o.event_type, o.actor, o.content, o.metadata))
 LIMIT 1

-- name: named_event
SELECT e.conversation_id, e.version, e.id, e.tenant_id FROM events e WHERE e.position = %(position)s LIMIT 1

-- name: last_position
SELECT last_position()

-- name: sealed_log
-- How far the log is sealed. The events that are not are counted up to a number.
SELECT c.size, coalesce(c.last_position, 0), c.sealed_at, c.note,
       (SELECT count(*) FROM audit_cosignatures s WHERE s.size = c.size),
       w.events, coalesce(extract(epoch FROM greatest(clock_timestamp() - w.since, '0 s')), 0)::float8
  FROM (SELECT) AS always
  LEFT JOIN LATERAL (SELECT * FROM audit_checkpoints c ORDER BY c.size DESC LIMIT 1) AS c ON true
 CROSS JOIN LATERAL (SELECT count(*) AS events, min(e.timestamp) AS since
                       FROM (SELECT e.timestamp
                               FROM events e
                              WHERE e.position > coalesce(c.last_position, 0)
                              ORDER BY e.position
                              LIMIT %(exact)s) AS e) AS w

-- name: newest_checkpoints
SELECT c.note, c.last_position, c.sealed_at
  FROM audit_checkpoints c
 ORDER BY c.size DESC
 LIMIT %(limit)s
