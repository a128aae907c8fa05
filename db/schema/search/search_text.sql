-- The searchable text of an event: its first 100,000 characters, which search_document shortens further if they do not
-- fit. Null if the event has no text.
CREATE FUNCTION search_text(event_type text, content jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    result text;
BEGIN
    IF event_type = 'message.added' THEN
        result := concat_ws(E'\x1e', content ->> 'content', content ->> 'metadata');
        IF content ? 'parts' THEN
            result := concat_ws(E'\x1e', result, search_text_of_parts(content -> 'parts'));
        END IF;
        IF content ? 'extra' THEN
            result := concat_ws(E'\x1e', result,
                search_text_of_parts(content #> '{extra,content}'),
                search_text_of_parts(content #> '{extra,parts}'),
                (SELECT string_agg(concat_ws(' ', c.call #>> '{function,name}', search_json_text(c.call #>> '{function,arguments}'),
                                             c.call ->> 'name', c.call ->> 'args', c.call ->> 'input',
                                             search_json_text(c.call ->> 'arguments')),
                                   E'\x1e' ORDER BY c.ordinal)
                   FROM jsonb_array_elements(CASE WHEN jsonb_typeof(content #> '{extra,tool_calls}') = 'array'
                                                  THEN content #> '{extra,tool_calls}' END)
                        WITH ORDINALITY AS c (call, ordinal)),
                content #>> '{extra,function_call,name}',
                search_json_text(content #>> '{extra,function_call,arguments}'),
                content #>> '{extra,name}');
        END IF;
    ELSIF event_type IN ('conversation.created', 'conversation.renamed', 'conversation.forked') THEN
        result := content ->> 'name';
    ELSIF event_type IN ('task.created', 'task.described') THEN
        result := content ->> 'description';
    ELSIF event_type = 'task.status_changed' THEN
        result := concat_ws(E'\x1e', search_text_of_parts(content #> '{message,parts}'),
                          search_text_of_parts(content #> '{message,content}'), content #>> '{message,text}');
    ELSIF event_type IN ('task.artifact_added', 'task.artifact_extended') THEN
        result := concat_ws(E'\x1e', content ->> 'name', content ->> 'description', search_text_of_parts(content -> 'parts'));
    END IF;
    RETURN nullif(left(result, 100000), '');
END
$$;

SELECT eventstore_set_owner('FUNCTION search_text');
