-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- file: read_tables/conversations.sql
-- The conversations. Read tables are derived from events by the projections, one .sql file each in projections/; they
-- can be emptied and refilled at any time. They have no foreign keys: a projection may be ahead of another.
--
-- Planner statistics cover all rows, so EXPLAIN would tell a caller roughly how many rows of others hold a text. The
-- columns with SET STATISTICS 0, here and in other tables, are texts by whose values no query searches.
CREATE TABLE conversations (
    id            uuid NOT NULL,
    tenant_id     varchar(255) COLLATE "C" NOT NULL,
    name          varchar(255) NOT NULL DEFAULT '',
    is_active     boolean NOT NULL DEFAULT true,
    is_deleted    boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at    timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    message_count integer NOT NULL DEFAULT 0,
    erased_count  integer NOT NULL DEFAULT 0,
    version       integer NOT NULL,
    given_id      text,
    forked_from   jsonb,
    metadata      jsonb,
    member_order  jsonb
);

CREATE INDEX idx_conversations_id ON conversations (id);
CREATE INDEX idx_conversations_updated_at ON conversations (updated_at DESC);

COMMENT ON COLUMN conversations.given_id IS 'Id that the client gave, if it was not a UUID';
COMMENT ON COLUMN conversations.member_order IS
    'Order of the members of JSON values, by column: jsonb does not keep it; see eventstore/member_order.py';

COMMENT ON COLUMN conversations.erased_count IS 'Number of its events that were erased';
COMMENT ON COLUMN conversations.version IS 'Version of the last event applied to the row';

-- One index for each order of pages (projections/reading.py): the tenant, the columns filtered by equality, then those
-- of the order; the last one makes it total. A backward scan gives newest first.
CREATE INDEX idx_conversations_pages_by_update ON conversations (tenant_id, updated_at, id);
CREATE INDEX idx_conversations_pages ON conversations (tenant_id, created_at, id);

-- Finds the conversations whose given id begins with a text. A key of an index has a largest size: the few ids above it
-- are found only whole, by the conversation's id.
CREATE INDEX idx_conversations_given_id ON conversations (tenant_id, given_id COLLATE "C")
 WHERE octet_length(given_id) <= 1000;

-- The primary key comes last, here and in other tables: before a table has statistics, all its indexes cost the planner
-- the same, and of these it takes the one that was created last. Plans that are made then are kept while the table grows.
ALTER TABLE conversations ADD CONSTRAINT conversations_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE conversations ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE conversations ALTER COLUMN given_id SET STATISTICS 0;

SELECT eventstore_set_owner('TABLE conversations');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE conversations', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE conversations', 'eventstore_reader');
SELECT enable_rls('conversations', 'id');

-- file: read_tables/conversation_ancestry.sql
-- The conversations whose rows a conversation shows, the nearest first: itself, then, if it is a fork, those that it
-- continues, each up to a version. A row of version v stands at the place v - shift: the places of what a fork shares are
-- 0 and below, its own are its versions, and a fork keeps its places whichever of the others the caller may read.
--
-- It runs with the caller's rights, and row-level security applies to each conversation: it ends before the first one
-- that the caller may not read, that is deleted, or that is not there. So what is shared stays under the rules of the
-- conversation in which it was written.
--
-- Not BEGIN ATOMIC: a rebuild replaces the table, and a conversation as it was is read from a temporary one.
CREATE FUNCTION conversation_ancestry(tenant text, conversation uuid)
RETURNS TABLE (conversation_id uuid, last_version integer, shift bigint)
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE ancestry AS (
        SELECT conversation_ancestry.conversation AS id, 2147483647 AS last_version, 0::bigint AS shift,
               ARRAY[conversation_ancestry.conversation] AS path,
               (SELECT c.forked_from
                  FROM conversations c
                 WHERE c.tenant_id = conversation_ancestry.tenant
                   AND c.id = conversation_ancestry.conversation) AS forked_from
         UNION ALL
        SELECT c.id, c.version, a.shift + c.version, a.path || c.id, c.forked_from
          FROM ancestry a
         CROSS JOIN LATERAL (  -- OFFSET 0: without statistics, the planner would read the whole table
                   SELECT c.id, c.forked_from,
                          least(greatest((a.forked_from ->> 'version')::numeric, 0), 2147483646)::integer AS version
                     FROM conversations c
                    WHERE c.tenant_id = conversation_ancestry.tenant
                      AND c.id = (a.forked_from ->> 'conversation_id')::uuid
                      AND NOT c.is_deleted
                   OFFSET 0
               ) AS c
         WHERE a.forked_from IS NOT NULL
           -- Events that were appended by hand may name each other.
           AND c.id <> ALL (a.path)
    )
    SELECT a.id, a.last_version, a.shift FROM ancestry a
