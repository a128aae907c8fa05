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
--
-- Most groups are plain: every event is new and accepted. Establishing that costs two look-ups along unique indexes for
-- an event. Only a group that is not plain needs a verdict on each of its events. Either way one statement writes.
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
    busy              bigint[];
    allowed_tenant    text;
    has_deletions     boolean := event_types && ARRAY['conversation.deleted', 'conversation.reactivated'];
    must_notify       boolean;
    is_plain          boolean;
    head_versions     integer[];      -- for each conversation
    head_timestamps   timestamptz[];
    codes             text[];         -- for each event, unless all are new; so are these:
    stored_positions  bigint[];
    versions          integer[];
    stored_timestamps timestamptz[];
    problems          text[];
    -- Each salt is a hash of this secret, which is not stored. A random number for each event would take as long as the
    -- insertion, while all readers of the log wait for this append.
    secret            bytea := uuid_send(gen_random_uuid());
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
    IF '' <> ANY (users) AND EXISTS (
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

    -- From here on each statement sees everything that was committed to these conversations.
    SELECT array_agg(c.version ORDER BY c.no), array_agg(c.timestamp ORDER BY c.no),
           bool_and(c.is_expected AND NOT c.is_deleted) AND busy IS NULL AND NOT has_deletions
      INTO head_versions, head_timestamps, is_plain
      FROM (SELECT c.no, coalesce(head.version, 0) AS version, event_timestamp(head.timestamp) AS timestamp,
                   CASE c.expected
                       WHEN -2 THEN true
                       WHEN -1 THEN head.version IS NOT NULL
                       ELSE c.expected = coalesce(head.version, 0)
                   END AS is_expected,
                   CASE
                       WHEN may_be_deleted(head.event_type) THEN conversation_is_deleted(c.tenant_id, c.conversation_id)
                       ELSE false
                   END AS is_deleted
              FROM unnest(tenant_ids, conversation_ids, expected_versions)
                       WITH ORDINALITY AS c (tenant_id, conversation_id, expected, no)
              LEFT JOIN LATERAL (
                       SELECT e.tenant_id, e.conversation_id, e.version, e.timestamp, e.event_type
                         FROM events e
                        WHERE (e.tenant_id, e.conversation_id, e.version) <= (c.tenant_id, c.conversation_id, 2147483647)
                        ORDER BY e.tenant_id DESC, e.conversation_id DESC, e.version DESC
                        LIMIT 1
                   ) AS head
                ON head.tenant_id = c.tenant_id
               AND head.conversation_id = c.conversation_id) AS c;
    is_plain := is_plain AND (
        SELECT bool_and(coalesce(
                   validate_event(e.event_type, e.content, e.metadata) IS NULL
                   AND validate_given_id(e.tenant_id, e.conversation_id, e.event_type, e.content) IS NULL
                   AND (e.head_version = 0
                        OR (e.user_id = ''
                            OR EXISTS (SELECT FROM may_append(e.tenant_id, e.conversation_id, e.user_id, e.event_type)))
                           AND (SELECT (k.tenant_id, k.conversation_id, k.id) = (e.tenant_id, e.conversation_id, e.id)
                                  FROM events k
                                 WHERE (k.tenant_id, k.conversation_id, k.id) >= (e.tenant_id, e.conversation_id, e.id)
                                 ORDER BY k.tenant_id, k.conversation_id, k.id
                                 LIMIT 1) IS NOT TRUE),
                   false))
          FROM (SELECT e.*, tenant_ids[e.conversation_no] AS tenant_id,
                       conversation_ids[e.conversation_no] AS conversation_id,
                       head_versions[e.conversation_no] AS head_version
                  FROM unnest(conversation_nos, event_ids, event_types, contents, metadatas, users)
                           AS e (conversation_no, id, event_type, content, metadata, user_id)) AS e
    );

    IF NOT is_plain THEN
        SELECT array_agg(v.code ORDER BY v.ordinal), array_agg(v.position ORDER BY v.ordinal),
               array_agg(v.version ORDER BY v.ordinal), array_agg(v.timestamp ORDER BY v.ordinal),
               array_agg(v.problem ORDER BY v.ordinal)
          INTO codes, stored_positions, versions, stored_timestamps, problems
          FROM append_verdicts(
                   tenant_ids, conversation_ids, expected_versions, head_versions, busy, append_nos, conversation_nos,
                   event_ids, event_types, schema_versions, actors, contents, metadatas, users
               ) AS v;
    END IF;

    RETURN QUERY
    WITH completed AS MATERIALIZED (
        SELECT o.*, CASE WHEN o.is_new THEN nextval('events_position') END AS position,
               substr(sha256(secret || int8send(o.ordinal)), 1, 16) AS salt,
               CASE
                   WHEN o.version = 1 AND o.user_id <> ''
                       THEN o.metadata || jsonb_build_object('eventstore.owner', o.user_id)
                   ELSE o.metadata
               END AS new_metadata
          FROM (SELECT n.*,
                       (head_versions[n.conversation_no]
                        + count(*) FILTER (WHERE n.is_new)
                              OVER (PARTITION BY n.conversation_no ORDER BY n.ordinal))::integer AS version
                  FROM (SELECT e.*, tenant_ids[e.conversation_no] AS tenant_id,
                               conversation_ids[e.conversation_no] AS conversation_id,
                               head_timestamps[e.conversation_no] AS timestamp,
                               coalesce(codes[e.ordinal], 'n') = 'n' AS is_new
                          FROM unnest(conversation_nos, event_ids, event_types, schema_versions, actors, contents,
                                      metadatas, users)
                                   WITH ORDINALITY
                                   AS e (conversation_no, id, event_type, schema_version, actor, content, metadata,
                                         user_id, ordinal)) AS n
                 ORDER BY n.ordinal
                OFFSET 0) AS o
    ),
    inserted AS (
        INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                            event_type, actor, content, metadata, salt, digest)
        SELECT c.position, c.timestamp, c.version, c.schema_version, c.conversation_id, c.id, c.tenant_id,
               c.event_type, c.actor, c.content, c.new_metadata, c.salt,
               rendered_event_digest(c.salt, c.position, c.timestamp, c.version, c.schema_version, c.conversation_id,
                                     c.id, c.tenant_id, c.event_type, c.actor, c.content_text, c.metadata_text)
          FROM (SELECT c.*, c.content::text AS content_text, c.new_metadata::text AS metadata_text
                  FROM completed c
                 WHERE c.is_new
                OFFSET 0) AS c
    ),
    owners AS (
        -- The conversation has no other member yet: this is its first event.
        INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
        SELECT c.tenant_id, c.conversation_id, c.new_metadata ->> 'eventstore.owner', 'own'
          FROM completed c
         WHERE c.is_new
           AND c.version = 1
           AND c.new_metadata ? 'eventstore.owner'
    )
    SELECT coalesce(codes[c.ordinal], 'n')::"char",
           CASE WHEN c.is_new THEN c.position ELSE stored_positions[c.ordinal] END,
           CASE WHEN c.is_new THEN c.version ELSE versions[c.ordinal] END,
           CASE WHEN c.is_new THEN c.timestamp ELSE stored_timestamps[c.ordinal] END,
           problems[c.ordinal]
      FROM completed c;

    IF event_types && ARRAY['conversation.shared', 'conversation.unshared'] THEN
        PERFORM share_conversation(tenant_ids[e.conversation_no], conversation_ids[e.conversation_no], e.event_type,
                                   e.content)
           FROM unnest(conversation_nos, event_types, contents) WITH ORDINALITY
                    AS e (conversation_no, event_type, content, ordinal)
          WHERE e.event_type IN ('conversation.shared', 'conversation.unshared')
            AND coalesce(codes[e.ordinal], 'n') = 'n';
    END IF;
    IF 'k' = ANY (codes) THEN
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
