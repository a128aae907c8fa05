-- A page of the conversations that a rule erases now, by the time that counts, with their versions; see retention_rules.
-- Conversations that are completely erased are left out: their last event is the receipt. hold is one that protects the
-- conversation, as far as the read tables show who caused its events; the erasure itself reads the log.
--
-- A client may have given a time in the future; then the time of the append counts. A conversation that a fork continues
-- is in use as long as the fork is, because reads of the fork begin with it; but no conversation outlasts its age since
-- its creation.
--
-- The tables are named in a text: a rebuild replaces them, and each order has an index of its own.
CREATE FUNCTION due_conversations(tenant_id text, rule uuid, after_time timestamptz, after_id uuid, maximum integer)
RETURNS TABLE (conversation_id uuid, version integer, counted_from timestamptz, hold uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    bound text := append_tenant();
    found retention_rules;
BEGIN
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    SELECT r.*
      INTO found
      FROM retention_rules r
     WHERE r.tenant_id = due_conversations.tenant_id
       AND r.id = rule;
    RETURN QUERY EXECUTE format(
        $query$
        WITH RECURSIVE continued AS (
            SELECT (c.forked_from ->> 'conversation_id')::uuid AS id
              FROM conversations c
             WHERE %2$L = 'last_event'
               AND c.tenant_id = $1
               AND c.forked_from IS NOT NULL
               AND c.updated_at > $4
               AND NOT c.is_deleted
             UNION
            SELECT (c.forked_from ->> 'conversation_id')::uuid
              FROM continued s
              JOIN conversations c
                ON c.tenant_id = $1
               AND c.id = s.id
             WHERE c.forked_from IS NOT NULL
        )
        SELECT due.id, due.version, due.time,
               (SELECT h.id
                  FROM holds_on($1, due.id, 1, ARRAY(SELECT a.actor::text
                                                       FROM conversation_actors a
                                                      WHERE a.tenant_id = $1
                                                        AND a.conversation_id = due.id)) AS h
                 LIMIT 1)
          FROM (SELECT c.id, c.version, c.%1$I AS time
          FROM conversations c
         WHERE c.tenant_id = $1
           AND (c.%1$I, c.id) > ($2, $3)
           AND (c.%1$I <= $4
                OR c.%1$I > now()
                   AND $4 >= (SELECT e.timestamp
                                FROM events e
                               WHERE e.tenant_id = c.tenant_id
                                 AND e.conversation_id = c.id
                               ORDER BY e.version %3$s
                               LIMIT 1))
           AND ($5 IS NULL
                OR CASE WHEN c.is_deleted THEN 'deleted' WHEN c.is_active THEN 'active' ELSE 'archived' END = $5)
           AND ($6 IS NULL OR c.metadata @> $6)
           AND ($7 IS NULL
                OR EXISTS (SELECT
                             FROM conversation_members m
                            WHERE m.tenant_id = c.tenant_id
                              AND m.conversation_id = c.id
                              AND m.user_id = $7
                              AND m.access = 'own'))
           AND c.id NOT IN (SELECT s.id FROM continued s WHERE s.id IS NOT NULL)
           AND 'conversation.erased' <> (SELECT e.event_type
                                           FROM events e
                                          WHERE e.tenant_id = c.tenant_id
                                            AND e.conversation_id = c.id
                                          ORDER BY e.version DESC
                                          LIMIT 1)
         ORDER BY c.%1$I, c.id
         LIMIT $8) AS due
         ORDER BY due.time, due.id
        $query$,
        CASE found.since WHEN 'creation' THEN 'created_at' ELSE 'updated_at' END,
        found.since,
        CASE found.since WHEN 'creation' THEN 'ASC' ELSE 'DESC' END)
    USING tenant_id, after_time, after_id, clock_timestamp() - found.age, found.state, found.metadata, found.user_id,
          maximum;
END
$$;

SELECT eventstore_set_owner('FUNCTION due_conversations');
REVOKE ALL ON FUNCTION due_conversations FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION due_conversations', 'eventstore_app');
