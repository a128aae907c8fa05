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
