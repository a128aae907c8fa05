-- The verdict on each event of a group that append_group does not find plain. The caller holds the locks of all
-- conversations but the busy ones, and has found the versions of all of them; the codes are those of append_group.
CREATE FUNCTION append_verdicts(
    tenant_ids        text[],     -- for each conversation
    conversation_ids  uuid[],
    expected_versions integer[],
    head_versions     integer[],
    busy              bigint[],   -- the numbers of the busy ones
    append_nos        integer[],  -- for each event
    conversation_nos  integer[],
    event_ids         uuid[],
    event_types       text[],
    schema_versions   smallint[],
    actors            text[],
    contents          jsonb[],
    metadatas         jsonb[],
    users             text[]
) RETURNS TABLE (ordinal bigint, code text, "position" bigint, version integer, "timestamp" timestamptz, problem text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH checked AS (
        SELECT n.ordinal, n.append_no, n.problem, compared.differences, h.version AS head,
               known.position, known.version, known.timestamp,
               CASE
                   WHEN n.problem IS NOT NULL THEN 'r'
                   WHEN n.conversation_no = ANY (busy) THEN 'b'
                   WHEN n.user_id <> '' AND h.version > 0
                        AND NOT EXISTS (SELECT FROM may_append(h.tenant_id, h.conversation_id, n.user_id, n.event_type))
                       THEN 'f'
                   WHEN compared.differences IS NOT NULL THEN 'i'
                   WHEN known.position IS NOT NULL THEN 'k'
                   WHEN NOT deleted_conversation_accepts(n.event_type)
                        -- The last change that this append adds before it, otherwise the state of the log.
                        AND coalesce((
                                SELECT b.event_type = 'conversation.deleted'
                                  FROM unnest(conversation_nos, event_types, event_ids) WITH ORDINALITY
                                           AS b (conversation_no, event_type, id, ordinal)
                                 WHERE b.event_type IN ('conversation.deleted', 'conversation.reactivated')
                                   AND b.conversation_no = n.conversation_no
                                   AND b.ordinal < n.ordinal
                                   AND NOT EXISTS (
                                           SELECT
                                             FROM events e
                                            WHERE e.tenant_id = h.tenant_id
                                              AND e.conversation_id = h.conversation_id
                                              AND e.id = b.id
                                       )
                                 ORDER BY b.ordinal DESC
                                 LIMIT 1
                            ), h.is_deleted) THEN 'd'
                   WHEN CASE h.expected
                            WHEN -2 THEN false
                            WHEN -1 THEN h.version = 0
                            ELSE h.expected <> h.version
                        END THEN 'v'
                   ELSE 'n'
               END AS code
          FROM (SELECT e.*,
                       coalesce(validate_event(e.event_type, e.content, e.metadata),
                                validate_given_id(tenant_ids[e.conversation_no], conversation_ids[e.conversation_no],
                                                  e.event_type, e.content)) AS problem
                  FROM unnest(append_nos, conversation_nos, event_ids, event_types, schema_versions, actors, contents,
                              metadatas, users)
                           WITH ORDINALITY
                           AS e (append_no, conversation_no, id, event_type, schema_version, actor, content, metadata,
                                 user_id, ordinal)
                OFFSET 0) AS n
          -- An event whose number names no conversation must not get lost: without a tenant the insertion fails.
          LEFT JOIN (SELECT c.*, c.version > 0 AND conversation_is_deleted(c.tenant_id, c.conversation_id) AS is_deleted
                       FROM unnest(tenant_ids, conversation_ids, expected_versions, head_versions)
                                WITH ORDINALITY AS c (tenant_id, conversation_id, expected, version, no)
                     OFFSET 0) AS h
            ON h.no = n.conversation_no
          LEFT JOIN LATERAL (
                   SELECT e.*
                     FROM events e
                    WHERE h.version > 0
                      AND (e.tenant_id, e.conversation_id, e.id) >= (h.tenant_id, h.conversation_id, n.id)
                    ORDER BY e.tenant_id, e.conversation_id, e.id
                    LIMIT 1
               ) AS known
            ON known.tenant_id = h.tenant_id
           AND known.conversation_id = h.conversation_id
           AND known.id = n.id
         CROSS JOIN LATERAL (
                   -- An event whose content was erased has no salt; only its id can be compared.
                   SELECT CASE WHEN known.salt IS NOT NULL THEN event_differences(
                              known.event_type, known.schema_version, known.actor, known.content, known.metadata,
                              n.event_type, n.schema_version, n.actor, n.content, n.metadata, n.user_id
                          ) END AS differences
               ) AS compared
        OFFSET 0
    )
    -- Of a busy or forbidden conversation, nothing is returned.
    SELECT c.ordinal,
           CASE
               WHEN c.code = 'n' AND NOT bool_and(c.code IN ('n', 'k')) OVER (PARTITION BY c.append_no) THEN 'x'
               ELSE c.code
           END,
           CASE WHEN c.code IN ('k', 'i') THEN c.position END,
           CASE WHEN c.code IN ('k', 'i') THEN c.version WHEN c.code = 'v' THEN c.head END,
           CASE WHEN c.code IN ('k', 'i') THEN c.timestamp END,
           CASE c.code WHEN 'r' THEN c.problem WHEN 'i' THEN c.differences END
      FROM checked c;
END;

SELECT eventstore_set_owner('FUNCTION append_verdicts');
REVOKE ALL ON FUNCTION append_verdicts FROM PUBLIC;