$$;

SELECT eventstore_set_owner('FUNCTION conversation_ancestry');
REVOKE ALL ON FUNCTION conversation_ancestry FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION conversation_ancestry', 'eventstore_reader', 'eventstore_projector');

-- file: read_tables/messages.sql
-- The messages of conversations.
CREATE TABLE messages (
    id              uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    version         integer NOT NULL,
    role            varchar(50) NOT NULL,
    content         text NOT NULL,
    parts           jsonb,
    created_at      timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    actor           varchar(255) NOT NULL DEFAULT '',
    given_id        text,
    extra           jsonb,
    metadata        jsonb,
    member_order    jsonb,
    status          varchar(20),
    error           text
);

CREATE INDEX idx_messages_id ON messages (id);
CREATE INDEX idx_messages_conversation_id ON messages (conversation_id, version);
CREATE INDEX idx_messages_created_at ON messages (created_at DESC);

COMMENT ON COLUMN messages.content IS 'Text; if the message was sent as parts, that of the parts';
COMMENT ON COLUMN messages.member_order IS 'As in conversations; "sent" is the order of the message itself';
COMMENT ON COLUMN messages.extra IS 'Members of the message that no other column holds';
COMMENT ON COLUMN messages.status IS 'Of its answer: pending, answered, failed, abandoned; null if it awaits none';
COMMENT ON COLUMN messages.error IS 'Why the answer failed or was abandoned, or what was not stored of it';

CREATE INDEX idx_messages_pages ON messages (tenant_id, created_at, conversation_id, version);

-- Created last: see the table conversations.
ALTER TABLE messages ADD CONSTRAINT messages_pkey PRIMARY KEY (tenant_id, conversation_id, id);

ALTER TABLE messages ALTER COLUMN content SET STATISTICS 0;
ALTER TABLE messages ALTER COLUMN given_id SET STATISTICS 0;
ALTER TABLE messages ALTER COLUMN error SET STATISTICS 0;

SELECT eventstore_set_owner('TABLE messages');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE messages', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE messages', 'eventstore_reader');
SELECT enable_rls('messages');

-- file: read_tables/tasks.sql
-- Tasks, each in its latest state. The members of a task and of its status that no other column holds (contextId,
-- history, timestamp) are in the extra columns; see projections/tasks.sql.
CREATE TABLE tasks (
    id              uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    version         integer NOT NULL,
    first_version   integer NOT NULL,
    status          varchar(50) NOT NULL,
    description     text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at      timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    given_id        text,
    status_message  jsonb,
    metadata        jsonb,
    member_order    jsonb,
    extra           jsonb,
    status_extra    jsonb,
    added_history   jsonb
);

CREATE INDEX idx_tasks_id ON tasks (id);
CREATE INDEX idx_tasks_conversation_id ON tasks (conversation_id);

COMMENT ON COLUMN tasks.member_order IS 'As in conversations';
COMMENT ON COLUMN tasks.version IS 'Version of the last event applied to the row';
COMMENT ON COLUMN tasks.first_version IS 'Version of the first event of the task';

CREATE INDEX idx_tasks_pages ON tasks (tenant_id, created_at, conversation_id, id);
CREATE INDEX idx_tasks_pages_by_status ON tasks (tenant_id, status, created_at, conversation_id, id);
CREATE INDEX idx_tasks_pages_of_conversation ON tasks (tenant_id, conversation_id, created_at, id);

-- Created last: see the table conversations.
ALTER TABLE tasks ADD CONSTRAINT tasks_pkey PRIMARY KEY (tenant_id, conversation_id, id);

