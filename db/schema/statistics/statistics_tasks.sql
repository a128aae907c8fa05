-- The tasks, with the status that each has.
CREATE TABLE statistics_tasks (
    task_id         uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    created_at      timestamptz NOT NULL,
    entered_at      timestamptz NOT NULL,
    version         integer NOT NULL,
    status          varchar(50) COLLATE "C" NOT NULL,
    actor           varchar(255) COLLATE "C" NOT NULL
) WITH (fillfactor = 80);

CREATE INDEX idx_statistics_tasks_created_at ON statistics_tasks (tenant_id, created_at);

-- Created last: see the table conversations.
ALTER TABLE statistics_tasks ADD CONSTRAINT statistics_tasks_pkey PRIMARY KEY (tenant_id, conversation_id, task_id);

COMMENT ON COLUMN statistics_tasks.entered_at IS 'When the task entered its status; version is that of the event';
COMMENT ON COLUMN statistics_tasks.actor IS 'Actor of the first event of the task';

SELECT eventstore_set_owner('TABLE statistics_tasks');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE statistics_tasks', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE statistics_tasks', 'eventstore_reader');
SELECT enable_rls('statistics_tasks');
