-- What is invalid in the given_id of an event of a conversation; null if it is valid. One that belongs to another
-- conversation would lead readers there.
CREATE FUNCTION validate_given_id(tenant_id text, conversation_id uuid, event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN event_type = 'conversation.created' AND conversation_uuid(tenant_id, content ->> 'given_id') <> conversation_id
        THEN 'given_id is the name of another conversation'
END;

SELECT eventstore_set_owner('FUNCTION validate_given_id');
