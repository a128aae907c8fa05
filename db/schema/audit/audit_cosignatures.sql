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
