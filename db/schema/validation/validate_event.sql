-- Return what is invalid in an event; null if it is valid. No valid event can fail in a projection, whatever client and
-- version sent it, because the log keeps it for ever. In PL/pgSQL, which prepares only the expressions that it reaches:
-- as a single expression, the preparation alone would cost half as much as the rest of an append.
CREATE FUNCTION validate_event(tenant_id text, conversation_id uuid, event_type text, content jsonb, metadata jsonb)
RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    problem text;
BEGIN
    IF conversation_id = administration_id() THEN
        RETURN 'its conversation is that of administrative acts, which record_administrative_act alone appends';
    END IF;
    IF metadata IS DISTINCT FROM '{}' THEN
        problem := validate_metadata(metadata);
        IF problem IS NOT NULL THEN
            RETURN problem;
        END IF;
    END IF;
    IF event_type = 'message.added' THEN
        RETURN validate_message(content);
    ELSIF event_type IN ('conversation.created', 'conversation.renamed', 'conversation.forked',
                         'conversation.rewound') THEN
        RETURN validate_conversation(tenant_id, conversation_id, event_type, content);
    ELSIF event_type IN ('task.created', 'task.status_changed', 'task.described',
                         'task.artifact_added', 'task.artifact_extended') THEN
        RETURN validate_task(event_type, content);
    ELSIF event_type IN ('conversation.shared', 'conversation.unshared') THEN
        RETURN validate_sharing(event_type, content);
    ELSIF event_type IN ('conversation.erased', 'event.erased') THEN
        RETURN 'it is the receipt of an erasure, which the erasure alone writes';
    END IF;
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION validate_event');
