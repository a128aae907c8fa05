-- The position up to which each projection has applied the log, for each partition of the conversations.
--
-- Read tables exist in stages: the live ones in use, the next ones that a rebuild fills beside them, and
-- the previous ones that a rebuild has replaced and that can be restored. Each stage has its own checkpoints.
CREATE TABLE checkpoints (
    projection    text COLLATE "C" NOT NULL,
    partition     smallint NOT NULL,
    position      bigint NOT NULL DEFAULT 0,
    updated_at    timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    stage         text COLLATE "C" NOT NULL DEFAULT 'live',
    batch_events  integer,
    batch_seconds real,
    CONSTRAINT checkpoints_pkey PRIMARY KEY (projection, stage, partition),
    CONSTRAINT checkpoints_partition_check CHECK (partition BETWEEN 0 AND 15),
    CONSTRAINT checkpoints_stage_check CHECK (stage IN ('live', 'next', 'previous'))
);

COMMENT ON COLUMN checkpoints.batch_events IS 'Events of the log that the last batch covered';
COMMENT ON COLUMN checkpoints.batch_seconds IS 'Time of the last batch, from the beginning of its transaction';

SELECT eventstore_set_owner('TABLE checkpoints');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE checkpoints', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE checkpoints', 'eventstore_reader');
