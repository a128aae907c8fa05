-- Projections that an administrator has paused: their live tables stay as they are until the projection is resumed. A row
-- is written under the locks of the live checkpoints, so no batch that began earlier ends later.
CREATE TABLE paused_projections (
    projection text COLLATE "C" NOT NULL,
    paused_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT paused_projections_pkey PRIMARY KEY (projection)
);

SELECT eventstore_set_owner('TABLE paused_projections');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE ON TABLE paused_projections', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE paused_projections', 'eventstore_reader');
