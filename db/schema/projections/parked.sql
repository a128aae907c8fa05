-- Conversations to which a projection applies no further events, because it failed on one of them.
CREATE TABLE parked (
    projection      text COLLATE "C" NOT NULL,
    stage           text COLLATE "C" NOT NULL,
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    position        bigint NOT NULL,
    version         integer NOT NULL,
    event_id        uuid NOT NULL,
    event_type      text NOT NULL,
    sqlstate        text NOT NULL,
    error           text NOT NULL,
    tries           integer NOT NULL DEFAULT 1,
    parked_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT parked_pkey PRIMARY KEY (projection, stage, tenant_id, conversation_id)
);

COMMENT ON COLUMN parked.position IS
    'Position of the event that failed; neither it nor later events of the conversation are applied';

ALTER TABLE parked ALTER COLUMN error SET STATISTICS 0;

SELECT eventstore_set_owner('TABLE parked');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE ON TABLE parked', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE parked', 'eventstore_reader');
SELECT enable_rls('parked');
