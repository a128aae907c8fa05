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
