-- The members in which an event differs from the one that is stored under its id; null if they are the same. The owner
-- in the metadata counts only if the caller names it, not if the append adds it (see append_group). The trace context
-- does not count: it describes the request that brought the event, and a repetition is another request.
CREATE FUNCTION event_differences(
    stored_type           text,
    stored_schema_version smallint,
    stored_actor          text,
    stored_content        jsonb,
    stored_metadata       jsonb,
    event_type            text,
    schema_version        smallint,
    actor                 text,
    content               jsonb,
    metadata              jsonb,
    user_id               text
) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    -- The order of the members of an object does not matter.
    stored_metadata := stored_metadata - '{eventstore.member_order, traceparent}'::text[];
    metadata := metadata - '{eventstore.member_order, traceparent}'::text[];
    IF event_type = 'message.added' AND jsonb_typeof(content) = 'object' THEN
        stored_content := stored_content - 'sent_order';
        content := content - 'sent_order';
    END IF;
    IF user_id <> '' OR NOT metadata ? 'eventstore.owner' THEN
        stored_metadata := stored_metadata - 'eventstore.owner';
        metadata := metadata - 'eventstore.owner';
    END IF;
    IF (stored_type, stored_schema_version, stored_actor, stored_content, stored_metadata)
       IS NOT DISTINCT FROM (event_type, schema_version, actor, content, metadata) THEN
        RETURN NULL;
    END IF;
    RETURN concat_ws(
        ', ',
        CASE WHEN stored_type <> event_type THEN 'event_type' END,
        CASE WHEN stored_schema_version <> schema_version THEN 'schema_version' END,
        CASE WHEN stored_actor <> actor THEN 'actor' END,
        CASE WHEN stored_content <> content THEN 'content' END,
        (SELECT string_agg('metadata.' || key, ', ' ORDER BY key)
           FROM jsonb_each(stored_metadata) AS stored FULL JOIN jsonb_each(metadata) AS given USING (key)
          WHERE stored.value IS DISTINCT FROM given.value)
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION event_differences');
