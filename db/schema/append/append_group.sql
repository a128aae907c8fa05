-- Append the events of several callers: each append is accepted or refused as a whole, independently of the others. One
-- row for each event, in the given order. Its outcome is
--
--   n  new
--   k  known: it is stored already
--   v  the conversation is not at the expected version
--   i  another event has this id; problem names what differs
--   r  refused: problem names what is invalid
--   f  forbidden: the user may not append this to the conversation; nothing of its content is returned
--   d  the conversation is deleted
--   b  busy: another append holds the lock of the conversation, and lock_wait_ms is 0
--   x  another event of the same append was refused
--
-- Appends may share a conversation if all expect ANY, are for the same user, and none deletes or reactivates it; then
-- they are stored in the given order.
CREATE FUNCTION append_group(
    tenant_ids        text[],     -- for each conversation
    conversation_ids  uuid[],
    expected_versions integer[],
    append_nos        integer[],  -- for each event: its append, any number
    conversation_nos  integer[],  --   its conversation, from 1
    event_ids         uuid[],
    event_types       text[],
    schema_versions   smallint[],
    actors            text[],
    contents          jsonb[],
    metadatas         jsonb[],
    users             text[],
    lock_wait_ms      integer
) RETURNS TABLE (outcome "char", "position" bigint, version integer, "timestamp" timestamptz, problem text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    busy            integer[];
    allowed_tenant  text;
    has_users       boolean := '' <> ANY (users);
    has_deletions   boolean := event_types && ARRAY['conversation.deleted', 'conversation.reactivated'];
    has_known       boolean := false;
    number          integer;
    changes_members boolean;
    must_notify     boolean;
    -- Each salt is a hash of this secret, which is not stored. A random number for each event would take as long as the
    -- insertion, while all readers of the log wait for this append.
    secret          bytea := uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());
