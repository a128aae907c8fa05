-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- What narrows a search, as words of the document that no text can have: so the one index answers for all of it. The
-- search compares the columns as well, so a label may be cut to what fits.
CREATE FUNCTION search_labels(tenant text, role text, actor text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY['=' || tenant, '=' || coalesce(role, 'task') || ' of ' || tenant, left('=' || actor || ' in ' || tenant, 500)];

-- JSON as a string holds it, such as the arguments of a tool call: "\u00e3" is a letter that one wants to find. Not
-- parallel safe, nor is what calls it: a parallel query cannot enter the exception block before PostgreSQL 17.
CREATE FUNCTION search_json_text(given text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    IF position('\' IN given) = 0 THEN
        RETURN given;
    END IF;
    RETURN given::jsonb::text;
EXCEPTION
    WHEN OTHERS THEN
        RETURN given;
END
$$;

-- The text of parts, a line each: texts, names of files, structured data as JSON, calls of tools and their results.
-- Contents of files are no text.
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
                               CASE WHEN jsonb_typeof(p.part -> 'data') IN ('object', 'array') THEN p.part ->> 'data' END,
                               p.part #>> '{file,name}',
                               p.part ->> 'filename',
                               p.part ->> 'input',
                               p.part ->> 'result',
                               search_json_text(p.part ->> 'arguments'),
                               CASE WHEN jsonb_typeof(p.part -> 'content') = 'string' THEN p.part ->> 'content'
                                    WHEN jsonb_typeof(p.part -> 'content') = 'array' THEN
                                        (SELECT string_agg(c.part ->> 'text', ' ' ORDER BY c.ordinal)
                                           FROM jsonb_array_elements(p.part -> 'content') WITH ORDINALITY AS c (part, ordinal)
                                          WHERE jsonb_typeof(c.part) = 'object')
                               END)
                   END, E'\n' ORDER BY p.ordinal)
          FROM jsonb_array_elements(parts) WITH ORDINALITY AS p (part, ordinal)
    );
END
$$;

-- The text of an event that a search looks at: its first 100,000 characters; search_document cuts further what does
-- not fit in bytes. Null if the event has no text.
CREATE FUNCTION search_text(event_type text, content jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    said text;
BEGIN
    IF event_type = 'message.added' THEN
        said := content ->> 'content';
        IF content ? 'parts' THEN
            said := concat_ws(E'\n', said, search_text_of_parts(content -> 'parts'));
        END IF;
        IF content ? 'extra' THEN
            said := concat_ws(E'\n', said,
                search_text_of_parts(content #> '{extra,content}'),
                search_text_of_parts(content #> '{extra,parts}'),
                (SELECT string_agg(concat_ws(' ', c.call #>> '{function,name}', search_json_text(c.call #>> '{function,arguments}'),
                                             c.call ->> 'name', c.call ->> 'args', c.call ->> 'input',
                                             search_json_text(c.call ->> 'arguments')),
                                   E'\n' ORDER BY c.ordinal)
                   FROM jsonb_array_elements(CASE WHEN jsonb_typeof(content #> '{extra,tool_calls}') = 'array'
                                                  THEN content #> '{extra,tool_calls}' END)
                        WITH ORDINALITY AS c (call, ordinal)),
                content #>> '{extra,function_call,name}',
                search_json_text(content #>> '{extra,function_call,arguments}'),
                content #>> '{extra,name}');
        END IF;
    ELSIF event_type IN ('task.created', 'task.described') THEN
        said := content ->> 'description';
    ELSIF event_type = 'task.status_changed' THEN
        said := concat_ws(E'\n', search_text_of_parts(content #> '{message,parts}'),
                          search_text_of_parts(content #> '{message,content}'), content #>> '{message,text}');
    ELSIF event_type IN ('task.artifact_added', 'task.artifact_extended') THEN
        said := concat_ws(E'\n', content ->> 'name', content ->> 'description', search_text_of_parts(content -> 'parts'));
    END IF;
    RETURN nullif(left(said, 100000), '');
END
$$;

SELECT eventstore_own(format('FUNCTION %s', p.oid::regprocedure))
  FROM pg_proc p
 WHERE p.pronamespace = current_schema()::regnamespace
   AND p.proname IN ('search_labels',
                     'search_json_text',
                     'search_text_of_parts',
                     'search_text');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION search_text;
DROP FUNCTION search_text_of_parts;
DROP FUNCTION search_json_text;
DROP FUNCTION search_labels;
