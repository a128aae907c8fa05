-- Whether a conversation whose last event is of a type may be deleted: that event is its deletion, or one that a deleted
-- conversation accepts. After any other event it cannot be deleted, so an append need not look for a deletion.
CREATE FUNCTION may_be_deleted(last_event_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN last_event_type = 'conversation.deleted' OR deleted_conversation_accepts(last_event_type);

SELECT eventstore_set_owner('FUNCTION may_be_deleted');
REVOKE ALL ON FUNCTION may_be_deleted FROM PUBLIC;
