-- Makes what is kept about a stage of a projection that the database does not know yet, and returns the text that the
-- stage's tables are made by.
WITH made AS (
    INSERT INTO projection_texts (projection, stage, source, text, tables)
    VALUES (%(projection)s, %(stage)s, %(source)s, %(text)s, %(tables)s)
    ON CONFLICT (projection, stage) DO NOTHING
    RETURNING source, text, tables
),
begun AS (
    INSERT INTO checkpoints (projection, stage, share)
    SELECT %(projection)s, %(stage)s, s.share
      FROM generate_series(0, 15) AS s (share)
    ON CONFLICT (projection, stage, share) DO NOTHING
)
SELECT m.source, m.text, m.tables FROM made m
 UNION ALL
SELECT t.source, t.text, t.tables FROM projection_texts t WHERE t.projection = %(projection)s AND t.stage = %(stage)s
