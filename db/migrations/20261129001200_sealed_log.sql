-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- file: audit/audit_tiles.sql
-- The tiles of the sealed log, each written once when it is full (docs/concepts/sealed-log.md). Positions of several
-- tenants are in one tile, so no tenant's login reads them.
--
-- level: 0 has entries of events; level 1 has hashes of 256 tiles of level 0, level 2 of 256 tiles of level 1, and so on.
-- content: at level 0 a bundle of 256 entries, at the others 256 hashes; the formats of C2SP's tlog-tiles.
-- hash: the root of the subtree below the tile.
-- last_position: of the last event below it.
CREATE TABLE audit_tiles (
    level         smallint NOT NULL,
    index         bigint   NOT NULL,
    last_position bigint   NOT NULL,
    hash          bytea    NOT NULL,
    content       bytea    NOT NULL,
    CONSTRAINT audit_tiles_pkey PRIMARY KEY (level, index),
    CONSTRAINT audit_tiles_last_position_key UNIQUE (level, last_position),
    CONSTRAINT audit_tiles_content_check CHECK (
        octet_length(hash) = 32 AND octet_length(content) = 256 * CASE level WHEN 0 THEN 42 ELSE 32 END
    )
);

-- Hashes cannot be compressed. Outside of the rows, whose hashes are read without them.
ALTER TABLE audit_tiles ALTER COLUMN content SET STORAGE EXTERNAL;

COMMENT ON TABLE audit_tiles IS 'Full tiles of the Merkle tree over the events, each written once';

CREATE TRIGGER audit_tiles_are_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_tiles
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events();

ALTER TABLE audit_tiles ENABLE ALWAYS TRIGGER audit_tiles_are_append_only;

SELECT eventstore_set_owner('TABLE audit_tiles');
SELECT eventstore_grant('SELECT, INSERT ON TABLE audit_tiles', 'eventstore_projector');

-- file: audit/audit_checkpoints.sql
-- The checkpoints of the sealed log: its size and root at a time, signed with a key that the database does not have.
--
-- size: the number of events that are sealed.
-- last_position: of the last of them.
-- note: the signed note (C2SP's tlog-checkpoint).
-- bundle: the entries of the incomplete tile that the checkpoint before it does not have. Those of the checkpoints since
-- the last full tile make that tile as it was then.
CREATE TABLE audit_checkpoints (
    size          bigint      NOT NULL,
    last_position bigint      NOT NULL,
    sealed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    note          text        NOT NULL,
    bundle        bytea       NOT NULL,
    CONSTRAINT audit_checkpoints_pkey PRIMARY KEY (size),
    CONSTRAINT audit_checkpoints_size_check CHECK (size > 0)
);

ALTER TABLE audit_checkpoints ALTER COLUMN bundle SET STORAGE EXTERNAL;

COMMENT ON TABLE audit_checkpoints IS 'Signed sizes and roots of the Merkle tree over the events';

CREATE TRIGGER audit_checkpoints_are_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events();

ALTER TABLE audit_checkpoints ENABLE ALWAYS TRIGGER audit_checkpoints_are_append_only;

SELECT eventstore_set_owner('TABLE audit_checkpoints');
SELECT eventstore_grant('SELECT, INSERT ON TABLE audit_checkpoints', 'eventstore_projector');

-- file: audit/audit_cosignatures.sql
-- The cosignatures of witnesses on checkpoints: they arrive after the checkpoint is written.
--
-- line: of the signed note (C2SP's tlog-cosignature).
CREATE TABLE audit_cosignatures (
    size bigint NOT NULL,
    line text   NOT NULL,
    CONSTRAINT audit_cosignatures_pkey PRIMARY KEY (size, line)
);

COMMENT ON TABLE audit_cosignatures IS 'Lines by which witnesses have signed checkpoints';

CREATE TRIGGER audit_cosignatures_are_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_cosignatures
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events();

ALTER TABLE audit_cosignatures ENABLE ALWAYS TRIGGER audit_cosignatures_are_append_only;

SELECT eventstore_set_owner('TABLE audit_cosignatures');
SELECT eventstore_grant('SELECT, INSERT ON TABLE audit_cosignatures', 'eventstore_projector');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP TABLE audit_cosignatures;
DROP TABLE audit_checkpoints;
DROP TABLE audit_tiles;
