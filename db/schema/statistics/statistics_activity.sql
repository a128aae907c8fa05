-- Activity of each conversation by quarter of an hour, filled by the projection statistics
-- (projections/statistics.sql). Conversations share no row, so workers never wait for each other and each conversation
-- can be compared alone; the statistics functions compute totals.
--
-- The days of all time zones in use begin on a quarter of an hour. If a time leads the primary key, the functions also
-- find a period by it: a second index would double the cost of each insert.
CREATE TABLE statistics_activity (
    conversation_id  uuid NOT NULL,
    tenant_id        varchar(255) COLLATE "C" NOT NULL,
    quarter_hour     timestamptz NOT NULL,
    role             varchar(50) COLLATE "C" NOT NULL,
    actor            varchar(255) COLLATE "C" NOT NULL,
    events           bigint NOT NULL,
    messages         bigint NOT NULL,
    characters       bigint NOT NULL,
    bytes            bigint NOT NULL,
    parts            bigint NOT NULL,
    parts_bytes      bigint NOT NULL,
    artifacts        bigint NOT NULL,
    artifact_bytes   bigint NOT NULL,
    largest_text     integer NOT NULL,
    largest_parts    integer NOT NULL,
    largest_artifact integer NOT NULL,
    CONSTRAINT statistics_activity_pkey PRIMARY KEY (tenant_id, quarter_hour, conversation_id, role, actor)
) WITH (fillfactor = 80);

  -- leaves room for the next version of a counter on its page (HOT): then no index is written
COMMENT ON COLUMN statistics_activity.quarter_hour IS 'Beginning of the quarter of an hour';
COMMENT ON COLUMN statistics_activity.role IS 'Role of the messages; empty for all other events';
COMMENT ON COLUMN statistics_activity.bytes IS 'Size of the text of the messages, in UTF-8';
COMMENT ON COLUMN statistics_activity.parts_bytes IS 'Size of the parts of the messages, as JSON';
COMMENT ON COLUMN statistics_activity.artifacts IS
    'Chunks of artifacts of tasks; artifact_bytes is the size of their parts, as JSON';
COMMENT ON COLUMN statistics_activity.largest_text IS
    'Bytes of the largest text of a message; likewise for parts and artifact';

SELECT eventstore_set_owner('TABLE statistics_activity');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE statistics_activity',
                        'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE statistics_activity', 'eventstore_reader');
SELECT enable_rls('statistics_activity');
