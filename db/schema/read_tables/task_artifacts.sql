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
