-- The time that each task spent in a status that it has left.
CREATE TABLE statistics_status_periods (
    task_id         uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    entered_at      timestamptz NOT NULL,
    left_at         timestamptz NOT NULL,
    version         integer NOT NULL,
    status          varchar(50) COLLATE "C" NOT NULL,
    CONSTRAINT statistics_status_periods_pkey PRIMARY KEY (tenant_id, conversation_id, task_id, version)
);

COMMENT ON TABLE statistics_status_periods IS 'Time that a task spent in a status that it has left';

SELECT eventstore_set_owner('TABLE statistics_status_periods');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE statistics_status_periods', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE statistics_status_periods', 'eventstore_reader');
SELECT enable_rls('statistics_status_periods');
