-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Appends that travel together, each with an outcome of its own, and the shortest way for a single event. The order
-- of the steps is argued in eventstore/ORDER.md: conversations, gate, sleepers, and only then positions.

-- A text as it goes into a digest: its length in bytes, four bytes big-endian, then its bytes in UTF-8. The database is
-- in UTF-8, so these are the bytes it is stored in; without convert_to, which is only STABLE, planners can inline it.
CREATE OR REPLACE FUNCTION digest_text(value text) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN int4send(octet_length(value)) || decode(replace(value, '\', '\\'), 'escape');

CREATE FUNCTION message_problem(content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is no object'
    WHEN NOT member_is(content, 'given_id', 'string')
        THEN 'given_id is no text'
    WHEN NOT member_is(content, 'metadata', 'object')
        THEN 'metadata is no object'
    WHEN NOT member_is(content, 'extra', 'object')
        THEN 'extra is no object'
    WHEN NOT (member_is_text(content, 'role', 50) AND content ->> 'role' <> ''
              AND member_is(content, 'content', 'string') AND member_is(content, 'parts', 'array'))
        THEN 'role is no text of 1 to 50 characters, content no text, or parts no array'
END;

CREATE FUNCTION conversation_problem(event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is no object'
    WHEN event_type = 'conversation.created' AND NOT member_is(content, 'given_id', 'string')
        THEN 'given_id is no text'
    WHEN event_type <> 'conversation.renamed' AND NOT member_is(content, 'metadata', 'object')
        THEN 'metadata is no object'
    WHEN (content ? 'name' OR event_type = 'conversation.renamed') AND NOT member_is_text(content, 'name', 255)
        THEN 'name is no text of at most 255 characters'
    WHEN event_type = 'conversation.forked' AND NOT (
             member_is_uuid(content, 'source_conversation_id')
             AND coalesce(jsonb_typeof(content -> 'source_version') = 'number', false))
        THEN 'source_conversation_id is no UUID, or source_version no number'
END;

CREATE FUNCTION task_problem(event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is no object'
    WHEN event_type = 'task.created' AND NOT member_is(content, 'given_id', 'string')
        THEN 'given_id is no text'
    WHEN event_type NOT IN ('task.status_changed', 'task.described') AND NOT member_is(content, 'metadata', 'object')
        THEN 'metadata is no object'
    WHEN event_type <> 'task.status_changed' AND NOT member_is(content, 'extra', 'object')
        THEN 'extra is no object'
    WHEN event_type = 'task.described' AND NOT member_is(content, 'history', 'array')
        THEN 'history is no array'
    WHEN NOT member_is_uuid(content, 'task_id')
        THEN 'task_id is no UUID in lower case'
    WHEN event_type IN ('task.created', 'task.status_changed') AND NOT (
             member_is_text(content, 'status', 50) AND content ->> 'status' <> ''
             AND (event_type <> 'task.status_changed' OR member_is(content, 'message', 'object')))
        THEN 'status is no text of 1 to 50 characters, or message no object'
    WHEN event_type IN ('task.created', 'task.described') AND NOT coalesce(
             jsonb_typeof(content -> 'description') = 'string', event_type = 'task.described')
        THEN 'description is no text'
    WHEN event_type IN ('task.artifact_added', 'task.artifact_extended') AND NOT coalesce(
             jsonb_typeof(content -> 'artifact_id') = 'string' AND jsonb_typeof(content -> 'parts') = 'array'
             AND jsonb_typeof(content -> 'last_chunk') = 'boolean'
             AND member_is(content, 'name', 'string') AND member_is(content, 'description', 'string'), false)
        THEN 'artifact_id, name or description is no text, parts no array, or last_chunk no boolean'
END;

-- What is wrong with an event; null if nothing is. No event that passes can fail in a projection, whoever sent it and
-- whatever version: what the log has taken it keeps for good. In PL/pgSQL, where only the expressions that are reached
-- are made ready: as one expression, that alone would cost half as much as the rest of an append.
CREATE FUNCTION event_problem(event_type text, content jsonb, metadata jsonb) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    problem text;
BEGIN
    IF metadata IS DISTINCT FROM '{}' THEN
        problem := metadata_problem(metadata);
        IF problem IS NOT NULL THEN
            RETURN problem;
        END IF;
    END IF;
    IF event_type = 'message.added' THEN
        RETURN message_problem(content);
    ELSIF event_type IN ('conversation.created', 'conversation.renamed', 'conversation.forked') THEN
        RETURN conversation_problem(event_type, content);
    ELSIF event_type IN ('task.created', 'task.status_changed', 'task.described',
                         'task.artifact_added', 'task.artifact_extended') THEN
        RETURN task_problem(event_type, content);
    END IF;
    RETURN NULL;
END
$$;

-- Taken by an append before it takes a position, held until its commit is visible. Says whether somebody may be asleep,
-- which is only looked at once the gate is held: CASE keeps that order.
DROP FUNCTION hold_gate();
CREATE FUNCTION hold_gate() RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    anybody boolean;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM refuse_old_snapshots();
    END IF;
    SELECT CASE
               WHEN pg_advisory_xact_lock_shared(
                        'events_position'::regclass::oid::bigint::bit(32)::integer,
                        low_32_bits(s.last_value - CASE WHEN s.is_called THEN 0 ELSE 1 END)
                    ) IS NOT NULL
                   THEN (SELECT c.last_value > 0 FROM consumer_slots c)
           END
      INTO anybody
      FROM events_position s;
    RETURN anybody;
END
$$;

-- Asked by an append after it holds the gate. The shared locks stay until its commit, so nobody lies down
-- on a slot that was found awake before the append can be seen.
CREATE OR REPLACE FUNCTION somebody_sleeps() RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    slots integer;
BEGIN
    SELECT s.last_value INTO slots FROM consumer_slots s;
    FOR slot IN 1 .. slots LOOP
        IF NOT pg_try_advisory_xact_lock_shared('consumer_slots'::regclass::oid::bigint::bit(32)::integer, slot) THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$$;

-- What is locked while a conversation is appended to. Keys can collide: then two conversations share a lock.
CREATE FUNCTION conversation_key(tenant_id text, conversation_id uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN uuid_hash_extended(conversation_id, hashtextextended(tenant_id, 0));

-- Bounds the waiting for locks in the rest of the transaction to so many milliseconds (SQLSTATE 55P03 beyond); a
-- negative number leaves the session's own bound.
CREATE FUNCTION lock_within(patience integer) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF patience > 0 THEN
        PERFORM set_config('lock_timeout', patience::text, true);
    END IF;
END
$$;

-- What becomes of an event:
--   n  new: it is in the log now
--   k  known: it stood there already, under the same id
--   v  its conversation is not at the expected version; "version" is the one it is at
--   i  another event stands under its id
--   r  refused: its content or metadata cannot be stored; "problem" says why
--   b  busy: another transaction holds its conversation, and the patience was 0
--   x  nothing is wrong with it, but its append was refused for another event
--
-- What a conversation holds is looked up by comparing rows: only the index in that order can serve such a query, so no
-- statistics, however old, can lead the planner to an index that reads a whole conversation.
--
-- Expected versions: n from 1 exactly n, 0 no such conversation (NO_STREAM), -1 any that exists (EXISTS),
-- -2 whatever there is (ANY). Patience: how long to wait for a locked conversation; 0 not at all, n from 1 so many
-- milliseconds (SQLSTATE 55P03 beyond), -1 as long as the session would.

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

-- Appends that travel together: each is taken whole or refused whole, by itself, whatever becomes of the others. One row
-- for each event, in the order given.
--
-- Appends may share a conversation where all of them expect ANY; then they follow each other in it.
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

-- Appends one or many events to one or several conversations: all of them or none.
--
-- The conversations stand in three parallel arrays; each event names its conversation by number, from 1. An event
-- that is already there under the same id is left where it is and reported with is_new = false; a conversation whose
-- events are all there already is not checked for its version, so a repeated append is harmless. This is append_group
-- for a single append, with errors in the place of outcomes: for a transaction of one's own.
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
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
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
DROP FUNCTION content_problem(text, jsonb);
SELECT eventstore_own('FUNCTION event_problem(text, jsonb, jsonb)');
SELECT eventstore_own('FUNCTION message_problem(jsonb)');
SELECT eventstore_own('FUNCTION conversation_problem(text, jsonb)');
SELECT eventstore_own('FUNCTION task_problem(text, jsonb)');
SELECT eventstore_own('FUNCTION hold_gate()');
SELECT eventstore_own('FUNCTION conversation_key(text, uuid)');
SELECT eventstore_own('FUNCTION lock_within(integer)');
REVOKE ALL ON FUNCTION append_one(text, uuid, integer, uuid, text, smallint, text, jsonb, jsonb, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION append_group(text[], uuid[], integer[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[], integer) FROM PUBLIC;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- As they were before.
CREATE OR REPLACE FUNCTION digest_text(value text) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN int4send(octet_length(convert_to(value, 'UTF8'))) || convert_to(value, 'UTF8');

DROP FUNCTION hold_gate();
CREATE OR REPLACE FUNCTION hold_gate() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared('events_position'::regclass::oid::bigint::bit(32)::integer,
                                         low_32_bits(last_position()));
END
$$;

CREATE OR REPLACE FUNCTION somebody_sleeps() RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    class integer := 'consumer_slots'::regclass::oid::bigint::bit(32)::integer;
BEGIN
    FOR slot IN 1 .. (SELECT s.last_value FROM consumer_slots s) LOOP
        IF NOT pg_try_advisory_xact_lock_shared(class, slot) THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$$;

CREATE FUNCTION content_problem(event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN event_type NOT IN ('conversation.created', 'conversation.renamed', 'conversation.forked', 'message.added',
                            'task.created', 'task.status_changed', 'task.described', 'task.artifact_added',
                            'task.artifact_extended')
        THEN NULL
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is no object'
    WHEN event_type IN ('conversation.created', 'message.added', 'task.created')
         AND NOT member_is(content, 'given_id', 'string')
        THEN 'given_id is no text'
    WHEN event_type NOT IN ('conversation.renamed', 'task.status_changed', 'task.described')
         AND NOT member_is(content, 'metadata', 'object')
        THEN 'metadata is no object'
    WHEN event_type IN ('message.added', 'task.artifact_added', 'task.artifact_extended')
         AND NOT member_is(content, 'extra', 'object')
        THEN 'extra is no object'
    WHEN event_type = 'message.added' AND NOT (
             member_is_text(content, 'role', 50) AND content ->> 'role' <> ''
             AND member_is(content, 'content', 'string') AND member_is(content, 'parts', 'array'))
        THEN 'role is no text of 1 to 50 characters, content no text, or parts no array'
    WHEN event_type IN ('conversation.created', 'conversation.renamed', 'conversation.forked')
         AND (content ? 'name' OR event_type = 'conversation.renamed') AND NOT member_is_text(content, 'name', 255)
        THEN 'name is no text of at most 255 characters'
    WHEN event_type = 'conversation.forked' AND NOT (
             member_is_uuid(content, 'source_conversation_id')
             AND coalesce(jsonb_typeof(content -> 'source_version') = 'number', false))
        THEN 'source_conversation_id is no UUID, or source_version no number'
    WHEN event_type IN ('task.created', 'task.status_changed', 'task.described',
                        'task.artifact_added', 'task.artifact_extended')
         AND NOT member_is_uuid(content, 'task_id')
        THEN 'task_id is no UUID in lower case'
    WHEN event_type IN ('task.created', 'task.status_changed') AND NOT (
             member_is_text(content, 'status', 50) AND content ->> 'status' <> ''
             AND (event_type <> 'task.status_changed' OR member_is(content, 'message', 'object')))
        THEN 'status is no text of 1 to 50 characters, or message no object'
    WHEN event_type IN ('task.created', 'task.described') AND NOT coalesce(
             jsonb_typeof(content -> 'description') = 'string', false)
        THEN 'description is no text'
    WHEN event_type IN ('task.artifact_added', 'task.artifact_extended') AND NOT coalesce(
             jsonb_typeof(content -> 'artifact_id') = 'string' AND jsonb_typeof(content -> 'parts') = 'array'
             AND jsonb_typeof(content -> 'last_chunk') = 'boolean'
             AND member_is(content, 'name', 'string') AND member_is(content, 'description', 'string'), false)
        THEN 'artifact_id, name or description is no text, parts no array, or last_chunk no boolean'
END;

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
-- Planning anew for each call would take several times as long as the append itself.
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    invalid  record;
    wanted   record;
    found_in record;
    asleep   boolean;
BEGIN
    PERFORM refuse_old_snapshots();
    IF NOT coalesce(
           cardinality(tenant_ids) > 0
           AND cardinality(tenant_ids) = ALL (ARRAY[cardinality(conversation_ids), cardinality(expected_versions)])
           AND cardinality(conversation_nos) > 0
           AND cardinality(conversation_nos) = ALL (ARRAY[
                   cardinality(event_ids), cardinality(event_types), cardinality(schema_versions),
                   cardinality(actors), cardinality(contents), cardinality(metadatas)
               ])
           AND array_position(expected_versions, NULL) IS NULL
           AND cardinality(tenant_ids) = ALL (SELECT max(n) FROM unnest(conversation_nos) AS n)
           AND (SELECT bool_and(n IS NOT NULL AND n > 0) FROM unnest(conversation_nos) AS n), false) THEN
        RAISE EXCEPTION 'the arrays of an append differ in length, or name no conversation'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT n.ordinal, coalesce(metadata_problem(n.metadata),
                               content_problem(n.event_type, n.content)) AS problem
      INTO invalid
      FROM unnest(event_types, contents, metadatas) WITH ORDINALITY AS n (event_type, content, metadata, ordinal)
     WHERE coalesce(metadata_problem(n.metadata),
                    content_problem(n.event_type, n.content)) IS NOT NULL
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'event % of the append (%) cannot be stored: %',
                        invalid.ordinal, event_types[invalid.ordinal], invalid.problem
            USING ERRCODE = 'ES005';
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        -- An acknowledged event is durable, whatever the session prefers.
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    -- In the order of the lock keys, not of the ids: keys can collide, and two appends must not wait for each other.
    PERFORM pg_advisory_xact_lock(k.lock_key)
       FROM (SELECT DISTINCT uuid_hash_extended(c.conversation_id, hashtextextended(c.tenant_id, 0)) AS lock_key
               FROM unnest(tenant_ids, conversation_ids) AS c (tenant_id, conversation_id)
              ORDER BY lock_key) AS k;
    PERFORM hold_gate();
    asleep := somebody_sleeps();

    -- From here on each statement sees everything that was committed to these conversations.
    SELECT n.ordinal, n.id, e.conversation_id
      INTO found_in
      FROM unnest(conversation_nos, event_ids, event_types, actors, contents)
               WITH ORDINALITY AS n (conversation_no, id, event_type, actor, content, ordinal)
      JOIN events e
        ON e.tenant_id = tenant_ids[n.conversation_no]
       AND e.conversation_id = conversation_ids[n.conversation_no]
       AND e.id = n.id
     WHERE (e.event_type, e.actor, e.content) IS DISTINCT FROM (n.event_type, n.actor, n.content)
       -- An event whose content was erased has no salt any more; it can only be known by its id.
       AND e.salt IS NOT NULL
     ORDER BY n.ordinal
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'conversation % already holds another event under the id %', found_in.conversation_id, found_in.id
            USING ERRCODE = 'ES002',
                  DETAIL = jsonb_build_object('conversation_id', found_in.conversation_id, 'event_id', found_in.id)::text;
    END IF;

    SELECT c.conversation_id, c.expected, coalesce(head.version, 0) AS actual
      INTO wanted
      FROM unnest(tenant_ids, conversation_ids, expected_versions)
               WITH ORDINALITY AS c (tenant_id, conversation_id, expected, no)
      LEFT JOIN LATERAL (
               SELECT e.version
                 FROM events e
                WHERE e.tenant_id = c.tenant_id
                  AND e.conversation_id = c.conversation_id
                ORDER BY e.version DESC
                LIMIT 1
           ) AS head ON true
     WHERE CASE c.expected
               WHEN -2 THEN false
               WHEN -1 THEN head.version IS NULL
               ELSE c.expected <> coalesce(head.version, 0)
           END
       AND EXISTS (
               SELECT
                 FROM unnest(conversation_nos, event_ids) AS n (conversation_no, id)
                WHERE n.conversation_no = c.no
                  AND NOT EXISTS (
                          SELECT
                            FROM events e
                           WHERE e.tenant_id = c.tenant_id
                             AND e.conversation_id = c.conversation_id
                             AND e.id = n.id
                      )
           )
     ORDER BY c.no
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'conversation % is at version %, not at the expected one', wanted.conversation_id, wanted.actual
            USING ERRCODE = 'ES001',
                  DETAIL = jsonb_build_object('conversation_id', wanted.conversation_id,
                                              'expected', wanted.expected,
                                              'actual', wanted.actual)::text;
    END IF;

    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT n.ordinal::integer AS ordinal, n.conversation_no, n.id, n.event_type, n.schema_version, n.actor,
               n.content, n.metadata,
               tenant_ids[n.conversation_no] AS tenant_id,
               conversation_ids[n.conversation_no] AS conversation_id,
               e.position, e.version, e.timestamp
          FROM unnest(conversation_nos, event_ids, event_types, schema_versions, actors, contents, metadatas)
                   WITH ORDINALITY
                   AS n (conversation_no, id, event_type, schema_version, actor, content, metadata, ordinal)
          LEFT JOIN events e
            ON e.tenant_id = tenant_ids[n.conversation_no]
           AND e.conversation_id = conversation_ids[n.conversation_no]
           AND e.id = n.id
    ),
    heads AS MATERIALIZED (
        SELECT c.no, coalesce(head.version, 0) AS version,
               -- Never before the previous version's, should the server's clock step back.
               greatest(clock_timestamp(), head.timestamp) AS timestamp
          FROM unnest(tenant_ids, conversation_ids) WITH ORDINALITY AS c (tenant_id, conversation_id, no)
          LEFT JOIN LATERAL (
                   SELECT e.version, e.timestamp
                     FROM events e
                    WHERE e.tenant_id = c.tenant_id
                      AND e.conversation_id = c.conversation_id
                    ORDER BY e.version DESC
                    LIMIT 1
               ) AS head ON true
    ),
    placed AS MATERIALIZED (
        SELECT nextval('events_position') AS position, uuid_send(gen_random_uuid()) AS salt, o.*
          FROM (SELECT g.ordinal, g.tenant_id, g.conversation_id, g.id, g.event_type, g.schema_version, g.actor,
                       g.content, g.metadata, h.timestamp,
                       (h.version + row_number() OVER (PARTITION BY g.conversation_no ORDER BY g.ordinal))::integer
                           AS version
                  FROM given g
                  JOIN heads h ON h.no = g.conversation_no
                 WHERE g.position IS NULL
                 ORDER BY g.ordinal
                OFFSET 0) AS o
    ),
    inserted AS (
        INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                            event_type, actor, content, metadata, salt, digest)
        SELECT p.position, p.timestamp, p.version, p.schema_version, p.conversation_id, p.id, p.tenant_id,
               p.event_type, p.actor, p.content, p.metadata, p.salt,
               event_digest(p.salt, p.position, p.timestamp, p.version, p.schema_version, p.conversation_id, p.id,
                            p.tenant_id, p.event_type, p.actor, p.content, p.metadata)
          FROM placed p
    )
    SELECT g.ordinal, coalesce(g.position, p.position), coalesce(g.version, p.version),
           coalesce(g.timestamp, p.timestamp), g.position IS NULL
      FROM given g
      LEFT JOIN placed p ON p.ordinal = g.ordinal
     ORDER BY g.ordinal;

    IF asleep THEN
        PERFORM pg_notify(wake_channel(), '');
    END IF;
END
$$;

DROP FUNCTION append_group(text[], uuid[], integer[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[], integer);
DROP FUNCTION append_one(text, uuid, integer, uuid, text, smallint, text, jsonb, jsonb, integer);
DROP FUNCTION lock_within(integer);
DROP FUNCTION conversation_key(text, uuid);
DROP FUNCTION event_problem(text, jsonb, jsonb);
DROP FUNCTION task_problem(text, jsonb);
DROP FUNCTION conversation_problem(text, jsonb);
DROP FUNCTION message_problem(jsonb);
SELECT eventstore_own('FUNCTION hold_gate()');
SELECT eventstore_own('FUNCTION content_problem(text, jsonb)');
