-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Messages that await an answer, filled by the projection pending: what a restarted manager finds.
CREATE TABLE pending_messages (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    id              uuid NOT NULL,
    position        bigint NOT NULL,
    given_id        text,
    created_at      timestamptz NOT NULL,
    CONSTRAINT pending_messages_pkey PRIMARY KEY (tenant_id, conversation_id, id)
);

CREATE INDEX idx_pending_messages_position ON pending_messages (tenant_id, position);

COMMENT ON TABLE pending_messages IS 'Messages that await an answer';

SELECT eventstore_own('TABLE pending_messages'),
       eventstore_grant('SELECT ON TABLE pending_messages', 'eventstore_app'),
       eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE pending_messages', 'eventstore_projector');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- What it has applied is forgotten with its table.
SELECT drop_stage('pending', s) FROM unnest(ARRAY['next', 'previous']) AS s;
DELETE FROM checkpoints WHERE projection = 'pending';
DELETE FROM projection_texts WHERE projection = 'pending';
DELETE FROM parked WHERE projection = 'pending';

DROP TABLE pending_messages;
