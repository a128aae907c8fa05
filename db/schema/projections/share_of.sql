-- The part of the conversations that one worker follows, 0 to 15. For good: checkpoints are kept by it.
CREATE FUNCTION share_of(conversation_id uuid) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (uuid_hash(conversation_id) & 15)::smallint;

SELECT eventstore_own('FUNCTION share_of');
