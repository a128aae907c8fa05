-- The key of the advisory lock of a conversation. Its low four bits are the conversation's partition, by which
-- lowest_append_in_flight tells the partitions that an append writes to. Keys can collide: then two conversations of one
-- partition share a lock.
CREATE FUNCTION conversation_lock_key(tenant_id text, conversation_id uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN uuid_hash_extended(conversation_id, hashtextextended(tenant_id, 0)) & ~15::bigint
       | partition_of(conversation_id);

SELECT eventstore_set_owner('FUNCTION conversation_lock_key');
