-- Whether a deleted conversation accepts events of a type. It accepts only
--
-- - conversation.reactivated, which ends the deletion;
-- - message.answered, which ends the wait for an answer that was in progress, and adds nothing to read;
-- - conversation.unshared: its owner can revoke access without showing it to all members again.
--   conversation.shared is refused: a hidden conversation gets no new members;
-- - the receipts of erasures, which no append writes.
--
-- An event that is stored already is reported as such, so that repeating an append stays harmless after a deletion.
CREATE FUNCTION deleted_conversation_accepts(event_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN event_type IN ('conversation.reactivated', 'conversation.unshared', 'message.answered', 'conversation.erased',
                      'event.erased');

SELECT eventstore_set_owner('FUNCTION deleted_conversation_accepts');
REVOKE ALL ON FUNCTION deleted_conversation_accepts FROM PUBLIC;
