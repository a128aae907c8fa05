-- Append the events of several callers: each append is accepted or refused as a whole, independently of the others. One
-- row for each event, in the given order. Its outcome is
--
--   n  new
--   k  known: it is stored already
--   v  the conversation is not at the expected version
--   i  another event has this id; problem names what differs
--   r  refused: problem names what is invalid
--   f  forbidden: the user may not append this to the conversation; nothing of what it holds is shown
--   d  the conversation is deleted
--   b  busy: another append holds the lock of the conversation, and patience is 0
--   x  another event of the same append was refused
--
-- Appends may share a conversation if all of them expect ANY, for the same user; then they follow each other in it.
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
    patience          integer
) RETURNS TABLE (outcome "char", "position" bigint, version integer, "timestamp" timestamptz, problem text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    busy        integer[];
    bound       text;
    has_users   boolean := '' <> ANY (users);
    deletes     boolean := event_types && ARRAY['conversation.deleted', 'conversation.reactivated'];
    has_known   boolean := false;
    number      integer;
    shares      boolean;
    asleep      boolean;
    -- Each salt is a hash of this secret, which nobody keeps. A random number for each event would take as long as the
    -- insertion, while all readers of the log wait for this append.
    secret      bytea := uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());
BEGIN
    IF NOT coalesce(
           cardinality(append_nos) > 0 AND patience IS NOT NULL
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
             FROM unnest(conversation_nos, users) AS e (conversation_no, asking)
            GROUP BY e.conversation_no
           HAVING min(e.asking) <> max(e.asking)) THEN
        RAISE EXCEPTION 'appends of one group share a conversation under different users'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF deletes AND EXISTS (
           SELECT
             FROM unnest(append_nos, conversation_nos, event_types) AS e (append_no, conversation_no, event_type)
            GROUP BY e.conversation_no
           HAVING min(e.append_no) <> max(e.append_no)
              AND bool_or(e.event_type IN ('conversation.deleted', 'conversation.reactivated'))) THEN
        RAISE EXCEPTION 'appends of one group share a conversation that one of them deletes or reactivates'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    bound := append_tenant();
    IF bound <> ANY (tenant_ids) THEN
        PERFORM refuse_tenant(t) FROM unnest(tenant_ids) AS t WHERE t <> bound;
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    IF patience <> 0 THEN
        PERFORM lock_within(patience);
        -- In the order of the keys, not of the ids: keys can collide, and two appends must not deadlock.
        PERFORM pg_advisory_xact_lock(k.key)
           FROM (SELECT DISTINCT conversation_key(c.tenant_id, c.conversation_id) AS key
                   FROM unnest(tenant_ids, conversation_ids) AS c (tenant_id, conversation_id)
                  ORDER BY key) AS k;
    ELSE
        SELECT array_agg(c.no)
          INTO busy
          FROM unnest(tenant_ids, conversation_ids) WITH ORDINALITY AS c (tenant_id, conversation_id, no)
         WHERE NOT pg_try_advisory_xact_lock(conversation_key(c.tenant_id, c.conversation_id));
    END IF;
    asleep := register_append() AND has_waiters();

    -- This statement sees everything that was committed to these conversations.
    FOR number, shares, outcome, "position", version, "timestamp", problem IN
    WITH heads AS MATERIALIZED (
        SELECT c.no, c.tenant_id, c.conversation_id, c.expected, coalesce(head.version, 0) AS version,
               -- Never before the previous version's, even if the server's clock steps back.
               greatest(clock_timestamp(), head.timestamp) AS timestamp,
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
    judged AS (
        SELECT n.*, h.tenant_id, h.conversation_id, h.version AS head, h.timestamp AS now,
               known.position, known.version, known.timestamp, compared.differences,
               CASE
                   WHEN n.problem IS NOT NULL THEN 'r'
                   WHEN n.conversation_no = ANY (busy) THEN 'b'
                   WHEN n.asking <> '' AND h.version > 0
                        AND NOT EXISTS (SELECT FROM may_append(h.tenant_id, h.conversation_id, n.asking, n.event_type))
                       THEN 'f'
                   WHEN compared.differences IS NOT NULL THEN 'i'
                   WHEN known.position IS NOT NULL THEN 'k'
                   WHEN NOT accepted_when_deleted(n.event_type)
                        AND CASE
                                WHEN deletes THEN coalesce((  -- the last one that this append adds before it, else the log
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
               END AS verdict
          FROM (SELECT e.*,
                       coalesce(validate_event(e.event_type, e.content, e.metadata),
                                validate_given_id(tenant_ids[e.conversation_no], conversation_ids[e.conversation_no],
                                                 e.event_type, e.content)) AS problem
                  FROM unnest(append_nos, conversation_nos, event_ids, event_types, schema_versions, actors, contents,
                              metadatas, users)
                           WITH ORDINALITY
                           AS e (append_no, conversation_no, id, event_type, schema_version, actor, content, metadata,
                                 asking, ordinal)
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
                              n.event_type, n.schema_version, n.actor, n.content, n.metadata, n.asking
                          ) END AS differences
               ) AS compared
    ),
    decided AS (
        SELECT j.*,
               j.verdict = 'n' AND bool_and(j.verdict IN ('n', 'k')) OVER (PARTITION BY j.append_no) AS is_new
          FROM judged j
    ),
    placed AS MATERIALIZED (
        SELECT o.*, CASE WHEN o.is_new THEN nextval('events_position') END AS place,
               substr(sha256(secret || int8send(o.ordinal)), 1, 16) AS salt,
               CASE
                   WHEN o.next = 1 AND o.asking <> ''
                       THEN o.metadata || jsonb_build_object('eventstore.owner', o.asking)
                   ELSE o.metadata
               END AS about
          FROM (SELECT d.*,
                       (d.head + count(*) FILTER (WHERE d.is_new)
                                 OVER (PARTITION BY d.conversation_no ORDER BY d.ordinal))::integer AS next
                  FROM decided d
                 ORDER BY d.ordinal
                OFFSET 0) AS o
    ),
    inserted AS (
        INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                            event_type, actor, content, metadata, salt, digest)
        SELECT p.place, p.now, p.next, p.schema_version, p.conversation_id, p.id, p.tenant_id,
               p.event_type, p.actor, p.content, p.about, p.salt,
               event_digest(p.salt, p.place, p.now, p.next, p.schema_version, p.conversation_id, p.id,
                            p.tenant_id, p.event_type, p.actor, p.content, p.about)
          FROM placed p
         WHERE p.is_new
    ),
    owning AS (
        -- The conversation has no other member yet: this is its first event.
        INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
        SELECT p.tenant_id, p.conversation_id, p.about ->> 'eventstore.owner', 'own'
          FROM placed p
         WHERE p.is_new
           AND p.next = 1
           AND p.about ? 'eventstore.owner'
    )
    -- A busy or forbidden conversation shows nothing of what it holds.
    SELECT p.ordinal,
           p.is_new AND p.event_type IN ('conversation.shared', 'conversation.unshared'),
           (CASE WHEN p.verdict = 'n' AND NOT p.is_new THEN 'x' ELSE p.verdict END)::"char",
           CASE WHEN p.is_new THEN p.place WHEN p.verdict IN ('k', 'i') THEN p.position END,
           CASE WHEN p.is_new THEN p.next WHEN p.verdict IN ('k', 'i') THEN p.version WHEN p.verdict = 'v' THEN p.head END,
           CASE WHEN p.is_new THEN p.now WHEN p.verdict IN ('k', 'i') THEN p.timestamp END,
           CASE p.verdict WHEN 'r' THEN p.problem WHEN 'i' THEN p.differences END
      FROM placed p
    LOOP
        has_known := has_known OR outcome = 'k';
        IF shares THEN
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
    IF asleep THEN
        PERFORM pg_notify(notify_channel(), '');
    END IF;
END
$$;

SELECT eventstore_own('FUNCTION append_group');
REVOKE ALL ON FUNCTION append_group FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION append_group', 'eventstore_writer');
