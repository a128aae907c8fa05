-- The text of parts, with the control character 1E between them, which no phrase crosses: texts, names and addresses of
-- files, structured data as JSON, metadata, tool calls and their results. The contents of files are not included.
CREATE FUNCTION search_text_of_parts(parts jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    IF jsonb_typeof(parts) <> 'array' THEN
        RETURN CASE jsonb_typeof(parts) WHEN 'string' THEN parts #>> '{}' WHEN 'object' THEN (parts - 'bytes')::text END;
    END IF;
    RETURN (
        SELECT string_agg(
                   CASE jsonb_typeof(p.part)
                       WHEN 'string' THEN p.part #>> '{}'
                       WHEN 'object' THEN
                           concat_ws(' ',
                               p.part ->> 'name',
                               CASE WHEN jsonb_typeof(p.part -> 'text') = 'string' THEN p.part ->> 'text' END,
                               CASE WHEN NOT p.part ?| ARRAY['file', 'mediaType', 'mimeType', 'media_type'] THEN p.part ->> 'data' END,
                               p.part #>> '{file,name}',
                               p.part #>> '{file,uri}',
                               p.part ->> 'filename',
                               CASE WHEN p.part ->> 'url' NOT LIKE 'data:%' THEN p.part ->> 'url' END,
                               CASE WHEN p.part ->> 'uri' NOT LIKE 'data:%' THEN p.part ->> 'uri' END,
                               p.part ->> 'metadata',
                               p.part ->> 'input',
                               p.part ->> 'result',
                               search_json_text(p.part ->> 'arguments'),
                               CASE WHEN jsonb_typeof(p.part -> 'content') = 'string' THEN p.part ->> 'content'
                                    WHEN jsonb_typeof(p.part -> 'content') = 'array' THEN
                                        (SELECT string_agg(c.part ->> 'text', ' ' ORDER BY c.ordinal)
                                           FROM jsonb_array_elements(p.part -> 'content') WITH ORDINALITY AS c (part, ordinal)
                                          WHERE jsonb_typeof(c.part) = 'object')
                               END)
                   END, E'\x1e' ORDER BY p.ordinal)
          FROM jsonb_array_elements(parts) WITH ORDINALITY AS p (part, ordinal)
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_text_of_parts');
