-- The definition by which the tables of each stage of a projection are filled.
CREATE TABLE projection_definitions (
    projection      text COLLATE "C" NOT NULL,
    stage           text COLLATE "C" NOT NULL,
    definition_hash text NOT NULL,
    text            text,
    tables          text[] NOT NULL,
    made_at         timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT projection_definitions_pkey PRIMARY KEY (projection, stage),
    CONSTRAINT projection_definitions_stage_check CHECK (stage IN ('live', 'next', 'previous'))
);

COMMENT ON TABLE projection_definitions IS 'Definition by which the tables of a stage are filled';
COMMENT ON COLUMN projection_definitions.definition_hash IS 'SHA-256 of the definition, in hexadecimal';
COMMENT ON COLUMN projection_definitions.text IS 'SQL of the projection; null if it is written in Python';

SELECT eventstore_set_owner('TABLE projection_definitions');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE ON TABLE projection_definitions', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE projection_definitions', 'eventstore_reader');
