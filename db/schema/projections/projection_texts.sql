-- The definition by which the tables of each stage of a projection are filled.
CREATE TABLE projection_texts (
    projection      text COLLATE "C" NOT NULL,
    stage           text COLLATE "C" NOT NULL,
    definition_hash text NOT NULL,
    text            text,
    tables          text[] NOT NULL,
    made_at         timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT projection_texts_pkey PRIMARY KEY (projection, stage),
    CONSTRAINT projection_texts_stage_check CHECK (stage IN ('live', 'next', 'previous'))
);

COMMENT ON TABLE projection_texts IS 'Definition by which the tables of a stage are filled';
COMMENT ON COLUMN projection_texts.definition_hash IS 'SHA-256 of the definition, in hexadecimal';
COMMENT ON COLUMN projection_texts.text IS 'SQL of the projection; null if it is written in Python';

SELECT eventstore_own('TABLE projection_texts');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE ON TABLE projection_texts', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE projection_texts', 'eventstore_reader');
