-- Renews leases of a holder: the messages on which it still has them.
SELECT r.conversation_id, r.message_id
  FROM renew_answer_leases(%(tenant)s, %(conversations)s, %(messages)s, %(holder)s, %(seconds)s) AS r
