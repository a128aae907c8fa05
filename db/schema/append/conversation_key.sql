-- The key of the advisory lock of a conversation. Keys can collide: then two conversations share a lock.
CREATE FUNCTION conversation_key(tenant_id text, conversation_id uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN uuid_hash_extended(conversation_id, hashtextextended(tenant_id, 0));

SELECT eventstore_own('FUNCTION conversation_key');
