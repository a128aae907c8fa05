-- Who may see a conversation, for those who may: nobody else gets a row.
SELECT m.user_id, m.access
  FROM members_of(%(conversation)s) AS m
 ORDER BY m.access <> 'own', m.user_id
