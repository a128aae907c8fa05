-- name: conversations_beginning
-- Conversations whose id or given id begins with a text, each found by a range of an index.
(SELECT c.id, c.given_id
   FROM conversations c
  WHERE c.tenant_id = %(tenant)s
    AND c.id BETWEEN %(uuid)s::uuid AND %(uuid_end)s::uuid
  ORDER BY c.id
  LIMIT %(limit)s)
 UNION
(SELECT c.id, c.given_id
   FROM conversations c
  WHERE c.tenant_id = %(tenant)s
    AND c.given_id COLLATE "C" BETWEEN %(text)s AND %(text_end)s
    AND octet_length(c.given_id) <= 1000
  ORDER BY c.given_id COLLATE "C"
  LIMIT %(limit)s)
 ORDER BY given_id, id
 LIMIT %(limit)s

-- name: given_ids
-- The ids that clients gave to conversations.
SELECT c.id, c.given_id
  FROM conversations c
 WHERE c.tenant_id = %(tenant)s
   AND c.id = ANY (%(ids)s::uuid[])
   AND c.given_id IS NOT NULL
