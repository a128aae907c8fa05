-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Appending under a wall. As before (migration 000600), and:
--
-- - each event says for whom it is appended: a user, or '' for the whole tenant, of which nothing is asked;
-- - the tenant of each must be one for which the session may append (writing_tenant);
-- - a further outcome: f, forbidden: the conversation exists, and the user is none who may append this to it. It is told
--   before anything that the conversation holds;
-- - and another: d, deleted: the conversation is deleted, and takes no event of this type until it is reactivated
--   (migration 001525). Within an append, a reactivation opens the conversation for what follows, a deletion closes it;
-- - who begins a conversation owns it, and who it is shared with is written down with the event that shares it.

-- Writes down what the new events of an append change of the members of their conversations. New is what stands above the
-- position `before`: the caller holds the locks of these conversations, so nobody else has written to them since.
CREATE FUNCTION change_members(
    before           bigint,
    tenant_ids       text[],
    conversation_ids uuid[],
    conversation_nos integer[],
    event_ids        uuid[],
    event_types      text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    found_event record;
BEGIN
    INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
    SELECT e.tenant_id, e.conversation_id, e.metadata ->> 'eventstore.owner', 'own'
      FROM unnest(tenant_ids, conversation_ids) AS c (tenant_id, conversation_id),
           LATERAL (
               SELECT f.*
                 FROM events f
                WHERE (f.tenant_id, f.conversation_id, f.version) >= (c.tenant_id, c.conversation_id, 1)
                ORDER BY f.tenant_id, f.conversation_id, f.version
                LIMIT 1
           ) AS e
     WHERE e.tenant_id = c.tenant_id
       AND e.conversation_id = c.conversation_id
       AND e.position > before
       AND e.metadata ? 'eventstore.owner';
    FOR found_event IN
        SELECT e.tenant_id, e.conversation_id, e.event_type, e.content
          FROM unnest(conversation_nos, event_ids, event_types) WITH ORDINALITY AS n (no, id, event_type, ordinal),
               LATERAL (
                   SELECT f.*
                     FROM events f
                    WHERE (f.tenant_id, f.conversation_id, f.id) >= (tenant_ids[n.no], conversation_ids[n.no], n.id)
                    ORDER BY f.tenant_id, f.conversation_id, f.id
                    LIMIT 1
               ) AS e
         WHERE n.event_type IN ('conversation.shared', 'conversation.unshared')
           AND e.tenant_id = tenant_ids[n.no]
           AND e.conversation_id = conversation_ids[n.no]
           AND e.id = n.id
           AND e.position > before
         ORDER BY n.ordinal
    LOOP
        PERFORM share_conversation(found_event.tenant_id, found_event.conversation_id, found_event.event_type,
                                   found_event.content);
    END LOOP;
END
$$;

-- What distinguishes an event from the one that is stored under its id; null if they are the same. The owner in the
-- metadata does not count if the append itself adds it (see append_one), only if the caller names it.
CREATE FUNCTION event_differences(
    stored_type           text,
    stored_schema_version smallint,
    stored_actor          text,
    stored_content        jsonb,
    stored_metadata       jsonb,
    event_type            text,
    schema_version        smallint,
    actor                 text,
    content               jsonb,
    metadata              jsonb,
    asking                text
) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    -- Equal values are the same event, in whatever order the members of their objects were sent.
    stored_metadata := stored_metadata - 'eventstore.member_order';
    metadata := metadata - 'eventstore.member_order';
    IF event_type = 'message.added' AND jsonb_typeof(content) = 'object' THEN
        stored_content := stored_content - 'sent_order';
        content := content - 'sent_order';
    END IF;
    IF asking <> '' OR NOT metadata ? 'eventstore.owner' THEN
        stored_metadata := stored_metadata - 'eventstore.owner';
        metadata := metadata - 'eventstore.owner';
    END IF;
    IF (stored_type, stored_schema_version, stored_actor, stored_content, stored_metadata)
       IS NOT DISTINCT FROM (event_type, schema_version, actor, content, metadata) THEN
        RETURN NULL;
    END IF;
    RETURN concat_ws(
        ', ',
        CASE WHEN stored_type <> event_type THEN 'event_type' END,
        CASE WHEN stored_schema_version <> schema_version THEN 'schema_version' END,
        CASE WHEN stored_actor <> actor THEN 'actor' END,
        CASE WHEN stored_content <> content THEN 'content' END,
        (SELECT string_agg('metadata.' || key, ', ' ORDER BY key)
           FROM jsonb_each(stored_metadata) AS stored FULL JOIN jsonb_each(metadata) AS given USING (key)
          WHERE stored.value IS DISTINCT FROM given.value)
    );
END
$$;

-- Makes the commit of this transaction durable although it changes nothing, for an event that is known already: its own
-- transaction may be committed here and not yet on a synchronous standby, if its backend was ended while it waited. A
-- transaction that writes a record to the WAL, whatever it says, is flushed and waits for the standby (see ORDER.md).
CREATE FUNCTION await_durability() RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_logical_emit_message(true, 'eventstore', '');
END
$$;

DROP FUNCTION append_one(text, uuid, integer, uuid, text, smallint, text, jsonb, jsonb, integer);
DROP FUNCTION append_group(text[], uuid[], integer[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[], integer);

-- Appends one event to one conversation: append_group without the cost of sets.
CREATE FUNCTION append_one(
    tenant_id        text,
    conversation_id  uuid,
    expected_version integer,
    event_id         uuid,
    event_type       text,
    schema_version   smallint,
    actor            text,
    content          jsonb,
    metadata         jsonb,
    patience         integer,
    asking           text,
    OUT outcome      "char",
    OUT "position"   bigint,
    OUT version      integer,
    OUT "timestamp"  timestamptz,
    OUT problem      text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    head   record;
    known  record;
    salt   bytea;
    bound  text;
    asleep boolean;
BEGIN
    IF num_nulls(tenant_id, conversation_id, expected_version, event_id, event_type, schema_version, actor, content,
                 metadata, patience, asking) > 0 THEN
        RAISE EXCEPTION 'an append with a null in it' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    bound := writing_tenant();
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    problem := coalesce(event_problem(event_type, content, metadata),
                        given_id_problem(tenant_id, conversation_id, event_type, content));
    IF problem IS NOT NULL THEN
        outcome := 'r';
        RETURN;
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        -- An acknowledged event is durable, whatever the session prefers.
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    IF patience <> 0 THEN
        PERFORM lock_within(patience);
        PERFORM pg_advisory_xact_lock(conversation_key(tenant_id, conversation_id));
    ELSIF NOT pg_try_advisory_xact_lock(conversation_key(tenant_id, conversation_id)) THEN
        outcome := 'b';
        RETURN;
    END IF;
    asleep := hold_gate() AND somebody_sleeps();

    -- From here on each statement sees everything that was committed to this conversation.
    SELECT h.version, h.timestamp
      INTO head
      FROM (SELECT e.tenant_id, e.conversation_id, e.version, e.timestamp
              FROM events e
             WHERE (e.tenant_id, e.conversation_id, e.version)
                   <= (append_one.tenant_id, append_one.conversation_id, 2147483647)
             ORDER BY e.tenant_id DESC, e.conversation_id DESC, e.version DESC
             LIMIT 1) AS h
     WHERE h.tenant_id = append_one.tenant_id
       AND h.conversation_id = append_one.conversation_id;
    version := coalesce(head.version, 0);
    IF version > 0 THEN
        IF asking <> '' AND NOT may_append(tenant_id, conversation_id, asking, event_type) THEN
            outcome := 'f';
            version := NULL;
            RETURN;
        END IF;
        SELECT k.position, k.version, k.timestamp,
               -- An event whose content was erased has no salt any more; it can only be known by its id.
               CASE WHEN k.salt IS NOT NULL THEN event_differences(
                   k.event_type, k.schema_version, k.actor, k.content, k.metadata, append_one.event_type,
                   append_one.schema_version, append_one.actor, append_one.content, append_one.metadata, asking
               ) END AS differences
          INTO known
          FROM (SELECT e.*
                  FROM events e
                 WHERE (e.tenant_id, e.conversation_id, e.id)
                       >= (append_one.tenant_id, append_one.conversation_id, append_one.event_id)
                 ORDER BY e.tenant_id, e.conversation_id, e.id
                 LIMIT 1) AS k
         WHERE k.tenant_id = append_one.tenant_id
           AND k.conversation_id = append_one.conversation_id
           AND k.id = append_one.event_id;
        IF FOUND THEN
            position := known.position;
            version := known.version;
            timestamp := known.timestamp;
            problem := known.differences;
            IF problem IS NULL THEN
                outcome := 'k';
                PERFORM await_durability();
            ELSE
                outcome := 'i';
            END IF;
            RETURN;
        END IF;
        IF NOT accepted_when_deleted(event_type) AND conversation_is_deleted(tenant_id, conversation_id) THEN
            outcome := 'd';
            version := NULL;
            RETURN;
        END IF;
    END IF;
    IF (CASE expected_version WHEN -2 THEN false WHEN -1 THEN version = 0 ELSE expected_version <> version END) THEN
        outcome := 'v';
        RETURN;
    END IF;

    outcome := 'n';
    position := nextval('events_position');
    version := version + 1;
    -- Never before the previous version's, should the server's clock step back.
    timestamp := greatest(clock_timestamp(), head.timestamp);
    salt := uuid_send(gen_random_uuid());
    IF version = 1 THEN
        -- The owner stands in the log, and nobody but the whole tenant (a restored backup) names another than himself.
        IF asking <> '' THEN
            metadata := metadata || jsonb_build_object('eventstore.owner', asking);
        END IF;
        IF metadata ? 'eventstore.owner' THEN
            PERFORM own_conversation(tenant_id, conversation_id, metadata ->> 'eventstore.owner');
        END IF;
    END IF;
    INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                        event_type, actor, content, metadata, salt, digest)
    VALUES (position, timestamp, version, schema_version, conversation_id, event_id, tenant_id,
            event_type, actor, content, metadata, salt,
            event_digest(salt, position, timestamp, version, schema_version, conversation_id, event_id,
                         tenant_id, event_type, actor, content, metadata));
    IF event_type IN ('conversation.shared', 'conversation.unshared') THEN
        PERFORM share_conversation(tenant_id, conversation_id, event_type, content);
    END IF;
    IF asleep THEN
        PERFORM pg_notify(wake_channel(), '');
    END IF;
END
$$;

-- Appends that travel together: each is taken whole or refused whole, by itself, whatever becomes of the others. One row
-- for each event, in the order given.
--
-- Appends may share a conversation where all of them expect ANY, for the same user; then they follow each other in it.
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
    has_members boolean;
    before      bigint;
    asleep      boolean;
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
        RAISE EXCEPTION 'the arrays of an append differ in length, or name no conversation'
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
    bound := writing_tenant();
    IF bound <> ANY (tenant_ids) THEN
        PERFORM refuse_tenant(t) FROM unnest(tenant_ids) AS t WHERE t <> bound;
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    IF patience <> 0 THEN
        PERFORM lock_within(patience);
        -- In the order of the keys, not of the ids: keys can collide, and two appends must not wait for each other.
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
    asleep := hold_gate() AND somebody_sleeps();
    has_members := has_users OR event_types && ARRAY['conversation.shared', 'conversation.unshared']
                   OR EXISTS (SELECT FROM unnest(metadatas) AS m WHERE m ? 'eventstore.owner');
    IF has_members THEN
        before := last_position();
    END IF;

    -- This statement sees everything that was committed to these conversations.
    RETURN QUERY
    WITH heads AS MATERIALIZED (
        SELECT c.no, c.tenant_id, c.conversation_id, c.expected, coalesce(head.version, 0) AS version,
               -- Never before the previous version's, should the server's clock step back.
               greatest(clock_timestamp(), head.timestamp) AS timestamp
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
               known.position, known.version, known.timestamp,
               CASE
                   WHEN n.problem IS NOT NULL THEN 'r'
                   WHEN n.conversation_no = ANY (busy) THEN 'b'
                   WHEN n.asking <> '' AND h.version > 0
                        AND NOT may_append(h.tenant_id, h.conversation_id, n.asking, n.event_type) THEN 'f'
                   -- An event whose content was erased has no salt any more; it can only be known by its id.
                   WHEN known.salt IS NOT NULL AND (known.event_type, known.actor, known.content)
                        IS DISTINCT FROM (n.event_type, n.actor, n.content) THEN 'i'
                   WHEN known.position IS NOT NULL THEN 'k'
                   WHEN CASE h.expected
                            WHEN -2 THEN false
                            WHEN -1 THEN h.version = 0
                            ELSE h.expected <> h.version
                        END THEN 'v'
                   ELSE 'n'
               END AS verdict
          FROM (SELECT e.*, event_problem(e.event_type, e.content, e.metadata) AS problem
                  FROM unnest(append_nos, conversation_nos, event_ids, event_types, schema_versions, actors, contents,
                              metadatas, users)
                           WITH ORDINALITY
                           AS e (append_no, conversation_no, id, event_type, schema_version, actor, content, metadata,
                                 asking, ordinal)
                OFFSET 0) AS n
          -- A number that names no conversation must not lose its event: the insertion fails without a tenant.
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
    ),
    decided AS (
        SELECT j.*,
               j.verdict = 'n' AND bool_and(j.verdict IN ('n', 'k')) OVER (PARTITION BY j.append_no) AS is_new
          FROM judged j
    ),
    placed AS MATERIALIZED (
        SELECT o.*, CASE WHEN o.is_new THEN nextval('events_position') END AS place,
               uuid_send(gen_random_uuid()) AS salt,
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
    )
    SELECT (CASE WHEN p.verdict = 'n' AND NOT p.is_new THEN 'x' ELSE p.verdict END)::"char",
           coalesce(p.place, p.position),
           CASE WHEN p.is_new THEN p.next WHEN p.verdict = 'v' THEN p.head ELSE p.version END,
           CASE WHEN p.is_new THEN p.now ELSE p.timestamp END,
           p.problem
      FROM placed p;

    IF has_members THEN
        PERFORM change_members(before, tenant_ids, conversation_ids, conversation_nos, event_ids, event_types);
    END IF;
    IF asleep THEN
        PERFORM pg_notify(wake_channel(), '');
    END IF;
END
$$;

-- Appends one or many events to one or several conversations: all of them or none. For a transaction of one's own, which
-- has said for whom it asks (asking_tenant, asking_user): errors stand in the place of outcomes.
CREATE OR REPLACE FUNCTION append_events(
    tenant_ids        text[],
    conversation_ids  uuid[],
    expected_versions integer[],
    conversation_nos  integer[],
    event_ids         uuid[],
    event_types       text[],
    schema_versions   smallint[],
    actors            text[],
    contents          jsonb[],
    metadatas         jsonb[]
) RETURNS TABLE (ordinal integer, "position" bigint, version integer, "timestamp" timestamptz, is_new boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
-- A plan that was made while the log was short must serve when it is long, and making one for every call would take
-- several times as long as the append. (The connections of the library set this once, because a SET for each call of
-- append_one would take a fifth of its time.)
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    event  record;
    target integer;
    asked  text := asking_tenant();
BEGIN
    IF asked IS NULL THEN
        RAISE EXCEPTION 'this transaction asks for no tenant'
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'SELECT set_config(''eventstore.tenant'', …, true) in the same transaction, by a login that may choose.';
    END IF;
    PERFORM refuse_tenant(t) FROM unnest(tenant_ids) AS t WHERE t <> asked;
    FOR event IN
        SELECT g.outcome, g.position, g.version, g.timestamp, g.problem, g.ordinality::integer AS ordinal
          FROM append_group(
                   tenant_ids, conversation_ids, expected_versions,
                   array_fill(1, ARRAY[cardinality(conversation_nos)]), conversation_nos, event_ids, event_types,
                   schema_versions, actors, contents, metadatas, array_fill(coalesce(asking_user(), ''), ARRAY[cardinality(conversation_nos)]),
                   -1
               ) WITH ORDINALITY AS g
         ORDER BY CASE g.outcome
                      WHEN 'r' THEN 1 WHEN 'f' THEN 2 WHEN 'i' THEN 3 WHEN 'd' THEN 4 WHEN 'v' THEN 5 ELSE 6
                  END, g.ordinality
    LOOP
        target := conversation_nos[event.ordinal];
        CASE event.outcome
            WHEN 'r' THEN
                RAISE EXCEPTION 'event % of the append (%) cannot be stored: %',
                                event.ordinal, event_types[event.ordinal], event.problem
                    USING ERRCODE = 'ES005';
            WHEN 'f' THEN
                RAISE EXCEPTION 'the user may not append this to conversation %', conversation_ids[target]
                    USING ERRCODE = 'ES007',
                          DETAIL = jsonb_build_object('conversation_id', conversation_ids[target])::text;
            WHEN 'd' THEN
                RAISE EXCEPTION 'conversation % is deleted', conversation_ids[target]
                    USING ERRCODE = 'ES008',
                          DETAIL = jsonb_build_object('conversation_id', conversation_ids[target])::text,
                          HINT = 'Append conversation.reactivated to it first.';
            WHEN 'v' THEN
                RAISE EXCEPTION 'conversation % is at version %, not at the expected one',
                                conversation_ids[target], event.version
                    USING ERRCODE = 'ES001',
                          DETAIL = jsonb_build_object('conversation_id', conversation_ids[target],
                                                      'expected', expected_versions[target],
                                                      'actual', event.version)::text;
            WHEN 'i' THEN
                RAISE EXCEPTION 'conversation % already holds another event under the id %: they differ in %',
                                conversation_ids[target], event_ids[event.ordinal], event.problem
                    USING ERRCODE = 'ES002',
                          DETAIL = jsonb_build_object('conversation_id', conversation_ids[target],
                                                      'event_id', event_ids[event.ordinal],
                                                      'differences', event.problem)::text;
            ELSE
                ordinal := event.ordinal;
                position := event.position;
                version := event.version;
                timestamp := event.timestamp;
                is_new := event.outcome = 'n';
                RETURN NEXT;
        END CASE;
    END LOOP;
END
$$;

SELECT eventstore_own('FUNCTION event_differences(text, smallint, text, jsonb, jsonb, text, smallint, text, jsonb, jsonb, text)');
SELECT eventstore_own('FUNCTION await_durability()');
REVOKE ALL ON FUNCTION await_durability() FROM PUBLIC;
SELECT eventstore_own('FUNCTION change_members(bigint, text[], uuid[], integer[], uuid[], text[])');
REVOKE ALL ON FUNCTION change_members(bigint, text[], uuid[], integer[], uuid[], text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION append_one(text, uuid, integer, uuid, text, smallint, text, jsonb, jsonb, integer, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION append_group(text[], uuid[], integer[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[], text[], integer) FROM PUBLIC;
SELECT eventstore_own('FUNCTION ' || f),
       eventstore_grant('EXECUTE ON FUNCTION ' || f, 'eventstore_writer'),
       eventstore_grant('EXECUTE ON FUNCTION ' || f, 'eventstore_app')
  FROM unnest(ARRAY[
           'append_one(text, uuid, integer, uuid, text, smallint, text, jsonb, jsonb, integer, text)',
           'append_group(text[], uuid[], integer[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[], text[], integer)'
       ]) AS f;

SELECT eventstore_grant(
    'EXECUTE ON FUNCTION append_events(text[], uuid[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[])',
    'eventstore_writer'
);

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION append_group(text[], uuid[], integer[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[], text[], integer);
DROP FUNCTION append_one(text, uuid, integer, uuid, text, smallint, text, jsonb, jsonb, integer, text);
DROP FUNCTION change_members(bigint, text[], uuid[], integer[], uuid[], text[]);
DROP FUNCTION await_durability();
DROP FUNCTION event_differences(text, smallint, text, jsonb, jsonb, text, smallint, text, jsonb, jsonb, text);

-- As they were before.
CREATE FUNCTION append_one(
    tenant_id        text,
    conversation_id  uuid,
    expected_version integer,
    event_id         uuid,
    event_type       text,
    schema_version   smallint,
    actor            text,
    content          jsonb,
    metadata         jsonb,
    patience         integer,
    OUT outcome      "char",
    OUT "position"   bigint,
    OUT version      integer,
    OUT "timestamp"  timestamptz,
    OUT problem      text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    head   record;
    known  record;
    salt   bytea;
    asleep boolean;
BEGIN
    IF num_nulls(tenant_id, conversation_id, expected_version, event_id, event_type, schema_version, actor, content,
                 metadata, patience) > 0 THEN
        RAISE EXCEPTION 'an append with a null in it' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    problem := event_problem(event_type, content, metadata);
    IF problem IS NOT NULL THEN
        outcome := 'r';
        RETURN;
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        -- An acknowledged event is durable, whatever the session prefers.
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    IF patience <> 0 THEN
        PERFORM lock_within(patience);
        PERFORM pg_advisory_xact_lock(conversation_key(tenant_id, conversation_id));
    ELSIF NOT pg_try_advisory_xact_lock(conversation_key(tenant_id, conversation_id)) THEN
        outcome := 'b';
        RETURN;
    END IF;
    asleep := hold_gate() AND somebody_sleeps();

    -- From here on each statement sees everything that was committed to this conversation.
    SELECT h.version, h.timestamp
      INTO head
      FROM (SELECT e.tenant_id, e.conversation_id, e.version, e.timestamp
              FROM events e
             WHERE (e.tenant_id, e.conversation_id, e.version)
                   <= (append_one.tenant_id, append_one.conversation_id, 2147483647)
             ORDER BY e.tenant_id DESC, e.conversation_id DESC, e.version DESC
             LIMIT 1) AS h
     WHERE h.tenant_id = append_one.tenant_id
       AND h.conversation_id = append_one.conversation_id;
    version := coalesce(head.version, 0);
    IF version > 0 THEN
        SELECT k.position, k.version, k.timestamp,
               -- An event whose content was erased has no salt any more; it can only be known by its id.
               k.salt IS NOT NULL
               AND (k.event_type, k.actor, k.content)
                   IS DISTINCT FROM (append_one.event_type, append_one.actor, append_one.content) AS differs
          INTO known
          FROM (SELECT e.*
                  FROM events e
                 WHERE (e.tenant_id, e.conversation_id, e.id)
                       >= (append_one.tenant_id, append_one.conversation_id, append_one.event_id)
                 ORDER BY e.tenant_id, e.conversation_id, e.id
                 LIMIT 1) AS k
         WHERE k.tenant_id = append_one.tenant_id
           AND k.conversation_id = append_one.conversation_id
           AND k.id = append_one.event_id;
        IF FOUND THEN
            outcome := CASE WHEN known.differs THEN 'i' ELSE 'k' END;
            position := known.position;
            version := known.version;
            timestamp := known.timestamp;
            RETURN;
        END IF;
    END IF;
    IF (CASE expected_version WHEN -2 THEN false WHEN -1 THEN version = 0 ELSE expected_version <> version END) THEN
        outcome := 'v';
        RETURN;
    END IF;

    outcome := 'n';
    position := nextval('events_position');
    version := version + 1;
    -- Never before the previous version's, should the server's clock step back.
    timestamp := greatest(clock_timestamp(), head.timestamp);
    salt := uuid_send(gen_random_uuid());
    INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                        event_type, actor, content, metadata, salt, digest)
    VALUES (position, timestamp, version, schema_version, conversation_id, event_id, tenant_id,
            event_type, actor, content, metadata, salt,
            event_digest(salt, position, timestamp, version, schema_version, conversation_id, event_id,
                         tenant_id, event_type, actor, content, metadata));
    IF asleep THEN
        PERFORM pg_notify(wake_channel(), '');
    END IF;
END
$$;

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
    patience          integer
) RETURNS TABLE (outcome "char", "position" bigint, version integer, "timestamp" timestamptz, problem text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    busy   integer[];
    asleep boolean;
BEGIN
    IF NOT coalesce(
           cardinality(append_nos) > 0 AND patience IS NOT NULL
           AND cardinality(tenant_ids) = ALL (ARRAY[cardinality(conversation_ids), cardinality(expected_versions)])
           AND cardinality(append_nos) = ALL (ARRAY[
                   cardinality(conversation_nos), cardinality(event_ids), cardinality(event_types),
                   cardinality(schema_versions), cardinality(actors), cardinality(contents), cardinality(metadatas)
               ])
           AND array_position(expected_versions, NULL) IS NULL
           AND array_position(append_nos, NULL) IS NULL, false) THEN
        RAISE EXCEPTION 'the arrays of an append differ in length, or name no conversation'
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
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    IF patience <> 0 THEN
        PERFORM lock_within(patience);
        -- In the order of the keys, not of the ids: keys can collide, and two appends must not wait for each other.
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
    asleep := hold_gate() AND somebody_sleeps();

    -- This statement sees everything that was committed to these conversations.
    RETURN QUERY
    WITH heads AS MATERIALIZED (
        SELECT c.no, c.tenant_id, c.conversation_id, c.expected, coalesce(head.version, 0) AS version,
               -- Never before the previous version's, should the server's clock step back.
               greatest(clock_timestamp(), head.timestamp) AS timestamp
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
               known.position, known.version, known.timestamp,
               CASE
                   WHEN n.problem IS NOT NULL THEN 'r'
                   WHEN n.conversation_no = ANY (busy) THEN 'b'
                   -- An event whose content was erased has no salt any more; it can only be known by its id.
                   WHEN known.salt IS NOT NULL AND (known.event_type, known.actor, known.content)
                        IS DISTINCT FROM (n.event_type, n.actor, n.content) THEN 'i'
                   WHEN known.position IS NOT NULL THEN 'k'
                   WHEN CASE h.expected
                            WHEN -2 THEN false
                            WHEN -1 THEN h.version = 0
                            ELSE h.expected <> h.version
                        END THEN 'v'
                   ELSE 'n'
               END AS verdict
          FROM (SELECT e.*, event_problem(e.event_type, e.content, e.metadata) AS problem
                  FROM unnest(append_nos, conversation_nos, event_ids, event_types, schema_versions, actors, contents,
                              metadatas)
                           WITH ORDINALITY
                           AS e (append_no, conversation_no, id, event_type, schema_version, actor, content, metadata,
                                 ordinal)
                OFFSET 0) AS n
          -- A number that names no conversation must not lose its event: the insertion fails without a tenant.
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
    ),
    decided AS (
        SELECT j.*,
               j.verdict = 'n' AND bool_and(j.verdict IN ('n', 'k')) OVER (PARTITION BY j.append_no) AS is_new
          FROM judged j
    ),
    placed AS MATERIALIZED (
        SELECT o.*, CASE WHEN o.is_new THEN nextval('events_position') END AS place,
               uuid_send(gen_random_uuid()) AS salt
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
               p.event_type, p.actor, p.content, p.metadata, p.salt,
               event_digest(p.salt, p.place, p.now, p.next, p.schema_version, p.conversation_id, p.id,
                            p.tenant_id, p.event_type, p.actor, p.content, p.metadata)
          FROM placed p
         WHERE p.is_new
    )
    SELECT (CASE WHEN p.verdict = 'n' AND NOT p.is_new THEN 'x' ELSE p.verdict END)::"char",
           coalesce(p.place, p.position),
           CASE WHEN p.is_new THEN p.next WHEN p.verdict = 'v' THEN p.head ELSE p.version END,
           CASE WHEN p.is_new THEN p.now ELSE p.timestamp END,
           p.problem
      FROM placed p;

    IF asleep THEN
        PERFORM pg_notify(wake_channel(), '');
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION append_events(
    tenant_ids        text[],
    conversation_ids  uuid[],
    expected_versions integer[],
    conversation_nos  integer[],
    event_ids         uuid[],
    event_types       text[],
    schema_versions   smallint[],
    actors            text[],
    contents          jsonb[],
    metadatas         jsonb[]
) RETURNS TABLE (ordinal integer, "position" bigint, version integer, "timestamp" timestamptz, is_new boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
-- A plan that was made while the log was short must serve when it is long, and making one for every call would take
-- several times as long as the append. (The connections of the library set this once, because a SET for each call of
-- append_one would take a fifth of its time.)
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    event  record;
    target integer;
BEGIN
    FOR event IN
        SELECT g.outcome, g.position, g.version, g.timestamp, g.problem, g.ordinality::integer AS ordinal
          FROM append_group(
                   tenant_ids, conversation_ids, expected_versions,
                   array_fill(1, ARRAY[cardinality(conversation_nos)]), conversation_nos, event_ids, event_types,
                   schema_versions, actors, contents, metadatas, -1
               ) WITH ORDINALITY AS g
         ORDER BY CASE g.outcome WHEN 'r' THEN 1 WHEN 'i' THEN 2 WHEN 'v' THEN 3 ELSE 4 END, g.ordinality
    LOOP
        target := conversation_nos[event.ordinal];
        CASE event.outcome
            WHEN 'r' THEN
                RAISE EXCEPTION 'event % of the append (%) cannot be stored: %',
                                event.ordinal, event_types[event.ordinal], event.problem
                    USING ERRCODE = 'ES005';
            WHEN 'v' THEN
                RAISE EXCEPTION 'conversation % is at version %, not at the expected one',
                                conversation_ids[target], event.version
                    USING ERRCODE = 'ES001',
                          DETAIL = jsonb_build_object('conversation_id', conversation_ids[target],
                                                      'expected', expected_versions[target],
                                                      'actual', event.version)::text;
            WHEN 'i' THEN
                RAISE EXCEPTION 'conversation % already holds another event under the id %',
                                conversation_ids[target], event_ids[event.ordinal]
                    USING ERRCODE = 'ES002',
                          DETAIL = jsonb_build_object('conversation_id', conversation_ids[target],
                                                      'event_id', event_ids[event.ordinal])::text;
            ELSE
                ordinal := event.ordinal;
                position := event.position;
                version := event.version;
                timestamp := event.timestamp;
                is_new := event.outcome = 'n';
                RETURN NEXT;
        END CASE;
    END LOOP;
END
$$;

SELECT eventstore_own('FUNCTION ' || f),
       eventstore_grant('EXECUTE ON FUNCTION ' || f, 'eventstore_app')
  FROM unnest(ARRAY[
           'append_one(text, uuid, integer, uuid, text, smallint, text, jsonb, jsonb, integer)',
           'append_group(text[], uuid[], integer[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[], integer)'
       ]) AS f;
REVOKE ALL ON FUNCTION append_one(text, uuid, integer, uuid, text, smallint, text, jsonb, jsonb, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION append_group(text[], uuid[], integer[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[], integer) FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'eventstore_writer') THEN
        REVOKE ALL ON FUNCTION append_events(text[], uuid[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[])
            FROM eventstore_writer;
    END IF;
END
$$;
