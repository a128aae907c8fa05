-- name: applied
SELECT coalesce(min(c.position), 0)
  FROM checkpoints c
 WHERE c.projection = ANY (%(projections)s)
   AND c.stage = 'live'

-- name: bare_insert
INSERT INTO bare_events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                         event_type, actor, content, metadata, salt, digest)
VALUES (nextval('bare_position'), clock_timestamp(), %b, 1, %b, %b, 'bench', 'message.added', %b, %b, %b, %b, %b)

-- name: bare_insert_many
INSERT INTO bare_events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                         event_type, actor, content, metadata, salt, digest)
SELECT nextval('bare_position'), clock_timestamp(), r.version, 1, r.conversation_id, r.id, 'bench',
       'message.added', r.actor, r.content, r.metadata, r.salt, r.digest
  FROM unnest(%b::integer[], %b::uuid[], %b::uuid[], %b::text[], %b::jsonb[], %b::jsonb[], %b::bytea[], %b::bytea[])
           AS r (version, conversation_id, id, actor, content, metadata, salt, digest)

-- name: bare_messages
SELECT m.id, m.conversation_id, m.role, m.content, m.parts, m.created_at, m.metadata, m.tenant_id, m.given_id,
       m.version, m.actor, m.extra
  FROM messages m
 WHERE m.tenant_id = %s
   AND m.conversation_id = %s
   AND m.version > %s
 ORDER BY m.version
 LIMIT %s

-- name: bare_read
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM events e
 WHERE e.tenant_id = %s
   AND e.conversation_id = %s
 ORDER BY e.version

-- name: bare_tables
-- What the store is measured against: a table like its log, with the same columns, constraints and indexes, and nothing
-- else; and a counter for its positions.
CREATE SEQUENCE bare_position AS bigint;
CREATE TABLE bare_events (LIKE events INCLUDING ALL);

-- name: become_owner
-- Row-level security hides no event from the owner of the log.
SELECT set_config('role', c.relowner::regrole::text, false) FROM pg_class c WHERE c.oid = 'events'::regclass

-- name: enable_rls
-- Enable row-level security on the tables that have policies.
DO $$
DECLARE
    secured regclass;
BEGIN
    FOR secured IN
        SELECT c.oid
          FROM pg_class c
         WHERE c.relnamespace = current_schema()::regnamespace
           AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', secured);
    END LOOP;
END
$$

-- name: gates_held
-- How many appends hold the gate of this schema's log at this moment.
SELECT count(*)
  FROM pg_locks l
 WHERE l.locktype = 'advisory'
   AND l.classid = 'events_position'::regclass::oid
   AND l.objsubid = 2

-- name: insert_select
-- What one would write by hand who knows that every conversation has messages and nothing else.
INSERT INTO by_hand_conversations (id, tenant_id, name, created_at, updated_at, message_count, version)
SELECT e.conversation_id, e.tenant_id, '', min(e.timestamp), max(e.timestamp),
       count(*) FILTER (WHERE e.event_type = 'message.added'), max(e.version)
  FROM events e
 GROUP BY e.tenant_id, e.conversation_id;

INSERT INTO by_hand_messages (id, conversation_id, tenant_id, version, role, content, parts, created_at, actor, given_id,
                              extra, metadata)
SELECT e.id, e.conversation_id, e.tenant_id, e.version, e.content ->> 'role', coalesce(e.content ->> 'content', ''),
       e.content -> 'parts', e.timestamp, e.actor, e.content ->> 'given_id', e.content -> 'extra', e.content -> 'metadata'
  FROM events e
 WHERE e.event_type = 'message.added';

INSERT INTO by_hand_tasks (id, conversation_id, tenant_id, version, status, description, created_at, updated_at)
SELECT (e.content ->> 'task_id')::uuid, e.conversation_id, e.tenant_id, e.version, e.content ->> 'status',
       e.content ->> 'description', e.timestamp, e.timestamp
  FROM events e
 WHERE e.event_type = 'task.created';

