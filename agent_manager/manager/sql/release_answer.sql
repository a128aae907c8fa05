-- Ends the lease of a message.
SELECT release_answer(%(tenant)s, %(conversation_id)s, %(message)s, %(holder)s)
