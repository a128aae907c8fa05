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
