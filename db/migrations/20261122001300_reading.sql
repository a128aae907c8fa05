-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- One index for each order in which pages are read (projections/reading.py): the tenant, what is filtered by equality,
-- then the columns of the order, the last of which makes it total. Read backwards they serve newest first too.

CREATE INDEX idx_conversations_pages_by_update ON conversations (tenant_id, updated_at, id);
CREATE INDEX idx_conversations_pages ON conversations (tenant_id, created_at, id);

CREATE INDEX idx_messages_pages ON messages (tenant_id, created_at, conversation_id, version);

CREATE INDEX idx_tasks_pages ON tasks (tenant_id, created_at, conversation_id, id);
CREATE INDEX idx_tasks_pages_by_status ON tasks (tenant_id, status, created_at, conversation_id, id);
CREATE INDEX idx_tasks_pages_of_conversation ON tasks (tenant_id, conversation_id, created_at, id);

-- Who appears in which conversation, filled by the projection actors. The times are the conversation's own, so that an
-- actor's conversations are read along an index in either order, however many there are and however rare they are.
CREATE TABLE conversation_actors (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    actor           varchar(255) COLLATE "C" NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    CONSTRAINT conversation_actors_pkey PRIMARY KEY (tenant_id, conversation_id, actor)
);

CREATE INDEX idx_conversation_actors_pages_by_update
    ON conversation_actors (tenant_id, actor, updated_at, conversation_id);
CREATE INDEX idx_conversation_actors_pages
    ON conversation_actors (tenant_id, actor, created_at, conversation_id);

COMMENT ON TABLE conversation_actors IS 'Actors of the events of each conversation, the empty one included';

SELECT eventstore_own('TABLE conversation_actors'),
       eventstore_grant('SELECT ON TABLE conversation_actors', 'eventstore_app'),
       eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE conversation_actors', 'eventstore_projector');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- What it has applied is forgotten with its tables.
SELECT drop_stage('actors', s) FROM unnest(ARRAY['next', 'previous']) AS s;
DELETE FROM checkpoints WHERE projection = 'actors';
DELETE FROM projection_texts WHERE projection = 'actors';
DELETE FROM parked WHERE projection = 'actors';

DROP TABLE conversation_actors;
DROP INDEX idx_tasks_pages_of_conversation;
DROP INDEX idx_tasks_pages_by_status;
DROP INDEX idx_tasks_pages;
DROP INDEX idx_messages_pages;
DROP INDEX idx_conversations_pages;
DROP INDEX idx_conversations_pages_by_update;
