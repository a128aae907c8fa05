-- The words in braces are made of the list's order (lists.py). A line whose parameter is not given is left out.
--
-- The shape leaves the planner one sensible way, with and without statistics: along the index of the order. It knows no
-- number of a limit that is a query, and takes it for a tenth of all rows, so that to sort is dear; and it cannot look
-- into coalesce for conditions that another index serves.
SELECT c.id, c.name, c.is_active, c.created_at, c.updated_at, c.metadata, c.tenant_id, c.given_id, c.is_deleted,
       c.message_count, c.version, c.forked_from, c.member_order
  FROM conversations c
 WHERE {within}
   AND coalesce(true
                AND c.is_active = %(active)s
                AND c.is_deleted = %(deleted)s
       , false)
 ORDER BY {order}
 LIMIT (SELECT %(limit)s)
