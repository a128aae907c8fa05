-- The partition of a conversation, 0 to 15, by which workers divide the log. It never changes, because each partition
-- has its own checkpoints.
CREATE FUNCTION partition_of(conversation_id uuid) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (uuid_hash(conversation_id) & 15)::smallint;

SELECT eventstore_set_owner('FUNCTION partition_of');
