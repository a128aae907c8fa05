-- The text of a message with parts: one line for each text part; null if it has none.
CREATE FUNCTION text_of_parts(parts jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT string_agg(p.part ->> 'text', E'\n' ORDER BY p.ordinal)
      FROM jsonb_array_elements(
               CASE WHEN jsonb_typeof(text_of_parts.parts) = 'array' THEN text_of_parts.parts END
           ) WITH ORDINALITY AS p (part, ordinal)
     WHERE jsonb_typeof(p.part -> 'text') = 'string';
END;

SELECT eventstore_set_owner('FUNCTION text_of_parts');
