-- Those of the conversations of which the user is a member. What there is not, and what others keep to themselves, is
-- looked for in the same way, and as far.
SELECT m.conversation_id
  FROM conversation_members m
 WHERE m.tenant_id = %(tenant)s
   AND m.user_id = %(user)s
   AND m.conversation_id = ANY (%(ids)s::uuid[])
