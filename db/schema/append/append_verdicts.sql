-- The slow path of append_group, which has taken the locks and explains the outcomes: give each event a verdict, and append
-- those that are accepted.
CREATE FUNCTION append_verdicts(
    tenant_ids        text[],     -- for each conversation
    conversation_ids  uuid[],
    expected_versions integer[],
    busy              bigint[],   -- the numbers of the conversations that are locked
    append_nos        integer[],  -- for each event
    conversation_nos  integer[],
    event_ids         uuid[],
    event_types       text[],
    schema_versions   smallint[],
    actors            text[],
    contents          jsonb[],
    metadatas         jsonb[],
    users             text[],
    OUT outcomes      "char"[],
    OUT positions     bigint[],
    OUT versions      integer[],
    OUT timestamps    timestamptz[],
    OUT problems      text[]
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    has_deletions     boolean := event_types && ARRAY['conversation.deleted', 'conversation.reactivated'];
    allowed_tenant    text := append_tenant();
    -- For each conversation:
    head_versions     integer[];
    next_timestamps   timestamptz[];
    deleted           boolean[];
    secret            bytea := uuid_send(gen_random_uuid());  -- see append_group
BEGIN
    IF allowed_tenant <> ANY (tenant_ids) THEN
        PERFORM refuse_tenant(t) FROM unnest(tenant_ids) AS t WHERE t <> allowed_tenant;
    END IF;
    SELECT array_agg(coalesce(head.version, 0) ORDER BY c.no), array_agg(event_timestamp(head.timestamp) ORDER BY c.no),
           array_agg(CASE
                         WHEN may_be_deleted(head.event_type)
                             THEN conversation_is_deleted(head.tenant_id, head.conversation_id)
                         ELSE false
                     END ORDER BY c.no)
      INTO head_versions, next_timestamps, deleted
      FROM unnest(tenant_ids, conversation_ids) WITH ORDINALITY AS c (tenant_id, conversation_id, no)
      LEFT JOIN LATERAL (
               SELECT e.tenant_id, e.conversation_id, e.version, e.timestamp, e.event_type
                 FROM events e
                WHERE (e.tenant_id, e.conversation_id, e.version) <= (c.tenant_id, c.conversation_id, 2147483647)
                ORDER BY e.tenant_id DESC, e.conversation_id DESC, e.version DESC
                LIMIT 1
           ) AS head
        ON head.tenant_id = c.tenant_id
       AND head.conversation_id = c.conversation_id;

    WITH given AS MATERIALIZED (
        -- An event whose number names no conversation is not lost: without a tenant the insertion fails.
        SELECT e.*, c.*,
               validate_event(c.tenant_id, c.conversation_id, e.event_type, e.content, e.metadata) AS invalid
          FROM unnest(append_nos, conversation_nos, event_ids, event_types, schema_versions, actors, contents,
                      metadatas, users)
                   WITH ORDINALITY
                   AS e (append_no, conversation_no, id, event_type, schema_version, actor, content, metadata,
                         user_id, ordinal)
         CROSS JOIN LATERAL (
                   SELECT tenant_ids[e.conversation_no] AS tenant_id,
                          conversation_ids[e.conversation_no] AS conversation_id,
                          expected_versions[e.conversation_no] AS expected,
                          head_versions[e.conversation_no] AS head
               ) AS c
    ),
    checked AS MATERIALIZED (
        SELECT g.*, known.position AS known_position, known.version AS known_version, known.timestamp AS known_timestamp,
               coalesce(g.invalid, compared.differences) AS problem,
               CASE
                   WHEN g.invalid IS NOT NULL THEN 'r'
                   WHEN g.conversation_no = ANY (busy) THEN 'b'
                   WHEN g.user_id <> '' AND g.head > 0
                        AND NOT EXISTS (SELECT FROM may_append(g.tenant_id, g.conversation_id, g.user_id, g.event_type))
                       THEN 'f'
                   WHEN compared.differences IS NOT NULL THEN 'i'
                   WHEN known.position IS NOT NULL THEN 'k'
                   WHEN NOT deleted_conversation_accepts(g.event_type)
                        -- The last change that this append adds before it, otherwise the state of the log.
                        AND coalesce(CASE WHEN has_deletions THEN (
                                SELECT b.event_type = 'conversation.deleted'
                                  FROM given b
                                 WHERE b.event_type IN ('conversation.deleted', 'conversation.reactivated')
                                   AND b.conversation_no = g.conversation_no
                                   AND b.ordinal < g.ordinal
                                   AND NOT EXISTS (
                                           SELECT
                                             FROM events e
                                            WHERE e.tenant_id = b.tenant_id
                                              AND e.conversation_id = b.conversation_id
                                              AND e.id = b.id
                                       )
                                 ORDER BY b.ordinal DESC
                                 LIMIT 1
                            ) END, deleted[g.conversation_no]) THEN 'd'
                   WHEN CASE g.expected WHEN -2 THEN false WHEN -1 THEN g.head = 0 ELSE g.expected <> g.head END THEN 'v'
                   ELSE 'n'
               END AS code
          FROM given g
          LEFT JOIN LATERAL (
                   SELECT e.*
                     FROM events e
                    WHERE g.head > 0
                      AND (e.tenant_id, e.conversation_id, e.id) >= (g.tenant_id, g.conversation_id, g.id)
                    ORDER BY e.tenant_id, e.conversation_id, e.id
                    LIMIT 1
               ) AS known
            ON known.tenant_id = g.tenant_id
           AND known.conversation_id = g.conversation_id
           AND known.id = g.id
         CROSS JOIN LATERAL (
                   -- An event whose content was erased has no salt; only its id can be compared.
                   SELECT CASE WHEN known.salt IS NOT NULL THEN event_differences(
                              known.event_type, known.schema_version, known.actor, known.content, known.metadata,
                              g.event_type, g.schema_version, g.actor, g.content, g.metadata, g.user_id
                          ) END AS differences
               ) AS compared
    ),
    numbered AS (
        SELECT c.*, c.head + (count(*) FILTER (WHERE c.outcome = 'n')
                                          OVER (PARTITION BY c.conversation_no ORDER BY c.ordinal))::integer AS version
          FROM (SELECT c.*, CASE WHEN c.code = 'n' AND c.append_no = ANY (ARRAY(
                                      SELECT r.append_no FROM checked r WHERE r.code NOT IN ('n', 'k')
                                 )) THEN 'x' ELSE c.code END AS outcome
                  FROM checked c) AS c
         ORDER BY c.ordinal
        OFFSET 0
    ),
    completed AS MATERIALIZED (
        SELECT n.*, CASE WHEN n.outcome = 'n' THEN nextval('events_position') END AS position,
               next_timestamps[n.conversation_no] AS timestamp,
               substr(sha256(secret || int8send(n.ordinal)), 1, 16) AS salt,
               -- The log records the owner. Only an append for the whole tenant (a restored backup) may name another user.
               CASE
                   WHEN n.version = 1 AND n.user_id <> ''
                       THEN n.metadata || jsonb_build_object('eventstore.owner', n.user_id)
                   ELSE n.metadata
               END AS new_metadata
          FROM numbered n
    ),
    inserted AS (
        INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                            event_type, actor, content, metadata, salt, digest)
        SELECT c.position, c.timestamp, c.version, c.schema_version, c.conversation_id, c.id, c.tenant_id,
               c.event_type, c.actor, c.content, c.new_metadata, c.salt,
               event_digest(c.salt, c.position, c.timestamp, c.version, c.schema_version, c.conversation_id, c.id,
                            c.tenant_id, c.event_type, c.actor, c.content, c.new_metadata)
          FROM completed c
         WHERE c.outcome = 'n'
    ),
    owners AS (
        -- The conversation has no other member yet: this is its first event.
        INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
        SELECT c.tenant_id, c.conversation_id, c.new_metadata ->> 'eventstore.owner', 'own'
          FROM completed c
         WHERE c.outcome = 'n'
           AND c.version = 1
           AND c.new_metadata ? 'eventstore.owner'
    )
    -- Of a busy or forbidden conversation, nothing is returned.
    SELECT array_agg(c.outcome::"char"),
           array_agg(CASE WHEN c.outcome IN ('k', 'i') THEN c.known_position ELSE c.position END),
           array_agg(CASE c.outcome
                         WHEN 'n' THEN c.version
                         WHEN 'k' THEN c.known_version
                         WHEN 'i' THEN c.known_version
                         WHEN 'v' THEN c.head
                     END),
           array_agg(CASE c.outcome
                         WHEN 'n' THEN c.timestamp
                         WHEN 'k' THEN c.known_timestamp
                         WHEN 'i' THEN c.known_timestamp
                     END),
           array_agg(CASE WHEN c.outcome IN ('r', 'i') THEN c.problem END)
      INTO outcomes, positions, versions, timestamps, problems
      FROM completed c;

    IF event_types && ARRAY['conversation.shared', 'conversation.unshared'] THEN
        PERFORM share_conversation(tenant_ids[e.conversation_no], conversation_ids[e.conversation_no], e.event_type,
                                   e.content)
           FROM unnest(conversation_nos, event_types, contents, outcomes)
                    AS e (conversation_no, event_type, content, outcome)
          WHERE e.event_type IN ('conversation.shared', 'conversation.unshared')
            AND e.outcome = 'n';
    END IF;
    PERFORM lock_files(tenant_ids[e.conversation_no], conversation_ids[e.conversation_no],
                       e.metadata -> 'eventstore.files')
       FROM unnest(conversation_nos, metadatas, outcomes) AS e (conversation_no, metadata, outcome)
      WHERE e.metadata ? 'eventstore.files'
        AND e.outcome = 'n';
    IF 'k' = ANY (outcomes) THEN
        -- The transaction that stored an event may be committed here and not yet on a synchronous standby, if its backend
        -- was ended while it waited. A transaction that writes any record to the WAL waits for all records before it.
        PERFORM pg_logical_emit_message(true, 'eventstore', '');
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION append_verdicts');
REVOKE ALL ON FUNCTION append_verdicts FROM PUBLIC;
