-- The conversations, with the question of each that awaits an answer.
CREATE TABLE statistics_conversations (
    conversation_id  uuid NOT NULL,
    tenant_id        varchar(255) COLLATE "C" NOT NULL,
    began_at         timestamptz NOT NULL,
    asked_at         timestamptz,
    question_version integer,
    is_active        boolean NOT NULL,
    is_deleted       boolean NOT NULL,
    actor            varchar(255) COLLATE "C" NOT NULL
) WITH (fillfactor = 80);

CREATE INDEX idx_statistics_conversations_began_at ON statistics_conversations (tenant_id, began_at);

-- Created last: see the table conversations.
ALTER TABLE statistics_conversations ADD CONSTRAINT statistics_conversations_pkey PRIMARY KEY (tenant_id, conversation_id);

COMMENT ON COLUMN statistics_conversations.question_version IS 'Oldest unanswered message of a user';

SELECT eventstore_set_owner('TABLE statistics_conversations');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE statistics_conversations',
                        'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE statistics_conversations', 'eventstore_reader');
SELECT enable_rls('statistics_conversations');
