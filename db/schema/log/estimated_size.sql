-- An estimate of the bytes of a value as text, without reading a value that is stored outside of its row: its stored
-- bytes, and ten times as many if they are compressed. Texts are compressed to a half or a third; the most that
-- PostgreSQL's pglz can do is a hundredth, its lz4 a two hundred and fiftieth.
CREATE FUNCTION estimated_size(value anyelement) RETURNS double precision
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(pg_column_size(value), 0)
           * CASE WHEN pg_column_compression(value) IS NULL THEN 1.0::double precision ELSE 10.0 END
$$;

SELECT eventstore_set_owner('FUNCTION estimated_size');
