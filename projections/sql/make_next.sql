WITH made AS MATERIALIZED (
    SELECT make_shadows(%(tables)s)
),
texts AS (
    INSERT INTO projection_texts (projection, stage, source, text, tables)
    SELECT %(projection)s, 'next', %(source)s, %(text)s, %(tables)s FROM made
)
INSERT INTO checkpoints (projection, stage, share)
SELECT %(projection)s, 'next', s.share
  FROM generate_series(0, 15) AS s (share)