COMMENT ON COLUMN tasks.extra IS 'Members of the task that no other column holds';
COMMENT ON COLUMN tasks.added_history IS 'Messages added to the history in extra, with the order of their members';
COMMENT ON COLUMN tasks.status_extra IS 'Members of the status that no other column holds';

ALTER TABLE tasks ALTER COLUMN description SET STATISTICS 0;
ALTER TABLE tasks ALTER COLUMN given_id SET STATISTICS 0;

SELECT eventstore_set_owner('TABLE tasks');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE tasks', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE tasks', 'eventstore_reader');
SELECT enable_rls('tasks');

-- file: read_tables/task_artifacts.sql
-- The chunks of the artifacts of tasks: rows, not a growing JSON value.
CREATE TABLE task_artifacts (
    task_id         uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    version         integer NOT NULL,
    artifact_id     text NOT NULL,
    extends         boolean NOT NULL,
    last_chunk      boolean NOT NULL,
    name            text,
    description     text,
    parts           jsonb NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    extra           jsonb,
    metadata        jsonb,
    member_order    jsonb,
    continues_text  boolean NOT NULL DEFAULT false
);

COMMENT ON COLUMN task_artifacts.member_order IS 'As in conversations';

CREATE INDEX idx_task_artifacts_task_id ON task_artifacts (task_id, version);

-- Created last: see the table conversations.
ALTER TABLE task_artifacts ADD CONSTRAINT task_artifacts_pkey PRIMARY KEY (tenant_id, conversation_id, version);

COMMENT ON COLUMN task_artifacts.continues_text IS
    'The text of the first part continues that of the last part of the chunk before';

ALTER TABLE task_artifacts ALTER COLUMN artifact_id SET STATISTICS 0;
ALTER TABLE task_artifacts ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE task_artifacts ALTER COLUMN description SET STATISTICS 0;

SELECT eventstore_set_owner('TABLE task_artifacts');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE task_artifacts', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE task_artifacts', 'eventstore_reader');
SELECT enable_rls('task_artifacts');

-- file: read_tables/conversation_actors.sql
-- The actors of each conversation, filled by the projection actors. The times are the conversation's, so that an index
-- gives an actor's conversations in either order, however many or rare they are.
CREATE TABLE conversation_actors (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    actor           varchar(255) COLLATE "C" NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL
);

CREATE INDEX idx_conversation_actors_pages_by_update
    ON conversation_actors (tenant_id, actor, updated_at, conversation_id);

CREATE INDEX idx_conversation_actors_pages
    ON conversation_actors (tenant_id, actor, created_at, conversation_id);

-- Created last: see the table conversations.
ALTER TABLE conversation_actors ADD CONSTRAINT conversation_actors_pkey PRIMARY KEY (tenant_id, conversation_id, actor);

COMMENT ON TABLE conversation_actors IS 'Actors of the events of each conversation, the empty one included';

SELECT eventstore_set_owner('TABLE conversation_actors');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE conversation_actors',
                        'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE conversation_actors', 'eventstore_reader');
SELECT enable_rls('conversation_actors');

-- file: read_tables/pending_messages.sql
-- Messages that await an answer, filled by the projection pending: a restarted manager continues with them.
CREATE TABLE pending_messages (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    id              uuid NOT NULL,
    position        bigint NOT NULL,
    given_id        text,
    created_at      timestamptz NOT NULL
);

CREATE INDEX idx_pending_messages_position ON pending_messages (tenant_id, position);

-- Created last: see the table conversations.
ALTER TABLE pending_messages ADD CONSTRAINT pending_messages_pkey PRIMARY KEY (tenant_id, conversation_id, id);

COMMENT ON TABLE pending_messages IS 'Messages that await an answer';

ALTER TABLE pending_messages ALTER COLUMN given_id SET STATISTICS 0;

SELECT eventstore_set_owner('TABLE pending_messages');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE pending_messages', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE pending_messages', 'eventstore_reader');
SELECT enable_rls('pending_messages');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP TABLE pending_messages;
DROP TABLE conversation_actors;
DROP TABLE task_artifacts;
DROP TABLE tasks;
DROP TABLE messages;
DROP FUNCTION conversation_ancestry;
DROP TABLE conversations;
