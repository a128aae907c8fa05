-- The conversations whose rows a conversation shows, the nearest first: itself, then, if it is a fork, those that it
-- continues, each up to a version. A row of version v stands at the place v - shift: the places of what a fork shares are
-- 0 and below, its own are its versions, and a fork keeps its places whichever of the others the caller may read.
--
-- It runs with the caller's rights, and row-level security applies to each conversation: it ends before the first one
-- that the caller may not read, that is deleted, or that is not there. So what is shared stays under the rules of the
-- conversation in which it was written.
--
-- Not BEGIN ATOMIC: a rebuild replaces the table, and a conversation as it was is read from a temporary one.
CREATE FUNCTION conversation_ancestry(tenant text, conversation uuid)
RETURNS TABLE (conversation_id uuid, last_version integer, shift bigint)
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE ancestry AS (
        SELECT conversation_ancestry.conversation AS id, 2147483647 AS last_version, 0::bigint AS shift,
               ARRAY[conversation_ancestry.conversation] AS path,
               (SELECT c.forked_from
                  FROM conversations c
                 WHERE c.tenant_id = conversation_ancestry.tenant
                   AND c.id = conversation_ancestry.conversation) AS forked_from
         UNION ALL
        SELECT c.id, c.version, a.shift + c.version, a.path || c.id, c.forked_from
          FROM ancestry a
         CROSS JOIN LATERAL (  -- OFFSET 0: without statistics, the planner would read the whole table
                   SELECT c.id, c.forked_from,
                          least(greatest((a.forked_from ->> 'version')::numeric, 0), 2147483646)::integer AS version
                     FROM conversations c
                    WHERE c.tenant_id = conversation_ancestry.tenant
                      AND c.id = (a.forked_from ->> 'conversation_id')::uuid
                      AND NOT c.is_deleted
                   OFFSET 0
               ) AS c
         WHERE a.forked_from IS NOT NULL
           -- Events that were appended by hand may name each other.
           AND c.id <> ALL (a.path)
    )
    SELECT a.id, a.last_version, a.shift FROM ancestry a
$$;

SELECT eventstore_set_owner('FUNCTION conversation_ancestry');
REVOKE ALL ON FUNCTION conversation_ancestry FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION conversation_ancestry', 'eventstore_reader', 'eventstore_projector');
