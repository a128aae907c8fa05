-- Ends the leases of messages.
SELECT release_answers(%(tenant)s, %(conversations)s, %(messages)s, %(holder)s)
