-- What is wrong with an event; null if nothing is. No event that passes can fail in a projection, whoever sent it and
-- whatever version: what the log has taken it keeps for good. In PL/pgSQL, where only the expressions that are reached
-- are made ready: as one expression, that alone would cost half as much as the rest of an append.
CREATE FUNCTION event_problem(event_type text, content jsonb, metadata jsonb) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    problem text;
BEGIN
    IF metadata IS DISTINCT FROM '{}' THEN
        problem := metadata_problem(metadata);
        IF problem IS NOT NULL THEN
            RETURN problem;
        END IF;
    END IF;
    IF event_type = 'message.added' THEN
        RETURN message_problem(content);
    ELSIF event_type IN ('conversation.created', 'conversation.renamed', 'conversation.forked') THEN
        RETURN conversation_problem(event_type, content);
    ELSIF event_type IN ('task.created', 'task.status_changed', 'task.described',
                         'task.artifact_added', 'task.artifact_extended') THEN
        RETURN task_problem(event_type, content);
    ELSIF event_type IN ('conversation.shared', 'conversation.unshared') THEN
        RETURN sharing_problem(event_type, content);
    END IF;
    RETURN NULL;
END
$$;

SELECT eventstore_own('FUNCTION event_problem');
