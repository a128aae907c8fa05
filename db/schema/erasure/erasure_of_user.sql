-- Return what an erasure of a user has to erase that is not erased yet: the conversations that the user owns (versions is
-- null: the whole); and in those of others the events that the user caused, and those that name the user as the one
-- with whom it was shared; and the administrative acts of the user and on them. The registrations of agents belong to
-- the tenant and stay. Receipts of erasures that the user made are erased, too: those that take their place do not name
-- the user.
--
-- The table conversation_actors says in which conversations a user was active, up to its checkpoints; what follows, and
-- what is parked, is read from the log.
CREATE FUNCTION erasure_of_user(tenant_id text, user_id text)
RETURNS TABLE (conversation_id uuid, versions int4multirange, erases_members boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    tenant  text := tenant_id;
    erased  text := user_id;
    applied bigint := coalesce((SELECT min(c.position) FROM checkpoints c WHERE c.projection = 'actors' AND c.stage = 'live'), 0);
BEGIN
    IF tenant IS DISTINCT FROM current_tenant() OR coalesce(current_tenant_user() <> erased, false) THEN
        RAISE EXCEPTION 'this transaction may not erase the user % of the tenant %', quote_nullable(erased), quote_nullable(tenant)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'A user may erase themselves; an administrator of the tenant, all its users.';
    END IF;
    RETURN QUERY
    SELECT m.conversation_id, NULL::int4multirange, true
      FROM conversation_members m
     WHERE m.tenant_id = tenant
       AND m.user_id = erased
       AND m.access = 'own';
    RETURN QUERY
    WITH active AS (
        SELECT a.conversation_id FROM conversation_actors a WHERE a.tenant_id = tenant AND a.actor = erased
         UNION
        SELECT p.conversation_id FROM parked p WHERE p.tenant_id = tenant AND p.projection = 'actors' AND p.stage = 'live'
         UNION
        SELECT e.conversation_id FROM events e WHERE e.position > applied AND e.tenant_id = tenant AND e.actor = erased
         UNION
        SELECT e.conversation_id
          FROM events e
         WHERE e.tenant_id = tenant
           AND e.event_type IN ('conversation.shared', 'conversation.unshared')
           AND e.content ->> 'user' = erased
    )
    SELECT s.conversation_id, range_agg(int4range(s.version, s.version, '[]')), s.names_user
      FROM (SELECT e.conversation_id, e.version,
                   e.is_receipt OR e.is_sharing AND e.content ->> 'user' = erased AS names_user
              FROM active a
              JOIN (SELECT e.*, e.event_type IN ('conversation.erased', 'event.erased') AS is_receipt,
                           e.event_type IN ('conversation.shared', 'conversation.unshared') AS is_sharing
                      FROM events e) AS e
                ON e.tenant_id = tenant
               AND e.conversation_id = a.conversation_id
             WHERE (e.actor = erased OR e.is_sharing AND e.content ->> 'user' = erased)
               AND e.event_type NOT IN ('agent.registered', 'agent.unregistered')
               AND e.conversation_id <> administration_id()
               AND (e.is_receipt
                    OR NOT EXISTS (
                           SELECT
                             FROM conversation_members m
                            WHERE m.tenant_id = tenant
                              AND m.conversation_id = a.conversation_id
                              AND m.user_id = erased
                              AND m.access = 'own'
                       ))) AS s
     GROUP BY s.conversation_id, s.names_user;
    RETURN QUERY
    SELECT e.conversation_id, range_agg(int4range(e.version, e.version, '[]')), true
      FROM events e
     WHERE e.tenant_id = tenant
       AND e.conversation_id = administration_id()
       AND e.salt IS NOT NULL
       AND (e.actor = erased OR e.content ->> 'user' = erased)
     GROUP BY e.conversation_id;
END
$$;

SELECT eventstore_set_owner('FUNCTION erasure_of_user');
REVOKE ALL ON FUNCTION erasure_of_user FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION erasure_of_user', 'eventstore_eraser');