BEGIN
    IF NOT coalesce(
           cardinality(append_nos) > 0 AND lock_wait_ms IS NOT NULL
           AND cardinality(tenant_ids) = ALL (ARRAY[cardinality(conversation_ids), cardinality(expected_versions)])
           AND cardinality(append_nos) = ALL (ARRAY[
                   cardinality(conversation_nos), cardinality(event_ids), cardinality(event_types),
                   cardinality(schema_versions), cardinality(actors), cardinality(contents), cardinality(metadatas),
                   cardinality(users)
               ])
           AND array_position(expected_versions, NULL) IS NULL
           AND array_position(append_nos, NULL) IS NULL
           AND array_position(users, NULL) IS NULL, false) THEN
        RAISE EXCEPTION 'the arrays of an append differ in length, are empty, or hold a null'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF -2 <> ANY (expected_versions) AND EXISTS (
           SELECT
             FROM unnest(append_nos, conversation_nos) AS e (append_no, conversation_no)
            WHERE expected_versions[e.conversation_no] <> -2
            GROUP BY e.conversation_no
           HAVING min(e.append_no) <> max(e.append_no)) THEN
        RAISE EXCEPTION 'appends of one group share a conversation without expecting ANY'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF has_users AND EXISTS (
           SELECT
             FROM unnest(conversation_nos, users) AS e (conversation_no, user_id)
            GROUP BY e.conversation_no
           HAVING min(e.user_id) <> max(e.user_id)) THEN
        RAISE EXCEPTION 'appends of one group share a conversation under different users'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF has_deletions AND EXISTS (
           SELECT
             FROM unnest(append_nos, conversation_nos, event_types) AS e (append_no, conversation_no, event_type)
            GROUP BY e.conversation_no
           HAVING min(e.append_no) <> max(e.append_no)
              AND bool_or(e.event_type IN ('conversation.deleted', 'conversation.reactivated'))) THEN
        RAISE EXCEPTION 'appends of one group share a conversation that one of them deletes or reactivates'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    allowed_tenant := append_tenant();
    IF allowed_tenant <> ANY (tenant_ids) THEN
        PERFORM refuse_tenant(t) FROM unnest(tenant_ids) AS t WHERE t <> allowed_tenant;
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    IF lock_wait_ms <> 0 THEN
        PERFORM limit_lock_wait(lock_wait_ms);
        -- In the order of the keys, not of the ids: keys can collide, and two appends must not deadlock.
        PERFORM pg_advisory_xact_lock(k.key)
           FROM (SELECT DISTINCT conversation_lock_key(c.tenant_id, c.conversation_id) AS key
                   FROM unnest(tenant_ids, conversation_ids) AS c (tenant_id, conversation_id)
                  ORDER BY key) AS k;
    ELSE
        SELECT array_agg(c.no)
          INTO busy
          FROM unnest(tenant_ids, conversation_ids) WITH ORDINALITY AS c (tenant_id, conversation_id, no)
         WHERE NOT pg_try_advisory_xact_lock(conversation_lock_key(c.tenant_id, c.conversation_id));
    END IF;
    must_notify := register_append();

    -- This statement sees everything that was committed to these conversations.
    FOR number, changes_members, outcome, "position", version, "timestamp", problem IN
    WITH heads AS MATERIALIZED (
        SELECT c.no, c.tenant_id, c.conversation_id, c.expected, coalesce(head.version, 0) AS version,
               event_timestamp(head.timestamp) AS timestamp,
               head.version > 0 AND conversation_is_deleted(c.tenant_id, c.conversation_id) AS is_deleted
          FROM unnest(tenant_ids, conversation_ids, expected_versions)
                   WITH ORDINALITY AS c (tenant_id, conversation_id, expected, no)
          LEFT JOIN LATERAL (
                   SELECT e.tenant_id, e.conversation_id, e.version, e.timestamp
                     FROM events e
                    WHERE (e.tenant_id, e.conversation_id, e.version) <= (c.tenant_id, c.conversation_id, 2147483647)
                    ORDER BY e.tenant_id DESC, e.conversation_id DESC, e.version DESC
                    LIMIT 1
               ) AS head
            ON head.tenant_id = c.tenant_id
           AND head.conversation_id = c.conversation_id
    ),
    checked AS (
        SELECT n.*, h.tenant_id, h.conversation_id, h.version AS head, h.timestamp AS new_timestamp,
               known.position, known.version, known.timestamp, compared.differences,
               CASE
                   WHEN n.problem IS NOT NULL THEN 'r'
                   WHEN n.conversation_no = ANY (busy) THEN 'b'
                   WHEN n.user_id <> '' AND h.version > 0
                        AND NOT EXISTS (SELECT FROM may_append(h.tenant_id, h.conversation_id, n.user_id, n.event_type))
                       THEN 'f'
                   WHEN compared.differences IS NOT NULL THEN 'i'
                   WHEN known.position IS NOT NULL THEN 'k'
                   WHEN NOT deleted_conversation_accepts(n.event_type)
                        AND CASE
                                -- The last one that this append adds before it, otherwise the last one of the log.
                                WHEN has_deletions THEN coalesce((
                                    SELECT b.event_type = 'conversation.deleted'
                                      FROM unnest(conversation_nos, event_types, event_ids) WITH ORDINALITY
                                               AS b (conversation_no, event_type, id, ordinal)
                                     WHERE b.conversation_no = n.conversation_no
                                       AND b.ordinal < n.ordinal
                                       AND b.event_type IN ('conversation.deleted', 'conversation.reactivated')
                                       AND NOT EXISTS (
                                               SELECT
                                                 FROM events e
                                                WHERE e.tenant_id = h.tenant_id
                                                  AND e.conversation_id = h.conversation_id
                                                  AND e.id = b.id
                                           )
                                     ORDER BY b.ordinal DESC
                                     LIMIT 1
                                ), h.is_deleted)
                                ELSE h.is_deleted
                            END THEN 'd'
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
          LEFT JOIN heads h ON h.no = n.conversation_no
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
    ),
    decided AS (
        SELECT c.*,
               c.code = 'n' AND bool_and(c.code IN ('n', 'k')) OVER (PARTITION BY c.append_no) AS is_new
          FROM checked c
    ),
    completed AS MATERIALIZED (
        SELECT o.*, CASE WHEN o.is_new THEN nextval('events_position') END AS new_position,
               substr(sha256(secret || int8send(o.ordinal)), 1, 16) AS salt,
               CASE
                   WHEN o.new_version = 1 AND o.user_id <> ''
                       THEN o.metadata || jsonb_build_object('eventstore.owner', o.user_id)
                   ELSE o.metadata
               END AS new_metadata
          FROM (SELECT d.*,
                       (d.head + count(*) FILTER (WHERE d.is_new)
                                 OVER (PARTITION BY d.conversation_no ORDER BY d.ordinal))::integer AS new_version
                  FROM decided d
                 ORDER BY d.ordinal
                OFFSET 0) AS o
    ),
    inserted AS (
        INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                            event_type, actor, content, metadata, salt, digest)
        SELECT c.new_position, c.new_timestamp, c.new_version, c.schema_version, c.conversation_id, c.id, c.tenant_id,
               c.event_type, c.actor, c.content, c.new_metadata, c.salt,
               event_digest(c.salt, c.new_position, c.new_timestamp, c.new_version, c.schema_version, c.conversation_id,
                            c.id, c.tenant_id, c.event_type, c.actor, c.content, c.new_metadata)
          FROM completed c
         WHERE c.is_new
    ),
    owners AS (
        -- The conversation has no other member yet: this is its first event.
        INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
        SELECT c.tenant_id, c.conversation_id, c.new_metadata ->> 'eventstore.owner', 'own'
          FROM completed c
         WHERE c.is_new
           AND c.new_version = 1
           AND c.new_metadata ? 'eventstore.owner'
    )
    -- Of a busy or forbidden conversation, nothing is returned.
    SELECT c.ordinal,
           c.is_new AND c.event_type IN ('conversation.shared', 'conversation.unshared'),
           (CASE WHEN c.code = 'n' AND NOT c.is_new THEN 'x' ELSE c.code END)::"char",
           CASE WHEN c.is_new THEN c.new_position WHEN c.code IN ('k', 'i') THEN c.position END,
           CASE WHEN c.is_new THEN c.new_version
                WHEN c.code IN ('k', 'i') THEN c.version
                WHEN c.code = 'v' THEN c.head
           END,
           CASE WHEN c.is_new THEN c.new_timestamp WHEN c.code IN ('k', 'i') THEN c.timestamp END,
           CASE c.code WHEN 'r' THEN c.problem WHEN 'i' THEN c.differences END
      FROM completed c
    LOOP
        has_known := has_known OR outcome = 'k';
        IF changes_members THEN
            PERFORM share_conversation(
                tenant_ids[conversation_nos[number]], conversation_ids[conversation_nos[number]],
                event_types[number], contents[number]
            );
        END IF;
        RETURN NEXT;
    END LOOP;

    IF has_known THEN
        PERFORM await_durability();
    END IF;
    IF must_notify THEN
        PERFORM pg_notify(notify_channel(), '');
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION append_group');
REVOKE ALL ON FUNCTION append_group FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION append_group', 'eventstore_writer');
