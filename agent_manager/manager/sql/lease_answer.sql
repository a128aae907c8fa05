-- Takes the lease of a message: who holds it now, until when, and the conversation's version.
SELECT l.held_by, l.expires_at, l.version
  FROM lease_answer(%(tenant)s, %(conversation_id)s, %(message)s, %(holder)s, %(seconds)s) AS l
