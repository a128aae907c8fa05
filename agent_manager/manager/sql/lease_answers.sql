-- Takes the leases of messages: who holds each now, until when, and the version of its conversation.
SELECT l.conversation_id, l.message_id, l.held_by, l.expires_at, l.version
  FROM lease_answers(%(tenant)s, %(conversations)s, %(messages)s, %(holder)s, %(seconds)s) AS l
