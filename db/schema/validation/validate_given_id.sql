-- What is invalid in the conversation of an event, or in the given_id that it states for it; null if both are valid. A
-- given_id that belongs to another conversation would lead readers there.
CREATE FUNCTION validate_given_id(tenant_id text, conversation_id uuid, event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN conversation_id = administration_id()
        THEN 'its conversation is that of administrative acts, which record_administrative_act alone appends'
    WHEN event_type = 'conversation.created' AND conversation_uuid(tenant_id, content ->> 'given_id') <> conversation_id
        THEN 'given_id is the name of another conversation'
END;

SELECT eventstore_set_owner('FUNCTION validate_given_id');
