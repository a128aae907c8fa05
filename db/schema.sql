

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: public; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA public;


--
-- Name: SCHEMA public; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA public IS 'standard public schema';


--
-- Name: append_events(text[], uuid[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.append_events(tenant_ids text[], conversation_ids uuid[], expected_versions integer[], conversation_nos integer[], event_ids uuid[], event_types text[], schema_versions smallint[], actors text[], contents jsonb[], metadatas jsonb[]) RETURNS TABLE(ordinal integer, "position" bigint, version integer, "timestamp" timestamp with time zone, is_new boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
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


--
-- Name: begin_batch(text, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.begin_batch(projection text, size integer) RETURNS TABLE(lower_position bigint, upper_position bigint)
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    horizon bigint;
BEGIN
    SELECT min(locked.position)
      INTO lower_position
      FROM (SELECT c.position
              FROM checkpoints c
             WHERE c.projection = begin_batch.projection
             ORDER BY c.share
               FOR UPDATE) AS locked;
    horizon := log_horizon();
    SELECT max(next.position)
      INTO upper_position
      FROM (SELECT e.position
              FROM events e
             WHERE e.position > lower_position
               AND e.position <= horizon
             ORDER BY e.position
             LIMIT begin_batch.size) AS next;
    IF upper_position IS NOT NULL THEN
        PERFORM set_config('eventstore.projection', begin_batch.projection, true),
                set_config('eventstore.lower_position', lower_position::text, true),
                set_config('eventstore.upper_position', upper_position::text, true);
        RETURN NEXT;
    END IF;
END
$$;


--
-- Name: claim_slot(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.claim_slot() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    class integer := 'consumer_slots'::regclass::oid::bigint::bit(32)::integer;
    slot  integer := 1;
BEGIN
    PERFORM pg_advisory_xact_lock(class, 0);
    WHILE NOT pg_try_advisory_lock(class, -slot) LOOP
        slot := slot + 1;
    END LOOP;
    IF slot > (SELECT s.last_value FROM consumer_slots s) THEN
        PERFORM setval('consumer_slots', slot);
    END IF;
    RETURN slot;
END
$$;


--
-- Name: member_is(jsonb, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.member_is(object jsonb, member text, type text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN COALESCE((jsonb_typeof((object -> member)) = type), true);


--
-- Name: member_is_text(jsonb, text, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.member_is_text(object jsonb, member text, longest integer) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN COALESCE(((jsonb_typeof((object -> member)) = 'string'::text) AND (char_length((object ->> member)) <= longest)), false);


--
-- Name: member_is_uuid(jsonb, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.member_is_uuid(object jsonb, member text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN COALESCE(((object ->> member) ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'::text), false);


--
-- Name: content_problem(text, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.content_problem(event_type text, content jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (event_type <> ALL (ARRAY['conversation.created'::text, 'conversation.renamed'::text, 'conversation.forked'::text, 'message.added'::text, 'task.created'::text, 'task.status_changed'::text, 'task.described'::text, 'task.artifact_added'::text, 'task.artifact_extended'::text])) THEN NULL::text WHEN (jsonb_typeof(content) IS DISTINCT FROM 'object'::text) THEN 'its content is no object'::text WHEN ((event_type = ANY (ARRAY['conversation.created'::text, 'message.added'::text, 'task.created'::text])) AND (NOT public.member_is(content, 'given_id'::text, 'string'::text))) THEN 'given_id is no text'::text WHEN ((event_type <> ALL (ARRAY['conversation.renamed'::text, 'task.status_changed'::text, 'task.described'::text])) AND (NOT public.member_is(content, 'metadata'::text, 'object'::text))) THEN 'metadata is no object'::text WHEN ((event_type = ANY (ARRAY['message.added'::text, 'task.artifact_added'::text, 'task.artifact_extended'::text])) AND (NOT public.member_is(content, 'extra'::text, 'object'::text))) THEN 'extra is no object'::text WHEN ((event_type = 'message.added'::text) AND (NOT (public.member_is_text(content, 'role'::text, 50) AND ((content ->> 'role'::text) <> ''::text) AND public.member_is(content, 'content'::text, 'string'::text) AND public.member_is(content, 'parts'::text, 'array'::text)))) THEN 'role is no text of 1 to 50 characters, content no text, or parts no array'::text WHEN ((event_type = ANY (ARRAY['conversation.created'::text, 'conversation.renamed'::text, 'conversation.forked'::text])) AND ((content ? 'name'::text) OR (event_type = 'conversation.renamed'::text)) AND (NOT public.member_is_text(content, 'name'::text, 255))) THEN 'name is no text of at most 255 characters'::text WHEN ((event_type = 'conversation.forked'::text) AND (NOT (public.member_is_uuid(content, 'source_conversation_id'::text) AND COALESCE((jsonb_typeof((content -> 'source_version'::text)) = 'number'::text), false)))) THEN 'source_conversation_id is no UUID, or source_version no number'::text WHEN ((event_type = ANY (ARRAY['task.created'::text, 'task.status_changed'::text, 'task.described'::text, 'task.artifact_added'::text, 'task.artifact_extended'::text])) AND (NOT public.member_is_uuid(content, 'task_id'::text))) THEN 'task_id is no UUID in lower case'::text WHEN ((event_type = ANY (ARRAY['task.created'::text, 'task.status_changed'::text])) AND (NOT (public.member_is_text(content, 'status'::text, 50) AND ((content ->> 'status'::text) <> ''::text) AND ((event_type <> 'task.status_changed'::text) OR public.member_is(content, 'message'::text, 'object'::text))))) THEN 'status is no text of 1 to 50 characters, or message no object'::text WHEN ((event_type = ANY (ARRAY['task.created'::text, 'task.described'::text])) AND (NOT COALESCE((jsonb_typeof((content -> 'description'::text)) = 'string'::text), false))) THEN 'description is no text'::text WHEN ((event_type = ANY (ARRAY['task.artifact_added'::text, 'task.artifact_extended'::text])) AND (NOT COALESCE(((jsonb_typeof((content -> 'artifact_id'::text)) = 'string'::text) AND (jsonb_typeof((content -> 'parts'::text)) = 'array'::text) AND (jsonb_typeof((content -> 'last_chunk'::text)) = 'boolean'::text) AND public.member_is(content, 'name'::text, 'string'::text) AND public.member_is(content, 'description'::text, 'string'::text)), false))) THEN 'artifact_id, name or description is no text, parts no array, or last_chunk no boolean'::text ELSE NULL::text END;


--
-- Name: digest_text(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.digest_text(value text) RETURNS bytea
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (int4send(octet_length(convert_to(value, 'UTF8'::name))) || convert_to(value, 'UTF8'::name));


--
-- Name: event_digest(bytea, bigint, timestamp with time zone, integer, smallint, uuid, uuid, text, text, text, jsonb, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.event_digest(salt bytea, "position" bigint, "timestamp" timestamp with time zone, version integer, schema_version smallint, conversation_id uuid, id uuid, tenant_id text, event_type text, actor text, content jsonb, metadata jsonb) RETURNS bytea
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN sha256((((((((((((salt || int8send("position")) || timestamptz_send("timestamp")) || int4send(version)) || int2send(schema_version)) || uuid_send(conversation_id)) || uuid_send(id)) || public.digest_text(tenant_id)) || public.digest_text(event_type)) || public.digest_text(actor)) || public.digest_text((content)::text)) || public.digest_text((metadata)::text)));


--
-- Name: eventstore_grant(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.eventstore_grant(privileges text, role_name text) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = eventstore_grant.role_name) THEN
        EXECUTE format('GRANT %s TO %I', eventstore_grant.privileges, eventstore_grant.role_name);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE WARNING '% may not grant % to %', session_user, privileges, role_name;
END
$$;


--
-- Name: eventstore_own(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.eventstore_own(object text) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'eventstore_owner') THEN
        EXECUTE format('ALTER %s OWNER TO eventstore_owner', eventstore_own.object);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE WARNING '% may not hand % to eventstore_owner', session_user, object;
END
$$;


--
-- Name: consumer_slots; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.consumer_slots
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: get_up(integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.get_up(slot integer) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 SELECT pg_advisory_unlock((((('public.consumer_slots'::regclass)::oid)::bigint)::bit(32))::integer, slot) AS pg_advisory_unlock;
END;


--
-- Name: hold_gate(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.hold_gate() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared('events_position'::regclass::oid::bigint::bit(32)::integer,
                                         low_32_bits(last_position()));
END
$$;


--
-- Name: events_position; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.events_position
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: last_position(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.last_position() RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 SELECT (s.last_value -
         CASE
             WHEN s.is_called THEN 0
             ELSE 1
         END)
    FROM public.events_position s;
END;


--
-- Name: lie_down(integer, bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.lie_down(slot integer, seen bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    class integer := 'consumer_slots'::regclass::oid::bigint::bit(32)::integer;
BEGIN
    PERFORM refuse_old_snapshots();
    IF NOT pg_try_advisory_lock(class, lie_down.slot) THEN
        RETURN false;
    END IF;
    -- Two statements, for the second needs a snapshot taken after the first found no append in flight.
    IF lowest_gate(lie_down.seen) IS NULL THEN
        IF NOT EXISTS (SELECT FROM events e WHERE e.position > lie_down.seen) THEN
            RETURN true;
        END IF;
    END IF;
    PERFORM pg_advisory_unlock(class, lie_down.slot);
    RETURN false;
END
$$;


--
-- Name: log_horizon(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.log_horizon() RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    last bigint;
BEGIN
    PERFORM refuse_old_snapshots();
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'the horizon of the log cannot be read on a standby'
            USING ERRCODE = 'ES004', HINT = 'Connect to the primary.';
    END IF;
    last := last_position();
    RETURN least(last, lowest_gate(last));
END
$$;


--
-- Name: low_32_bits(bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.low_32_bits(value bigint) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((((value & '4294967295'::bigint) # '2147483648'::bigint) - '2147483648'::bigint))::integer;


--
-- Name: lowest_gate(bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.lowest_gate(reference bigint) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 SELECT min((lowest_gate.reference + public.low_32_bits(((l.objid)::bigint - lowest_gate.reference)))) AS min
    FROM pg_locks l
   WHERE ((l.locktype = 'advisory'::text) AND (l.database = ( SELECT d.oid
            FROM pg_database d
           WHERE (d.datname = current_database()))) AND (l.classid = ('public.events_position'::regclass)::oid) AND (l.objsubid = 2) AND l.granted);
END;


--
-- Name: metadata_problem(jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.metadata_problem(metadata jsonb) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN (NOT COALESCE(((jsonb_typeof(metadata) = 'object'::text) AND public.member_is(metadata, 'correlation_id'::text, 'string'::text) AND public.member_is(metadata, 'causation_id'::text, 'string'::text) AND public.member_is(metadata, 'traceparent'::text, 'string'::text)), false)) THEN 'its metadata is no object, or an id in it no text'::text WHEN (metadata ? 'occurred_at'::text) THEN CASE WHEN (NOT COALESCE(((metadata ->> 'occurred_at'::text) ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})$'::text), false)) THEN 'its metadata.occurred_at is no ISO 8601 time with a zone'::text WHEN ((((metadata ->> 'occurred_at'::text))::timestamp with time zone < '0001-01-01 00:00:00+00'::timestamp with time zone) OR (((metadata ->> 'occurred_at'::text))::timestamp with time zone > '9999-12-31 23:59:59.999999+00'::timestamp with time zone)) THEN 'its metadata.occurred_at lies outside the years 1 to 9999'::text ELSE NULL::text END ELSE NULL::text END;


--
-- Name: occurred_at(jsonb, timestamp with time zone); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.occurred_at(metadata jsonb, "timestamp" timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN COALESCE(((metadata ->> 'occurred_at'::text))::timestamp with time zone, "timestamp");


--
-- Name: refuse_change_of_events(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.refuse_change_of_events() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    RAISE EXCEPTION '% on the table events is refused: the log is append-only', TG_OP
        USING ERRCODE = 'restrict_violation',
              DETAIL = 'Events are the source of truth, the audit trail and the backup; none is ever changed.',
              HINT = 'Append a further event that says what is different now.';
END
$$;


--
-- Name: refuse_old_snapshots(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.refuse_old_snapshots() RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'the log cannot be used in a % transaction', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'ES003',
                  DETAIL = 'Its snapshot is older than the locks that order the log: events would be missed silently.',
                  HINT = 'Use a READ COMMITTED transaction, the default of PostgreSQL.';
    END IF;
END
$$;


--
-- Name: share_of(uuid); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.share_of(conversation_id uuid) RETURNS smallint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((uuid_hash(conversation_id) & 15))::smallint;


--
-- Name: somebody_sleeps(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.somebody_sleeps() RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
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


--
-- Name: text_of_parts(jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.text_of_parts(parts jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT string_agg((p.part ->> 'text'::text), '
'::text ORDER BY p.ordinal) AS string_agg
    FROM jsonb_array_elements(
         CASE
             WHEN (jsonb_typeof(text_of_parts.parts) = 'array'::text) THEN text_of_parts.parts
             ELSE NULL::jsonb
         END) WITH ORDINALITY p(part, ordinal)
   WHERE (jsonb_typeof((p.part -> 'text'::text)) = 'string'::text);
END;


--
-- Name: wake_channel(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.wake_channel() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    RETURN ('eventstore_'::text || ("current_schema"())::text);


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: checkpoints; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.checkpoints (
    projection text NOT NULL COLLATE pg_catalog."C",
    share smallint NOT NULL,
    "position" bigint DEFAULT 0 NOT NULL,
    source text NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT checkpoints_share_check CHECK (((share >= 0) AND (share <= 15)))
);


--
-- Name: COLUMN checkpoints.source; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.checkpoints.source IS 'SHA-256 of the text of the projection that made the rows';


--
-- Name: conversations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.conversations (
    id uuid NOT NULL,
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    name character varying(255) DEFAULT ''::character varying NOT NULL,
    is_active boolean DEFAULT true NOT NULL,
    is_deleted boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    message_count integer DEFAULT 0 NOT NULL,
    version integer NOT NULL,
    given_id text,
    forked_from jsonb,
    metadata jsonb
);


--
-- Name: COLUMN conversations.version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.conversations.version IS 'Version of the last event that this row holds';


--
-- Name: COLUMN conversations.given_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.conversations.given_id IS 'The id as the client gave it, where that was not a UUID';


--
-- Name: events; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.events (
    "position" bigint NOT NULL,
    "timestamp" timestamp with time zone NOT NULL,
    version integer NOT NULL,
    schema_version smallint NOT NULL,
    conversation_id uuid NOT NULL,
    id uuid NOT NULL,
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    event_type character varying(100) NOT NULL COLLATE pg_catalog."C",
    actor character varying(255) DEFAULT ''::character varying NOT NULL,
    content jsonb NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    salt bytea,
    digest bytea NOT NULL,
    CONSTRAINT events_digest_check CHECK ((octet_length(digest) = 32)),
    CONSTRAINT events_names_check CHECK ((((tenant_id)::text <> ''::text) AND ((event_type)::text <> ''::text))),
    CONSTRAINT events_version_check CHECK (((version > 0) AND (schema_version > 0)))
);


--
-- Name: TABLE events; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.events IS 'Append-only log of everything that happened; written by append_events alone';


--
-- Name: COLUMN events."position"; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events."position" IS 'Orders the whole log; gaps are normal';


--
-- Name: COLUMN events."timestamp"; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events."timestamp" IS 'When the log took the event; when it happened is metadata.occurred_at';


--
-- Name: COLUMN events.version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.version IS '1, 2, 3 and so on within one conversation, without gaps';


--
-- Name: COLUMN events.digest; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.digest IS 'SHA-256 of the event in the byte format of eventstore/DIGEST.md';


--
-- Name: eventstore_migrations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.eventstore_migrations (
    version character varying NOT NULL
);


--
-- Name: messages; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.messages (
    id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    role character varying(50) NOT NULL,
    content text NOT NULL,
    parts jsonb,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    actor character varying(255) DEFAULT ''::character varying NOT NULL,
    given_id text,
    extra jsonb,
    metadata jsonb
);


--
-- Name: COLUMN messages.content; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.messages.content IS 'The text; that of the parts where the message was sent as parts';


--
-- Name: COLUMN messages.extra; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.messages.extra IS 'Members of the message as sent that no other column gives back';


--
-- Name: task_artifacts; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.task_artifacts (
    task_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    artifact_id text NOT NULL,
    extends boolean NOT NULL,
    last_chunk boolean NOT NULL,
    name text,
    description text,
    parts jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    extra jsonb,
    metadata jsonb
);


--
-- Name: tasks; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.tasks (
    id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    status character varying(50) NOT NULL,
    description text NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    given_id text,
    status_message jsonb,
    metadata jsonb
);


--
-- Name: COLUMN tasks.version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.tasks.version IS 'Version of the last event that this row holds';


--
-- Name: checkpoints checkpoints_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.checkpoints
    ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (projection, share);


--
-- Name: conversations conversations_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.conversations
    ADD CONSTRAINT conversations_pkey PRIMARY KEY (tenant_id, id);


--
-- Name: events events_id_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_id_key UNIQUE (tenant_id, conversation_id, id);


--
-- Name: events events_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (tenant_id, conversation_id, version);


--
-- Name: eventstore_migrations eventstore_migrations_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.eventstore_migrations
    ADD CONSTRAINT eventstore_migrations_pkey PRIMARY KEY (version);


--
-- Name: messages messages_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_pkey PRIMARY KEY (tenant_id, conversation_id, id);


--
-- Name: task_artifacts task_artifacts_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.task_artifacts
    ADD CONSTRAINT task_artifacts_pkey PRIMARY KEY (tenant_id, conversation_id, version);


--
-- Name: tasks tasks_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_pkey PRIMARY KEY (tenant_id, conversation_id, id);


--
-- Name: idx_conversations_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_conversations_id ON public.conversations USING btree (id);


--
-- Name: idx_conversations_updated_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_conversations_updated_at ON public.conversations USING btree (updated_at DESC);


--
-- Name: idx_events_conversation_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_events_conversation_id ON public.events USING btree (conversation_id);


--
-- Name: idx_events_position; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_events_position ON public.events USING btree ("position");


--
-- Name: idx_events_timestamp; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_events_timestamp ON public.events USING btree ("timestamp" DESC);


--
-- Name: idx_messages_conversation_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_messages_conversation_id ON public.messages USING btree (conversation_id, version);


--
-- Name: idx_messages_created_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_messages_created_at ON public.messages USING btree (created_at DESC);


--
-- Name: idx_messages_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_messages_id ON public.messages USING btree (id);


--
-- Name: idx_task_artifacts_task_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_task_artifacts_task_id ON public.task_artifacts USING btree (task_id, version);


--
-- Name: idx_tasks_conversation_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_tasks_conversation_id ON public.tasks USING btree (conversation_id);


--
-- Name: idx_tasks_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_tasks_id ON public.tasks USING btree (id);


--
-- Name: events event_is_append_only; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER event_is_append_only BEFORE DELETE OR UPDATE ON public.events FOR EACH ROW EXECUTE FUNCTION public.refuse_change_of_events();

ALTER TABLE public.events ENABLE ALWAYS TRIGGER event_is_append_only;


--
-- Name: events events_are_append_only; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER events_are_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.events FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change_of_events();

ALTER TABLE public.events ENABLE ALWAYS TRIGGER events_are_append_only;


--
-- PostgreSQL database dump complete
--



--
-- Dbmate schema migrations
--

INSERT INTO public.eventstore_migrations (version) VALUES
    ('20261122000100'),
    ('20261122000200'),
    ('20261122000300'),
    ('20261122000400'),
    ('20261122000500');
