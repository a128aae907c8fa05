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
