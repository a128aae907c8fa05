-- Answers of assistants to users, the first after each run of questions.
CREATE TABLE statistics_answers (
    conversation_id  uuid NOT NULL,
    tenant_id        varchar(255) COLLATE "C" NOT NULL,
    version          integer NOT NULL,
    question_version integer NOT NULL,
    asked_at         timestamptz NOT NULL,
    answered_at      timestamptz NOT NULL,
    actor            varchar(255) COLLATE "C" NOT NULL,
    CONSTRAINT statistics_answers_pkey PRIMARY KEY (tenant_id, asked_at, conversation_id, version)
);

COMMENT ON TABLE statistics_answers IS
    'Messages of assistants that answer users: the first after each run of questions';

SELECT eventstore_set_owner('TABLE statistics_answers');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE statistics_answers', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE statistics_answers', 'eventstore_reader');
SELECT enable_rls('statistics_answers');
