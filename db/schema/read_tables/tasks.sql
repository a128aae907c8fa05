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