-- name: is_visible
SELECT 1
  FROM messages m
 WHERE m.tenant_id = %(tenant)s
   AND m.conversation_id = %(conversation_id)s
   AND m.id = %(id)s

-- name: logicblocks_tables
-- The table that the PostgreSQL adapter of logicblocks-event-store writes to, with the keys and indexes it is meant to have.
CREATE TABLE events (
    sequence_number bigserial   NOT NULL,
    id              text        NOT NULL PRIMARY KEY,
    category        text        NOT NULL,
    stream          text        NOT NULL,
    position        integer     NOT NULL,
    name            text        NOT NULL,
    payload         jsonb       NOT NULL,
    observed_at     timestamptz NOT NULL,
    occurred_at     timestamptz NOT NULL
);
CREATE INDEX ON events (sequence_number);
CREATE INDEX ON events (category, stream, position);
CREATE INDEX ON events (category, sequence_number);

-- name: disable_rls
-- Disable row-level security on the tables that have policies.
DO $$
DECLARE
    secured regclass;
BEGIN
    FOR secured IN
        SELECT c.oid
          FROM pg_class c
         WHERE c.relnamespace = current_schema()::regnamespace
           AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)
    LOOP
        EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', secured);
    END LOOP;
END
$$

-- name: normal_flush
-- What slow_flush has set no longer holds in new sessions.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I RESET commit_delay', current_database());
    EXECUTE format('ALTER DATABASE %I RESET commit_siblings', current_database());
END
$$

-- name: pgbench_insert
INSERT INTO bare_events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                         event_type, actor, content, metadata, salt, digest)
VALUES (nextval('bare_position'), clock_timestamp(), 1, 1, gen_random_uuid(), gen_random_uuid(), 'bench',
        'message.added', '{actor}', '{content}', '{}', '\x{salt}', '\x{digest}');

-- name: seed_copy
INSERT INTO seed_events (id, conversation_id, actor, content, timestamp, event_type)
SELECT e.id, e.conversation_id, e.actor, e.content, e.timestamp, e.event_type
  FROM events e
 WHERE e.position > %s
 ORDER BY e.position

-- name: seed_table
-- A log as one would first draw it.
CREATE TABLE seed_events (
    id              uuid         NOT NULL PRIMARY KEY,
    conversation_id uuid         NOT NULL,
    actor           varchar(255) NOT NULL,
    content         jsonb        NOT NULL,
    timestamp       timestamptz  NOT NULL,
    event_type      varchar(100) NOT NULL
);

-- name: tables
SELECT c.relname
  FROM pg_class c
 WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s))
   AND c.relkind = 'r'
 ORDER BY c.relname

-- name: without_gate
-- For a schema in which the same appends are measured without the gate: they keep no order, and notify no subscriber.
CREATE OR REPLACE FUNCTION register_append(OUT must_notify boolean) LANGUAGE plpgsql VOLATILE AS $$ BEGIN must_notify := false; END $$;

-- name: table_bytes
SELECT c.relname, pg_total_relation_size(c.oid)
  FROM pg_class c
 WHERE c.relnamespace = (%(schema)s::text)::regnamespace
   AND c.relkind = 'r'

-- name: slow_flush
-- New sessions sleep for a millisecond before each flush, whether others are active or not.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET commit_delay = 1000', current_database());
    EXECUTE format('ALTER DATABASE %I SET commit_siblings = 0', current_database());
END
$$

-- name: digests
-- What verifying a log cannot do without: the digest of every event.
SELECT bit_xor(('x' || encode(substr(event_digest(e.salt, e.position, e.timestamp, e.version, e.schema_version,
                                                  e.conversation_id, e.id, e.tenant_id, e.event_type, e.actor, e.content,
                                                  e.metadata), 1, 8), 'hex'))::bit(64)::bigint)
  FROM events e
