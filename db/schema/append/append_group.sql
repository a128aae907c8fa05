-- Append the events of several callers: each append is accepted or refused as a whole, independently of the others. The
-- results are arrays with an element for each event, in the given order. Its outcome is
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
-- A group whose events are all plain is written by one statement, whose conditions say what is plain: new, accepted, and
-- none that shares, deletes or reactivates its conversation or refers to files. Any other group is left to append_verdicts.
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
    lock_wait_ms      integer,
    OUT outcomes      "char"[],
    OUT positions     bigint[],
    OUT versions      integer[],
    OUT timestamps    timestamptz[],
    OUT problems      text[]
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    busy              bigint[];
    must_notify       boolean;
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
    IF -2 <> ANY (expected_versions) OR '' <> ANY (users)
       OR event_types && ARRAY['conversation.deleted', 'conversation.reactivated'] THEN
        IF EXISTS (
               SELECT
                 FROM unnest(append_nos, conversation_nos, event_types, users)
                          AS e (append_no, conversation_no, event_type, user_id)
                GROUP BY e.conversation_no
               HAVING min(e.user_id) <> max(e.user_id)
                   OR min(e.append_no) <> max(e.append_no)
                      AND (expected_versions[e.conversation_no] <> -2
                           OR bool_or(e.event_type IN ('conversation.deleted', 'conversation.reactivated')))) THEN
            RAISE EXCEPTION 'appends of one group may share a conversation only if all expect ANY, are for the same user, '
                            'and none deletes or reactivates it'
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END IF;

    IF lock_wait_ms = 0 THEN
        SELECT array_agg(c.no)
          INTO busy
          FROM unnest(tenant_ids, conversation_ids) WITH ORDINALITY AS c (tenant_id, conversation_id, no)
         WHERE NOT pg_try_advisory_xact_lock(conversation_lock_key(c.tenant_id, c.conversation_id));
    ELSE
        IF lock_wait_ms > 0 THEN  -- a negative number keeps the limit of the session
            PERFORM set_config('lock_timeout', lock_wait_ms::text, true);
        END IF;
        -- In the order of the keys, not of the ids: keys can collide, and two appends must not deadlock.
        PERFORM pg_advisory_xact_lock(k.key)
           FROM (SELECT DISTINCT conversation_lock_key(c.tenant_id, c.conversation_id) AS key
                   FROM unnest(tenant_ids, conversation_ids) AS c (tenant_id, conversation_id)
                  ORDER BY key) AS k;
    END IF;
    must_notify := register_append();

    -- From here on each statement sees everything that was committed to these conversations.
    WITH accepting AS MATERIALIZED (
        -- The conversations that are locked by this append, not deleted, and at the expected version.
        SELECT c.*, coalesce(head.version, 0) AS head, event_timestamp(head.timestamp) AS timestamp
          FROM append_scope() AS scope
         CROSS JOIN unnest(tenant_ids, conversation_ids, expected_versions)
                        WITH ORDINALITY AS c (tenant_id, conversation_id, expected, no)
          LEFT JOIN LATERAL (
                   SELECT e.tenant_id, e.conversation_id, e.version, e.timestamp, e.event_type
                     FROM events e
                    WHERE (e.tenant_id, e.conversation_id, e.version) <= (c.tenant_id, c.conversation_id, 2147483647)
                    ORDER BY e.tenant_id DESC, e.conversation_id DESC, e.version DESC
                    LIMIT 1
               ) AS head
            ON head.tenant_id = c.tenant_id
           AND head.conversation_id = c.conversation_id
         WHERE coalesce(scope.tenant_id = c.tenant_id, true)
           AND c.no = ANY (busy) IS NOT TRUE
           AND CASE c.expected
                   WHEN -2 THEN true
                   WHEN -1 THEN head.version IS NOT NULL
                   ELSE c.expected = coalesce(head.version, 0)
               END
           AND CASE
                   WHEN may_be_deleted(head.event_type)
                       THEN NOT conversation_is_deleted(head.tenant_id, head.conversation_id)
                   ELSE true
               END
    ),
    given AS MATERIALIZED (
        SELECT e.*, a.tenant_id, a.conversation_id, a.head, a.timestamp,
               a.no IS NOT NULL
               AND validate_event(a.tenant_id, a.conversation_id, e.event_type, e.content, e.metadata) IS NULL
               AND e.event_type NOT IN ('conversation.shared', 'conversation.unshared', 'conversation.deleted',
                                        'conversation.reactivated')
               AND NOT e.metadata ? 'eventstore.files'
               AND (a.head = 0 OR e.user_id = ''
                    OR EXISTS (SELECT FROM may_append(a.tenant_id, a.conversation_id, e.user_id, e.event_type)))
               AND (a.head = 0
                    OR (SELECT (k.tenant_id, k.conversation_id, k.id) = (a.tenant_id, a.conversation_id, e.id)
                          FROM events k
                         WHERE (k.tenant_id, k.conversation_id, k.id) >= (a.tenant_id, a.conversation_id, e.id)
                         ORDER BY k.tenant_id, k.conversation_id, k.id
                         LIMIT 1) IS NOT TRUE) AS is_plain
          FROM unnest(append_nos, conversation_nos, event_ids, event_types, schema_versions, actors, contents,
                      metadatas, users)
                   WITH ORDINALITY
                   AS e (append_no, conversation_no, id, event_type, schema_version, actor, content, metadata,
                         user_id, ordinal)
          LEFT JOIN accepting a
            ON a.no = e.conversation_no
    ),
    completed AS MATERIALIZED (
        SELECT n.*, nextval('events_position') AS position,
               substr(sha256(secret || int8send(n.ordinal)), 1, 16) AS salt,
               -- The log records the owner. Only an append for the whole tenant (a restored backup) may name another user.
               CASE
                   WHEN n.version = 1 AND n.user_id <> ''
                       THEN n.metadata || jsonb_build_object('eventstore.owner', n.user_id)
                   ELSE n.metadata
               END AS new_metadata
          FROM (SELECT g.*, (g.head + row_number() OVER (PARTITION BY g.conversation_no ORDER BY g.ordinal))::integer
                            AS version
                  FROM given g
                 WHERE (SELECT bool_and(r.is_plain IS TRUE) FROM given r)
                 ORDER BY g.ordinal
                OFFSET 0) AS n
    ),
    inserted AS (
        INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                            event_type, actor, content, metadata, salt, digest)
        SELECT c.position, c.timestamp, c.version, c.schema_version, c.conversation_id, c.id, c.tenant_id,
               c.event_type, c.actor, c.content, c.new_metadata, c.salt,
               event_digest(c.salt, c.position, c.timestamp, c.version, c.schema_version, c.conversation_id, c.id,
                            c.tenant_id, c.event_type, c.actor, c.content, c.new_metadata)
          FROM completed c
    )
    SELECT array_agg('n'::"char"), array_agg(c.position), array_agg(c.version), array_agg(c.timestamp)
      INTO outcomes, positions, versions, timestamps
      FROM completed c;

    IF outcomes IS NULL THEN
        -- Under the locks that are held.
        SELECT v.outcomes, v.positions, v.versions, v.timestamps, v.problems
          INTO outcomes, positions, versions, timestamps, problems
          FROM append_verdicts(
                   tenant_ids, conversation_ids, expected_versions, busy, append_nos, conversation_nos, event_ids,
                   event_types, schema_versions, actors, contents, metadatas, users
               ) AS v;
    ELSIF 1 = ANY (versions) THEN
        -- A new conversation has no other member yet.
        INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
        SELECT tenant_ids[e.conversation_no], conversation_ids[e.conversation_no], owner, 'own'
          FROM unnest(conversation_nos, users, metadatas, versions) AS e (conversation_no, user_id, metadata, version)
         CROSS JOIN coalesce(nullif(e.user_id, ''), e.metadata ->> 'eventstore.owner') AS owner
         WHERE e.version = 1
           AND owner IS NOT NULL;
    END IF;
    IF must_notify THEN
        PERFORM pg_notify(notify_channel(), '');
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION append_group');
REVOKE ALL ON FUNCTION append_group FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION append_group', 'eventstore_writer');
