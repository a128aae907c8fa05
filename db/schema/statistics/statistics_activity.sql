-- What the projection statistics fills (projections/statistics.sql). No row is shared between conversations, so workers
-- never wait for each other and a conversation can be compared alone; totals are made when somebody asks, by the
-- functions below.
--
-- Counters go by quarter of an hour: the days of every time zone in use today begin on one. Where a time leads the
-- primary key, that is also the index by which the functions find a period: a second one would cost each insert as
-- much again.
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

  -- room on its page for the next version of a counter: then no index is written
COMMENT ON COLUMN statistics_activity.quarter_hour IS 'Beginning of the quarter of an hour in which it happened';
COMMENT ON COLUMN statistics_activity.role IS 'Of the messages; empty for all other events';
COMMENT ON COLUMN statistics_activity.bytes IS 'Of the text of the messages, in UTF-8';
COMMENT ON COLUMN statistics_activity.parts_bytes IS 'Of the parts of the messages, as JSON';
COMMENT ON COLUMN statistics_activity.artifacts IS 'Chunks of artifacts of tasks; artifact_bytes: of their parts, as JSON';
COMMENT ON COLUMN statistics_activity.largest_text IS 'Bytes; of one message, and so on for parts and artifact';

SELECT eventstore_own('TABLE statistics_activity');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE statistics_activity', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE statistics_activity', 'eventstore_reader');
SELECT raise_wall('statistics_activity');
