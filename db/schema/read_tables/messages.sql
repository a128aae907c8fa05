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
