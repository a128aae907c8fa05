

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
-- Name: search_match; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public.search_match AS (
	conversation_id uuid,
	version integer,
	"position" bigint,
	kind text,
	id uuid,
	role text,
	actor text,
	created_at timestamp with time zone,
	language text,
	rank real
);


--
-- Name: search_sampled; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public.search_sampled AS (
	conversation_id uuid,
	version integer,
	language text,
	words tsvector
);


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: retention_rules; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.retention_rules (
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    id uuid NOT NULL,
    age interval NOT NULL,
    since text NOT NULL,
    state text,
    user_id character varying(255) COLLATE pg_catalog."C",
    metadata jsonb,
    reason text NOT NULL,
    added_by character varying(255) NOT NULL,
    added_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    applied_at timestamp with time zone,
    outcome jsonb,
    CONSTRAINT retention_rules_age_check CHECK ((age > '00:00:00'::interval)),
    CONSTRAINT retention_rules_metadata_check CHECK ((jsonb_typeof(metadata) = 'object'::text)),
    CONSTRAINT retention_rules_since_check CHECK ((since = ANY (ARRAY['last_event'::text, 'creation'::text]))),
    CONSTRAINT retention_rules_state_check CHECK ((state = ANY (ARRAY['active'::text, 'archived'::text, 'deleted'::text])))
);


--
-- Name: TABLE retention_rules; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.retention_rules IS 'Rules by which old conversations are erased; written by functions alone';


--
-- Name: COLUMN retention_rules.since; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.retention_rules.since IS 'From when the age counts: last_event, or creation of the conversation';


--
-- Name: COLUMN retention_rules.state; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.retention_rules.state IS 'Only conversations in this state: active, archived or deleted; null: any';


--
-- Name: COLUMN retention_rules.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.retention_rules.user_id IS 'Only conversations that this user owns; null: of any user';


--
-- Name: COLUMN retention_rules.metadata; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.retention_rules.metadata IS 'Only conversations whose metadata contain these; null: any';


--
-- Name: COLUMN retention_rules.applied_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.retention_rules.applied_at IS 'Begin of the last run; null: there was none yet';


--
-- Name: COLUMN retention_rules.outcome; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.retention_rules.outcome IS 'Counts of the last run: conversations, events, held, skipped, failed';


--
-- Name: add_retention_rule(text, uuid, interval, text, text, text, jsonb, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.add_retention_rule(tenant_id text, id uuid, age interval, since text, state text, user_id text, metadata jsonb, reason text, actor text) RETURNS public.retention_rules
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    added retention_rules;
BEGIN
    IF append_tenant() <> add_retention_rule.tenant_id THEN
        PERFORM refuse_tenant(add_retention_rule.tenant_id);
    END IF;
    INSERT INTO retention_rules (tenant_id, id, age, since, state, user_id, metadata, reason, added_by)
    VALUES (tenant_id, id, age, since, state, user_id, metadata, reason, actor)
        ON CONFLICT ON CONSTRAINT retention_rules_pkey DO NOTHING;
    SELECT r.*
      INTO added
      FROM retention_rules r
     WHERE r.tenant_id = add_retention_rule.tenant_id
       AND r.id = add_retention_rule.id;
    RETURN added;
END
$$;


--
-- Name: administration_id(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.administration_id() RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN '704a23d0-25df-52d6-b826-5b26f57f7d51'::uuid;


--
-- Name: append_erasure(text, uuid, uuid, int4multirange, timestamp with time zone, boolean, boolean, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.append_erasure(tenant_id text, conversation_id uuid, event_id uuid, versions int4multirange, until timestamp with time zone, is_whole boolean, erases_members boolean, reason text, actor text, OUT "position" bigint, OUT version integer, OUT "timestamp" timestamp with time zone) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    allowed_tenant text := append_tenant();
    salt           bytea := uuid_send(gen_random_uuid());
    event_type     text := CASE WHEN is_whole THEN 'conversation.erased' ELSE 'event.erased' END;
    content        jsonb;
    head           record;
    must_notify    boolean;
BEGIN
    IF allowed_tenant <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    PERFORM pg_advisory_xact_lock(conversation_lock_key(tenant_id, conversation_id));
    IF (SELECT count(*)
          FROM events e
         WHERE e.tenant_id = append_erasure.tenant_id
           AND e.conversation_id = append_erasure.conversation_id
           AND e.version <@ versions
           AND e.salt IS NULL)
       IS DISTINCT FROM (SELECT sum(upper(r) - lower(r)) FROM unnest(versions) AS r) THEN
        RAISE EXCEPTION 'the receipt names versions % of conversation %, which are not all erased', versions, conversation_id
            USING ERRCODE = 'ES005';
    END IF;
    IF erases_members THEN
        DELETE FROM conversation_members m
         WHERE m.tenant_id = append_erasure.tenant_id
           AND m.conversation_id = append_erasure.conversation_id
           AND NOT EXISTS (
                   SELECT
                     FROM events e
                    WHERE e.tenant_id = append_erasure.tenant_id
                      AND e.conversation_id = append_erasure.conversation_id
                      AND (e.version = 1 AND e.metadata ->> 'eventstore.owner' = m.user_id
                           OR e.event_type IN ('conversation.shared', 'conversation.unshared')
                              AND e.content ->> 'user' = m.user_id)
               );
    END IF;
    DELETE FROM idempotency_keys k
     WHERE k.tenant_id = append_erasure.tenant_id
       AND k.status IS NOT NULL;

    must_notify := register_append();
    SELECT e.version, e.timestamp
      INTO head
      FROM events e
     WHERE e.tenant_id = append_erasure.tenant_id
       AND e.conversation_id = append_erasure.conversation_id
     ORDER BY e.version DESC
     LIMIT 1;
    position := nextval('events_position');
    version := head.version + 1;
    timestamp := event_timestamp(head.timestamp);
    content := jsonb_build_object(
        'versions', (SELECT jsonb_agg(jsonb_build_array(lower(r), upper(r) - 1) ORDER BY r) FROM unnest(versions) AS r),
        'until', to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
        'erases_members', erases_members,
        'reason', reason
    );
    INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                        event_type, actor, content, metadata, salt, digest)
    VALUES (position, timestamp, version, 1, conversation_id, event_id, tenant_id, event_type, actor, content, '{}', salt,
            event_digest(salt, position, timestamp, version, 1::smallint, conversation_id, event_id, tenant_id, event_type,
                         actor, content, '{}'));
    IF must_notify THEN
        PERFORM pg_notify(notify_channel(), '');
    END IF;
END
$$;


--
-- Name: append_events(text[], uuid[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.append_events(tenant_ids text[], conversation_ids uuid[], expected_versions integer[], conversation_nos integer[], event_ids uuid[], event_types text[], schema_versions smallint[], actors text[], contents jsonb[], metadatas jsonb[]) RETURNS TABLE(ordinal integer, "position" bigint, version integer, "timestamp" timestamp with time zone, is_new boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    event  record;
    target integer;
    tenant text := current_tenant();
BEGIN
    IF tenant IS NULL THEN
        RAISE EXCEPTION 'this transaction has not set a tenant'
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'SELECT set_config(''eventstore.tenant'', …, true) in the same transaction, '
                         || 'by a login that may set it.';
    END IF;
    PERFORM refuse_tenant(t) FROM unnest(tenant_ids) AS t WHERE t <> tenant;
    FOR event IN
        SELECT o.*
          FROM append_group(
                   tenant_ids, conversation_ids, expected_versions,
                   array_fill(1, ARRAY[cardinality(conversation_nos)]), conversation_nos, event_ids, event_types,
                   schema_versions, actors, contents, metadatas,
                   array_fill(coalesce(current_tenant_user(), ''), ARRAY[cardinality(conversation_nos)]), -1
               ) AS g
         CROSS JOIN unnest(g.outcomes, g.positions, g.versions, g.timestamps, g.problems)
                        WITH ORDINALITY AS o (outcome, position, version, timestamp, problem, ordinal)
         ORDER BY CASE o.outcome
                      WHEN 'r' THEN 1 WHEN 'f' THEN 2 WHEN 'i' THEN 3 WHEN 'd' THEN 4 WHEN 'v' THEN 5 ELSE 6
                  END, o.ordinal
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


--
-- Name: append_group(text[], uuid[], integer[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[], text[], integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.append_group(tenant_ids text[], conversation_ids uuid[], expected_versions integer[], append_nos integer[], conversation_nos integer[], event_ids uuid[], event_types text[], schema_versions smallint[], actors text[], contents jsonb[], metadatas jsonb[], users text[], lock_wait_ms integer, OUT outcomes "char"[], OUT positions bigint[], OUT versions integer[], OUT timestamps timestamp with time zone[], OUT problems text[]) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
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


--
-- Name: append_one(text, uuid, integer, uuid, text, smallint, text, jsonb, jsonb, integer, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.append_one(tenant_id text, conversation_id uuid, expected_version integer, event_id uuid, event_type text, schema_version smallint, actor text, content jsonb, metadata jsonb, lock_wait_ms integer, user_id text, OUT outcome "char", OUT "position" bigint, OUT version integer, OUT "timestamp" timestamp with time zone, OUT problem text) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    must_notify boolean;
BEGIN
    IF lock_wait_ms = 0 AND pg_try_advisory_xact_lock(conversation_lock_key(tenant_id, conversation_id)) THEN
        must_notify := register_append();

        -- From here on a statement sees everything that was committed to this conversation.
        INSERT INTO events AS e (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                                 event_type, actor, content, metadata, salt, digest)
        SELECT n.position, n.timestamp, n.version, schema_version, conversation_id, event_id, tenant_id,
               event_type, actor, content, n.metadata, n.salt,
               event_digest(n.salt, n.position, n.timestamp, n.version, schema_version, conversation_id, event_id,
                            tenant_id, event_type, actor, content, n.metadata)
          FROM (SELECT nextval('events_position') AS position, event_timestamp(head.timestamp) AS timestamp,
                       coalesce(head.version, 0) + 1 AS version, uuid_send(gen_random_uuid()) AS salt,
                       -- The log records the owner; see append_group.
                       CASE
                           WHEN head.version IS NULL AND user_id <> ''
                               THEN metadata || jsonb_build_object('eventstore.owner', user_id)
                           ELSE metadata
                       END AS metadata
                  FROM append_scope() AS scope
                  LEFT JOIN LATERAL (
                           SELECT e.tenant_id, e.conversation_id, e.version, e.timestamp, e.event_type
                             FROM events e
                            WHERE (e.tenant_id, e.conversation_id, e.version)
                                  <= (append_one.tenant_id, append_one.conversation_id, 2147483647)
                            ORDER BY e.tenant_id DESC, e.conversation_id DESC, e.version DESC
                            LIMIT 1
                       ) AS head
                    ON head.tenant_id = append_one.tenant_id
                   AND head.conversation_id = append_one.conversation_id
                 WHERE coalesce(scope.tenant_id = append_one.tenant_id, true)
                   AND validate_event(append_one.tenant_id, append_one.conversation_id, event_type, content, metadata)
                       IS NULL
                   AND user_id IS NOT NULL
                   AND event_type NOT IN ('conversation.shared', 'conversation.unshared')
                   AND NOT metadata ? 'eventstore.files'
                   AND CASE expected_version
                           WHEN -2 THEN true
                           WHEN -1 THEN head.version IS NOT NULL
                           ELSE expected_version = coalesce(head.version, 0)
                       END
                   AND CASE
                           WHEN head.version IS NULL THEN true
                           WHEN may_be_deleted(head.event_type)
                                AND conversation_is_deleted(head.tenant_id, head.conversation_id) THEN false
                           WHEN user_id <> '' AND NOT EXISTS (
                                    SELECT
                                      FROM may_append(head.tenant_id, head.conversation_id, user_id, event_type)
                                ) THEN false
                           ELSE true
                       END) AS n
        ON CONFLICT DO NOTHING
        RETURNING 'n', e.position, e.version, e.timestamp INTO outcome, position, version, timestamp;
        IF version = 1 THEN
            INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
            SELECT tenant_id, conversation_id, owner, 'own'
              FROM coalesce(nullif(user_id, ''), metadata ->> 'eventstore.owner') AS owner
             WHERE owner IS NOT NULL;
        END IF;
    END IF;
    IF outcome IS NULL THEN
        -- Under the locks that are held, so that this finds the same.
        SELECT g.outcomes[1], g.positions[1], g.versions[1], g.timestamps[1], g.problems[1]
          INTO outcome, position, version, timestamp, problem
          FROM append_group(
                   ARRAY[tenant_id], ARRAY[conversation_id], ARRAY[expected_version], ARRAY[1], ARRAY[1],
                   ARRAY[event_id], ARRAY[event_type], ARRAY[schema_version], ARRAY[actor], ARRAY[content],
                   ARRAY[metadata], ARRAY[user_id], lock_wait_ms
               ) AS g;
    ELSIF must_notify THEN
        PERFORM pg_notify(notify_channel(), '');
    END IF;
END
$$;


--
-- Name: may_set_tenant(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.may_set_tenant() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (COALESCE(pg_has_role(SESSION_USER, (to_regrole('eventstore_app'::text))::oid, 'MEMBER'::text), true) OR COALESCE(pg_has_role(SESSION_USER, (to_regrole('eventstore_owner'::text))::oid, 'MEMBER'::text), false));


--
-- Name: bound_logins; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.bound_logins (
    login name NOT NULL,
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT bound_logins_tenant_check CHECK (((tenant_id)::text <> ''::text))
);


--
-- Name: TABLE bound_logins; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.bound_logins IS 'Logins that act for one tenant, whatever they set; see bind_login';


--
-- Name: append_scope(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.append_scope() RETURNS TABLE(tenant_id text)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT COALESCE(b.tenant_id, (NULLIF(current_setting('eventstore.tenant'::text, true), ''::text))::character varying) AS "coalesce"
    FROM (( SELECT) session
      LEFT JOIN public.bound_logins b ON ((b.login = SESSION_USER)))
   WHERE ((b.login IS NOT NULL) OR public.may_set_tenant());
END;


--
-- Name: append_tenant(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.append_tenant() RETURNS text
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    tenant text;
BEGIN
    SELECT s.tenant_id INTO tenant FROM append_scope() AS s;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the login % may not append for any tenant', session_user
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Bind it to a tenant with bind_login, or grant it the role eventstore_app, whose members may set the tenant.';
    END IF;
    RETURN tenant;
END
$$;


--
-- Name: append_verdicts(text[], uuid[], integer[], bigint[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[], text[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.append_verdicts(tenant_ids text[], conversation_ids uuid[], expected_versions integer[], busy bigint[], append_nos integer[], conversation_nos integer[], event_ids uuid[], event_types text[], schema_versions smallint[], actors text[], contents jsonb[], metadatas jsonb[], users text[], OUT outcomes "char"[], OUT positions bigint[], OUT versions integer[], OUT timestamps timestamp with time zone[], OUT problems text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
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
ALTER TABLE ONLY public.events ALTER COLUMN salt SET STATISTICS 0;
ALTER TABLE ONLY public.events ALTER COLUMN digest SET STATISTICS 0;

ALTER TABLE ONLY public.events FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE events; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.events IS 'Append-only log of everything that happened; written by the append functions alone';


--
-- Name: COLUMN events."position"; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events."position" IS 'Orders the whole log; gaps are normal';


--
-- Name: COLUMN events."timestamp"; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events."timestamp" IS 'Time of the append; the time at which it happened is metadata.occurred_at';


--
-- Name: COLUMN events.version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.version IS '1, 2, 3 and so on within one conversation, without gaps';


--
-- Name: COLUMN events.salt; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.salt IS 'Null once the event was erased; see erased_content';


--
-- Name: COLUMN events.digest; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.digest IS 'SHA-256 of the event in the byte format of docs/concepts/digest.md';


--
-- Name: audit_causes(text, uuid); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.audit_causes(tenant_id text, conversation_id uuid) RETURNS TABLE(version integer, event_id uuid, cause_id uuid)
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 WITH facts AS MATERIALIZED (
          SELECT e.version,
             e.id,
             e.event_type,
             (e.metadata ->> 'causation_id'::text) AS cause,
                 CASE
                     WHEN starts_with((e.event_type)::text, 'task.'::text) THEN (e.content ->> 'task_id'::text)
                     ELSE NULL::text
                 END AS task_id,
                 CASE
                     WHEN starts_with((e.event_type)::text, 'task.artifact_'::text) THEN (e.content ->> 'artifact_id'::text)
                     ELSE NULL::text
                 END AS artifact_id,
                 CASE e.event_type
                     WHEN 'message.added'::text THEN (e.content #>> '{extra,taskId}'::text[])
                     WHEN 'task.created'::text THEN COALESCE((e.content ->> 'given_id'::text), (e.content ->> 'task_id'::text))
                     ELSE NULL::text
                 END AS task_name,
                 CASE
                     WHEN ((e.event_type)::text = 'message.answered'::text) THEN (e.content ->> 'message_id'::text)
                     ELSE NULL::text
                 END AS message_id
            FROM public.events e
           WHERE (((e.tenant_id)::text = audit_causes.tenant_id) AND (e.conversation_id = audit_causes.conversation_id))
         ), tasks AS (
          SELECT DISTINCT ON (f.task_id) f.task_id,
             f.task_name,
             f.version,
             f.id,
             f.cause
            FROM facts f
           WHERE (f.task_id IS NOT NULL)
           ORDER BY f.task_id, f.version
         ), artifacts AS (
          SELECT DISTINCT ON (f.task_id, f.artifact_id) f.task_id,
             f.artifact_id,
             f.version,
             f.id,
             f.cause
            FROM facts f
           WHERE ((f.event_type)::text = 'task.artifact_added'::text)
           ORDER BY f.task_id, f.artifact_id, f.version
         ), named AS (
          SELECT DISTINCT ON (f.version) f.version,
             f.id,
                 CASE
                     WHEN (f.message_id IS NOT NULL) THEN f.message_id
                     WHEN ((a.version < f.version) AND (NOT (f.cause IS DISTINCT FROM a.cause))) THEN (a.id)::text
                     WHEN ((t.id IS NOT NULL) AND COALESCE((f.cause = t.cause), (f.cause IS NULL))) THEN (t.id)::text
                     ELSE f.cause
                 END AS cause
            FROM ((facts f
              LEFT JOIN artifacts a ON (((a.task_id = f.task_id) AND (a.artifact_id = f.artifact_id))))
              LEFT JOIN tasks t ON (((t.version < f.version) AND ((t.task_id = f.task_id) OR (((f.event_type)::text = 'message.added'::text) AND ((f.task_name = t.task_id) OR (f.task_name = t.task_name)))))))
           ORDER BY f.version, t.version DESC
         )
  SELECT n.version,
     n.id,
     c.id
    FROM (named n
      LEFT JOIN facts c ON ((((c.id)::text = n.cause) AND (c.version < n.version))))
   ORDER BY n.version;
END;


--
-- Name: begin_batch(text, text, text, smallint[], integer, bigint, bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.begin_batch(projection text, stage text, definition_hash text, partitions smallint[], size integer, until bigint, horizon bigint DEFAULT NULL::bigint) RETURNS TABLE(lower_position bigint, upper_position bigint, events bigint)
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    positions   bigint[];    -- the checkpoint of partition p at index p + 1; null for partitions of others
    due         smallint[];  -- the partitions with events to apply in the range
    taken       smallint[];  -- those of them whose checkpoints are locked here
    range_lower bigint;
    range_upper bigint;
    is_set_back boolean;     -- under its lock, a checkpoint is lower than it was read before
    missed      smallint;
BEGIN
    until := least(until, coalesce(horizon, log_horizon(begin_batch.partitions)));
    LOOP
        -- Read the checkpoints.
        SELECT min(c.position), array_agg(c.position ORDER BY p.partition)
          INTO lower_position, positions
          FROM generate_series(0, 15) AS p (partition)
          LEFT JOIN checkpoints c
            ON c.projection = begin_batch.projection
           AND c.stage = begin_batch.stage
           AND c.partition = p.partition
           AND c.partition = ANY (begin_batch.partitions);
        IF lower_position IS NULL THEN
            RETURN;
        END IF;
        -- Find the events of the batch, and the range of those to apply: a projection's statements scan it several times.
        SELECT coalesce(max(next.position), lower_position), count(*),
               min(next.position) FILTER (WHERE next.position > positions[next.partition + 1]) - 1,
               max(next.position) FILTER (WHERE next.position > positions[next.partition + 1]),
               array_agg(DISTINCT next.partition) FILTER (WHERE next.position > positions[next.partition + 1])
          INTO upper_position, events, range_lower, range_upper, due
          FROM (SELECT e.position, partition_of(e.conversation_id) AS partition
                  FROM events e
                 WHERE e.position > lower_position
                   AND e.position <= begin_batch.until
                 ORDER BY e.position
                 LIMIT begin_batch.size) AS next;
        -- Lock the checkpoints of the partitions that have events to apply; if others have locked all, wait for one.
        SELECT coalesce(array_agg(free.partition), '{}'), bool_or(free.position < positions[free.partition + 1])
          INTO taken, is_set_back
          FROM (SELECT c.partition, c.position
                  FROM checkpoints c
                 WHERE c.projection = begin_batch.projection
                   AND c.stage = begin_batch.stage
                   AND c.partition = ANY (due)
                   FOR UPDATE SKIP LOCKED) AS free;
        IF taken = '{}' AND due IS NOT NULL THEN
            BEGIN
                PERFORM
                   FROM checkpoints c
                  WHERE c.projection = begin_batch.projection
                    AND c.stage = begin_batch.stage
                    AND c.partition = due[1]
                    FOR UPDATE;
                RAISE no_data_found;
            EXCEPTION
                WHEN no_data_found THEN -- the lock is released
            END;
        ELSIF is_set_back IS NOT TRUE THEN
            EXIT;
        END IF;
    END LOOP;
    IF begin_batch.stage = 'live'
       AND EXISTS (SELECT FROM paused_projections p WHERE p.projection = begin_batch.projection) THEN
        RAISE EXCEPTION 'the projection % is paused', projection USING ERRCODE = 'ES009';
    END IF;
    IF NOT EXISTS (
           SELECT
             FROM projection_definitions t
            WHERE t.projection = begin_batch.projection
              AND t.stage = begin_batch.stage
              AND t.definition_hash = begin_batch.definition_hash) THEN
        RAISE EXCEPTION 'the % tables of the projection % were filled by another definition', stage, projection
            USING ERRCODE = 'ES006';
    END IF;
    IF events > 0 THEN
        FOREACH missed IN ARRAY coalesce(due, '{}') LOOP
            IF missed <> ALL (taken) THEN
                positions[missed + 1] := NULL;
            END IF;
        END LOOP;
        PERFORM set_config('eventstore.projection', begin_batch.projection, true),
                set_config('eventstore.stage', begin_batch.stage, true),
                set_config('eventstore.partitions', taken::text, true),
                set_config('eventstore.checkpoints', positions::text, true),
                set_config('eventstore.batch_events', events::text, true),
                set_config('eventstore.lower_position', coalesce(range_lower, upper_position)::text, true),
                set_config('eventstore.upper_position', coalesce(range_upper, upper_position)::text, true);
    END IF;
    RETURN NEXT;
END
$$;


--
-- Name: begin_wait(bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.begin_wait(seen bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
    class integer := 'waiter_flag'::regclass::oid::bigint::bit(32)::integer;
BEGIN
    PERFORM refuse_old_snapshots();
    IF NOT pg_try_advisory_lock_shared(class, 0) THEN
        RETURN false;
    END IF;
    IF (SELECT s.last_value FROM waiter_flag s) = 0 THEN
        -- A crash that loses the flag also ends the waiting sessions, so it need not be durable.
        PERFORM set_config('synchronous_commit', 'off', true),
                setval('waiter_flag', 1);
    END IF;
    -- Two statements: the snapshot of the second must be taken after the first has found no append in progress.
    IF lowest_append_in_flight(begin_wait.seen) IS NULL THEN
        IF NOT EXISTS (SELECT FROM events e WHERE e.position > begin_wait.seen) THEN
            RETURN true;
        END IF;
    END IF;
    PERFORM pg_advisory_unlock_shared(class, 0);
    RETURN false;
END
$$;


--
-- Name: bind_login(name, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.bind_login(login name, tenant text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    found_role pg_roles;
BEGIN
    SELECT r.* INTO found_role FROM pg_roles r WHERE r.rolname = bind_login.login;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the login % does not exist', quote_nullable(login)
            USING ERRCODE = 'undefined_object', HINT = 'Create it with CREATE ROLE … LOGIN first.';
    END IF;
    IF found_role.rolsuper OR found_role.rolbypassrls
       OR pg_has_role(login, (SELECT c.relowner FROM pg_class c WHERE c.oid = 'events'::regclass), 'MEMBER')
       OR coalesce(pg_has_role(login, to_regrole('eventstore_projector'), 'MEMBER'), false) THEN
        RAISE EXCEPTION 'the login % sees every tenant: binding it would not change that', quote_ident(login)
            USING ERRCODE = 'invalid_grant_operation',
                  HINT = 'Bind a login that is not a superuser, does not have BYPASSRLS, and is not a member of the owner or eventstore_projector.';
    END IF;
    INSERT INTO bound_logins AS b (login, tenant_id)
    VALUES (bind_login.login, bind_login.tenant)
        ON CONFLICT ON CONSTRAINT bound_logins_pkey DO UPDATE SET tenant_id = excluded.tenant_id;
END
$$;


--
-- Name: check_erasure(text, uuid, int4multirange); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.check_erasure(tenant_id text, conversation_id uuid, versions int4multirange) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_variable
BEGIN
    IF tenant_id IS DISTINCT FROM current_tenant() THEN
        RAISE EXCEPTION 'this transaction may not erase events of the tenant %', quote_nullable(tenant_id)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'SELECT set_config(''eventstore.tenant'', …, true) in the same transaction, by a login that may set it.';
    END IF;
    IF current_tenant_user() IS NOT NULL
       AND NOT EXISTS (SELECT FROM members_of(conversation_id) AS m WHERE m.user_id = current_tenant_user() AND m.access = 'own')
       AND (versions IS NULL
            OR EXISTS (
                   SELECT
                     FROM events e
                    WHERE e.tenant_id = check_erasure.tenant_id
                      AND e.conversation_id = check_erasure.conversation_id
                      AND e.version <@ versions
                      AND e.actor <> current_tenant_user()
                      AND NOT (e.conversation_id = administration_id()
                               AND e.content ->> 'user' IS NOT DISTINCT FROM current_tenant_user())
               )) THEN
        RAISE EXCEPTION 'the user may not erase this of conversation %', conversation_id
            USING ERRCODE = 'ES007',
                  DETAIL = jsonb_build_object('conversation_id', conversation_id)::text;
    END IF;
END
$$;


--
-- Name: check_holds(text, uuid, int4multirange); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.check_holds(tenant_id text, conversation_id uuid, versions int4multirange) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    IF check_holds.tenant_id IS DISTINCT FROM current_tenant() THEN
        PERFORM refuse_tenant(check_holds.tenant_id);
    END IF;
    PERFORM refuse_held(check_holds.tenant_id, check_holds.conversation_id, min(e.version),
                        array_agg(DISTINCT e.actor::text))
       FROM events e
      WHERE e.tenant_id = check_holds.tenant_id
        AND e.conversation_id = check_holds.conversation_id
        AND (check_holds.versions IS NULL OR e.version <@ check_holds.versions)
     HAVING count(*) > 0;
END
$$;


--
-- Name: check_holds_of_user(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.check_holds_of_user(tenant_id text, user_id text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    IF check_holds_of_user.tenant_id IS DISTINCT FROM current_tenant() THEN
        PERFORM refuse_tenant(check_holds_of_user.tenant_id);
    END IF;
    PERFORM refuse_held(check_holds_of_user.tenant_id, NULL, 1, ARRAY[check_holds_of_user.user_id]);
    PERFORM check_holds(check_holds_of_user.tenant_id, u.conversation_id, u.versions)
       FROM erasure_of_user(check_holds_of_user.tenant_id, check_holds_of_user.user_id) AS u;
END
$$;


--
-- Name: complete_erasure(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.complete_erasure() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    PERFORM refuse_held(o.tenant_id, o.conversation_id, min(o.version), array_agg(DISTINCT o.actor::text))
       FROM old_events o
      GROUP BY o.tenant_id, o.conversation_id;
    INSERT INTO pending_receipts (tenant_id, conversation_id, versions, last_version)
    SELECT o.tenant_id, o.conversation_id,
           range_agg(int4range(o.version, o.version, '[]'))
           + coalesce(range_agg((SELECT range_agg(int4range((v ->> 0)::integer, (v ->> 1)::integer, '[]'))
                                   FROM jsonb_array_elements(o.content -> 'versions') AS v))
                          FILTER (WHERE o.event_type IN ('conversation.erased', 'event.erased')), '{}'),
           (SELECT max(e.version)
              FROM events e
             WHERE e.tenant_id = o.tenant_id
               AND e.conversation_id = o.conversation_id)
      FROM old_events o
     GROUP BY o.tenant_id, o.conversation_id;
    PERFORM delete_unreferenced_files(array_agg(f.tenant_id::text), array_agg(f.conversation_id), array_agg(f.sha256))
       FROM (SELECT DISTINCT o.tenant_id, o.conversation_id,
                    decode(jsonb_array_elements_text(o.metadata -> 'eventstore.files'), 'hex') AS sha256
               FROM old_events o
              WHERE o.metadata ? 'eventstore.files') AS f
     HAVING count(*) > 0;
    RETURN NULL;
END
$$;


--
-- Name: conversation_ancestry(text, uuid); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.conversation_ancestry(tenant text, conversation uuid) RETURNS TABLE(conversation_id uuid, last_version integer, shift bigint)
    LANGUAGE sql STABLE
    AS $$
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


--
-- Name: conversation_is_deleted(text, uuid); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.conversation_is_deleted(tenant_id text, conversation_id uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
BEGIN
    RETURN coalesce((
        SELECT e.event_type = 'conversation.deleted'
          FROM events e
         WHERE e.tenant_id = conversation_is_deleted.tenant_id
           AND e.conversation_id = conversation_is_deleted.conversation_id
           AND e.event_type IN ('conversation.deleted', 'conversation.reactivated')
         ORDER BY e.version DESC
         LIMIT 1
    ), false);
END
$$;


--
-- Name: partition_of(uuid); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.partition_of(conversation_id uuid) RETURNS smallint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((uuid_hash(conversation_id) & 15))::smallint;


--
-- Name: conversation_lock_key(text, uuid); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.conversation_lock_key(tenant_id text, conversation_id uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((uuid_hash_extended(conversation_id, hashtextextended(tenant_id, (0)::bigint)) & (~ (15)::bigint)) | (public.partition_of(conversation_id))::bigint);


--
-- Name: stage_schema(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.stage_schema(stage text) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    RETURN CASE stage WHEN 'live'::text THEN ("current_schema"())::text ELSE (("left"(("current_schema"())::text, 54) || '_'::text) || stage) END;


--
-- Name: projection_definitions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.projection_definitions (
    projection text NOT NULL COLLATE pg_catalog."C",
    stage text NOT NULL COLLATE pg_catalog."C",
    definition_hash text NOT NULL,
    text text,
    tables text[] NOT NULL,
    made_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT projection_definitions_stage_check CHECK ((stage = ANY (ARRAY['live'::text, 'next'::text, 'previous'::text])))
);


--
-- Name: TABLE projection_definitions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.projection_definitions IS 'Definition by which the tables of a stage are filled';


--
-- Name: COLUMN projection_definitions.definition_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.projection_definitions.definition_hash IS 'SHA-256 of the definition, in hexadecimal';


--
-- Name: COLUMN projection_definitions.text; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.projection_definitions.text IS 'SQL of the projection; null if it is written in Python';


--
-- Name: conversation_tables(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.conversation_tables(stage text) RETURNS TABLE(projection text, name text, relation regclass, conversation_column name, has_version boolean)
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 SELECT d.projection,
     (c.relname)::text AS relname,
     (c.oid)::regclass AS oid,
     (
         CASE
             WHEN (columns.names @> '{tenant_id,conversation_id}'::text[]) THEN 'conversation_id'::text
             WHEN (columns.names @> '{tenant_id,id}'::text[]) THEN 'id'::text
             ELSE NULL::text
         END)::name AS name,
     (columns.names @> '{version}'::text[])
    FROM ((pg_class c
      CROSS JOIN LATERAL ( SELECT array_agg((a.attname)::text) AS names
            FROM pg_attribute a
           WHERE ((a.attrelid = c.oid) AND (NOT a.attisdropped) AND ((a.attname = 'tenant_id'::name) OR ((a.attname = ANY (ARRAY['conversation_id'::name, 'id'::name])) AND (a.atttypid = ('uuid'::regtype)::oid)) OR ((a.attname = 'version'::name) AND (a.atttypid = ('integer'::regtype)::oid))))) columns)
      LEFT JOIN public.projection_definitions d ON (((d.stage = conversation_tables.stage) AND ((c.relname)::text = ANY (d.tables)))))
   WHERE ((c.relnamespace = (to_regnamespace(quote_ident(public.stage_schema(conversation_tables.stage))))::oid) AND (c.relkind = 'r'::"char") AND ((d.projection IS NOT NULL) OR ((conversation_tables.stage = 'live'::text) AND (columns.names @> '{tenant_id,conversation_id}'::text[]) AND (c.relname <> ALL (ARRAY['events'::name, 'conversation_members'::name, 'parked'::name, 'answer_leases'::name, 'blobs'::name])) AND (EXISTS ( SELECT
            FROM pg_policy p
           WHERE ((p.polrelid = c.oid) AND (p.polname = 'open_to_owner'::name)))))));
END;


--
-- Name: conversation_uuid(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.conversation_uuid(tenant_id text, given_id text) RETURNS uuid
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
DECLARE
    hash bytea;
BEGIN
    IF given_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        RETURN given_id::uuid;
    END IF;
    hash := sha1(
        '\x6c0a1f0e5a5b5d0c9a430f6f1d0b7f2e'
        || convert_to(format('12:conversation%s:%s%s:%s', length(tenant_id), tenant_id, length(given_id), given_id), 'UTF8')
    );
    hash := set_byte(hash, 6, (get_byte(hash, 6) & 15) | 80);
    hash := set_byte(hash, 8, (get_byte(hash, 8) & 63) | 128);
    RETURN encode(substring(hash FROM 1 FOR 16), 'hex')::uuid;
END
$_$;


--
-- Name: create_staging_tables(text[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.create_staging_tables(tables text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    live      text := stage_schema('live');
    next      text := stage_schema('next');
    name      text;
    new_table text;
    source    pg_class;
    statement text;
BEGIN
    FOREACH name IN ARRAY tables LOOP
        new_table := format('%I.%I', next, name);
        SELECT c.* INTO source FROM pg_class c WHERE c.oid = format('%I.%I', live, name)::regclass;
        EXECUTE format('CREATE TABLE %s (LIKE %I.%I INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS)',
                       new_table, live, name);
        FOR statement IN
            SELECT format('ALTER TABLE %s OWNER TO %s', new_table, source.relowner::regrole)
             UNION ALL
            SELECT format('ALTER TABLE %s SET (%s)', new_table, array_to_string(source.reloptions, ', '))
             WHERE source.reloptions IS NOT NULL
             UNION ALL
            SELECT format('COMMENT ON TABLE %s IS %L', new_table, obj_description(source.oid, 'pg_class'))
             WHERE obj_description(source.oid, 'pg_class') IS NOT NULL
             UNION ALL
            SELECT format('ALTER TABLE %s REPLICA IDENTITY %s', new_table,
                          CASE source.relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END)
             WHERE source.relreplident IN ('f', 'n')
             UNION ALL
            SELECT format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', new_table, a.attname, a.attstattarget)
              FROM pg_attribute a
             WHERE a.attrelid = source.oid AND a.attnum > 0 AND a.attstattarget >= 0
             UNION ALL
            SELECT format('GRANT %s ON TABLE %s TO %s%s', g.privilege_type, new_table, grantee_name(g.grantee),
                          CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
              FROM aclexplode(source.relacl) AS g
             WHERE g.grantee <> source.relowner
             UNION ALL
            SELECT format('GRANT %s (%I) ON TABLE %s TO %s%s', g.privilege_type, a.attname, new_table, grantee_name(g.grantee),
                          CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
              FROM pg_attribute a, aclexplode(a.attacl) AS g
             WHERE a.attrelid = source.oid AND a.attnum > 0
        LOOP
            EXECUTE statement;
        END LOOP;
    END LOOP;
END
$$;


--
-- Name: current_conversation(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.current_conversation() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (NULLIF(current_setting('eventstore.conversation_id'::text, true), ''::text))::uuid;


--
-- Name: current_tenant(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.current_tenant() RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    bound text;
BEGIN
    SELECT b.tenant_id INTO bound FROM bound_logins b WHERE b.login = session_user;
    IF FOUND THEN
        RETURN bound;
    END IF;
    IF may_set_tenant() THEN
        RETURN nullif(current_setting('eventstore.tenant', true), '');
    END IF;
    RETURN NULL;
END
$$;


--
-- Name: current_tenant_user(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.current_tenant_user() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(current_setting('eventstore.user'::text, true), ''::text);


--
-- Name: delete_unreferenced_files(text[], uuid[], bytea[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.delete_unreferenced_files(tenant_ids text[], conversation_ids uuid[], files bytea[]) RETURNS TABLE(tenant_id text, deleted bigint, bytes bigint)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    tenants       text[];
    conversations uuid[];
    unreferenced  bytea[];
BEGIN
    PERFORM refuse_old_snapshots();
    PERFORM lock_chunks(files, true);
    SELECT array_agg(l.tenant_id), array_agg(l.conversation_id), array_agg(l.sha256)
      INTO tenants, conversations, unreferenced
      FROM (SELECT b.tenant_id, b.conversation_id, b.sha256
              FROM unnest(tenant_ids, conversation_ids, files) AS f (tenant_id, conversation_id, sha256)
              JOIN blobs b
                ON b.tenant_id = f.tenant_id
               AND b.conversation_id = f.conversation_id
               AND b.sha256 = f.sha256
               FOR UPDATE OF b SKIP LOCKED) AS l;
    WITH gone AS (
        DELETE FROM blobs b
         USING unnest(tenants, conversations, unreferenced) AS f (tenant_id, conversation_id, sha256)
         WHERE b.tenant_id = f.tenant_id
           AND b.conversation_id = f.conversation_id
           AND b.sha256 = f.sha256
           AND NOT file_is_referenced(f.tenant_id, f.conversation_id, f.sha256)
        RETURNING b.tenant_id, b.sha256
    )
    SELECT array_agg(g.tenant_id), array_agg(g.sha256) INTO tenants, unreferenced FROM gone g;
    RETURN QUERY
    WITH gone AS (
        DELETE FROM blob_chunks c
         USING (SELECT DISTINCT f.tenant_id, f.sha256
                  FROM unnest(tenants, unreferenced) AS f (tenant_id, sha256)) AS f
         WHERE c.tenant_id = f.tenant_id
           AND c.sha256 = f.sha256
           AND NOT EXISTS (SELECT FROM blobs b WHERE b.tenant_id = f.tenant_id AND b.sha256 = f.sha256)
        RETURNING c.tenant_id, octet_length(c.content) AS size
    )
    SELECT t.tenant_id, count(*),
           (SELECT coalesce(sum(g.size), 0)::bigint FROM gone g WHERE g.tenant_id = t.tenant_id)
      FROM unnest(tenants) AS t (tenant_id)
     GROUP BY t.tenant_id;
END
$$;


--
-- Name: file_is_referenced(text, uuid, bytea); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.file_is_referenced(tenant_id text, conversation_id uuid, sha256 bytea) RETURNS boolean
    LANGUAGE sql STABLE
    RETURN (EXISTS (SELECT FROM public.events e WHERE (((e.tenant_id)::text = file_is_referenced.tenant_id) AND (e.conversation_id = file_is_referenced.conversation_id) AND (e.metadata ? 'eventstore.files'::text) AND ((e.metadata -> 'eventstore.files'::text) ? encode(file_is_referenced.sha256, 'hex'::text)))));


--
-- Name: blobs; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.blobs (
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    conversation_id uuid NOT NULL,
    sha256 bytea NOT NULL,
    size bigint NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT blobs_sha256_check CHECK ((octet_length(sha256) = 32))
);

ALTER TABLE ONLY public.blobs FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE blobs; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.blobs IS 'Large files of events, by tenant, conversation and SHA-256; written by functions alone';


--
-- Name: delete_orphaned_files(integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.delete_orphaned_files(maximum integer) RETURNS TABLE(tenant_id text, deleted bigint, bytes bigint)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 SELECT d.tenant_id,
     d.deleted,
     d.bytes
    FROM (( SELECT array_agg((f.tenant_id)::text) AS tenant_ids,
             array_agg(f.conversation_id) AS conversation_ids,
             array_agg(f.sha256) AS files
            FROM ( SELECT b.tenant_id,
                     b.conversation_id,
                     b.sha256
                    FROM public.blobs b
                   WHERE (((b.tenant_id)::text = COALESCE(( SELECT public.append_tenant() AS append_tenant), (b.tenant_id)::text)) AND (b.created_at < (clock_timestamp() - '1 day'::interval)) AND (NOT public.file_is_referenced((b.tenant_id)::text, b.conversation_id, b.sha256)))
                  LIMIT delete_orphaned_files.maximum) f) c
      CROSS JOIN LATERAL public.delete_unreferenced_files(c.tenant_ids, c.conversation_ids, c.files) d(tenant_id, deleted, bytes));
END;


--
-- Name: deleted_conversation_accepts(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.deleted_conversation_accepts(event_type text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (event_type = ANY (ARRAY['conversation.reactivated'::text, 'conversation.unshared'::text, 'message.answered'::text, 'conversation.erased'::text, 'event.erased'::text]));


--
-- Name: members_of_log(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.members_of_log() RETURNS TABLE(tenant_id text, conversation_id uuid, user_id text, access text)
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 WITH owners AS (
          SELECT e.tenant_id,
             e.conversation_id,
             (e.metadata ->> 'eventstore.owner'::text) AS user_id
            FROM public.events e
           WHERE ((e.version = 1) AND (e.metadata ? 'eventstore.owner'::text))
         ), shared AS (
          SELECT DISTINCT ON (e.tenant_id, e.conversation_id, (e.content ->> 'user'::text)) e.tenant_id,
             e.conversation_id,
             (e.content ->> 'user'::text) AS user_id,
             (e.content ->> 'access'::text) AS access,
             e.event_type
            FROM public.events e
           WHERE (((e.event_type)::text = ANY ((ARRAY['conversation.shared'::character varying, 'conversation.unshared'::character varying])::text[])) AND (e.content ? 'user'::text))
           ORDER BY e.tenant_id, e.conversation_id, (e.content ->> 'user'::text), e.version DESC
         )
  SELECT o.tenant_id,
     o.conversation_id,
     o.user_id,
     'own'::text
    FROM owners o
 UNION ALL
  SELECT s.tenant_id,
     s.conversation_id,
     s.user_id,
     s.access
    FROM shared s
   WHERE (((s.event_type)::text = 'conversation.shared'::text) AND (NOT (EXISTS ( SELECT
            FROM owners o
           WHERE (((o.tenant_id)::text = (s.tenant_id)::text) AND (o.conversation_id = s.conversation_id) AND (o.user_id = s.user_id))))));
END;


--
-- Name: conversation_members; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.conversation_members (
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    conversation_id uuid NOT NULL,
    user_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    access text NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT conversation_members_access_check CHECK ((access = ANY (ARRAY['own'::text, 'write'::text, 'read'::text]))),
    CONSTRAINT conversation_members_user_check CHECK (((user_id)::text <> ''::text))
);

ALTER TABLE ONLY public.conversation_members FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE conversation_members; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.conversation_members IS 'Users who may see and append to a conversation; written by the append functions alone';


--
-- Name: COLUMN conversation_members.access; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.conversation_members.access IS 'own: also share and delete; write: also append; read';


--
-- Name: differing_members(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.differing_members() RETURNS TABLE(tenant_id text, conversation_id uuid, user_id text, expected text, found text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 SELECT COALESCE(l.tenant_id, (m.tenant_id)::text) AS "coalesce",
     COALESCE(l.conversation_id, m.conversation_id) AS "coalesce",
     COALESCE(l.user_id, (m.user_id)::text) AS "coalesce",
     l.access,
     m.access
    FROM (public.members_of_log() l(tenant_id, conversation_id, user_id, access)
      FULL JOIN public.conversation_members m ON ((((m.tenant_id)::text = l.tenant_id) AND (m.conversation_id = l.conversation_id) AND ((m.user_id)::text = l.user_id))))
   WHERE (m.access IS DISTINCT FROM l.access);
END;


--
-- Name: disable_rls(regclass); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.disable_rls(target regclass) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    policy name;
BEGIN
    FOR policy IN
        SELECT p.polname
          FROM pg_policy p
         WHERE p.polrelid = target
           AND p.polname IN ('open_to_owner', 'open_to_projector', 'open_to_search', 'open_to_eraser',
                            'open_to_caller', 'require_tenant')
    LOOP
        EXECUTE format('DROP POLICY %I ON %s', policy, target);
    END LOOP;
END
$$;


--
-- Name: drop_stage(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.drop_stage(projection text, stage text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    name text;
BEGIN
    IF stage = 'live' THEN
        RAISE EXCEPTION 'the live tables of % are in use and cannot be dropped', projection USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR name IN
        SELECT unnest(t.tables)
          FROM projection_definitions t
         WHERE t.projection = drop_stage.projection
           AND t.stage = drop_stage.stage
    LOOP
        EXECUTE format('DROP TABLE IF EXISTS %I.%I', stage_schema(stage), name);
    END LOOP;
    DELETE FROM projection_definitions t WHERE t.projection = drop_stage.projection AND t.stage = drop_stage.stage;
    DELETE FROM checkpoints c WHERE c.projection = drop_stage.projection AND c.stage = drop_stage.stage;
    DELETE FROM parked p WHERE p.projection = drop_stage.projection AND p.stage = drop_stage.stage;
END
$$;


--
-- Name: due_conversations(text, uuid, timestamp with time zone, uuid, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.due_conversations(tenant_id text, rule uuid, after_time timestamp with time zone, after_id uuid, maximum integer) RETURNS TABLE(conversation_id uuid, version integer, counted_from timestamp with time zone, hold uuid)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $_$
#variable_conflict use_variable
DECLARE
    bound text := append_tenant();
    found retention_rules;
BEGIN
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    SELECT r.*
      INTO found
      FROM retention_rules r
     WHERE r.tenant_id = due_conversations.tenant_id
       AND r.id = rule;
    RETURN QUERY EXECUTE format(
        $query$
        WITH RECURSIVE continued AS (
            SELECT (c.forked_from ->> 'conversation_id')::uuid AS id
              FROM conversations c
             WHERE %2$L = 'last_event'
               AND c.tenant_id = $1
               AND c.forked_from IS NOT NULL
               AND c.updated_at > $4
               AND NOT c.is_deleted
             UNION
            SELECT (c.forked_from ->> 'conversation_id')::uuid
              FROM continued s
              JOIN conversations c
                ON c.tenant_id = $1
               AND c.id = s.id
             WHERE c.forked_from IS NOT NULL
        )
        SELECT due.id, due.version, due.time,
               (SELECT h.id
                  FROM holds_on($1, due.id, 1, ARRAY(SELECT a.actor::text
                                                       FROM conversation_actors a
                                                      WHERE a.tenant_id = $1
                                                        AND a.conversation_id = due.id)) AS h
                 LIMIT 1)
          FROM (SELECT c.id, c.version, c.%1$I AS time
          FROM conversations c
         WHERE c.tenant_id = $1
           AND (c.%1$I, c.id) > ($2, $3)
           AND (c.%1$I <= $4
                OR c.%1$I > now()
                   AND $4 >= (SELECT e.timestamp
                                FROM events e
                               WHERE e.tenant_id = c.tenant_id
                                 AND e.conversation_id = c.id
                               ORDER BY e.version %3$s
                               LIMIT 1))
           AND ($5 IS NULL
                OR CASE WHEN c.is_deleted THEN 'deleted' WHEN c.is_active THEN 'active' ELSE 'archived' END = $5)
           AND ($6 IS NULL OR c.metadata @> $6)
           AND ($7 IS NULL
                OR EXISTS (SELECT
                             FROM conversation_members m
                            WHERE m.tenant_id = c.tenant_id
                              AND m.conversation_id = c.id
                              AND m.user_id = $7
                              AND m.access = 'own'))
           AND c.id NOT IN (SELECT s.id FROM continued s WHERE s.id IS NOT NULL)
           AND 'conversation.erased' <> (SELECT e.event_type
                                           FROM events e
                                          WHERE e.tenant_id = c.tenant_id
                                            AND e.conversation_id = c.id
                                          ORDER BY e.version DESC
                                          LIMIT 1)
         ORDER BY c.%1$I, c.id
         LIMIT $8) AS due
         ORDER BY due.time, due.id
        $query$,
        CASE found.since WHEN 'creation' THEN 'created_at' ELSE 'updated_at' END,
        found.since,
        CASE found.since WHEN 'creation' THEN 'ASC' ELSE 'DESC' END)
    USING tenant_id, after_time, after_id, clock_timestamp() - found.age, found.state, found.metadata, found.user_id,
          maximum;
END
$_$;


--
-- Name: enable_rls(regclass, name); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.enable_rls(target regclass, conversation_column name DEFAULT 'conversation_id'::name) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    owner_name  name;
    has_tenant  boolean := EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = 'tenant_id');
BEGIN
    SELECT r.rolname INTO owner_name FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = target;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', target);
    PERFORM disable_rls(target);
    EXECUTE format('CREATE POLICY open_to_owner ON %s TO %I USING (is_current_role(%L)) WITH CHECK (is_current_role(%L))',
                   target, owner_name, owner_name, owner_name);
    -- It never holds; it raises the error.
    EXECUTE format('CREATE POLICY require_tenant ON %s FOR SELECT TO %I
                        USING (NOT (is_current_role(%L) OR (SELECT require_tenant())))', target, owner_name, owner_name);
    IF to_regrole('eventstore_projector') IS NOT NULL THEN
        EXECUTE format('CREATE POLICY open_to_projector ON %s TO eventstore_projector
                            USING (is_current_role(''eventstore_projector'')) WITH CHECK (is_current_role(''eventstore_projector''))', target);
    END IF;
    IF to_regrole('eventstore_search') IS NOT NULL
       AND target IN (to_regclass('events'), to_regclass('search_documents'), to_regclass('search_conversations')) THEN
        EXECUTE format('CREATE POLICY open_to_search ON %s FOR SELECT TO eventstore_search
                            USING (is_current_role(''eventstore_search''))', target);
    END IF;
    IF NOT has_tenant THEN
        RETURN;
    END IF;
    IF to_regrole('eventstore_eraser') IS NOT NULL AND target = to_regclass('events') THEN
        EXECUTE format('CREATE POLICY open_to_eraser ON %s FOR UPDATE TO eventstore_eraser USING (tenant_id = %s)',
                       target, rls_tenant());
    END IF;
    EXECUTE format('CREATE POLICY open_to_caller ON %s FOR SELECT USING (%s)', target, rls_condition(target, conversation_column));
END
$$;


--
-- Name: end_batch(bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.end_batch(upper_position bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    positions bigint[] := current_setting('eventstore.checkpoints');
BEGIN
    UPDATE checkpoints c
       SET position      = upper_position,
           updated_at    = clock_timestamp(),
           batch_events  = current_setting('eventstore.batch_events')::integer,
           batch_seconds = extract(epoch FROM clock_timestamp() - transaction_timestamp())
      FROM (SELECT f.partition
              FROM checkpoints f
             WHERE f.projection = current_setting('eventstore.projection')
               AND f.stage = current_setting('eventstore.stage')
               AND f.position >= positions[f.partition + 1]
               AND f.position < upper_position
               FOR UPDATE SKIP LOCKED) AS free
     WHERE c.projection = current_setting('eventstore.projection')
       AND c.stage = current_setting('eventstore.stage')
       AND c.partition = free.partition;
    IF NOT FOUND AND current_setting('eventstore.partitions') = '{}' THEN -- this session has locked none
        RAISE no_data_found;
    END IF;
EXCEPTION
    WHEN no_data_found THEN
        PERFORM
           FROM checkpoints c
          WHERE c.projection = current_setting('eventstore.projection')
            AND c.stage = current_setting('eventstore.stage')
            AND c.partition = (SELECT f.partition
                                 FROM checkpoints f
                                WHERE f.projection = current_setting('eventstore.projection')
                                  AND f.stage = current_setting('eventstore.stage')
                                  AND f.position >= positions[f.partition + 1]
                                  AND f.position < upper_position
                                LIMIT 1)
            FOR UPDATE;
END
$$;


--
-- Name: waiter_flag; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.waiter_flag
    AS integer
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    MAXVALUE 1
    CACHE 1;


--
-- Name: end_wait(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.end_wait() RETURNS boolean
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 SELECT pg_advisory_unlock_shared((((('public.waiter_flag'::regclass)::oid)::bigint)::bit(32))::integer, 0) AS pg_advisory_unlock_shared;
END;


--
-- Name: erasable_rows(text, uuid, int4multirange); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.erasable_rows(tenant_id text, conversation_id uuid, versions int4multirange) RETURNS TABLE(table_name text, rows bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $_$
#variable_conflict use_variable
DECLARE
    target record;
BEGIN
    table_name := 'events';
    rows := (SELECT count(*)
               FROM events e
              WHERE e.tenant_id = erasable_rows.tenant_id
                AND e.conversation_id = erasable_rows.conversation_id
                AND (versions IS NULL OR e.version <@ versions)
                AND e.event_type NOT IN ('conversation.erased', 'event.erased')
                AND e.salt IS NOT NULL);
    RETURN NEXT;
    FOR target IN SELECT * FROM conversation_tables('live') AS t ORDER BY t.name LOOP
        CONTINUE WHEN target.conversation_column IS NULL OR versions IS NOT NULL AND NOT target.has_version;
        table_name := target.name;
        EXECUTE format('SELECT count(*) FROM %s WHERE tenant_id = $1 AND %I = $2 AND ($3 IS NULL OR %s)', target.relation,
                       target.conversation_column, CASE WHEN target.has_version THEN 'version <@ $3' ELSE 'true' END)
           INTO rows USING tenant_id, conversation_id, versions;
        RETURN NEXT;
    END LOOP;
END
$_$;


--
-- Name: erase_events(text, uuid, int4multirange, timestamp with time zone, boolean, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.erase_events(tenant_id text, conversation_id uuid, versions int4multirange, until timestamp with time zone, erases_members boolean, lock_wait_ms integer, OUT erased_versions int4multirange, OUT erased_until timestamp with time zone, OUT events bigint) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_variable
BEGIN
    PERFORM refuse_old_snapshots();
    IF lock_wait_ms > 0 THEN
        PERFORM set_config('lock_timeout', lock_wait_ms::text, true);
    END IF;
    PERFORM pg_advisory_xact_lock(conversation_lock_key(tenant_id, conversation_id));
    PERFORM check_erasure(tenant_id, conversation_id, versions);
    PERFORM set_config('eventstore.erases_members', erases_members::text, true);
    WITH erased AS (
        UPDATE events e
           SET salt = NULL -- the trigger makes the rest (refuse_change_of_events)
         WHERE e.tenant_id = erase_events.tenant_id
           AND e.conversation_id = erase_events.conversation_id
           AND (versions IS NULL OR e.version <@ versions)
           AND (until IS NULL OR e.timestamp <= until)
           AND (e.event_type NOT IN ('conversation.erased', 'event.erased') OR erases_members AND versions IS NOT NULL)
           AND (e.salt IS NOT NULL
                OR erases_members AND (e.metadata ? 'eventstore.owner' OR e.content ? 'user'))
        RETURNING e.version, e.timestamp
    )
    SELECT range_agg(int4range(e.version, e.version, '[]')), max(e.timestamp), count(*)
      INTO erased_versions, erased_until, events
      FROM erased e;
    erased_versions := erased_versions + (
        SELECT coalesce(range_agg(int4range((r ->> 0)::integer, (r ->> 1)::integer, '[]')), '{}')
          FROM events e
         CROSS JOIN LATERAL jsonb_array_elements(e.content -> 'versions') AS r
         WHERE e.tenant_id = erase_events.tenant_id
           AND e.conversation_id = erase_events.conversation_id
           AND e.event_type IN ('conversation.erased', 'event.erased')
           AND e.version <@ erased_versions
    );
END
$$;


--
-- Name: erase_identity(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.erase_identity(tenant_id text, user_id text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    salt    bytea := uuid_send(gen_random_uuid());
    existed boolean;
BEGIN
    IF tenant_id IS DISTINCT FROM current_tenant() OR coalesce(current_tenant_user() <> user_id, false) THEN
        RAISE EXCEPTION 'this transaction may not erase the user % of the tenant %', quote_nullable(user_id), quote_nullable(tenant_id)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'A user may erase themselves; an administrator of the tenant, all its users.';
    END IF;
    DELETE FROM identity_keys k
     WHERE k.tenant_id = erase_identity.tenant_id
       AND k.user_id = erase_identity.user_id;
    DELETE FROM identity_users u
     WHERE u.tenant_id = erase_identity.tenant_id
       AND u.id = erase_identity.user_id;
    existed := FOUND;
    IF existed OR NOT EXISTS (
           SELECT
             FROM identity_erasures r
            WHERE r.tenant_id = erase_identity.tenant_id
              AND r.hash = sha256(r.salt || convert_to(user_id, 'UTF8'))) THEN
        INSERT INTO identity_erasures (tenant_id, salt, hash, erased_at)
        VALUES (erase_identity.tenant_id, salt, sha256(salt || convert_to(user_id, 'UTF8')), clock_timestamp());
    END IF;
    RETURN existed;
END
$$;


--
-- Name: erased_content(text, jsonb, boolean); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.erased_content(event_type text, content jsonb, erases_members boolean) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
DECLARE
    mark constant jsonb := '{"metadata": {"eventstore.erased": true}}';
    kept jsonb;
BEGIN
    IF jsonb_typeof(content) IS DISTINCT FROM 'object' THEN
        RETURN '{}';
    END IF;
    -- An expression without a query, which plpgsql evaluates in less time.
    kept := jsonb_strip_nulls(jsonb_build_object(
        'message_id', CASE WHEN json_member_is_uuid(content, 'message_id') THEN content -> 'message_id' END,
        'task_id', CASE WHEN json_member_is_uuid(content, 'task_id') THEN content -> 'task_id' END,
        'source_conversation_id',
        CASE WHEN json_member_is_uuid(content, 'source_conversation_id') THEN content -> 'source_conversation_id' END,
        'artifact_id', CASE WHEN json_member_is_uuid(content, 'artifact_id') THEN content -> 'artifact_id' END,
        'config_id', CASE WHEN json_member_is_uuid(content, 'config_id') THEN content -> 'config_id' END,
        'source_version',
        CASE WHEN jsonb_typeof(content -> 'source_version') = 'number' THEN content -> 'source_version' END,
        'awaits_answer', CASE WHEN jsonb_typeof(content -> 'awaits_answer') = 'boolean' THEN content -> 'awaits_answer' END,
        'last_chunk', CASE WHEN jsonb_typeof(content -> 'last_chunk') = 'boolean' THEN content -> 'last_chunk' END,
        'role', CASE WHEN content -> 'role' IN ('"user"', '"assistant"', '"system"', '"tool"') THEN content -> 'role' END,
        'status', CASE WHEN content -> 'status' IN ('"pending"', '"in_progress"', '"completed"', '"input-required"',
                                                    '"auth-required"', '"canceled"', '"failed"', '"rejected"')
                       THEN content -> 'status' END,
        'outcome', CASE WHEN content -> 'outcome' IN ('"answered"', '"failed"', '"abandoned"')
                        THEN content -> 'outcome' END
    ));
    CASE event_type
        WHEN 'message.added' THEN
            RETURN '{"role": "system"}' || kept
                   || CASE WHEN content ? 'parts' THEN '{"parts": []}'::jsonb ELSE '{"content": ""}' END || mark;
        WHEN 'message.answered' THEN
            RETURN kept;
        WHEN 'task.created' THEN
            RETURN '{"status": "unknown", "description": ""}' || kept || mark;
        WHEN 'task.status_changed' THEN
            RETURN '{"status": "unknown"}' || kept;
        WHEN 'task.described' THEN
            RETURN kept
                   || CASE WHEN content ? 'description' THEN '{"description": ""}'::jsonb ELSE '{}' END
                   || CASE WHEN content ? 'extra' THEN '{"extra": {}}'::jsonb ELSE '{}' END
                   || CASE WHEN content ? 'metadata' THEN mark ELSE '{}' END;
        WHEN 'task.artifact_added', 'task.artifact_extended' THEN
            RETURN '{"artifact_id": "erased", "parts": [], "last_chunk": true}' || kept || mark;
        WHEN 'task.cancel_requested', 'task.deleted' THEN
            RETURN kept;
        WHEN 'task.push_notification_set' THEN
            RETURN '{"config_id": "erased", "config": {}}' || kept;
        WHEN 'task.push_notification_deleted' THEN
            RETURN '{"config_id": "erased"}' || kept;
        WHEN 'conversation.created', 'conversation.forked' THEN
            RETURN kept || CASE WHEN content ? 'name' THEN '{"name": ""}'::jsonb ELSE '{}' END || mark;
        WHEN 'conversation.renamed' THEN
            RETURN '{"name": ""}';
        WHEN 'conversation.rewound' THEN
            RETURN CASE WHEN jsonb_typeof(content -> 'to_version') = 'number'
                        THEN jsonb_build_object('to_version', content -> 'to_version') ELSE '{}' END;
        WHEN 'conversation.erased', 'event.erased' THEN
            RETURN content - 'reason';
        WHEN 'conversation.shared', 'conversation.unshared' THEN
            RETURN kept
                   || CASE WHEN content ? 'user' AND NOT erases_members
                           THEN jsonb_build_object('user', content -> 'user') ELSE '{}' END
                   || CASE WHEN content -> 'access' IN ('"read"', '"write"')
                           THEN jsonb_build_object('access', content -> 'access') ELSE '{}' END;
        ELSE
            RETURN '{}';
    END CASE;
END
$$;


--
-- Name: json_member_is_uuid(jsonb, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.json_member_is_uuid(object jsonb, member text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN COALESCE(((object ->> member) ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'::text), false);


--
-- Name: erased_metadata(jsonb, boolean); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.erased_metadata(metadata jsonb, erases_members boolean) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (((CASE WHEN (metadata ? 'occurred_at'::text) THEN jsonb_build_object('occurred_at', (metadata -> 'occurred_at'::text)) ELSE '{}'::jsonb END || CASE WHEN ((metadata ? 'eventstore.owner'::text) AND (NOT erases_members)) THEN jsonb_build_object('eventstore.owner', (metadata -> 'eventstore.owner'::text)) ELSE '{}'::jsonb END) || CASE WHEN public.json_member_is_uuid(metadata, 'correlation_id'::text) THEN jsonb_build_object('correlation_id', (metadata -> 'correlation_id'::text)) ELSE '{}'::jsonb END) || CASE WHEN public.json_member_is_uuid(metadata, 'causation_id'::text) THEN jsonb_build_object('causation_id', (metadata -> 'causation_id'::text)) ELSE '{}'::jsonb END);


--
-- Name: erasure_of_user(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.erasure_of_user(tenant_id text, user_id text) RETURNS TABLE(conversation_id uuid, versions int4multirange, erases_members boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_column
DECLARE
    tenant  text := tenant_id;
    erased  text := user_id;
    applied bigint := coalesce((SELECT min(c.position) FROM checkpoints c WHERE c.projection = 'actors' AND c.stage = 'live'), 0);
BEGIN
    IF tenant IS DISTINCT FROM current_tenant() OR coalesce(current_tenant_user() <> erased, false) THEN
        RAISE EXCEPTION 'this transaction may not erase the user % of the tenant %', quote_nullable(erased), quote_nullable(tenant)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'A user may erase themselves; an administrator of the tenant, all its users.';
    END IF;
    RETURN QUERY
    SELECT m.conversation_id, NULL::int4multirange, true
      FROM conversation_members m
     WHERE m.tenant_id = tenant
       AND m.user_id = erased
       AND m.access = 'own';
    RETURN QUERY
    WITH active AS (
        SELECT a.conversation_id FROM conversation_actors a WHERE a.tenant_id = tenant AND a.actor = erased
         UNION
        SELECT p.conversation_id FROM parked p WHERE p.tenant_id = tenant AND p.projection = 'actors' AND p.stage = 'live'
         UNION
        SELECT e.conversation_id FROM events e WHERE e.position > applied AND e.tenant_id = tenant AND e.actor = erased
         UNION
        SELECT e.conversation_id
          FROM events e
         WHERE e.tenant_id = tenant
           AND e.event_type IN ('conversation.shared', 'conversation.unshared')
           AND e.content ->> 'user' = erased
    )
    SELECT s.conversation_id, range_agg(int4range(s.version, s.version, '[]')), s.names_user
      FROM (SELECT e.conversation_id, e.version,
                   e.is_receipt OR e.is_sharing AND e.content ->> 'user' = erased AS names_user
              FROM active a
              JOIN (SELECT e.*, e.event_type IN ('conversation.erased', 'event.erased') AS is_receipt,
                           e.event_type IN ('conversation.shared', 'conversation.unshared') AS is_sharing
                      FROM events e) AS e
                ON e.tenant_id = tenant
               AND e.conversation_id = a.conversation_id
             WHERE (e.actor = erased OR e.is_sharing AND e.content ->> 'user' = erased)
               AND e.event_type NOT IN ('agent.registered', 'agent.unregistered')
               AND e.conversation_id <> administration_id()
               AND (e.is_receipt
                    OR NOT EXISTS (
                           SELECT
                             FROM conversation_members m
                            WHERE m.tenant_id = tenant
                              AND m.conversation_id = a.conversation_id
                              AND m.user_id = erased
                              AND m.access = 'own'
                       ))) AS s
     GROUP BY s.conversation_id, s.names_user;
    RETURN QUERY
    SELECT e.conversation_id, range_agg(int4range(e.version, e.version, '[]')), true
      FROM events e
     WHERE e.tenant_id = tenant
       AND e.conversation_id = administration_id()
       AND e.salt IS NOT NULL
       AND (e.actor = erased OR e.content ->> 'user' = erased)
     GROUP BY e.conversation_id;
END
$$;


--
-- Name: estimated_size(anyelement); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.estimated_size(value anyelement) RETURNS double precision
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT coalesce(pg_column_size(value), 0)
           * CASE WHEN pg_column_compression(value) IS NULL THEN 1.0::double precision ELSE 10.0 END
$$;


--
-- Name: event_differences(text, smallint, text, jsonb, jsonb, text, smallint, text, jsonb, jsonb, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.event_differences(stored_type text, stored_schema_version smallint, stored_actor text, stored_content jsonb, stored_metadata jsonb, event_type text, schema_version smallint, actor text, content jsonb, metadata jsonb, user_id text) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$
BEGIN
    -- The order of the members of an object does not matter.
    stored_metadata := stored_metadata - '{eventstore.member_order, traceparent}'::text[];
    metadata := metadata - '{eventstore.member_order, traceparent}'::text[];
    IF event_type = 'message.added' AND jsonb_typeof(content) = 'object' THEN
        stored_content := stored_content - 'sent_order';
        content := content - 'sent_order';
    END IF;
    IF user_id <> '' OR NOT metadata ? 'eventstore.owner' THEN
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


--
-- Name: event_digest(bytea, bigint, timestamp with time zone, integer, smallint, uuid, uuid, text, text, text, jsonb, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.event_digest(salt bytea, "position" bigint, "timestamp" timestamp with time zone, version integer, schema_version smallint, conversation_id uuid, id uuid, tenant_id text, event_type text, actor text, content jsonb, metadata jsonb) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN sha256((((((((salt || int8send("position")) || timestamptz_send("timestamp")) || int4send(version)) || int2send(schema_version)) || uuid_send(conversation_id)) || uuid_send(id)) || substr(array_send(ARRAY[convert_to(tenant_id, 'UTF8'::name), convert_to(event_type, 'UTF8'::name), convert_to(actor, 'UTF8'::name), convert_to((content)::text, 'UTF8'::name), convert_to((metadata)::text, 'UTF8'::name)]), 21)));


--
-- Name: event_timestamp(timestamp with time zone); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.event_timestamp(previous timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL SAFE
    RETURN CASE WHEN ((previous > clock_timestamp()) AND (previous <= (clock_timestamp() + '00:01:00'::interval))) THEN previous ELSE clock_timestamp() END;


--
-- Name: eventstore_grant(text, text[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.eventstore_grant(privileges text, VARIADIC role_names text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    role_name text;
BEGIN
    FOR role_name IN SELECT r.rolname FROM pg_roles r WHERE r.rolname = ANY (role_names) LOOP
        BEGIN
            EXECUTE format('GRANT %s TO %I', privileges, role_name);
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE WARNING '% may not grant % to %', session_user, privileges, role_name;
        END;
    END LOOP;
END
$$;


--
-- Name: eventstore_role(text, text[], boolean); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.eventstore_role(role_name text, memberships text[] DEFAULT '{}'::text[], inherits boolean DEFAULT true) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    membership text;
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER', role_name);
        END IF;
        IF NOT inherits AND (SELECT rolinherit FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('ALTER ROLE %I NOINHERIT', role_name);
        END IF;
    EXCEPTION
        WHEN duplicate_object OR unique_violation THEN
            RAISE NOTICE 'another session has just created the role %', role_name;
        WHEN insufficient_privilege THEN
            RAISE WARNING '% may not create or alter the role %', session_user, role_name;
    END;
    BEGIN
        IF to_regrole(role_name) IS NOT NULL AND NOT pg_has_role(session_user, role_name, 'USAGE') THEN
            EXECUTE format('GRANT %I TO %I', role_name, session_user);
        END IF;
    EXCEPTION
        WHEN insufficient_privilege OR invalid_grant_operation THEN
            RAISE NOTICE '% may not grant the role % to itself', session_user, role_name;
    END;
    FOR membership IN
        SELECT r.rolname
          FROM pg_roles r
          JOIN pg_roles m ON m.rolname = role_name
         WHERE r.rolname = ANY (memberships)
           AND NOT EXISTS (SELECT FROM pg_auth_members a WHERE a.roleid = r.oid AND a.member = m.oid)
    LOOP
        BEGIN
            EXECUTE format('GRANT %I TO %I', membership, role_name);
        EXCEPTION
            WHEN insufficient_privilege OR invalid_grant_operation THEN
                RAISE WARNING '% may not grant the role % to %', session_user, membership, role_name;
        END;
    END LOOP;
END
$$;


--
-- Name: eventstore_set_owner(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.eventstore_set_owner(object text) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF to_regrole('eventstore_owner') IS NOT NULL THEN
        EXECUTE format('ALTER %s OWNER TO eventstore_owner', object);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE WARNING '% may not make eventstore_owner the owner of %', session_user, object;
END
$$;


--
-- Name: first_event_at_or_after(bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.first_event_at_or_after(lowest bigint) RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    RETURN coalesce((SELECT min(e.position) FROM events e WHERE e.position >= lowest), 9223372036854775807);
END
$$;


--
-- Name: grantee_name(oid); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.grantee_name(role oid) RETURNS text
    LANGUAGE sql STABLE
    RETURN CASE role WHEN 0 THEN 'PUBLIC'::text ELSE ((role)::regrole)::text END;


--
-- Name: has_waiters(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.has_waiters() RETURNS boolean
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF pg_try_advisory_xact_lock('waiter_flag'::regclass::oid::bigint::bit(32)::integer, 0) THEN
        -- The last wait has ended. No other begins before this append has ended.
        PERFORM setval('waiter_flag', 0);
        RETURN false;
    END IF;
    -- A session that listens without reading blocks the queue of notifications, which all databases share. If the queue
    -- is full, each commit that notifies fails. So appends stop notifying when it is half full, where the server begins
    -- to warn: waiting sessions poll every few seconds as well.
    RETURN pg_notification_queue_usage() < 0.5;
END
$$;


--
-- Name: hiding_events(text, uuid, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.hiding_events(tenant_id text, conversation_id uuid, version integer) RETURNS TABLE(event_type text)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT (h.event_type)::text AS event_type
    FROM public.events h
   WHERE (((h.tenant_id)::text = hiding_events.tenant_id) AND (h.conversation_id = hiding_events.conversation_id) AND (h.version > hiding_events.version) AND ((((h.event_type)::text = 'conversation.rewound'::text) AND (((h.content ->> 'to_version'::text))::integer < hiding_events.version)) OR (((h.event_type)::text = 'conversation.deleted'::text) AND (NOT (EXISTS ( SELECT
            FROM public.events r
           WHERE (((r.tenant_id)::text = hiding_events.tenant_id) AND (r.conversation_id = hiding_events.conversation_id) AND (r.version > h.version) AND ((r.event_type)::text = 'conversation.reactivated'::text))))))));
END;


--
-- Name: legal_holds; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.legal_holds (
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    id uuid NOT NULL,
    conversation_id uuid,
    user_id character varying(255) COLLATE pg_catalog."C",
    reason text NOT NULL,
    placed_by character varying(255) NOT NULL,
    placed_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT legal_holds_reason_check CHECK ((reason <> ''::text)),
    CONSTRAINT legal_holds_subject_check CHECK (((num_nonnulls(conversation_id, user_id) <= 1) AND ((user_id)::text <> ''::text)))
);


--
-- Name: TABLE legal_holds; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.legal_holds IS 'What must not be erased; written by place_hold and release_hold alone';


--
-- Name: COLUMN legal_holds.conversation_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.legal_holds.conversation_id IS 'The conversation; null: a user, or the whole tenant';


--
-- Name: COLUMN legal_holds.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.legal_holds.user_id IS 'The user; null: a conversation, or the whole tenant';


--
-- Name: holds_on(text, uuid, integer, text[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.holds_on(tenant_id text, conversation_id uuid, first_version integer, actors text[]) RETURNS SETOF public.legal_holds
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 WITH RECURSIVE covered AS (
          SELECT h_1.id,
             h_1.conversation_id,
             2147483647 AS last_version,
             ARRAY[h_1.conversation_id] AS path
            FROM public.legal_holds h_1
           WHERE (((h_1.tenant_id)::text = holds_on.tenant_id) AND (h_1.conversation_id IS NOT NULL))
         UNION ALL
          SELECT h_1.id,
             m.conversation_id,
             2147483647,
             ARRAY[m.conversation_id] AS "array"
            FROM (public.legal_holds h_1
              JOIN public.conversation_members m ON ((((m.tenant_id)::text = (h_1.tenant_id)::text) AND ((m.user_id)::text = (h_1.user_id)::text) AND (m.access = 'own'::text))))
           WHERE ((h_1.tenant_id)::text = holds_on.tenant_id)
         UNION ALL
          SELECT c.id,
             s.conversation_id,
             s.version,
             (c.path || s.conversation_id)
            FROM (covered c
              CROSS JOIN LATERAL ( SELECT ((e.content ->> 'source_conversation_id'::text))::uuid AS conversation_id,
                     ((e.content ->> 'source_version'::text))::integer AS version
                    FROM public.events e
                   WHERE (((e.tenant_id)::text = holds_on.tenant_id) AND (e.conversation_id = c.conversation_id) AND (e.version = 1) AND ((e.event_type)::text = 'conversation.forked'::text))
                  OFFSET 0) s)
           WHERE (s.conversation_id <> ALL (c.path))
         )
  SELECT h.tenant_id,
     h.id,
     h.conversation_id,
     h.user_id,
     h.reason,
     h.placed_by,
     h.placed_at
    FROM public.legal_holds h
   WHERE (((h.tenant_id)::text = holds_on.tenant_id) AND (((h.conversation_id IS NULL) AND (h.user_id IS NULL)) OR ((h.user_id)::text = ANY (holds_on.actors)) OR (EXISTS ( SELECT
            FROM covered c
           WHERE ((c.id = h.id) AND (c.conversation_id = holds_on.conversation_id) AND (c.last_version >= holds_on.first_version))))))
   ORDER BY h.placed_at, h.id;
END;


--
-- Name: is_current_role(name); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.is_current_role(role name) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (CURRENT_USER = role);


--
-- Name: json_member_is_text(jsonb, text, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.json_member_is_text(object jsonb, member text, longest integer) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN COALESCE(((jsonb_typeof((object -> member)) = 'string'::text) AND (char_length((object ->> member)) <= longest)), false);


--
-- Name: last_event_at_or_before(bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.last_event_at_or_before(highest bigint) RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    RETURN coalesce((SELECT max(e.position) FROM events e WHERE e.position <= highest), 0);
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
-- Name: lease_answers(text, uuid[], uuid[], uuid, double precision); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.lease_answers(tenant_id text, conversation_ids uuid[], message_ids uuid[], holder uuid, seconds double precision) RETURNS TABLE(conversation_id uuid, message_id uuid, held_by uuid, expires_at timestamp with time zone, version integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    bound text := append_tenant();
BEGIN
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    INSERT INTO answer_leases AS l (tenant_id, conversation_id, message_id, holder, expires_at)
    SELECT tenant_id, k.conversation_id, k.message_id, holder, clock_timestamp() + make_interval(secs => seconds)
      FROM unnest(conversation_ids, message_ids) AS k (conversation_id, message_id)
     ORDER BY k.conversation_id, k.message_id
    ON CONFLICT ON CONSTRAINT answer_leases_pkey DO UPDATE
       SET holder = excluded.holder, expires_at = excluded.expires_at
     WHERE l.holder = excluded.holder OR l.expires_at < clock_timestamp();
    RETURN QUERY
    SELECT k.conversation_id, k.message_id, l.holder, l.expires_at, coalesce(h.version, 0)
      FROM unnest(conversation_ids, message_ids) AS k (conversation_id, message_id)
      JOIN answer_leases l
        ON l.tenant_id = lease_answers.tenant_id
       AND l.conversation_id = k.conversation_id
       AND l.message_id = k.message_id
      LEFT JOIN LATERAL (
               SELECT e.tenant_id, e.conversation_id, e.version
                 FROM events e
                WHERE (e.tenant_id, e.conversation_id, e.version)
                      <= (lease_answers.tenant_id, k.conversation_id, 2147483647)
                ORDER BY e.tenant_id DESC, e.conversation_id DESC, e.version DESC
                LIMIT 1
           ) AS h
        ON h.tenant_id = lease_answers.tenant_id
       AND h.conversation_id = k.conversation_id;
END
$$;


--
-- Name: lock_chunks(bytea[], boolean); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.lock_chunks(files bytea[], is_deletion boolean) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    class integer := low_32_bits('blob_chunks'::regclass::oid::bigint);
    key   integer;
BEGIN
    FOR key IN SELECT DISTINCT get_byte(f, 0) AS k FROM unnest(files) AS f ORDER BY k LOOP
        IF is_deletion THEN
            PERFORM pg_advisory_xact_lock(class, key);
        ELSE
            PERFORM pg_advisory_xact_lock_shared(class, key);
        END IF;
    END LOOP;
END
$$;


--
-- Name: lock_files(text, uuid, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.lock_files(tenant_id text, conversation_id uuid, files jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    named   bytea[] := ARRAY(SELECT decode(f, 'hex') FROM jsonb_array_elements_text(lock_files.files) AS f);
    missing bytea;
BEGIN
    PERFORM
       FROM blobs b
      WHERE b.tenant_id = lock_files.tenant_id
        AND b.conversation_id = lock_files.conversation_id
        AND b.sha256 = ANY (named)
      ORDER BY b.sha256
        FOR KEY SHARE;
    SELECT n
      INTO missing
      FROM unnest(named) AS n
     WHERE NOT EXISTS (
               SELECT
                 FROM blobs b
                WHERE b.tenant_id = lock_files.tenant_id
                  AND b.conversation_id = lock_files.conversation_id
                  AND b.sha256 = n
           )
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the conversation % has no file with the SHA-256 %', lock_files.conversation_id,
                        encode(missing, 'hex')
            USING ERRCODE = 'ES011', HINT = 'Store the file again, then append the event.';
    END IF;
END
$$;


--
-- Name: lock_holds(text, boolean); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.lock_holds(tenant_id text, is_erasure boolean) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    class integer := low_32_bits('legal_holds'::regclass::oid::bigint);
BEGIN
    IF is_erasure THEN
        PERFORM pg_advisory_xact_lock_shared(class, hashtext(tenant_id));
    ELSE
        PERFORM pg_advisory_xact_lock(class, hashtext(tenant_id));
    END IF;
END
$$;


--
-- Name: log_horizon(smallint[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.log_horizon(partitions smallint[] DEFAULT NULL::smallint[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    last bigint;
BEGIN
    PERFORM refuse_old_snapshots();
    IF pg_is_in_recovery() THEN
        -- A standby does not have the locks of the primary. But each checkpoint was a horizon of its partition there,
        -- and all that it covers was committed, and is replayed here, before it.
        RETURN (SELECT coalesce(max(p.position), 0)
                  FROM (SELECT min(c.position) AS position
                          FROM checkpoints c
                         GROUP BY c.projection, c.stage
                        HAVING count(*) = 16) AS p);
    END IF;
    last := last_position();
    RETURN least(last, lowest_append_in_flight(last, partitions));
END
$$;


--
-- Name: checkpoints; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.checkpoints (
    projection text NOT NULL COLLATE pg_catalog."C",
    partition smallint NOT NULL,
    "position" bigint DEFAULT 0 NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    stage text DEFAULT 'live'::text NOT NULL COLLATE pg_catalog."C",
    batch_events integer,
    batch_seconds real,
    CONSTRAINT checkpoints_partition_check CHECK (((partition >= 0) AND (partition <= 15))),
    CONSTRAINT checkpoints_stage_check CHECK ((stage = ANY (ARRAY['live'::text, 'next'::text, 'previous'::text])))
);


--
-- Name: COLUMN checkpoints.batch_events; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.checkpoints.batch_events IS 'Events of the log that the last batch covered';


--
-- Name: COLUMN checkpoints.batch_seconds; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.checkpoints.batch_seconds IS 'Time of the last batch, from the beginning of its transaction';


--
-- Name: log_integrity(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.log_integrity(OUT sequence_is_unaltered boolean, OUT sequence_is_ahead boolean, OUT last_event bigint, OUT last_checkpoint bigint) RETURNS record
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 SELECT ((s.seqcache = 1) AND (s.seqincrement = 1) AND (NOT s.seqcycle)),
     (public.last_position() >= e."position"),
     e."position",
     c."position"
    FROM ((pg_sequence s
      CROSS JOIN ( SELECT COALESCE(max(events."position"), (0)::bigint) AS "position"
            FROM public.events) e)
      CROSS JOIN ( SELECT COALESCE(max(checkpoints."position"), (0)::bigint) AS "position"
            FROM public.checkpoints) c)
   WHERE (s.seqrelid = ('public.events_position'::regclass)::oid);
END;


--
-- Name: login_is_bound(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.login_is_bound() RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    RETURN (EXISTS (SELECT FROM public.bound_logins b WHERE (b.login = SESSION_USER)));


--
-- Name: low_32_bits(bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.low_32_bits(value bigint) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((((value & '4294967295'::bigint) # '2147483648'::bigint) - '2147483648'::bigint))::integer;


--
-- Name: lowest_append_in_flight(bigint, smallint[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.lowest_append_in_flight(reference bigint, partitions smallint[] DEFAULT NULL::smallint[]) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 SELECT min(a."position") AS min
    FROM ( SELECT min((lowest_append_in_flight.reference + public.low_32_bits(((l.objid)::bigint - lowest_append_in_flight.reference)))) FILTER (WHERE (l.objsubid = 2)) AS "position",
             array_agg((((l.objid)::bigint & (15)::bigint))::smallint) FILTER (WHERE (l.objsubid = 1)) AS partitions
            FROM pg_locks l
           WHERE ((l.locktype = 'advisory'::text) AND (l.database = ( SELECT d.oid
                    FROM pg_database d
                   WHERE (d.datname = current_database()))) AND (((l.objsubid = 2) AND (l.classid = ('public.events_position'::regclass)::oid)) OR ((l.objsubid = 1) AND (lowest_append_in_flight.partitions IS NOT NULL))) AND l.granted)
           GROUP BY l.pid,
                 CASE
                     WHEN (l.pid IS NULL) THEN l.virtualtransaction
                     ELSE NULL::text
                 END) a
   WHERE ((a.partitions IS NULL) OR (a.partitions && lowest_append_in_flight.partitions));
END;


--
-- Name: may_append(text, uuid, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.may_append(tenant_id text, conversation_id uuid, user_id text, event_type text) RETURNS TABLE(access text)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT m.access
    FROM public.conversation_members m
   WHERE (((m.tenant_id)::text = may_append.tenant_id) AND (m.conversation_id = may_append.conversation_id) AND ((m.user_id)::text = may_append.user_id) AND ((m.access = 'own'::text) OR ((m.access = 'write'::text) AND (may_append.event_type <> ALL (ARRAY['conversation.shared'::text, 'conversation.unshared'::text, 'conversation.deleted'::text, 'conversation.rewound'::text])))));
END;


--
-- Name: may_be_deleted(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.may_be_deleted(last_event_type text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((last_event_type = 'conversation.deleted'::text) OR public.deleted_conversation_accepts(last_event_type));


--
-- Name: members_of(uuid); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.members_of(conversation uuid) RETURNS TABLE(user_id text, access text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 SELECT m.user_id,
     m.access
    FROM public.conversation_members m
   WHERE (((m.tenant_id)::text = ( SELECT public.current_tenant() AS current_tenant)) AND (m.conversation_id = members_of.conversation) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (EXISTS ( SELECT
            FROM public.conversation_members own
           WHERE (((own.tenant_id)::text = ( SELECT public.current_tenant() AS current_tenant)) AND (own.conversation_id = members_of.conversation) AND ((own.user_id)::text = ( SELECT public.current_tenant_user() AS current_tenant_user)))))))
   ORDER BY (m.access = 'own'::text) DESC, m.user_id;
END;


--
-- Name: missing_in_staging(text[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.missing_in_staging(tables text[]) RETURNS TABLE(what text, statement text, is_key boolean)
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 WITH pair AS (
          SELECT t.name,
             format('%I.%I'::text, public.stage_schema('next'::text), t.name) AS shown,
             l.oid AS live,
             n.oid AS next,
             l.relrowsecurity,
             l.relforcerowsecurity,
             n.relrowsecurity AS has_security,
             n.relforcerowsecurity AS has_forced
            FROM ((unnest(missing_in_staging.tables) t(name)
              JOIN pg_class l ON (((l.relname = t.name) AND (l.relnamespace = ((public.stage_schema('live'::text))::regnamespace)::oid))))
              JOIN pg_class n ON (((n.relname = t.name) AND (n.relnamespace = ((public.stage_schema('next'::text))::regnamespace)::oid))))
         )
  SELECT m.what,
     m.statement,
     (m.step = 2)
    FROM ( SELECT
                 CASE k.contype
                     WHEN 'f'::"char" THEN 3
                     ELSE 2
                 END AS step,
             (k.conname)::text AS what,
             format('ALTER TABLE %s ADD CONSTRAINT %I %s'::text, p.shown, k.conname, pg_get_constraintdef(k.oid, true)) AS statement
            FROM (pair p
              JOIN pg_constraint k ON (((k.conrelid = p.live) AND (k.contype = ANY (ARRAY['p'::"char", 'u'::"char", 'x'::"char", 'f'::"char"])))))
           WHERE (NOT (EXISTS ( SELECT
                    FROM pg_constraint o
                   WHERE ((o.conrelid = p.next) AND (o.conname = k.conname)))))
         UNION ALL
          SELECT
                 CASE
                     WHEN i.indisunique THEN 2
                     ELSE 1
                 END AS "case",
             (c.relname)::text AS relname,
             pg_get_indexdef(i.indexrelid, 0, true) AS pg_get_indexdef
            FROM ((pair p
              JOIN pg_index i ON (((i.indrelid = p.live) AND i.indisvalid)))
              JOIN pg_class c ON ((c.oid = i.indexrelid)))
           WHERE ((NOT (EXISTS ( SELECT
                    FROM pg_constraint k
                   WHERE ((k.conindid = i.indexrelid) AND (k.contype = ANY (ARRAY['p'::"char", 'u'::"char", 'x'::"char"])))))) AND (NOT (EXISTS ( SELECT
                    FROM (pg_index o
                      JOIN pg_class oc ON ((oc.oid = o.indexrelid)))
                   WHERE ((o.indrelid = p.next) AND (oc.relname = c.relname))))))
         UNION ALL
          SELECT 4,
             (s.stxname)::text AS stxname,
             replace(pg_get_statisticsobjdef(s.oid), format('%I.%I'::text, public.stage_schema('live'::text), s.stxname), format('%I.%I'::text, public.stage_schema('next'::text), s.stxname)) AS replace
            FROM (pair p
              JOIN pg_statistic_ext s ON ((s.stxrelid = p.live)))
           WHERE (NOT (EXISTS ( SELECT
                    FROM pg_statistic_ext o
                   WHERE ((o.stxrelid = p.next) AND (o.stxname = s.stxname)))))
         UNION ALL
          SELECT 5,
             (g.tgname)::text AS tgname,
             (pg_get_triggerdef(g.oid, true) ||
                 CASE g.tgenabled
                     WHEN 'D'::"char" THEN format('; ALTER TABLE %s DISABLE TRIGGER %I'::text, p.shown, g.tgname)
                     WHEN 'A'::"char" THEN format('; ALTER TABLE %s ENABLE ALWAYS TRIGGER %I'::text, p.shown, g.tgname)
                     WHEN 'R'::"char" THEN format('; ALTER TABLE %s ENABLE REPLICA TRIGGER %I'::text, p.shown, g.tgname)
                     ELSE ''::text
                 END)
            FROM (pair p
              JOIN pg_trigger g ON (((g.tgrelid = p.live) AND (NOT g.tgisinternal))))
           WHERE (NOT (EXISTS ( SELECT
                    FROM pg_trigger o
                   WHERE ((o.tgrelid = p.next) AND (o.tgname = g.tgname)))))
         UNION ALL
          SELECT 6,
             (y.polname)::text AS polname,
             ((format('CREATE POLICY %I ON %s AS %s FOR %s TO %s'::text, y.polname, p.shown,
                 CASE
                     WHEN y.polpermissive THEN 'PERMISSIVE'::text
                     ELSE 'RESTRICTIVE'::text
                 END,
                 CASE y.polcmd
                     WHEN 'r'::"char" THEN 'SELECT'::text
                     WHEN 'a'::"char" THEN 'INSERT'::text
                     WHEN 'w'::"char" THEN 'UPDATE'::text
                     WHEN 'd'::"char" THEN 'DELETE'::text
                     ELSE 'ALL'::text
                 END, ( SELECT string_agg(public.grantee_name(r.r), ', '::text) AS string_agg
                    FROM unnest(y.polroles) r(r))) || COALESCE(((' USING ('::text || pg_get_expr(y.polqual, y.polrelid)) || ')'::text), ''::text)) || COALESCE(((' WITH CHECK ('::text || pg_get_expr(y.polwithcheck, y.polrelid)) || ')'::text), ''::text))
            FROM (pair p
              JOIN pg_policy y ON ((y.polrelid = p.live)))
           WHERE (NOT (EXISTS ( SELECT
                    FROM pg_policy o
                   WHERE ((o.polrelid = p.next) AND (o.polname = y.polname)))))
         UNION ALL
          SELECT 7,
             'row level security'::text,
             format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY'::text, p.shown) AS format
            FROM pair p
           WHERE (p.relrowsecurity AND (NOT p.has_security))
         UNION ALL
          SELECT 8,
             'forced row level security'::text,
             format('ALTER TABLE %s FORCE ROW LEVEL SECURITY'::text, p.shown) AS format
            FROM pair p
           WHERE (p.relforcerowsecurity AND (NOT p.has_forced))
         UNION ALL
          SELECT 9,
             'replica identity'::text,
             format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I'::text, p.shown, c.relname) AS format
            FROM ((pair p
              JOIN pg_index i ON (((i.indrelid = p.live) AND i.indisreplident)))
              JOIN pg_class c ON ((c.oid = i.indexrelid)))
           WHERE (NOT (EXISTS ( SELECT
                    FROM pg_index o
                   WHERE ((o.indrelid = p.next) AND o.indisreplident))))) m
   ORDER BY m.step, m.what;
END;


--
-- Name: parked; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.parked (
    projection text NOT NULL COLLATE pg_catalog."C",
    stage text NOT NULL COLLATE pg_catalog."C",
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    conversation_id uuid NOT NULL,
    "position" bigint NOT NULL,
    version integer NOT NULL,
    event_id uuid NOT NULL,
    event_type text NOT NULL,
    sqlstate text NOT NULL,
    error text NOT NULL,
    tries integer DEFAULT 1 NOT NULL,
    parked_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE ONLY public.parked ALTER COLUMN error SET STATISTICS 0;

ALTER TABLE ONLY public.parked FORCE ROW LEVEL SECURITY;


--
-- Name: COLUMN parked."position"; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.parked."position" IS 'Position of the event that failed; neither it nor later events of the conversation are applied';


--
-- Name: move_stage(text, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.move_stage(projection text, stage text, to_stage text) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 UPDATE public.projection_definitions t SET stage = move_stage.to_stage
   WHERE ((t.projection = move_stage.projection) AND (t.stage = move_stage.stage));
 UPDATE public.checkpoints c SET stage = move_stage.to_stage
   WHERE ((c.projection = move_stage.projection) AND (c.stage = move_stage.stage));
 UPDATE public.parked p SET stage = move_stage.to_stage
   WHERE ((p.projection = move_stage.projection) AND (p.stage = move_stage.stage));
END;


--
-- Name: move_tables(text[], text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.move_tables(tables text[], stage text, to_stage text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('ALTER STATISTICS %I.%I SET SCHEMA %I', stage_schema(stage), s.stxname, stage_schema(to_stage))
          FROM unnest(tables) AS t (name)
          JOIN pg_statistic_ext s ON s.stxrelid = format('%I.%I', stage_schema(stage), t.name)::regclass
         UNION ALL
        SELECT format('ALTER TABLE %I.%I SET SCHEMA %I', stage_schema(stage), t.name, stage_schema(to_stage))
          FROM unnest(tables) AS t (name)
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;


--
-- Name: notify_channel(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.notify_channel() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    RETURN ('eventstore_'::text || ("current_schema"())::text);


--
-- Name: occurred_at(jsonb, timestamp with time zone); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.occurred_at(metadata jsonb, "timestamp" timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN COALESCE(((metadata ->> 'occurred_at'::text))::timestamp with time zone, "timestamp");


--
-- Name: optional_json_member_is(jsonb, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.optional_json_member_is(object jsonb, member text, type text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN COALESCE((jsonb_typeof((object -> member)) = type), true);


--
-- Name: place_hold(text, uuid, uuid, text, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.place_hold(tenant_id text, id uuid, conversation_id uuid, user_id text, reason text, actor text) RETURNS SETOF public.legal_holds
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    IF append_tenant() <> place_hold.tenant_id THEN
        PERFORM refuse_tenant(place_hold.tenant_id);
    END IF;
    PERFORM lock_holds(place_hold.tenant_id, false);
    IF place_hold.conversation_id IS NOT NULL AND NOT EXISTS (
           SELECT
             FROM events e
            WHERE e.tenant_id = place_hold.tenant_id
              AND e.conversation_id = place_hold.conversation_id) THEN
        RETURN;
    END IF;
    INSERT INTO legal_holds (tenant_id, id, conversation_id, user_id, reason, placed_by)
    VALUES (place_hold.tenant_id, place_hold.id, place_hold.conversation_id, place_hold.user_id,
            place_hold.reason, place_hold.actor)
        ON CONFLICT ON CONSTRAINT legal_holds_pkey DO NOTHING;
    RETURN QUERY
    SELECT h.* FROM legal_holds h WHERE h.tenant_id = place_hold.tenant_id AND h.id = place_hold.id;
END
$$;


--
-- Name: positions_after(bigint, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.positions_after(seen bigint, most integer) RETURNS SETOF bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    RETURN QUERY
        SELECT e.position FROM events e WHERE e.position > seen ORDER BY e.position LIMIT most;
END
$$;


--
-- Name: positions_in_time(timestamp with time zone, timestamp with time zone); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.positions_in_time(since timestamp with time zone, until timestamp with time zone, OUT low bigint, OUT high bigint) RETURNS record
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    low := (SELECT e.position FROM events e WHERE e.timestamp >= since ORDER BY e.timestamp ASC LIMIT 1);
    high := (SELECT e.position FROM events e WHERE e.timestamp < until ORDER BY e.timestamp DESC LIMIT 1);
END
$$;


--
-- Name: projected_tables(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.projected_tables() RETURNS TABLE(projected regclass, conversation_column name)
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 SELECT (c.oid)::regclass AS oid,
         CASE c.relname
             WHEN 'conversations'::name THEN 'id'::text
             ELSE 'conversation_id'::text
         END AS "case"
    FROM pg_class c
   WHERE ((c.relkind = 'r'::"char") AND (c.relnamespace = ANY (ARRAY[(to_regnamespace(quote_ident(public.stage_schema('live'::text))))::oid, (to_regnamespace(quote_ident(public.stage_schema('previous'::text))))::oid])) AND (c.relname IN ( SELECT unnest(t.tables) AS unnest
            FROM public.projection_definitions t
         UNION ALL
          SELECT unnest(ARRAY['conversations'::text, 'messages'::text, 'tasks'::text, 'task_artifacts'::text, 'conversation_actors'::text, 'pending_messages'::text, 'search_documents'::text, 'search_conversations'::text, 'statistics_activity'::text, 'statistics_conversations'::text, 'statistics_answers'::text, 'statistics_tasks'::text, 'statistics_status_periods'::text]) AS unnest)));
END;


--
-- Name: rebuild_key(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.rebuild_key(projection text) RETURNS bigint
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    RETURN (((('public.projection_definitions'::regclass)::oid)::bigint << 32) | ((hashtext(projection))::bigint & '4294967295'::bigint));


--
-- Name: record_administrative_act(text, text, jsonb, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.record_administrative_act(tenant_id text, act text, details jsonb DEFAULT '{}'::jsonb, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $_$
#variable_conflict use_variable
DECLARE
    tenant      text := coalesce(tenant_id, 'eventstore:system');
    head        record;
    must_notify boolean;
    salt        bytea := uuid_send(gen_random_uuid());
    id          uuid := gen_random_uuid();
    "position"  bigint;
    "timestamp" timestamptz;
    content     jsonb;
    metadata    jsonb;
    type        text := 'eventstore.' || act;
BEGIN
    IF login_is_bound() AND current_tenant() IS DISTINCT FROM tenant THEN
        PERFORM refuse_tenant(tenant);
    END IF;
    IF NOT coalesce(act ~ '^[a-z][a-z_]{1,80}$' AND jsonb_typeof(details) = 'object', false) THEN
        RAISE EXCEPTION 'the administrative act % has no valid name, or its details are not an object', quote_nullable(act)
            USING ERRCODE = 'ES005', HINT = 'Name it in lower case, with underscores, such as key_revoked.';
    END IF;
    content := details
        || jsonb_strip_nulls(jsonb_build_object(
               'reason', coalesce(nullif(reason, ''), nullif(current_setting('eventstore.reason', true), ''))));
    metadata := jsonb_strip_nulls(jsonb_build_object(
        'login', session_user,
        'via', nullif(current_setting('eventstore.via', true), '')));
    actor := left(coalesce(nullif(actor, ''), nullif(current_setting('eventstore.actor', true), ''),
                           'login:' || session_user), 255);
    PERFORM pg_advisory_xact_lock(conversation_lock_key(tenant, administration_id()));
    must_notify := register_append();
    SELECT e.version, e.timestamp
      INTO head
      FROM events e
     WHERE e.tenant_id = tenant
       AND e.conversation_id = administration_id()
     ORDER BY e.version DESC
     LIMIT 1;
    position := nextval('events_position');
    timestamp := event_timestamp(head.timestamp);
    INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                        event_type, actor, content, metadata, salt, digest)
    VALUES (position, timestamp, coalesce(head.version, 0) + 1, 1, administration_id(), id, tenant,
            type, actor, content, metadata, salt,
            event_digest(salt, position, timestamp, coalesce(head.version, 0) + 1, 1::smallint,
                         administration_id(), id, tenant, type, actor, content, metadata));
    IF must_notify THEN
        PERFORM pg_notify(notify_channel(), '');
    END IF;
    RETURN position;
END
$_$;


--
-- Name: record_identity_change(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.record_identity_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    kind    text := CASE TG_TABLE_NAME
                        WHEN 'identity_tenants' THEN 'tenant' WHEN 'identity_users' THEN 'user'
                        WHEN 'identity_keys' THEN 'key' ELSE 'login'
                    END;
    new_row jsonb := to_jsonb(NEW);
    old_row jsonb := to_jsonb(OLD);
    present jsonb := coalesce(new_row, old_row);
    member  text := CASE kind WHEN 'tenant' THEN 'suspended_at' WHEN 'user' THEN 'disabled_at' ELSE 'revoked_at' END;
    verb    text;
BEGIN
    IF kind = 'login' THEN
        IF old_row IS DISTINCT FROM new_row THEN
            PERFORM record_administrative_act(r.tenant_id, r.act, jsonb_build_object('login', r.login))
               FROM (VALUES (old_row ->> 'tenant_id', 'login_unbound', old_row ->> 'login'),
                            (new_row ->> 'tenant_id', 'login_bound', new_row ->> 'login')) AS r (tenant_id, act, login)
              WHERE r.tenant_id IS NOT NULL;
        END IF;
        RETURN NULL;
    END IF;
    verb := CASE
        WHEN TG_OP = 'INSERT' THEN 'added'
        WHEN TG_OP = 'DELETE' THEN 'deleted'
        WHEN old_row ->> member IS NULL AND new_row ->> member IS NOT NULL
            THEN CASE kind WHEN 'tenant' THEN 'suspended' WHEN 'user' THEN 'disabled' ELSE 'revoked' END
        WHEN old_row ->> member IS NOT NULL AND new_row ->> member IS NULL
            THEN CASE kind WHEN 'tenant' THEN 'resumed' WHEN 'user' THEN 'enabled' ELSE 'restored' END
        WHEN old_row ->> 'name' IS DISTINCT FROM new_row ->> 'name' THEN 'renamed'
        WHEN old_row - 'last_used_at' <> new_row - 'last_used_at' THEN 'changed'
    END;
    IF verb IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM record_administrative_act(
        t.tenant_id,
        kind || '_' || verb,
        CASE kind
            WHEN 'tenant' THEN jsonb_build_object('tenant', present -> 'id', 'name', present -> 'name')
            WHEN 'user' THEN jsonb_strip_nulls(jsonb_build_object('user', new_row -> 'id', 'kind', present -> 'kind'))
            ELSE jsonb_strip_nulls(jsonb_build_object(
                     'key', present -> 'id', 'name', new_row -> 'name', 'user', new_row -> 'user_id',
                     'scopes', new_row -> 'scopes', 'expires_at', new_row -> 'expires_at'))
        END
        || CASE WHEN verb = 'changed'
                THEN jsonb_build_object('columns', (SELECT jsonb_agg(n.key ORDER BY n.key)
                                                      FROM jsonb_each(new_row) AS n
                                                     WHERE n.value <> old_row -> n.key))
                ELSE '{}'
           END
    )
       FROM (SELECT r ->> CASE kind WHEN 'tenant' THEN 'id' ELSE 'tenant_id' END AS tenant_id
               FROM unnest(ARRAY[old_row, new_row]) AS r
              WHERE r IS NOT NULL
              GROUP BY 1) AS t;
    RETURN NULL;
END
$$;


--
-- Name: record_migration(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.record_migration(version text, act text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    IF EXISTS (SELECT FROM events) THEN
        PERFORM record_administrative_act(NULL, act, jsonb_build_object('version', version));
    END IF;
END
$$;


--
-- Name: record_pause(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.record_pause() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    PERFORM record_administrative_act(NULL, r.act, jsonb_build_object('projection', r.projection))
       FROM (VALUES (CASE WHEN TG_OP <> 'INSERT' THEN OLD.projection END, 'projection_resumed'),
                    (CASE WHEN TG_OP <> 'DELETE' THEN NEW.projection END, 'projection_paused')) AS r (projection, act)
      WHERE r.projection IS NOT NULL;
    RETURN NULL;
END
$$;


--
-- Name: record_retention_change(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.record_retention_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    is_hold boolean := TG_TABLE_NAME = 'legal_holds';
    present jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    act     text := CASE TG_OP
                        WHEN 'INSERT' THEN 'added' WHEN 'UPDATE' THEN 'changed'
                        ELSE CASE WHEN is_hold THEN 'released' ELSE 'removed' END
                    END;
BEGIN
    PERFORM record_administrative_act(
        present ->> 'tenant_id',
        CASE WHEN is_hold THEN 'hold_' ELSE 'retention_rule_' END || act,
        CASE
            WHEN is_hold THEN jsonb_strip_nulls(jsonb_build_object(
                'hold', present -> 'id', 'conversation_id', present -> 'conversation_id', 'user', present -> 'user_id'))
            WHEN act = 'removed' THEN jsonb_build_object('rule', present -> 'id')
            ELSE jsonb_strip_nulls(jsonb_build_object(
                     'rule', present -> 'id', 'age_seconds', extract(epoch FROM (present ->> 'age')::interval),
                     'since', present -> 'since', 'state', present -> 'state', 'user', present -> 'user_id'))
                 || CASE present -> 'metadata' WHEN 'null' THEN '{}'
                         ELSE jsonb_build_object('metadata', present -> 'metadata') END
        END,
        CASE act WHEN 'added' THEN present ->> 'reason' END,
        CASE act WHEN 'added' THEN present ->> CASE WHEN is_hold THEN 'placed_by' ELSE 'added_by' END END);
    RETURN NULL;
END
$$;


--
-- Name: record_retention_run(text, timestamp with time zone, text, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.record_retention_run(tenant_id text, began_at timestamp with time zone, actor text, receipt jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    IF append_tenant() <> record_retention_run.tenant_id THEN
        PERFORM refuse_tenant(record_retention_run.tenant_id);
    END IF;
    UPDATE retention_rules r
       SET applied_at = record_retention_run.began_at,
           outcome    = o.outcome - 'rule'
      FROM jsonb_array_elements(record_retention_run.receipt -> 'rules') AS o (outcome)
     WHERE r.tenant_id = record_retention_run.tenant_id
       AND r.id = (o.outcome ->> 'rule')::uuid;
    PERFORM record_administrative_act(
        record_retention_run.tenant_id, 'retention_run', record_retention_run.receipt,
        actor => record_retention_run.actor);
END
$$;


--
-- Name: record_table_change(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.record_table_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    PERFORM record_administrative_act(
        NULL, CASE TG_OP WHEN 'TRUNCATE' THEN 'table_truncated' ELSE 'table_changed' END,
        jsonb_build_object('table', TG_TABLE_NAME));
    RETURN NULL;
END
$$;


--
-- Name: refold_conversation(text, uuid); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.refold_conversation(tenant_id text, conversation_id uuid) RETURNS TABLE(projection text, stage text, problem text)
    LANGUAGE plpgsql
    AS $_$
#variable_conflict use_variable
DECLARE
    path    text := current_setting('search_path');
    target  record;
    made    record;
    failed  record;
    applied bigint;
BEGIN
    LOCK TABLE projection_definitions IN SHARE MODE;
    PERFORM set_config('eventstore.tenant', tenant_id, true),
            set_config('eventstore.retried_conversation', conversation_id::text, true),
            set_config('eventstore.lower_position', '0', true);
    -- A copy, and its statistics: what the planner expects of a conversation is far too little for a long one, and then
    -- some statements of projections take a time that grows with the square of its length.
    EXECUTE $copy$
        CREATE TEMPORARY TABLE IF NOT EXISTS refolded_events (LIKE events) ON COMMIT DROP;
        TRUNCATE pg_temp.refolded_events;
        INSERT INTO pg_temp.refolded_events
        SELECT e.*
          FROM events e
         WHERE e.tenant_id = current_setting('eventstore.tenant')
           AND e.conversation_id = current_setting('eventstore.retried_conversation')::uuid;
        ANALYZE pg_temp.refolded_events (position, version, conversation_id, tenant_id, event_type);
    $copy$;
    EXECUTE $view$
        CREATE OR REPLACE TEMPORARY VIEW batch AS
        SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
               e.actor, e.content, e.metadata, e.salt, e.digest
          FROM pg_temp.refolded_events e
         WHERE e.position > current_setting('eventstore.lower_position')::bigint
           AND e.position <= current_setting('eventstore.upper_position')::bigint
           AND NOT EXISTS (
                   SELECT
                     FROM parked p
                    WHERE p.projection = current_setting('eventstore.projection')
                      AND p.stage = current_setting('eventstore.stage')
                      AND p.tenant_id = e.tenant_id
                      AND p.conversation_id = e.conversation_id
                      AND p.position <= e.position
               )
    $view$;
    FOR target IN
        SELECT t.relation, t.conversation_column FROM conversation_tables('live') AS t WHERE t.projection IS NULL
    LOOP
        EXECUTE format('DELETE FROM %s WHERE tenant_id = $1 AND %I = $2', target.relation, target.conversation_column)
          USING tenant_id, conversation_id;
    END LOOP;
    FOR made IN
        SELECT d.projection, d.stage, d.text, d.tables FROM projection_definitions d ORDER BY d.projection, d.stage
    LOOP
        projection := made.projection;
        stage := made.stage;
        problem := NULL;
        -- The time tells readers who keep responses that rows have changed (tables_change_token).
        UPDATE checkpoints c
           SET updated_at = clock_timestamp()
         WHERE c.projection = made.projection
           AND c.stage = made.stage
           AND c.partition = partition_of(conversation_id)
        RETURNING c.position INTO applied;
        FOR target IN
            SELECT t.name, t.relation, t.conversation_column
              FROM conversation_tables(made.stage) AS t
             WHERE t.projection = made.projection
        LOOP
            IF target.conversation_column IS NULL THEN
                problem := format('the table %s has no columns tenant_id and conversation_id', target.name);
                CONTINUE;
            END IF;
            EXECUTE format('DELETE FROM %s WHERE tenant_id = $1 AND %I = $2', target.relation, target.conversation_column)
              USING tenant_id, conversation_id;
        END LOOP;
        IF problem IS NOT NULL THEN
            RETURN NEXT;
            CONTINUE;
        END IF;
        PERFORM set_config('eventstore.projection', made.projection, true),
                set_config('eventstore.stage', made.stage, true),
                set_config('eventstore.upper_position', coalesce(applied, 0)::text, true),
                set_config('search_path', format('pg_temp, %I, %I', stage_schema(made.stage), stage_schema('live')), true);
        -- Its error may quote what is erased.
        DELETE FROM parked p
         WHERE p.projection = made.projection
           AND p.stage = made.stage
           AND p.tenant_id = refold_conversation.tenant_id
           AND p.conversation_id = refold_conversation.conversation_id
        RETURNING p.position INTO failed;
        FOR attempt IN 1 .. 3 LOOP
            BEGIN
                IF made.text IS NULL AND attempt < 3 THEN
                    RAISE EXCEPTION 'it is written in Python: eventstore parked retry applies the events again';
                ELSIF made.text IS NOT NULL THEN
                    EXECUTE made.text;
                END IF;
                EXIT;
            EXCEPTION WHEN OTHERS THEN
                IF left(SQLSTATE, 2) IN ('40', '53', '55', '57', '58', 'XX') THEN
                    RAISE;
                END IF;
                -- The conversation is parked where it was, then at its first event.
                problem := SQLERRM;
                INSERT INTO parked (projection, stage, tenant_id, conversation_id, position, version, event_id, event_type,
                                    sqlstate, error)
                SELECT made.projection, made.stage, e.tenant_id, e.conversation_id, e.position, e.version, e.id,
                       e.event_type, SQLSTATE, SQLERRM
                  FROM events e
                 WHERE e.tenant_id = refold_conversation.tenant_id
                   AND e.conversation_id = refold_conversation.conversation_id
                   AND e.position <= applied
                   AND (attempt > 1 OR failed.position IS NULL OR e.position = failed.position)
                 ORDER BY e.version
                 LIMIT 1
                    ON CONFLICT ON CONSTRAINT parked_pkey DO UPDATE
                    SET position = excluded.position, version = excluded.version, event_id = excluded.event_id,
                        event_type = excluded.event_type, sqlstate = excluded.sqlstate, error = excluded.error;
            END;
        END LOOP;
        IF problem IS NOT NULL THEN
            RETURN NEXT;
        END IF;
    END LOOP;
    PERFORM set_config('search_path', path, true);
END
$_$;


--
-- Name: refuse_change_of_events(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.refuse_change_of_events() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    erases_members boolean;
BEGIN
    IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'events'
       AND (CASE
                WHEN current_user = 'eventstore_eraser' THEN true
                WHEN has_column_privilege(to_regrole('eventstore_eraser')::oid, TG_RELID, 'salt', 'UPDATE') THEN false
                ELSE current_user = (SELECT r.rolname
                                       FROM pg_class c
                                       JOIN pg_roles r ON r.oid = c.relowner
                                      WHERE c.oid = TG_RELID)
            END) THEN
        IF TG_LEVEL = 'STATEMENT' THEN
            RETURN NULL;
        END IF;
        OLD.salt := NULL;
        IF NEW *= OLD THEN
            erases_members := coalesce(current_setting('eventstore.erases_members', true), '') = 'true';
            NEW.actor := '';
            NEW.content := erased_content(OLD.event_type, OLD.content, erases_members);
            NEW.metadata := erased_metadata(OLD.metadata, erases_members);
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% on the table % is refused: the log is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation',
              DETAIL = 'Events are the source of truth, the audit trail and the backup; they never change.',
              HINT = 'Append another event that states the change. What must not be kept can be erased: docs/guides/erasure.md.';
END
$$;


--
-- Name: refuse_held(text, uuid, integer, text[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.refuse_held(tenant_id text, conversation_id uuid, first_version integer, actors text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    found legal_holds;
BEGIN
    PERFORM lock_holds(refuse_held.tenant_id, true);
    SELECT h.*
      INTO found
      FROM holds_on(refuse_held.tenant_id, refuse_held.conversation_id, refuse_held.first_version, refuse_held.actors) AS h
     LIMIT 1;
    IF found.id IS NOT NULL THEN
        RAISE EXCEPTION 'the legal hold % forbids the erasure', found.id
            USING ERRCODE = 'ES010',
                  DETAIL = jsonb_build_object('id', found.id, 'conversation_id', found.conversation_id,
                                              'user', found.user_id, 'reason', found.reason)::text,
                  HINT = 'Release the hold first, if it is not needed any more.';
    END IF;
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
-- Name: refuse_tenant(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.refuse_tenant(tenant_id text) RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$
BEGIN
    RAISE EXCEPTION 'this session may not append for the tenant "%"', tenant_id
        USING ERRCODE = 'insufficient_privilege',
              DETAIL = 'It acts for another tenant: that of its login, or that of the setting eventstore.tenant.',
              HINT = 'Set eventstore.tenant to the tenant of the events; a login that is bound to one appends for it alone.';
END
$$;


--
-- Name: register_append(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.register_append(OUT must_notify boolean) RETURNS boolean
    LANGUAGE sql
    RETURN CASE WHEN ((current_setting('transaction_isolation'::text) <> 'read committed'::text) AND (public.refuse_old_snapshots() IS NULL)) THEN NULL::boolean WHEN ((current_setting('synchronous_commit'::text) = 'off'::text) AND (set_config('synchronous_commit'::text, 'on'::text, true) IS NULL)) THEN NULL::boolean WHEN (pg_advisory_xact_lock_shared((((('public.events_position'::regclass)::oid)::bigint)::bit(32))::integer, public.low_32_bits(COALESCE(pg_sequence_last_value('public.events_position'::regclass), public.last_position()))) IS NOT NULL) THEN ((pg_sequence_last_value('public.waiter_flag'::regclass) > 0) AND public.has_waiters()) ELSE NULL::boolean END;


--
-- Name: release_answers(text, uuid[], uuid[], uuid); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.release_answers(tenant_id text, conversation_ids uuid[], message_ids uuid[], holder uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    bound text := append_tenant();
BEGIN
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    DELETE FROM answer_leases l
     USING (
           SELECT o.conversation_id, o.message_id
             FROM answer_leases o
             JOIN unnest(conversation_ids, message_ids) AS k (conversation_id, message_id)
               ON o.conversation_id = k.conversation_id
              AND o.message_id = k.message_id
            WHERE o.tenant_id = release_answers.tenant_id
              AND o.holder = release_answers.holder
            ORDER BY o.conversation_id, o.message_id
              FOR UPDATE OF o
           ) AS locked
     WHERE l.tenant_id = release_answers.tenant_id
       AND l.conversation_id = locked.conversation_id
       AND l.message_id = locked.message_id
       AND l.holder = release_answers.holder;
END
$$;


--
-- Name: release_hold(text, uuid, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.release_hold(tenant_id text, id uuid, reason text, actor text) RETURNS SETOF public.legal_holds
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    IF append_tenant() <> release_hold.tenant_id THEN
        PERFORM refuse_tenant(release_hold.tenant_id);
    END IF;
    -- The trigger records them with the act (record_retention_change).
    PERFORM set_config('eventstore.reason', release_hold.reason, true) WHERE release_hold.reason <> '';
    PERFORM set_config('eventstore.actor', release_hold.actor, true) WHERE release_hold.actor <> '';
    RETURN QUERY
    DELETE FROM legal_holds h
     WHERE h.tenant_id = release_hold.tenant_id
       AND h.id = release_hold.id
    RETURNING h.*;
END
$$;


--
-- Name: remove_retention_rule(text, uuid, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.remove_retention_rule(tenant_id text, id uuid, actor text) RETURNS SETOF public.retention_rules
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    IF append_tenant() <> remove_retention_rule.tenant_id THEN
        PERFORM refuse_tenant(remove_retention_rule.tenant_id);
    END IF;
    -- The trigger records them with the act (record_retention_change).
    PERFORM set_config('eventstore.actor', remove_retention_rule.actor, true) WHERE remove_retention_rule.actor <> '';
    RETURN QUERY
    DELETE FROM retention_rules r
     WHERE r.tenant_id = remove_retention_rule.tenant_id
       AND r.id = remove_retention_rule.id
    RETURNING r.*;
END
$$;


--
-- Name: renew_answer_leases(text, uuid[], uuid[], uuid, double precision); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.renew_answer_leases(tenant_id text, conversation_ids uuid[], message_ids uuid[], holder uuid, seconds double precision) RETURNS TABLE(conversation_id uuid, message_id uuid)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    bound text := append_tenant();
BEGIN
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    PERFORM
       FROM answer_leases l
      WHERE l.tenant_id = renew_answer_leases.tenant_id
        AND (l.holder = renew_answer_leases.holder OR l.expires_at < clock_timestamp() - interval '1 day')
      ORDER BY l.conversation_id, l.message_id
        FOR UPDATE;
    DELETE FROM answer_leases l
     WHERE l.tenant_id = renew_answer_leases.tenant_id
       AND l.expires_at < clock_timestamp() - interval '1 day';
    RETURN QUERY
    UPDATE answer_leases AS l
       SET expires_at = clock_timestamp() + make_interval(secs => seconds)
      FROM unnest(conversation_ids, message_ids) AS k (conversation_id, message_id)
     WHERE l.tenant_id = renew_answer_leases.tenant_id
       AND l.conversation_id = k.conversation_id
       AND l.message_id = k.message_id
       AND l.holder = renew_answer_leases.holder
    RETURNING l.conversation_id, l.message_id;
END
$$;


--
-- Name: require_receipt(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.require_receipt() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    DELETE FROM pending_receipts p WHERE p.id = NEW.id;
    IF NOT NEW.versions <@ (
           SELECT coalesce(range_agg(int4range((v ->> 0)::integer, (v ->> 1)::integer, '[]')), '{}')
             FROM events r
            CROSS JOIN LATERAL jsonb_array_elements(r.content -> 'versions') AS v
            WHERE r.tenant_id = NEW.tenant_id
              AND r.conversation_id = NEW.conversation_id
              AND r.version > NEW.last_version
              AND r.event_type IN ('conversation.erased', 'event.erased')
              AND r.salt IS NOT NULL
       ) THEN
        RAISE EXCEPTION 'no receipt names the versions % of conversation % that were erased', NEW.versions, NEW.conversation_id
            USING ERRCODE = 'restrict_violation',
                  HINT = 'The command line and the HTTP API append the receipt with the erasure: docs/guides/erasure.md.';
    END IF;
    RETURN NULL;
END
$$;


--
-- Name: require_tenant(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.require_tenant() RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $_$
DECLARE
    owner_name name := (SELECT r.rolname FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = 'bound_logins'::regclass);
BEGIN
    IF current_tenant() IS NULL THEN
        RAISE EXCEPTION 'row-level security hides all rows from %, which has no tenant', current_user
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('Set eventstore.tenant; or, for all rows, SET ROLE %1$I (pg_dump --role=%1$s --enable-row-security).',
                                owner_name);
    END IF;
    RETURN true;
END
$_$;


--
-- Name: rls_condition(regclass, name); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.rls_condition(target regclass, conversation_column name) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $_$
DECLARE
    of_user text := '';
    named   text := format('%I.%I', (SELECT c.relname FROM pg_class c WHERE c.oid = target), conversation_column);
BEGIN
    IF EXISTS (SELECT
                 FROM pg_attribute a
                WHERE a.attrelid = target AND a.attname = conversation_column AND a.atttypid = 'uuid'::regtype) THEN
        -- One lookup for each row, however many conversations a user has; one for all rows of the conversation that the
        -- query names.
        of_user := format('OR %1$s = (SELECT m.conversation_id
                                        FROM conversation_members m
                                       WHERE m.conversation_id = current_conversation())
                           OR (SELECT true FROM conversation_members m WHERE m.conversation_id = %1$s)', named);
    END IF;
    -- In this form no index matches it, and the planner assumes that it holds for all rows: the query's own conditions,
    -- not the policy, decide how its rows are found.
    RETURN format('CASE WHEN tenant_id = %s AND ((SELECT current_tenant_user()) IS NULL %s) THEN true END IS NOT NULL',
                  rls_tenant(), of_user);
END
$_$;


--
-- Name: rls_tenant(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.rls_tenant() RETURNS text
    LANGUAGE sql STABLE
    RETURN '(SELECT coalesce((SELECT b.tenant_id FROM bound_logins b WHERE b.login = session_user),
                         CASE WHEN may_set_tenant() THEN nullif(current_setting(''eventstore.tenant'', true), '''') END))'::text;


--
-- Name: search_bigram(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_bigram(characters text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (('q'::text || lpad(to_hex(ascii(characters)), 5, '0'::text)) || CASE WHEN (length(characters) > 1) THEN lpad(to_hex(ascii(substr(characters, 2))), 5, '0'::text) ELSE ''::text END);


--
-- Name: search_bigrams(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_bigrams(run text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
BEGIN
    RETURN (
        SELECT string_agg(search_bigram(p.pair), ' ' ORDER BY p.n)
          FROM (SELECT c.n, concat(c.character, lead(c.character) OVER (ORDER BY c.n)) AS pair
                  FROM string_to_table(run, NULL) WITH ORDINALITY AS c (character, n)) AS p
    );
END
$$;


--
-- Name: search_characters(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_characters(class text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
BEGIN
    RETURN CASE class
        WHEN 'letters' THEN
            '\u00aa\u00b5\u00ba\u00df-\u00f6\u00f8-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u0386-\u0481\u048a-\u0556'
            '\u0560-\u0586\u05d0-\u05ea\u0620-\u063f\u0641-\u064a\u066e\u066f\u0671-\u06d3\u06d5\u06fa-\u06ff'
            '\u0750-\u077f\u08a0-\u08c7\u10a0-\u10fa\u10fd-\u10ff\u1d00-\u1d2b\u1d6b-\u1d9a\u1e00-\u1fff\u2c60-\u2c7f'
            '\ua722-\ua787\ua78b-\ua7ff'
        WHEN 'unsegmented' THEN
            '\u0700-\u0963\u0971-\u0df3\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0f00\u0f18-\u0fbc\u1000-\u1049\u1050-\u109f'
            '\u1100-\u1360\u1369-\u166c\u166f-\u16ea\u16ee-\u1734\u1740-\u17d3\u17d7\u17dc-\u17ff\u180b-\u1cff'
            '\u2c00-\u2c5f\u2c80-\u2ddf\u3005-\u3007\u3021-\u302f\u3031-\u3035\u3038-\u303c\u3041-\u30fa\u30fc-\u31bf'
            '\u31f0-\u31ff\u3400-\u4dbf\u4e00-\ua4fd\ua500-\ua60c\ua610-\ua716\ua800-\ud7ff\uf900-\ufaff'
            '\U00010000-\U0001cfff\U0001e000-\U0001efff\U00020000-\U0003ffff'
        WHEN 'symbols' THEN
            '\u2190-\u24ff\u25a0-\u2bff\U0001f000-\U0001faff'
    END;
END
$$;


--
-- Name: search_config(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_config(language text) RETURNS regconfig
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
BEGIN
    RETURN CASE language
        WHEN 'pt' THEN 'pg_catalog.portuguese'::regconfig
        WHEN 'en' THEN 'pg_catalog.english'::regconfig
        WHEN 'es' THEN 'pg_catalog.spanish'::regconfig
        WHEN 'fr' THEN 'pg_catalog.french'::regconfig
        WHEN 'de' THEN 'pg_catalog.german'::regconfig
        WHEN 'it' THEN 'pg_catalog.italian'::regconfig
        WHEN 'ar' THEN 'pg_catalog.arabic'::regconfig
        WHEN 'ca' THEN 'pg_catalog.catalan'::regconfig
        WHEN 'da' THEN 'pg_catalog.danish'::regconfig
        WHEN 'el' THEN 'pg_catalog.greek'::regconfig
        WHEN 'eu' THEN 'pg_catalog.basque'::regconfig
        WHEN 'fi' THEN 'pg_catalog.finnish'::regconfig
        WHEN 'ga' THEN 'pg_catalog.irish'::regconfig
        WHEN 'hi' THEN 'pg_catalog.hindi'::regconfig
        WHEN 'hu' THEN 'pg_catalog.hungarian'::regconfig
        WHEN 'hy' THEN 'pg_catalog.armenian'::regconfig
        WHEN 'id' THEN 'pg_catalog.indonesian'::regconfig
        WHEN 'lt' THEN 'pg_catalog.lithuanian'::regconfig
        WHEN 'ne' THEN 'pg_catalog.nepali'::regconfig
        WHEN 'nl' THEN 'pg_catalog.dutch'::regconfig
        WHEN 'no' THEN 'pg_catalog.norwegian'::regconfig
        WHEN 'ro' THEN 'pg_catalog.romanian'::regconfig
        WHEN 'ru' THEN 'pg_catalog.russian'::regconfig
        WHEN 'sr' THEN 'pg_catalog.serbian'::regconfig
        WHEN 'sv' THEN 'pg_catalog.swedish'::regconfig
        WHEN 'ta' THEN 'pg_catalog.tamil'::regconfig
        WHEN 'tr' THEN 'pg_catalog.turkish'::regconfig
        WHEN 'yi' THEN 'pg_catalog.yiddish'::regconfig
        ELSE 'pg_catalog.simple'::regconfig
    END;
END
$$;


--
-- Name: search_corrected_query(text, text[], text, uuid, text, text, text, timestamp with time zone, timestamp with time zone); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_corrected_query(query text, languages text[], tenant text, conversation uuid, kind text, role text, actor text, since timestamp with time zone, until timestamp with time zone) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    term      record;
    corrected text := '';
    last_side integer := 0;
    changed   boolean := false;
BEGIN
    FOR term IN
        SELECT t.side, t.negated, t.quoted, t.prefix, t.original, c.correction
          FROM search_parse_query(query) AS t
          LEFT JOIN search_corrections(query, languages, tenant, conversation, kind, role, actor, since, until) AS c
            ON c.ordinal = t.ordinal
         ORDER BY t.ordinal
    LOOP
        changed := changed OR term.correction IS NOT NULL;
        corrected := concat_ws(' ', nullif(corrected, ''), CASE WHEN term.side > last_side THEN 'or' END,
                           CASE WHEN term.negated THEN '-' ELSE '' END
                           || CASE WHEN term.quoted THEN '"' || term.original || '"'
                                   ELSE coalesce(term.correction, term.original)
                              END
                           || CASE WHEN term.prefix THEN '*' ELSE '' END);
        last_side := term.side;
    END LOOP;
    RETURN CASE WHEN changed THEN corrected END;
END
$$;


--
-- Name: search_corrections(text, text[], text, uuid, text, text, text, timestamp with time zone, timestamp with time zone); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_corrections(query text, languages text[], tenant text, conversation uuid, kind text, role text, actor text, since timestamp with time zone, until timestamp with time zone) RETURNS TABLE(ordinal integer, correction text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
    by_index CONSTANT boolean := conversation IS NULL AND current_tenant_user() IS NULL;
    labels   CONSTANT tsquery := search_label_query(tenant, kind, role, actor);
    frequent CONSTANT integer := 1000;
    sample   CONSTANT search_sampled[] := search_sample(NULL, tenant, conversation, kind, role, actor, since, until,
                                                        CASE WHEN by_index THEN frequent ELSE 5 * frequent END);
    known    text[];
    word     text;
    forms    tsquery[];
    unknown  integer := 0;
BEGIN
    FOR ordinal, word IN
        SELECT t.ordinal, t.words
          FROM search_parse_query(query) AS t
         WHERE NOT (t.negated OR t.quoted OR t.prefix)
           AND length(t.words) BETWEEN 4 AND 30
           AND t.words !~ '[0-9[:space:][:punct:]]'
         ORDER BY t.ordinal
    LOOP
        -- The word itself, and its stems in each of the languages.
        forms := ARRAY(SELECT search_exact_query(word)
                              || coalesce(string_agg(search_word_query(s.stem)::text, '|'), '')::tsquery
                         FROM unnest(languages) WITH ORDINALITY AS l (language, n)
                         LEFT JOIN LATERAL unnest(tsvector_to_array(search_stems(word, l.language))) AS s (stem)
                           ON true
                        GROUP BY l.n
                        ORDER BY l.n);
        CONTINUE WHEN EXISTS (SELECT
                                FROM unnest(sample) AS s
                               WHERE s.words @@ forms[array_position(languages, s.language)])
                   OR by_index
                      AND EXISTS (SELECT
                                    FROM unnest(search_sample(search_index_query(forms, tenant, kind, role, actor), tenant,
                                                              NULL, kind, role, actor, since, until, frequent)) AS s
                                   WHERE s.words @@ forms[array_position(languages, s.language)]);
        known := coalesce(known, ARRAY(
            SELECT DISTINCT unnest(tsvector_to_array(ts_filter(s.words, '{a}'))) FROM unnest(sample) AS s));
        correction := (
            SELECT search_spelling(f.word, (SELECT search_text(e.event_type, e.content)
                                              FROM events e
                                             WHERE e.tenant_id = search_corrections.tenant
                                               AND e.conversation_id = (f.documents[1]).conversation_id
                                               AND e.version = (f.documents[1]).version))
              FROM (SELECT c.word, c.is_likely, c.is_recent, array_agg(s) AS documents
                      FROM (SELECT e.edit AS word, e.is_likely, k.word IS NOT NULL AS is_recent
                              FROM search_edits(word) AS e
                              LEFT JOIN unnest(known) AS k (word)
                                ON k.word = e.edit
                             WHERE k.word IS NOT NULL
                                OR by_index
                                   AND EXISTS (SELECT
                                                 FROM search_documents d
                                                WHERE d.words @@ search_word_query(e.edit)
                                               OFFSET 0)
                            OFFSET 0) AS c,
                           unnest(CASE WHEN c.is_recent THEN sample
                                       ELSE search_sample(search_word_query(c.word) && labels, tenant, NULL, kind, role,
                                                          actor, since, until, frequent)
                                  END) AS s
                     WHERE s.words @@ search_exact_query(c.word)
                     GROUP BY c.word, c.is_likely, c.is_recent) AS f
             ORDER BY f.is_likely DESC, f.is_recent DESC, cardinality(f.documents) DESC, f.word
             LIMIT 1
        );
        RETURN NEXT;
        unknown := unknown + 1;
        EXIT WHEN unknown = 3;
    END LOOP;
END
$$;


--
-- Name: search_cursor(text, text, text, bigint, timestamp with time zone, timestamp with time zone, bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_cursor(search text, query text, key text, "position" bigint, oldest timestamp with time zone, newest timestamp with time zone, newest_position bigint) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN translate(encode(convert_to((json_build_array(search, query, key, "position", oldest, newest, newest_position))::text, 'UTF8'::name), 'base64'::text), '
'::text, ''::text);


--
-- Name: search_cursor_values(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_cursor_values(cursor text, search text) RETURNS json
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$
DECLARE
    members json;
BEGIN
    BEGIN
        members := convert_from(decode(cursor, 'base64'), 'UTF8')::json;
        PERFORM (members ->> 3)::bigint,
                CASE left(search, 1) WHEN 't' THEN (members ->> 2)::timestamptz::text
                                     ELSE concat((members ->> 2)::real, (members ->> 4)::timestamptz,
                                                 (members ->> 5)::timestamptz, (members ->> 6)::bigint)
                END;
    EXCEPTION
        WHEN OTHERS THEN
            members := NULL;
    END;
    IF members IS NULL
       OR json_array_length(members) <> 7
       OR (members ->> 0) IS DISTINCT FROM search
       OR (members ->> 1) IS NULL
       OR (members ->> 2) IS NULL
       OR (members ->> 3) IS NULL
       OR left(search, 1) <> 't' AND num_nulls(members ->> 4, members ->> 5, members ->> 6) > 0 THEN
        RAISE EXCEPTION 'the cursor does not belong to this search'
            USING ERRCODE = 'ES005', HINT = 'Use the cursor of the last row, with the same query and filters.';
    END IF;
    RETURN members;
END
$$;


--
-- Name: search_document(text, text, text[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_document(words text, language text, labels text[]) RETURNS tsvector
    LANGUAGE plpgsql IMMUTABLE STRICT
    AS $$
DECLARE
    -- The control character 1E interrupts phrases: a word there, which is deleted, leaves its position free.
    fitting text := replace(words, E'\x1e', ' q00000 ');
BEGIN
    LOOP
        BEGIN
            RETURN ts_delete(setweight(to_tsvector('pg_catalog.simple'::regconfig, fitting), 'A'), 'q00000')
                || search_stems(fitting, language)
                || array_to_tsvector(labels);
        EXCEPTION
            WHEN program_limit_exceeded THEN
                fitting := left(fitting, length(fitting) * 3 / 4);
        END;
    END LOOP;
END
$$;


--
-- Name: search_edits(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_edits(word text) RETURNS TABLE(edit text, is_likely boolean)
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    letters text := CASE WHEN word ~ '[\u0370-\u03ff].*[\u0370-\u03ff]' THEN 'αβγδεζηθικλμνξοπρστυφχψω'
                         WHEN word ~ '[\u0400-\u052f].*[\u0400-\u052f]' THEN 'абвгдежзийклмнопрстуфхцчшщъыьэюяђєѕіјљњћџґ'
                         WHEN word ~ '[\u0530-\u058f].*[\u0530-\u058f]' THEN 'աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆև'
                         WHEN word ~ '[\u05d0-\u05ea].*[\u05d0-\u05ea]' THEN 'אבגדהוזחטיךכלםמןנסעףפץצקרשת'
                         WHEN word ~ '[\u0620-\u06ff].*[\u0620-\u06ff]' THEN 'ءابةتثجحخدذرزسشصضطظعغفقكلمنهوىيپچژکگی'
                         WHEN word ~ '[\u10d0-\u10ff].*[\u10d0-\u10ff]' THEN 'აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ'
                         ELSE 'abcdefghijklmnopqrstuvwxyz'
                    END;
BEGIN
    RETURN QUERY
    SELECT e.edit, bool_or(e.is_likely)
      FROM generate_series(0, length(word)) AS i,
           LATERAL (SELECT left(word, i) AS before, substr(word, i + 1) AS behind) AS cut,
           LATERAL (
               SELECT cut.before || substr(cut.behind, 2, 1) || left(cut.behind, 1) || substr(cut.behind, 3), true
                UNION ALL
               SELECT cut.before || substr(cut.behind, 2), false
                UNION ALL
               SELECT cut.before || l.letter || substr(cut.behind, n), n = 1
                 FROM string_to_table(letters, NULL) AS l (letter), generate_series(1, 2) AS n
           ) AS e (edit, is_likely)
     WHERE e.edit <> word
     GROUP BY e.edit;
END
$$;


--
-- Name: search_exact_query(text, boolean); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_exact_query(words text, prefix boolean DEFAULT false) RETURNS tsquery
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
DECLARE
    pairs text := regexp_replace(words, '(\mq[0-3][0-9a-f]{9}) q[0-3][0-9a-f]{4}\s*$', '\1');
    query text := regexp_replace(phraseto_tsquery('pg_catalog.simple'::regconfig, pairs)::text, '(''[^'']+'')', '\1:A', 'g');
BEGIN
    IF prefix THEN
        query := query || '*';
    END IF;
    RETURN regexp_replace(query, '(''q[0-3][0-9a-f]{4}'':)A', '\1*A', 'g')::tsquery;
END
$_$;


--
-- Name: search_expand(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_expand(folded text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN replace(replace(replace(replace(folded, '­'::text, ''::text), 'ß'::text, 'ss'::text), 'æ'::text, 'ae'::text), 'œ'::text, 'oe'::text);


--
-- Name: search_fold(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_fold(original text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    is_ascii boolean := octet_length(original) = length(original);
    -- Nearly every text is normalized already, which is found out three times as fast as it is normalized.
    folded   text := lower((CASE WHEN is_ascii OR original IS NFKC NORMALIZED THEN original
                                 ELSE normalize(original, NFKC)
                            END) COLLATE "C");
BEGIN
    folded := replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(folded,
        '-', ' '), '/', ' '), '@', ' '), '.', ' '), '_', ' '), '<', ' '), '&', ' '), '+', ' '), '\', ' '),
        chr(1), ' '), chr(2), ' ');
    IF folded LIKE '%t__:__%' THEN  -- 2026-01-31T09:30:00Z
        folded := regexp_replace(folded, '([0-9]{2})t([0-9]{2}:[0-9]{2})', '\1 \2', 'g');
        folded := regexp_replace(folded, '(:[0-9]{2}(?: [0-9]{1,9})?)z(?![0-9a-z])', '\1 ', 'g');
    END IF;
    IF is_ascii THEN
        RETURN folded;
    END IF;
    -- The letters of Western European languages; others take the slower way.
    folded := replace(replace(replace(replace(replace(replace(folded,
        'ã', 'a'), 'á', 'a'), 'ç', 'c'), 'é', 'e'), 'õ', 'o'), 'í', 'i');
    folded := replace(replace(replace(replace(replace(replace(folded,
        'ó', 'o'), 'ê', 'e'), 'ú', 'u'), 'â', 'a'), 'à', 'a'), 'ô', 'o');
    IF octet_length(folded) = length(folded) THEN
        RETURN folded;
    END IF;
    folded := regexp_replace(folded, '[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640'
                                     '\u064b-\u065f\u0670\u06d6-\u06ed\u200c\u200d\u2060\ufe00-\ufe0f\ufeff]', U&'\00AD', 'g');
    folded := lower(normalize(regexp_replace(normalize(folded, NFD), '(?<![\u0418\u0438](?=\u0306))[\u0300-\u036f]+',
                                             '', 'g'), NFC) COLLATE "C");
    IF folded ~ '[\u00c6-\u02af\u1e9e]' THEN
        folded := translate(folded, 'ÆÐØÞĐĦŁŊŒŦƁƆƉƊƎƏƐƑƓƔƖƗƘƝƟƤƬƮƱƲƳƵƷǤɃẞøłđħŧı',
                                    'æðoþdhlŋœtɓɔɖɗǝəɛƒɠɣɩɨƙɲɵƥƭʈʊʋƴƶʒǥƀßoldhti');
    END IF;
    IF folded ~ '[\u0391-\u03c2]' THEN
        folded := translate(folded, 'ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩς', 'αβγδεζηθικλμνξοπρστυφχψωσ');
    END IF;
    IF folded ~ '[\u0400-\u052f]' THEN
        folded := translate(folded, 'ЂЄЅІЈЉЊЋЏАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯѢѲѴҐҒҔҖҘҚҜҞҠҢҤҦҨҪҬҮҰҲҴҶҸҺҼҾӀӃӅӇӉӋӍӘӠӨ',
                                    'ђєѕіјљњћџабвгдежзийклмнопрстуфхцчшщъыьэюяѣѳѵґғҕҗҙқҝҟҡңҥҧҩҫҭүұҳҵҷҹһҽҿӏӄӆӈӊӌӎәӡө');
    END IF;
    IF folded ~ '[\u0531-\u0556]' THEN
        folded := translate(folded, 'ԱԲԳԴԵԶԷԸԹԺԻԼԽԾԿՀՁՂՃՄՅՆՇՈՉՊՋՌՍՎՏՐՑՒՓՔՕՖ', 'աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆ');
    END IF;
    IF folded ~ '[\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\u09e6-\u09ef\u0e50-\u0e59]' THEN
        folded := translate(folded, '٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹०१२३४५६७८९০১২৩৪৫৬৭৮৯๐๑๒๓๔๕๖๗๘๙',
                                    '01234567890123456789012345678901234567890123456789');
    END IF;
    RETURN regexp_replace(folded, format('[^\u0001-\u007f\u00ad%s%s%s]', search_characters('letters'),
                                         search_characters('unsegmented'), search_characters('symbols')), ' ', 'g');
END
$$;


--
-- Name: search_for(text, text, text, text, text, text, uuid, timestamp with time zone, timestamp with time zone, text, integer, text, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_for(query text, tenant text, by text DEFAULT 'relevance'::text, only_kind text DEFAULT NULL::text, only_role text DEFAULT NULL::text, only_actor text DEFAULT NULL::text, only_conversation uuid DEFAULT NULL::uuid, since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone, query_language text DEFAULT NULL::text, page integer DEFAULT 20, after text DEFAULT NULL::text, opening text DEFAULT '«'::text, closing text DEFAULT '»'::text) RETURNS TABLE(kind text, id uuid, conversation_id uuid, version integer, "position" bigint, role text, actor text, created_at timestamp with time zone, language text, rank real, snippet text, searched text, cursor text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET client_min_messages TO 'warning'
    AS $$
#variable_conflict use_column
DECLARE
    languages text[];
    -- A cursor is valid only in the same search.
    search CONSTANT text := left(by, 1) || hashtextextended(concat_ws(E'\x01', query, tenant, by, only_kind,
                                only_role, only_actor, only_conversation::text, extract(epoch FROM since)::text,
                                extract(epoch FROM until)::text, query_language), 0);
    cursor_values json;
    used          text := query;
    attempt       integer := 0;
    queries       tsquery[];
    found         record;
BEGIN
    IF tenant IS DISTINCT FROM current_tenant() THEN
        RAISE EXCEPTION 'this transaction may not search the tenant %', quote_nullable(tenant)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'SELECT set_config(''eventstore.tenant'', …, true) in the same transaction, by a login that may set it.';
    END IF;
    languages := CASE WHEN query_language IS NULL THEN search_languages(tenant)
                      ELSE ARRAY[search_language_code(query_language), 'und'] END;
    IF by IS NULL OR by NOT IN ('relevance', 'time') THEN
        RAISE EXCEPTION 'by: % is unknown', quote_nullable(by) USING ERRCODE = 'ES005', HINT = 'Use relevance or time.';
    ELSIF only_kind NOT IN ('message', 'task', 'status', 'artifact', 'conversation') THEN
        RAISE EXCEPTION 'kind: % is unknown', quote_nullable(only_kind)
            USING ERRCODE = 'ES005', HINT = 'Use message, task, status, artifact or conversation.';
    ELSIF languages[1] IS NULL THEN
        RAISE EXCEPTION 'language: % is not a language that can be searched', quote_nullable(query_language)
            USING ERRCODE = 'ES005', HINT = 'Use the code of a language, such as pt or en-US.';
    ELSIF page IS NULL OR page NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'page: % is not between 1 and 1000', coalesce(page::text, 'null') USING ERRCODE = 'ES005';
    END IF;
    IF after IS NOT NULL THEN
        cursor_values := search_cursor_values(after, search);
        used := cursor_values ->> 1;
    END IF;
    LOOP
        queries := ARRAY(SELECT search_query(used, l.language) FROM unnest(languages) WITH ORDINALITY AS l (language, n)
                          ORDER BY l.n);
        found := search_page(by, languages, queries, tenant, only_conversation, only_kind, only_role, only_actor,
                             coalesce(since, '-infinity'), coalesce(until, 'infinity'), cursor_values, page);
        EXIT WHEN cardinality(found.matches) > 0 OR cursor_values IS NOT NULL;
        -- What finds nothing is tried with misspelt words corrected, then with some words left out.
        used := CASE attempt
                    WHEN 0 THEN search_corrected_query(query, languages, tenant, only_conversation, only_kind, only_role,
                                                 only_actor, coalesce(since, '-infinity'), coalesce(until, 'infinity'))
                    ELSE search_relaxed_query(query, attempt)
                END;
        attempt := attempt + 1;
        IF used IS NULL AND attempt = 1 THEN
            used := search_relaxed_query(query, attempt);
            attempt := attempt + 1;
        END IF;
        EXIT WHEN used IS NULL;
    END LOOP;
    RETURN QUERY
    SELECT m.kind, m.id, m.conversation_id, m.version, m.position, m.role, m.actor, m.created_at, m.language, m.rank,
           coalesce(search_snippet(search_text(e.event_type, e.content), shown.query, m.language, shown.marks, opening,
                                   closing), ''),
           used,
           search_cursor(search, used,
                         CASE by
                             WHEN 'time' THEN to_char(m.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.USOF')
                             ELSE m.rank::text
                         END,
                         m.position, found.oldest, found.newest, found.newest_position)
      FROM unnest(found.matches) WITH ORDINALITY AS m (conversation_id, version, "position", kind, id, role, actor, created_at,
                                                 language, rank, n)
      LEFT JOIN events e
        ON e.tenant_id = search_for.tenant
       AND e.conversation_id = m.conversation_id
       AND e.version = m.version
      LEFT JOIN (SELECT l.language, search_query(used, l.language, true) AS query, search_highlight_terms(used, l.language) AS marks
                   FROM unnest(languages) AS l (language)
                 OFFSET 0) AS shown
        ON shown.language = m.language
     ORDER BY m.n;
END
$$;


--
-- Name: search_grapheme_end(text, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_grapheme_end(original text, place integer) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    joiner CONSTANT integer := x'200d'::integer;
    code   integer;
BEGIN
    FOR n IN place .. place + 30 LOOP
        code := ascii(substr(original, n, 1));
        IF code < 768 OR n = 1 OR NOT (
            code BETWEEN x'0300'::integer AND x'036f'::integer
            OR code BETWEEN x'0591'::integer AND x'05c7'::integer
            OR code BETWEEN x'064b'::integer AND x'065f'::integer
            -- The blocks of Indic scripts, which have the same layout.
            OR code BETWEEN x'0900'::integer AND x'0dff'::integer
               AND (code % 128 BETWEEN 1 AND 3 OR code % 128 BETWEEN 60 AND 79 OR code % 128 IN (86, 87, 98, 99))
            OR code BETWEEN x'0e31'::integer AND x'0e4e'::integer AND code NOT BETWEEN x'0e3f'::integer AND x'0e46'::integer
            OR code BETWEEN x'1160'::integer AND x'11ff'::integer
            OR code BETWEEN x'20d0'::integer AND x'20ff'::integer
            OR code BETWEEN x'fe00'::integer AND x'fe0f'::integer
            OR code BETWEEN x'1f3fb'::integer AND x'1f3ff'::integer
            OR code BETWEEN x'e0020'::integer AND x'e007f'::integer
            OR code IN (joiner, x'3099'::integer, x'309a'::integer)
            OR ascii(substr(original, n - 1, 1)) = joiner) THEN
            RETURN n;
        END IF;
    END LOOP;
    RETURN place + 31;
END
$$;


--
-- Name: search_highlight(text, text, text[], text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_highlight(document text, language text, marks text[], opening text, closing text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
DECLARE
    folded    text := search_fold(document);
    original  text := CASE WHEN length(folded) = length(document) THEN document ELSE folded END;
    -- The first two letters of the words to be marked and of their stems: what begins otherwise has another stem.
    stems     text[] := ARRAY(SELECT substr(m, 2) FROM unnest(marks) AS m WHERE m LIKE '=%');
    initials  text[] := ARRAY(SELECT left(s, 2) FROM unnest(stems) AS s);
    prefixes  text[] := ARRAY(SELECT substr(m, 2) || '%' FROM unnest(marks) AS m WHERE m LIKE '*%');
    words     text[] := '{}';
    parts     text[];
    part      text;
    places    integer[] := '{}';
    ends      integer[] := '{}';
    spans     int4multirange := '{}';
    piece     text[];
    place     integer := 1;
    next      integer;
    mark      text;
    phrase    text[];
    size      integer;
    span      int4range;
    passage   int4range;
    shown     text := '';
BEGIN
    FOR piece IN
        SELECT regexp_matches(folded, format('([0-9a-z\u00ad%1$s]+)|([^0-9a-z\u00ad%1$s]+)', search_characters('letters')),
                              'g')
    LOOP
        IF piece[1] IS NOT NULL THEN
            words := words || search_expand(piece[1]);
            places := places || place;
            ends := ends || place + length(piece[1]);
            parts := piece[1:1];
            part := substr(original, place, length(piece[1]));
            IF part ~ '[a-z0-9][A-Z]|[A-Z]{2}[a-z]' THEN
                parts := parts || string_to_array(lower(search_split(part) COLLATE "C"), ' ');
            END IF;
            next := place;
            FOR n IN 1 .. cardinality(parts) LOOP
                part := search_expand(parts[n]);
                IF part = ANY (stems)
                   OR part LIKE ANY (prefixes)
                   OR (left(part, 2) = ANY (initials) AND tsvector_to_array(search_stems(part, language)) && stems) THEN
                    spans := spans + int4multirange(int4range(next, next + length(parts[n])));
                    EXIT WHEN n = 1;
                END IF;
                next := next + CASE n WHEN 1 THEN 0 ELSE length(parts[n]) END;
            END LOOP;
        END IF;
        place := place + length(coalesce(piece[1], piece[2]));
    END LOOP;
    FOREACH mark IN ARRAY marks LOOP
        IF mark LIKE '"%' THEN
            phrase := string_to_array(substr(mark, 2), ' ');
            size := cardinality(phrase);
            FOR n IN 1 .. cardinality(words) - size + 1 LOOP
                IF words[n] = phrase[1] AND words[n:n + size - 1] = phrase THEN
                    spans := spans + int4multirange(int4range(places[n], ends[n + size - 1]));
                END IF;
            END LOOP;
        ELSIF mark LIKE '~%' THEN
            size := length(mark) - 1;
            place := 1;
            LOOP
                next := strpos(substr(lower(original COLLATE "C"), place), substr(mark, 2));
                EXIT WHEN next = 0;
                spans := spans + int4multirange(int4range(place + next - 1,
                                                          search_grapheme_end(original, place + next - 1 + size)));
                place := place + next - 1 + size;
            END LOOP;
        END IF;
    END LOOP;

    FOR number IN 1 .. 2 LOOP
        -- The first passage begins eight words before the first mark; the second, before the first one after it.
        span := (SELECT s FROM unnest(spans) AS s WHERE passage IS NULL OR lower(s) >= upper(passage) ORDER BY s LIMIT 1);
        EXIT WHEN number = 2 AND span IS NULL;
        place := coalesce(lower(span), 1);
        place := search_grapheme_end(original, greatest(
            place - least(length(substring(left(original, place - 1) FROM '(?:\S+\s+){0,8}\S*$')), 200),
            coalesce(upper(passage), 1)));
        passage := int4range(place, greatest(
            search_grapheme_end(original, place + least(
                length(substring(substr(original, place) FROM '^\s*(?:\S+\s+){0,23}\S*')), 500)),
            coalesce(upper(span), 1)));
        shown := shown || CASE WHEN number = 2 THEN ' … ' ELSE '' END;
        FOR span IN SELECT s FROM unnest(spans) AS s WHERE s <@ passage ORDER BY s LOOP
            shown := shown || substr(original, place, lower(span) - place)
                  || opening || substr(original, lower(span), upper(span) - lower(span)) || closing;
            place := upper(span);
        END LOOP;
        shown := shown || substr(original, place, upper(passage) - place);
    END LOOP;
    RETURN shown;
END
$_$;


--
-- Name: search_highlight_terms(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_highlight_terms(query text, language text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
DECLARE
    term  record;
    marks text[] := '{}';
BEGIN
    FOR term IN
        SELECT t.prefix, t.quoted, t.original, t.words, search_expand(search_fold(t.original)) AS folded
          FROM search_parse_query(query) AS t
         WHERE NOT t.negated
    LOOP
        IF term.words ~ 'q[0-3][0-9a-f]{4}|q2b2b|q23' THEN
            marks := marks || ARRAY(
                SELECT '~' || r.run[1]
                  FROM regexp_matches(lower(normalize(term.original, NFKC) COLLATE "C"),
                                      format('([%s]+|[%s]|[a-z]{1,2}(?:\+\+|#))', search_characters('unsegmented'),
                                             search_characters('symbols')), 'g') AS r (run)
            );
        END IF;
        IF term.quoted THEN
            marks := marks || ('"' || trim(regexp_replace(term.folded, '[\s[:punct:]]+', ' ', 'g')));
        ELSIF term.prefix THEN
            marks := marks || ('*' || substring(term.folded FROM '[^\s[:punct:]]+(?=[\s[:punct:]]*$)'));
        ELSE
            marks := marks || ARRAY(
                SELECT '=' || w.word
                  FROM unnest(tsvector_to_array(to_tsvector('pg_catalog.simple'::regconfig, term.folded)
                                                || search_stems(term.folded, language))) AS w (word)
            );
        END IF;
    END LOOP;
    RETURN ARRAY(SELECT DISTINCT m FROM unnest(marks) AS m);
END
$_$;


--
-- Name: search_identifier_parts(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_identifier_parts(original text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
BEGIN
    IF original !~ '[a-z0-9][A-Z]|[A-Z]{2}[a-z]' THEN
        RETURN '';
    END IF;
    RETURN coalesce((
        SELECT string_agg(lower(search_split(m.word[1]) COLLATE "C"), E'\x1e')
          FROM regexp_matches(original, '(?<![A-Za-z0-9])([A-Za-z0-9]*(?:[a-z0-9][A-Z]|[A-Z]{2}[a-z])[A-Za-z0-9]*)', 'g') AS m (word)
    ), '');
END
$$;


--
-- Name: search_index_query(tsquery[], text, text, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_index_query(queries tsquery[], tenant text, kind text, role text, actor text) RETURNS tsquery
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
DECLARE
    combined tsquery := '';
    query    tsquery;
BEGIN
    FOR query IN SELECT DISTINCT q FROM unnest(queries) AS q WHERE numnode(q) > 0 LOOP
        combined := combined || query;
    END LOOP;
    RETURN CASE WHEN numnode(combined) = 0 THEN combined
                ELSE combined && search_label_query(tenant, kind, role, actor)
           END;
END
$$;


--
-- Name: search_json_text(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_json_text(original text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT
    AS $$
BEGIN
    IF position('\' IN original) = 0 THEN
        RETURN original;
    END IF;
    RETURN original::jsonb::text;
EXCEPTION
    WHEN OTHERS THEN
        RETURN original;
END
$$;


--
-- Name: search_label_query(text, text, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_label_query(tenant text, kind text, role text, actor text) RETURNS tsquery
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
DECLARE
    labels text[] := search_labels(tenant, role, actor);
BEGIN
    -- The labels of roles and actors include the tenant.
    RETURN CASE
        WHEN role IS NULL AND actor IS NULL AND coalesce(kind, 'message') IN ('message', 'conversation') THEN
            search_word_query(labels[1])
        WHEN actor IS NULL THEN
            search_word_query(labels[2])
        WHEN role IS NULL AND coalesce(kind, 'message') IN ('message', 'conversation') THEN
            search_word_query(labels[3])
        ELSE
            search_word_query(labels[2]) && search_word_query(labels[3])
    END;
END
$$;


--
-- Name: search_labels(text, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_labels(tenant text, role text, actor text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY[('='::text || tenant), ((('='::text || COALESCE(role, 'task'::text)) || ' of '::text) || tenant), "left"(((('='::text || actor) || ' in '::text) || tenant), 500)];


--
-- Name: search_language(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_language(folded text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    words tsvector := to_tsvector('pg_catalog.simple'::regconfig, left(folded, 250));
    pt    real := search_language_score(words, 'pt');
    en    real := search_language_score(words, 'en');
    es    real;
    fr    real;
    de    real;
    it    real;
    best  real;
BEGIN
    -- Most texts are decided here.
    IF least(pt, en) = 0 AND greatest(pt, en) > 0.15 * length(words) + 0.5 THEN
        RETURN CASE WHEN pt > en THEN 'pt' ELSE 'en' END;
    END IF;
    es := search_language_score(words, 'es');
    fr := search_language_score(words, 'fr');
    de := search_language_score(words, 'de');
    it := search_language_score(words, 'it');
    best := greatest(pt, en, es, fr, de, it, 0.05 * length(words)) * 0.99;
    RETURN CASE (pt > best)::integer + (en > best)::integer + (es > best)::integer + (fr > best)::integer
                + (de > best)::integer + (it > best)::integer
        WHEN 1 THEN
            CASE WHEN pt > best THEN 'pt' WHEN en > best THEN 'en' WHEN es > best THEN 'es'
                 WHEN fr > best THEN 'fr' WHEN de > best THEN 'de' ELSE 'it' END
        ELSE 'und'
    END;
END
$$;


--
-- Name: search_language_code(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_language_code(original text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
DECLARE
    code text := lower(substring(original FROM '^([A-Za-z]{2})(?:[-_].*)?$'));
BEGIN
    IF code = ANY (ARRAY['ar', 'ca', 'da', 'de', 'el', 'en', 'es', 'eu', 'fi', 'fr', 'ga', 'hi', 'hu', 'hy', 'id', 'it',
                         'lt', 'ne', 'nl', 'no', 'pt', 'ro', 'ru', 'sr', 'sv', 'ta', 'tr', 'yi']) THEN
        RETURN code;
    END IF;
    -- Some clients write out the names of the two most frequent languages.
    RETURN CASE lower(original) WHEN 'portuguese' THEN 'pt' WHEN 'português' THEN 'pt' WHEN 'english' THEN 'en' END;
END
$_$;


--
-- Name: search_language_score(tsvector, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_language_score(words tsvector, language text) RETURNS real
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
BEGIN
    RETURN CASE language
        WHEN 'pt' THEN 43 * ts_rank('{1,1,1,1}', words,
            'nao | uma | um | com | em | do | dos | na | no | ao | os | voce | eu | meu | minha | isso |
             foi | sao | mais | pelo | pela | ou | ola | qual | tem | seu | sua | obrigado | quando |
             muito | ele | ela | dela | dele | mas | ja | tambem | aqui | porque | preciso | quero | esse |
             essa')
        WHEN 'en' THEN 43 * ts_rank('{1,1,1,1}', words,
            'the | and | of | to | is | you | for | it | that | with | was | i | my | have | this | are |
             not | be | on | can | your | what | please | from | how | at | an | or | we | but | they |
             there | would | when | he | she | if | all | me | does | has | were | by')
        WHEN 'es' THEN 25 * ts_rank('{1,1,1,1}', words,
            'el | los | las | una | y | en | del | con | mi | pero | esta | usted | su | muy | hola |
             gracias | hay | yo | lo | es | puedo | donde | cuando | tiene | quiero')
        WHEN 'fr' THEN 28 * ts_rank('{1,1,1,1}', words,
            'le | les | des | est | et | une | dans | pour | je | vous | pas | du | au | ce | sur | avec |
             mon | nous | il | qui | bonjour | merci | votre | sont | ne | cette | elle | plus')
        WHEN 'de' THEN 30 * ts_rank('{1,1,1,1}', words,
            'der | und | ist | nicht | ich | ein | eine | mit | zu | auf | den | sie | wie | fur | von |
             im | bitte | wir | dem | auch | haben | kann | mein | aber | danke | das | die | es | wenn |
             sich')
        WHEN 'it' THEN 30 * ts_rank('{1,1,1,1}', words,
            'il | di | che | non | sono | della | gli | per | mi | questo | una | nel | ho | ciao |
             grazie | alla | anche | come | piu | dei | con | vorrei | sul | essere | dove | la | le | si |
             ma | quando')
    END;
END
$$;


--
-- Name: search_languages(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_languages(tenant text) RETURNS text[]
    LANGUAGE plpgsql STABLE STRICT
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    RETURN (
        WITH RECURSIVE named (language) AS (
            SELECT min(c.language::text) FROM search_conversations c
             WHERE c.tenant_id = search_languages.tenant AND c.language IS NOT NULL
            UNION ALL
            SELECT (SELECT min(c.language::text) FROM search_conversations c
                     WHERE c.tenant_id = search_languages.tenant AND c.language > n.language)
              FROM named n
             WHERE n.language IS NOT NULL
        )
        SELECT array_agg(DISTINCT l.language)
          FROM (SELECT n.language FROM named n
                 UNION ALL
                SELECT unnest(ARRAY['und', 'pt', 'en', 'es', 'fr', 'de', 'it'])) AS l
         WHERE l.language IS NOT NULL
    );
END
$$;


--
-- Name: search_latest(text[], tsquery[], text, uuid, text, text, text, timestamp with time zone, timestamp with time zone, bigint, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_latest(languages text[], queries tsquery[], tenant text, conversation uuid, kind text, role text, actor text, since timestamp with time zone, below timestamp with time zone, below_position bigint, wanted integer) RETURNS public.search_match[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    sample            CONSTANT integer := 2000;
    -- A user with so few conversations has few documents: only these are read.
    few_conversations CONSTANT integer := 200;
    index_query tsquery := search_index_query(queries, tenant, kind, role, actor);
    is_user     CONSTANT boolean := current_tenant_user() IS NOT NULL;
    strategy    text := CASE WHEN conversation IS NULL THEN 'time' WHEN is_user THEN 'own' ELSE 'conversation' END;
    budget      integer := sample;
    matches     search_match[];
    rows        real := pg_relation_size('search_documents') / 500;
    share       real;
BEGIN
    IF numnode(index_query) = 0 THEN
        RETURN ARRAY[]::search_match[];
    END IF;
    IF strategy = 'time' AND is_user
       AND (SELECT count(*)
              FROM (SELECT
                      FROM conversation_members m
                     WHERE m.tenant_id = search_latest.tenant AND m.user_id = current_tenant_user()
                     LIMIT few_conversations + 1) AS m) <= few_conversations THEN
        strategy := 'own';
    END IF;
    LOOP
        matches := ARRAY(
            SELECT m
              FROM search_matches(strategy, languages, queries, index_query, tenant, conversation, kind, role, actor,
                                  since, below, below_position, budget, wanted) AS m
        );
        IF cardinality(matches) >= wanted
           OR strategy <> 'time'
           OR search_period_is_short(tenant, since, below, below_position, budget) THEN
            RETURN matches;
        END IF;
        strategy := CASE WHEN is_user THEN 'own' ELSE 'words' END;
        share := cardinality(matches)::real / sample;
        IF budget = sample AND cardinality(matches) > 2 THEN
            IF wanted / share < share * rows * 4 THEN
                strategy := 'time';
                budget := 2 * wanted / share;
            END IF;
        END IF;
    END LOOP;
END
$$;


--
-- Name: search_matches(text, text[], tsquery[], tsquery, text, uuid, text, text, text, timestamp with time zone, timestamp with time zone, bigint, integer, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_matches(strategy text, languages text[], queries tsquery[], index_query tsquery, tenant text, conversation uuid, kind text, role text, actor text, since timestamp with time zone, below timestamp with time zone, below_position bigint, budget integer, wanted integer) RETURNS SETOF public.search_match
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    SET max_parallel_workers_per_gather TO '0'
    AS $_$
DECLARE
    columns CONSTANT text :=
        'd.conversation_id, d.version, d.position, d.kind, d.id, d.role, d.actor, d.created_at, d.language, d.words';
    candidates CONSTANT text := CASE strategy
        WHEN 'words' THEN 'd.words @@ $4'
        WHEN 'time' THEN 'd.tenant_id = $5 AND d.created_at >= $10 AND (d.created_at, d.position) < ($11, $12)
                           ORDER BY d.created_at DESC, d.position DESC LIMIT $13'
        WHEN 'conversation' THEN 'd.tenant_id = $5 AND d.conversation_id = $6'
        WHEN 'own' THEN 'd.tenant_id = $5 AND d.conversation_id = ANY (ARRAY(
                             SELECT m.conversation_id
                               FROM conversation_members m
                              WHERE m.tenant_id = $5 AND m.user_id = $15
                                AND ($6 IS NULL OR m.conversation_id = $6)))'
    END;
    visible CONSTANT text := CASE WHEN current_tenant_user() IS NULL OR strategy = 'own' THEN 'true'
        ELSE '(SELECT true FROM conversation_members m
                WHERE m.tenant_id = $5 AND m.conversation_id = d.conversation_id AND m.user_id = $15)'
    END;
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT f.conversation_id, f.version, f.position, f.kind::text, f.id, f.role::text, f.actor::text, f.created_at,
                f.language::text,
                (ts_rank(f.words, $3[array_position($2, f.language::text)]) / (40 + length(f.words)))::real
           FROM (SELECT %1$s
                   FROM (SELECT d.*
                           FROM (SELECT %1$s, d.tenant_id FROM search_documents d WHERE %2$s OFFSET 0) AS d
                          WHERE %3$s
                         OFFSET 0) AS d
                  WHERE d.tenant_id = $5 AND d.created_at >= $10 AND (d.created_at, d.position) < ($11, $12)
                    %4$s
                    AND ts_match_vq(d.words, $3[array_position($2, d.language::text)])
                  ORDER BY d.created_at DESC, d.position DESC LIMIT $14) AS f',
        columns, candidates, visible,
        concat(CASE WHEN kind = 'task' THEN ' AND d.kind IN (''task'', ''status'', ''artifact'')'
                    WHEN kind IS NOT NULL THEN ' AND d.kind = $7'
               END,
               CASE WHEN role IS NOT NULL THEN ' AND d.role = $8' END,
               CASE WHEN actor IS NOT NULL THEN ' AND d.actor = $9' END,
               -- One lookup for each match instead of a join of all rows; none if no conversation is deleted.
               CASE WHEN EXISTS (SELECT FROM search_conversations c WHERE c.tenant_id = tenant AND c.is_deleted) THEN
                   ' AND (SELECT c.is_deleted FROM search_conversations c
                           WHERE c.tenant_id = $5 AND c.conversation_id = d.conversation_id) IS NOT TRUE'
               END))
    USING strategy, languages, queries, index_query, tenant, conversation, kind, role, actor, since, below,
          below_position, budget, wanted, current_tenant_user();
END
$_$;


--
-- Name: search_page(text, text[], tsquery[], text, uuid, text, text, text, timestamp with time zone, timestamp with time zone, json, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_page(by text, languages text[], queries tsquery[], tenant text, conversation uuid, kind text, role text, actor text, since timestamp with time zone, until timestamp with time zone, cursor_values json, page integer, OUT matches public.search_match[], OUT oldest timestamp with time zone, OUT newest timestamp with time zone, OUT newest_position bigint) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    best CONSTANT integer := 400;
    most integer := greatest(best, page);
BEGIN
    IF by = 'time' THEN
        matches := search_latest(languages, queries, tenant, conversation, kind, role, actor, since,
                                 coalesce((cursor_values ->> 2)::timestamptz, until),
                                 coalesce((cursor_values ->> 3)::bigint, 0), page);
        RETURN;
    END IF;
    IF cursor_values IS NULL THEN
        matches := search_latest(languages, queries, tenant, conversation, kind, role, actor, since, until, 0, most);
        oldest := CASE WHEN cardinality(matches) < most THEN since ELSE (matches[most]).created_at END;
        newest := coalesce((matches[1]).created_at, since);
        newest_position := coalesce((matches[1]).position, 0);
    ELSE
        oldest := cursor_values ->> 4;
        newest := cursor_values ->> 5;
        newest_position := cursor_values ->> 6;
        matches := search_latest(languages, queries, tenant, conversation, kind, role, actor, oldest, newest,
                                 newest_position + 1, 10 * most);
    END IF;
    matches := ARRAY(
        SELECT f
          FROM unnest(matches) AS f
         WHERE cursor_values IS NULL OR (f.rank, f.position) < ((cursor_values ->> 2)::real, (cursor_values ->> 3)::bigint)
         ORDER BY f.rank DESC, f.position DESC
         LIMIT page
    );
END
$$;


--
-- Name: search_parse_query(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_parse_query(query text) RETURNS TABLE(ordinal integer, side integer, negated boolean, quoted boolean, prefix boolean, original text, words text)
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
DECLARE
    given      text := left(query, 1000);
    groups     text[];
    has_wanted boolean := regexp_replace(given, '(?<!\S)-(?:"[^"]*"?|[^-0-9\s"][^\s"]+)', ' ', 'g') ~ '[^\s"*]';
BEGIN
    ordinal := 0;
    side := 0;
    FOR groups IN
        SELECT regexp_matches(given, '(?:((?<!\S)-)?"([^"]*)"?|([^\s"]+))', 'g')
    LOOP
        quoted := groups[2] IS NOT NULL;
        original := coalesce(groups[2], groups[3]);
        IF lower(original) = 'or' AND NOT quoted THEN
            side := side + 1;
            CONTINUE;
        END IF;
        negated := has_wanted AND (groups[1] IS NOT NULL OR (NOT quoted AND original ~ '^-[^-0-9\s][^\s]'));
        prefix := NOT quoted AND original ~ '\*$';
        original := regexp_replace(original, CASE WHEN negated AND NOT quoted THEN '^-|\*$' WHEN prefix THEN '\*$' ELSE '^$' END,
                                   '', 'g');
        words := trim(search_words(original));
        words := substring(words FROM '^[\s[:punct:]]*((?:[\s[:punct:]]*[^\s[:punct:]]+){0,40})');
        -- A quarter of all words begin with the same letter as another.
        prefix := prefix AND coalesce(length(substring(words FROM '[^\s[:punct:]]+(?=[\s[:punct:]]*$)')) > 1, false);
        IF words ~ '[^\s[:punct:]]' THEN
            ordinal := ordinal + 1;
            RETURN NEXT;
            EXIT WHEN ordinal = 40;
        END IF;
    END LOOP;
END
$_$;


--
-- Name: search_period_is_short(text, timestamp with time zone, timestamp with time zone, bigint, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_period_is_short(tenant text, since timestamp with time zone, below timestamp with time zone, below_position bigint, budget integer) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    AS $$
BEGIN
    RETURN NOT EXISTS (
        SELECT
          FROM search_documents d
         WHERE d.tenant_id = search_period_is_short.tenant
           AND d.created_at >= search_period_is_short.since
           AND (d.created_at, d.position) < (search_period_is_short.below, search_period_is_short.below_position)
         ORDER BY d.created_at DESC, d.position DESC
        OFFSET search_period_is_short.budget
    );
END
$$;


--
-- Name: search_prefix_query(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_prefix_query(prefix text, language text) RETURNS tsquery
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    found tsquery := (search_word_query(prefix)::text || ':*')::tsquery;
    word  text;
BEGIN
    FOR word IN
        SELECT DISTINCT s.lexeme
          FROM unnest(CASE language
                   WHEN 'pt' THEN ARRAY['', 'o', 'a', 'ao', 'm', 'em', 'r', 'ar', 'er', 'ir', 's', 'os', 'as', 'do', 'ado',
                                        'ndo', 'mente', 'ento', 'l', 'el', 'ia', 'ncia', 'cao', 'dade', 'e', 'es', 'vel']
                   WHEN 'en' THEN ARRAY['', 's', 'e', 'es', 'ed', 'd', 'ing', 'ng', 'ion', 'on', 'tion', 'ation', 'er', 'r', 'ly',
                                        'y', 'ment', 'ent', 'al', 'ies', 'ness', 'n', 't', 'able', 'ive', 'ity']
                   ELSE ARRAY['', 'a', 'e', 'o', 's', 'n', 'en', 'er', 'es']
               END) AS ending,
               LATERAL unnest(to_tsvector(search_config(language), search_prepare(prefix || ending, language))) AS s
         WHERE NOT starts_with(s.lexeme, prefix)
    LOOP
        found := found || search_word_query(word);
    END LOOP;
    RETURN found;
END
$$;


--
-- Name: search_prepare(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_prepare(folded text, language text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    prepared text := folded;
BEGIN
    IF language = 'pt' THEN
        prepared := regexp_replace(prepared, 'oes\M', 'ao ', 'g');
        prepared := regexp_replace(prepared, '([^\Wm])aes\M', '\1ao ', 'g');
        prepared := regexp_replace(prepared, '([^\Wc])aos\M', '\1ao ', 'g');
        prepared := regexp_replace(prepared, 'cao\M', 'ção', 'g');
        prepared := regexp_replace(prepared, 'ao\M', 'ão', 'g');
        prepared := regexp_replace(prepared, '([aeiou])ns\M', '\1m ', 'g');
        prepared := regexp_replace(prepared, 'ceis\M', 'cil ', 'g');
        prepared := regexp_replace(prepared, '([a-z]{2}[ae])is\M', '\1l ', 'g');
    END IF;
    RETURN prepared;
END
$$;


--
-- Name: search_query(text, text, boolean); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_query(query text, language text, shown boolean DEFAULT false) RETURNS tsquery
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    combined   tsquery := '';
    whole      tsquery;
    part       tsquery;
    reading    text;
    term       record;
    term_query tsquery;
    last_side  integer;
    has_wanted boolean;
BEGIN
    FOREACH reading IN ARRAY array_remove(
        ARRAY['exact'] || CASE language WHEN 'und' THEN ARRAY['en', 'pt', search_script_language(search_fold(query))]
                                        ELSE ARRAY[language]
                          END, NULL)
    LOOP
        whole := '';
        part := '';
        last_side := 0;
        has_wanted := false;
        FOR term IN
            SELECT t.side, t.negated, t.prefix, t.quoted, t.words FROM search_parse_query(query) AS t ORDER BY t.ordinal
        LOOP
            IF term.side > last_side THEN
                whole := whole || part;
                part := '';
                last_side := term.side;
            END IF;
            term_query := search_term_query(term.words, term.prefix, term.quoted, reading);
            IF term.negated AND numnode(term_query) = 0 THEN
                term_query := search_exact_query(term.words, term.prefix);
            END IF;
            CONTINUE WHEN numnode(term_query) = 0 OR (shown AND term.negated);
            has_wanted := has_wanted OR NOT term.negated;
            part := CASE
                        WHEN shown THEN part || term_query
                        WHEN term.negated THEN part && !!term_query
                        ELSE part && term_query
                    END;
        END LOOP;
        whole := whole || part;
        -- Stop words alone leave nothing to search for but what is excluded.
        IF reading = 'exact' OR shown OR has_wanted THEN
            combined := combined || whole;
        END IF;
    END LOOP;
    RETURN combined;
END
$$;


--
-- Name: search_relaxed_query(text, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_relaxed_query(query text, fewer integer) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    words    text[] := ARRAY(
        SELECT w.original
          FROM (SELECT t.ordinal, t.original
                  FROM search_parse_query(query) AS t
                 WHERE NOT (t.negated OR t.quoted OR t.prefix)
                   AND numnode(search_term_query(t.words, false, false, 'en')) > 0
                   AND numnode(search_term_query(t.words, false, false, 'pt')) > 0
                 ORDER BY length(t.original) DESC, t.ordinal
                 LIMIT 5) AS w
         ORDER BY w.ordinal
    );
    excluded text := (SELECT string_agg(' -' || CASE WHEN t.quoted THEN '"' || t.original || '"' ELSE t.original END, '')
                        FROM search_parse_query(query) AS t
                       WHERE t.negated);
    wanted   integer := cardinality(words) - fewer;
BEGIN
    IF wanted < 2 OR 2 * wanted < cardinality(words) OR EXISTS (SELECT FROM search_parse_query(query) AS t WHERE t.side > 0) THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT string_agg(c.choice || coalesce(excluded, ''), ' or ' ORDER BY c.bits)
          FROM generate_series(1, (1 << cardinality(words)) - 1) AS bits,
               LATERAL (SELECT bits, string_agg(w.word, ' ' ORDER BY w.n) AS choice, count(*) AS words
                          FROM unnest(words) WITH ORDINALITY AS w (word, n)
                         WHERE bits & (1 << (w.n::integer - 1)) <> 0) AS c
         WHERE c.words = wanted
    );
END
$$;


--
-- Name: search_sample(tsquery, text, uuid, text, text, text, timestamp with time zone, timestamp with time zone, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_sample(index_query tsquery, tenant text, conversation uuid, kind text, role text, actor text, since timestamp with time zone, until timestamp with time zone, budget integer) RETURNS public.search_sampled[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    SET max_parallel_workers_per_gather TO '0'
    AS $_$
DECLARE
    -- Of a user with more conversations, the latest documents of some of them.
    conversations CONSTANT integer := 400;
    columns       CONSTANT text :=
        'd.tenant_id, d.conversation_id, d.version, d.kind, d.role, d.actor, d.created_at, d.language, d.words';
    own           uuid[] := ARRAY[conversation];
    result        search_sampled[];
BEGIN
    IF current_tenant_user() IS NOT NULL THEN
        own := ARRAY(SELECT m.conversation_id
                       FROM conversation_members m
                      WHERE m.tenant_id = search_sample.tenant
                        AND m.user_id = current_tenant_user()
                        AND (conversation IS NULL OR m.conversation_id = conversation)
                      LIMIT conversations);
    END IF;
    EXECUTE format(
        'SELECT array_agg(ROW(s.conversation_id, s.version, s.language, s.words)::search_sampled)
           FROM (SELECT d.*, sum(pg_column_size(d.words)) OVER (ROWS UNBOUNDED PRECEDING) AS bytes
                   FROM (%s) AS d) AS s
          WHERE s.bytes <= 4000000
            AND s.tenant_id = $2
            AND s.created_at >= $7
            AND s.created_at < $8
            AND ($4 IS NULL OR s.kind = $4 OR $4 = ''task'' AND s.kind IN (''status'', ''artifact''))
            AND ($5 IS NULL OR s.role = $5)
            AND ($6 IS NULL OR s.actor = $6)
            AND (SELECT c.is_deleted
                   FROM search_conversations c
                  WHERE c.tenant_id = $2
                    AND c.conversation_id = s.conversation_id) IS NOT TRUE',
        CASE
            WHEN index_query IS NOT NULL THEN
                format('SELECT %s FROM search_documents d WHERE d.words @@ $1 LIMIT $9', columns)
            WHEN conversation IS NULL AND current_tenant_user() IS NULL THEN
                format('SELECT %s
                          FROM search_documents d
                         WHERE d.tenant_id = $2 AND d.created_at >= $7 AND d.created_at < $8
                         ORDER BY d.created_at DESC, d.position DESC
                         LIMIT $9', columns)
            ELSE
                format('SELECT latest.*
                          FROM unnest($3) AS o (conversation_id),
                               LATERAL (SELECT %s
                                          FROM search_documents d
                                         WHERE d.tenant_id = $2 AND d.conversation_id = o.conversation_id
                                         ORDER BY d.version DESC
                                         LIMIT $9 / greatest(cardinality($3), 1)) AS latest', columns)
        END)
    INTO result
    USING index_query, tenant, own, kind, role, actor, since, until, budget;
    RETURN coalesce(result, '{}');
END
$_$;


--
-- Name: search_script_language(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_script_language(words text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
BEGIN
    RETURN CASE WHEN octet_length(words) = length(words) THEN NULL
                WHEN words ~ '[\u0430-\u052f]' THEN 'ru'
                WHEN words ~ '[\u03b1-\u03c9]' THEN 'el'
                WHEN words ~ '[\u0561-\u0587]' THEN 'hy'
                WHEN words ~ '[\u0621-\u064a]' THEN 'ar'
           END;
END
$$;


--
-- Name: search_snippet(text, tsquery, text, text[], text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_snippet(document text, query tsquery, language text, marks text[], opening text, closing text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    place  integer := (SELECT min(nullif(strpos(lower(document COLLATE "C"), substr(m, 2)), 0))
                         FROM unnest(marks) AS m
                        WHERE m LIKE '~%');
    folded text;
BEGIN
    IF place IS NULL THEN
        FOR at IN 0 .. length(document) / 1000 LOOP
            folded := substr(document, at * 1000 + 1, 1200);
            folded := concat_ws(' ', search_expand(search_fold(folded)), search_identifier_parts(folded));
            IF setweight(to_tsvector('pg_catalog.simple'::regconfig, folded), 'A') || search_stems(folded, language)
               @@ query THEN
                -- With a little of what comes before, from a word on if there are spaces.
                place := greatest(at * 1000 - 199, 1);
                place := search_grapheme_end(document, place + coalesce(length(substring(
                             substr(document, place, CASE at WHEN 0 THEN 0 ELSE 50 END) FROM '^\S*\s+')), 0));
                EXIT;
            END IF;
        END LOOP;
    ELSE
        place := search_grapheme_end(document, greatest(place - 100, 1));
    END IF;
    place := coalesce(place, 1);
    RETURN search_highlight(
        normalize(replace(substr(document, place, search_grapheme_end(document, place + 1400) - place), E'\x1e', E'\n'),
                  NFKC),
        language, marks, opening, closing);
END
$$;


--
-- Name: search_spelling(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_spelling(word text, document text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
DECLARE
    original text := normalize(document, NFKC);
    folded   text := search_fold(original);
    place    integer := length(substring(folded FROM format('^(.*?(?:^|[^0-9a-z%1$s]))%2$s(?![0-9a-z%1$s])',
                                                            search_characters('letters'), word)));
BEGIN
    RETURN CASE WHEN length(folded) <> length(original) THEN word
                ELSE coalesce(translate(lower(substr(original, place + 1, length(word)) COLLATE "C"),
                                        'ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞ', 'àáâãäåæçèéêëìíîïðñòóôõöøùúûüýþ'), word)
           END;
END
$_$;


--
-- Name: search_split(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_split(word text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN regexp_replace(regexp_replace(word, '([a-z0-9])([A-Z])'::text, '\1 \2'::text, 'g'::text), '([A-Z]+)([A-Z][a-z])'::text, '\1 \2'::text, 'g'::text);


--
-- Name: search_stems(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_stems(words text, language text) RETURNS tsvector
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    -- What search_words has encoded has no stem.
    stemmed text := CASE WHEN position('q' IN words) = 0 THEN words
                         ELSE regexp_replace(words, '\mq[0-3][0-9a-f]{4,9}\M', ' ', 'g')
                    END;
    other   text;
BEGIN
    IF language = 'und' THEN
        other := search_script_language(stemmed);
        RETURN to_tsvector('pg_catalog.english'::regconfig, stemmed)
            || to_tsvector('pg_catalog.portuguese'::regconfig, search_prepare(stemmed, 'pt'))
            || CASE WHEN other IS NULL THEN ''::tsvector ELSE to_tsvector(search_config(other), stemmed) END;
    END IF;
    RETURN to_tsvector(search_config(language), search_prepare(stemmed, language));
END
$$;


--
-- Name: search_term_query(text, boolean, boolean, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_term_query(words text, prefix boolean, quoted boolean, language text) RETURNS tsquery
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
DECLARE
    last_word text;
    before    tsquery;
BEGIN
    IF language = 'exact' OR quoted OR words ~ '\mq[0-3][0-9a-f]{4}' THEN
        RETURN search_exact_query(words, prefix);
    END IF;
    IF NOT prefix THEN
        RETURN phraseto_tsquery(search_config(language), search_prepare(words, language));
    END IF;
    last_word := left(substring(words FROM '[^\s[:punct:]]+(?=[\s[:punct:]]*$)'), 100);
    before := phraseto_tsquery(search_config(language),
                               search_prepare(substring(words FROM '^(.*?)[^\s[:punct:]]+[\s[:punct:]]*$'), language));
    RETURN before && search_prefix_query(last_word, language);
END
$_$;


--
-- Name: search_text(text, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_text(event_type text, content jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT
    AS $$
DECLARE
    result text;
BEGIN
    IF event_type = 'message.added' THEN
        result := concat_ws(E'\x1e', content ->> 'content', content ->> 'metadata');
        IF content ? 'parts' THEN
            result := concat_ws(E'\x1e', result, search_text_of_parts(content -> 'parts'));
        END IF;
        IF content ? 'extra' THEN
            result := concat_ws(E'\x1e', result,
                search_text_of_parts(content #> '{extra,content}'),
                search_text_of_parts(content #> '{extra,parts}'),
                (SELECT string_agg(concat_ws(' ', c.call #>> '{function,name}', search_json_text(c.call #>> '{function,arguments}'),
                                             c.call ->> 'name', c.call ->> 'args', c.call ->> 'input',
                                             search_json_text(c.call ->> 'arguments')),
                                   E'\x1e' ORDER BY c.ordinal)
                   FROM jsonb_array_elements(CASE WHEN jsonb_typeof(content #> '{extra,tool_calls}') = 'array'
                                                  THEN content #> '{extra,tool_calls}' END)
                        WITH ORDINALITY AS c (call, ordinal)),
                content #>> '{extra,function_call,name}',
                search_json_text(content #>> '{extra,function_call,arguments}'),
                content #>> '{extra,name}');
        END IF;
    ELSIF event_type IN ('conversation.created', 'conversation.renamed', 'conversation.forked') THEN
        result := content ->> 'name';
    ELSIF event_type IN ('task.created', 'task.described') THEN
        result := content ->> 'description';
    ELSIF event_type = 'task.status_changed' THEN
        result := concat_ws(E'\x1e', search_text_of_parts(content #> '{message,parts}'),
                          search_text_of_parts(content #> '{message,content}'), content #>> '{message,text}');
    ELSIF event_type IN ('task.artifact_added', 'task.artifact_extended') THEN
        result := concat_ws(E'\x1e', content ->> 'name', content ->> 'description', search_text_of_parts(content -> 'parts'));
    END IF;
    RETURN nullif(left(result, 100000), '');
END
$$;


--
-- Name: search_text_of_parts(jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_text_of_parts(parts jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT
    AS $$
BEGIN
    IF jsonb_typeof(parts) <> 'array' THEN
        RETURN CASE jsonb_typeof(parts) WHEN 'string' THEN parts #>> '{}' WHEN 'object' THEN (parts - 'bytes')::text END;
    END IF;
    RETURN (
        SELECT string_agg(
                   CASE jsonb_typeof(p.part)
                       WHEN 'string' THEN p.part #>> '{}'
                       WHEN 'object' THEN
                           concat_ws(' ',
                               p.part ->> 'name',
                               CASE WHEN jsonb_typeof(p.part -> 'text') = 'string' THEN p.part ->> 'text' END,
                               CASE WHEN NOT p.part ?| ARRAY['file', 'mediaType', 'mimeType', 'media_type'] THEN p.part ->> 'data' END,
                               p.part #>> '{file,name}',
                               p.part #>> '{file,uri}',
                               p.part ->> 'filename',
                               CASE WHEN p.part ->> 'url' NOT LIKE 'data:%' THEN p.part ->> 'url' END,
                               CASE WHEN p.part ->> 'uri' NOT LIKE 'data:%' THEN p.part ->> 'uri' END,
                               p.part ->> 'metadata',
                               p.part ->> 'input',
                               p.part ->> 'result',
                               search_json_text(p.part ->> 'arguments'),
                               CASE WHEN jsonb_typeof(p.part -> 'content') = 'string' THEN p.part ->> 'content'
                                    WHEN jsonb_typeof(p.part -> 'content') = 'array' THEN
                                        (SELECT string_agg(c.part ->> 'text', ' ' ORDER BY c.ordinal)
                                           FROM jsonb_array_elements(p.part -> 'content') WITH ORDINALITY AS c (part, ordinal)
                                          WHERE jsonb_typeof(c.part) = 'object')
                               END)
                   END, E'\x1e' ORDER BY p.ordinal)
          FROM jsonb_array_elements(parts) WITH ORDINALITY AS p (part, ordinal)
    );
END
$$;


--
-- Name: search_word_query(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_word_query(word text) RETURNS tsquery
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (((''''::text || replace(replace(word, '\'::text, '\\'::text), ''''::text, ''''''::text)) || ''''::text))::tsquery;


--
-- Name: search_words(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.search_words(original text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
DECLARE
    words text := original;
BEGIN
    IF words ~ '[A-Za-z](\+\+|#)' THEN
        words := regexp_replace(words, '(?<![A-Za-z0-9])([A-Za-z]{1,2})\+\+(?![+A-Za-z0-9])', '\1q2b2b ', 'g');
        words := regexp_replace(words, '(?<![A-Za-z0-9])([A-Za-z]{1,2})#(?![#A-Za-z0-9])', '\1q23 ', 'g');
    END IF;
    words := search_expand(search_fold(words));
    IF octet_length(words) = length(words)
       OR words !~ format('[%s%s]', search_characters('unsegmented'), search_characters('symbols')) THEN
        RETURN words;
    END IF;
    RETURN (
        SELECT string_agg(CASE WHEN r.run[1] IS NOT NULL THEN ' ' || search_bigrams(r.run[1]) || ' '
                               WHEN r.run[2] IS NOT NULL THEN ' ' || search_bigram(r.run[2]) || ' '
                               ELSE r.run[3]
                          END, '' ORDER BY r.ordinal)
          FROM regexp_matches(words, format('([%1$s]+)|([%2$s])|([^%1$s%2$s]+)', search_characters('unsegmented'),
                                            search_characters('symbols')), 'g') WITH ORDINALITY AS r (run, ordinal)
    );
END
$_$;


--
-- Name: sha1(bytea); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.sha1(message bytea) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    m      constant bigint := 4294967295;
    padded bytea := message || '\x80'
                    || decode(repeat('00', 63 - (length(message) + 8) % 64), 'hex')
                    || int8send(length(message)::bigint * 8);
    h0     bigint := 1732584193;
    h1     bigint := 4023233417;
    h2     bigint := 2562383102;
    h3     bigint := 271733878;
    h4     bigint := 3285377520;
    a      bigint;
    b      bigint;
    c      bigint;
    d      bigint;
    e      bigint;
    w      bigint[];
    x      bigint;
    place  integer := 0;
BEGIN
    FOR block IN 1 .. length(padded) / 64 LOOP
        FOR t IN 1 .. 16 LOOP
            w[t] := (get_byte(padded, place)::bigint << 24) + (get_byte(padded, place + 1) << 16)
                    + (get_byte(padded, place + 2) << 8) + get_byte(padded, place + 3);
            place := place + 4;
        END LOOP;
        FOR t IN 17 .. 80 LOOP
            x := w[t - 3] # w[t - 8] # w[t - 14] # w[t - 16];
            w[t] := (x << 1 & m) | (x >> 31);
        END LOOP;
        a := h0;
        b := h1;
        c := h2;
        d := h3;
        e := h4;
        -- Five rounds at a time, so that the five words need not be exchanged in between.
        FOR t IN 1 .. 20 BY 5 LOOP
            e := e + ((a << 5 & m) | (a >> 27)) + (d # (b & (c # d))) + 1518500249 + w[t] & m;
            b := (b << 30 & m) | (b >> 2);
            d := d + ((e << 5 & m) | (e >> 27)) + (c # (a & (b # c))) + 1518500249 + w[t + 1] & m;
            a := (a << 30 & m) | (a >> 2);
            c := c + ((d << 5 & m) | (d >> 27)) + (b # (e & (a # b))) + 1518500249 + w[t + 2] & m;
            e := (e << 30 & m) | (e >> 2);
            b := b + ((c << 5 & m) | (c >> 27)) + (a # (d & (e # a))) + 1518500249 + w[t + 3] & m;
            d := (d << 30 & m) | (d >> 2);
            a := a + ((b << 5 & m) | (b >> 27)) + (e # (c & (d # e))) + 1518500249 + w[t + 4] & m;
            c := (c << 30 & m) | (c >> 2);
        END LOOP;
        FOR t IN 21 .. 40 BY 5 LOOP
            e := e + ((a << 5 & m) | (a >> 27)) + (b # c # d) + 1859775393 + w[t] & m;
            b := (b << 30 & m) | (b >> 2);
            d := d + ((e << 5 & m) | (e >> 27)) + (a # b # c) + 1859775393 + w[t + 1] & m;
            a := (a << 30 & m) | (a >> 2);
            c := c + ((d << 5 & m) | (d >> 27)) + (e # a # b) + 1859775393 + w[t + 2] & m;
            e := (e << 30 & m) | (e >> 2);
            b := b + ((c << 5 & m) | (c >> 27)) + (d # e # a) + 1859775393 + w[t + 3] & m;
            d := (d << 30 & m) | (d >> 2);
            a := a + ((b << 5 & m) | (b >> 27)) + (c # d # e) + 1859775393 + w[t + 4] & m;
            c := (c << 30 & m) | (c >> 2);
        END LOOP;
        FOR t IN 41 .. 60 BY 5 LOOP
            e := e + ((a << 5 & m) | (a >> 27)) + ((b & c) | (b & d) | (c & d)) + 2400959708 + w[t] & m;
            b := (b << 30 & m) | (b >> 2);
            d := d + ((e << 5 & m) | (e >> 27)) + ((a & b) | (a & c) | (b & c)) + 2400959708 + w[t + 1] & m;
            a := (a << 30 & m) | (a >> 2);
            c := c + ((d << 5 & m) | (d >> 27)) + ((e & a) | (e & b) | (a & b)) + 2400959708 + w[t + 2] & m;
            e := (e << 30 & m) | (e >> 2);
            b := b + ((c << 5 & m) | (c >> 27)) + ((d & e) | (d & a) | (e & a)) + 2400959708 + w[t + 3] & m;
            d := (d << 30 & m) | (d >> 2);
            a := a + ((b << 5 & m) | (b >> 27)) + ((c & d) | (c & e) | (d & e)) + 2400959708 + w[t + 4] & m;
            c := (c << 30 & m) | (c >> 2);
        END LOOP;
        FOR t IN 61 .. 80 BY 5 LOOP
            e := e + ((a << 5 & m) | (a >> 27)) + (b # c # d) + 3395469782 + w[t] & m;
            b := (b << 30 & m) | (b >> 2);
            d := d + ((e << 5 & m) | (e >> 27)) + (a # b # c) + 3395469782 + w[t + 1] & m;
            a := (a << 30 & m) | (a >> 2);
            c := c + ((d << 5 & m) | (d >> 27)) + (e # a # b) + 3395469782 + w[t + 2] & m;
            e := (e << 30 & m) | (e >> 2);
            b := b + ((c << 5 & m) | (c >> 27)) + (d # e # a) + 3395469782 + w[t + 3] & m;
            d := (d << 30 & m) | (d >> 2);
            a := a + ((b << 5 & m) | (b >> 27)) + (c # d # e) + 3395469782 + w[t + 4] & m;
            c := (c << 30 & m) | (c >> 2);
        END LOOP;
        h0 := h0 + a & m;
        h1 := h1 + b & m;
        h2 := h2 + c & m;
        h3 := h3 + d & m;
        h4 := h4 + e & m;
    END LOOP;
    RETURN substring(int8send(h0) FROM 5) || substring(int8send(h1) FROM 5) || substring(int8send(h2) FROM 5)
           || substring(int8send(h3) FROM 5) || substring(int8send(h4) FROM 5);
END
$$;


--
-- Name: share_conversation(text, uuid, text, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.share_conversation(tenant_id text, conversation_id uuid, event_type text, content jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_variable
BEGIN
    IF event_type = 'conversation.shared' THEN
        INSERT INTO conversation_members AS m (tenant_id, conversation_id, user_id, access)
        VALUES (tenant_id, conversation_id, content ->> 'user', content ->> 'access')
            ON CONFLICT ON CONSTRAINT conversation_members_pkey
            DO UPDATE SET access = excluded.access WHERE m.access <> 'own';
    ELSE
        DELETE FROM conversation_members m
         WHERE m.tenant_id = share_conversation.tenant_id
           AND m.conversation_id = share_conversation.conversation_id
           AND m.user_id = content ->> 'user'
           AND m.access <> 'own';
    END IF;
END
$$;


--
-- Name: statistics_by_actor(text, date, date, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.statistics_by_actor(tenant text, since date DEFAULT NULL::date, until date DEFAULT NULL::date, of_actor text DEFAULT NULL::text, zone text DEFAULT 'UTC'::text) RETURNS TABLE(actor text, conversations bigint, active_conversations bigint, messages bigint, tasks bigint, events bigint, characters bigint, bytes bigint)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    RETURN QUERY
    SELECT d.actor::text, sum(d.conversations)::bigint, sum(d.active)::bigint, sum(d.messages)::bigint,
           sum(d.tasks)::bigint, sum(d.events)::bigint, sum(d.characters)::bigint, sum(d.bytes)::bigint
      FROM (SELECT a.actor, 0 AS conversations, 0 AS active, sum(a.messages) AS messages, 0 AS tasks,
                   sum(a.events) AS events, sum(a.characters) AS characters, sum(a.bytes) AS bytes
              FROM statistics_activity a
             WHERE a.tenant_id = tenant
               AND a.quarter_hour >= first AND a.quarter_hour < last
               AND (a.actor = of_actor OR of_actor IS NULL)
             GROUP BY a.actor
             UNION ALL
            SELECT c.actor, 0, count(*), 0, 0, 0, 0, 0
              FROM (SELECT DISTINCT a.actor, a.conversation_id
                      FROM statistics_activity a
                     WHERE a.tenant_id = tenant
                       AND a.quarter_hour >= first AND a.quarter_hour < last
                       AND (a.actor = of_actor OR of_actor IS NULL)) AS c
             GROUP BY c.actor
             UNION ALL
            SELECT c.actor, count(*), 0, 0, 0, 0, 0, 0
              FROM statistics_conversations c
             WHERE c.tenant_id = tenant
               AND c.began_at >= first AND c.began_at < last
               AND (c.actor = of_actor OR of_actor IS NULL)
             GROUP BY c.actor
             UNION ALL
            SELECT t.actor, 0, 0, 0, count(*), 0, 0, 0
              FROM statistics_tasks t
             WHERE t.tenant_id = tenant
               AND t.created_at >= first AND t.created_at < last
               AND (t.actor = of_actor OR of_actor IS NULL)
             GROUP BY t.actor) AS d
     GROUP BY d.actor
     ORDER BY 6 DESC, 1;
END
$$;


--
-- Name: statistics_by_day(text, date, date, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.statistics_by_day(tenant text, since date DEFAULT NULL::date, until date DEFAULT NULL::date, of_actor text DEFAULT NULL::text, zone text DEFAULT 'UTC'::text) RETURNS TABLE(day date, conversations bigint, active_conversations bigint, messages bigint, tasks bigint, events bigint, characters bigint, bytes bigint)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    RETURN QUERY
    SELECT d.day, sum(d.conversations)::bigint, sum(d.active)::bigint, sum(d.messages)::bigint, sum(d.tasks)::bigint,
           sum(d.events)::bigint, sum(d.characters)::bigint, sum(d.bytes)::bigint
      FROM (SELECT statistics_day(a.quarter_hour, zone) AS day, 0 AS conversations, 0 AS active,
                   sum(a.messages) AS messages, 0 AS tasks, sum(a.events) AS events,
                   sum(a.characters) AS characters, sum(a.bytes) AS bytes
              FROM statistics_activity a
             WHERE a.tenant_id = tenant
               AND a.quarter_hour >= first AND a.quarter_hour < last
               AND (a.actor = of_actor OR of_actor IS NULL)
             GROUP BY 1
             UNION ALL
            SELECT c.day, 0, count(*), 0, 0, 0, 0, 0
              FROM (SELECT DISTINCT statistics_day(a.quarter_hour, zone) AS day, a.conversation_id
                      FROM statistics_activity a
                     WHERE a.tenant_id = tenant
                       AND a.quarter_hour >= first AND a.quarter_hour < last
                       AND (a.actor = of_actor OR of_actor IS NULL)) AS c
             GROUP BY c.day
             UNION ALL
            SELECT statistics_day(c.began_at, zone), count(*), 0, 0, 0, 0, 0, 0
              FROM statistics_conversations c
             WHERE c.tenant_id = tenant
               AND c.began_at >= first AND c.began_at < last
               AND (c.actor = of_actor OR of_actor IS NULL)
             GROUP BY 1
             UNION ALL
            SELECT statistics_day(t.created_at, zone), 0, 0, 0, count(*), 0, 0, 0
              FROM statistics_tasks t
             WHERE t.tenant_id = tenant
               AND t.created_at >= first AND t.created_at < last
               AND (t.actor = of_actor OR of_actor IS NULL)
             GROUP BY 1) AS d
     GROUP BY d.day
     ORDER BY d.day;
END
$$;


--
-- Name: statistics_by_role(text, date, date, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.statistics_by_role(tenant text, since date DEFAULT NULL::date, until date DEFAULT NULL::date, of_actor text DEFAULT NULL::text, zone text DEFAULT 'UTC'::text) RETURNS TABLE(role text, conversations bigint, messages bigint, characters bigint, bytes bigint, parts bigint, parts_bytes bigint)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    RETURN QUERY
    SELECT d.role::text, sum(d.conversations)::bigint, sum(d.messages)::bigint, sum(d.characters)::bigint,
           sum(d.bytes)::bigint, sum(d.parts)::bigint, sum(d.parts_bytes)::bigint
      FROM (SELECT a.role, 0 AS conversations, sum(a.messages) AS messages, sum(a.characters) AS characters,
                   sum(a.bytes) AS bytes, sum(a.parts) AS parts, sum(a.parts_bytes) AS parts_bytes
              FROM statistics_activity a
             WHERE a.tenant_id = tenant
               AND a.quarter_hour >= first AND a.quarter_hour < last
               AND (a.actor = of_actor OR of_actor IS NULL)
               AND a.role <> ''
             GROUP BY a.role
             UNION ALL
            SELECT c.role, count(*), 0, 0, 0, 0, 0
              FROM (SELECT DISTINCT a.role, a.conversation_id
                      FROM statistics_activity a
                     WHERE a.tenant_id = tenant
                       AND a.quarter_hour >= first AND a.quarter_hour < last
                       AND (a.actor = of_actor OR of_actor IS NULL)
                       AND a.role <> '') AS c
             GROUP BY c.role) AS d
     GROUP BY d.role
     ORDER BY 3 DESC, 1;
END
$$;


--
-- Name: statistics_by_status(text, date, date, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.statistics_by_status(tenant text, since date DEFAULT NULL::date, until date DEFAULT NULL::date, of_actor text DEFAULT NULL::text, zone text DEFAULT 'UTC'::text) RETURNS TABLE(kind text, status text, number bigint)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    RETURN QUERY
    SELECT 'conversation', CASE WHEN c.is_deleted THEN 'deleted' WHEN c.is_active THEN 'active' ELSE 'archived' END,
           count(*)
      FROM statistics_conversations c
     WHERE c.tenant_id = tenant
       AND c.began_at >= first AND c.began_at < last
       AND (c.actor = of_actor OR of_actor IS NULL)
     GROUP BY 2
     UNION ALL
    SELECT 'task', t.status::text, count(*)
      FROM statistics_tasks t
     WHERE t.tenant_id = tenant
       AND t.created_at >= first AND t.created_at < last
       AND (t.actor = of_actor OR of_actor IS NULL)
     GROUP BY 2
     ORDER BY 1, 3 DESC, 2;
END
$$;


--
-- Name: statistics_day(timestamp with time zone, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.statistics_day(moment timestamp with time zone, zone text) RETURNS date
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN ((moment >= '0001-01-03 00:00:00+00'::timestamp with time zone) AND (moment < '9999-01-01 00:00:00+00'::timestamp with time zone)) THEN ((moment AT TIME ZONE zone))::date ELSE NULL::date END;


--
-- Name: statistics_midnight(date, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.statistics_midnight(day date, zone text) RETURNS timestamp with time zone
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
DECLARE
    midnight timestamptz := day::timestamp AT TIME ZONE zone;
BEGIN
    PERFORM 'epoch'::timestamptz AT TIME ZONE zone;  -- an unknown zone is an error, also without a day
    IF isfinite(midnight) THEN
        midnight := (SELECT min(m.moment)
                       FROM generate_series(midnight - interval '4 hours', midnight, '15 minutes') AS m (moment)
                      WHERE (m.moment AT TIME ZONE zone)::date >= day);
    END IF;
    IF isfinite(midnight) AND date_bin('15 minutes', midnight, '4714-11-24 00:00+00 BC') <> midnight THEN
        RAISE EXCEPTION '% does not begin on a quarter of an hour of UTC in the time zone "%"', day, zone
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'Statistics are kept by quarter of an hour, on which the days of all zones begin since 1972.',
                  HINT = 'Ask for UTC, or for later days.';
    END IF;
    RETURN midnight;
END
$$;


--
-- Name: statistics_period(date, date, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.statistics_period(since date, until date, zone text, OUT first timestamp with time zone, OUT last timestamp with time zone) RETURNS record
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
BEGIN
    first := statistics_midnight(since, zone);
    last := statistics_midnight(until + 1, zone);
    IF since IS NULL AND until IS NULL THEN
        first := '-infinity';
        last := 'infinity';
    ELSE
        first := greatest(first, '0001-01-03 00:00+00');
        last := least(last, '9999-01-01 00:00+00');
    END IF;
END
$$;


--
-- Name: statistics_response_times(text, date, date, text, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.statistics_response_times(tenant text, since date DEFAULT NULL::date, until date DEFAULT NULL::date, of_actor text DEFAULT NULL::text, zone text DEFAULT 'UTC'::text, by text DEFAULT 'all'::text) RETURNS TABLE(key text, questions bigint, answered bigint, unmeasured bigint, average double precision, median double precision, p95 double precision, longest double precision)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    IF "by" NOT IN ('all', 'day', 'actor') THEN
        RAISE EXCEPTION 'response times cannot be grouped by %: choose among all, day, actor', "by"
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY
    SELECT CASE "by" WHEN 'day' THEN coalesce(statistics_day(q.asked_at, zone)::text, 'undated') WHEN 'actor' THEN q.actor ELSE 'all' END,
           count(*),
           count(q.seconds),
           count(*) FILTER (WHERE q.seconds < 0),
           avg(q.seconds) FILTER (WHERE q.seconds >= 0),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY q.seconds) FILTER (WHERE q.seconds >= 0),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY q.seconds) FILTER (WHERE q.seconds >= 0),
           max(q.seconds) FILTER (WHERE q.seconds >= 0)
      FROM (SELECT a.asked_at, a.actor, extract(epoch FROM a.answered_at - a.asked_at)::float8 AS seconds
              FROM statistics_answers a
             WHERE a.tenant_id = tenant
               AND a.asked_at >= first AND a.asked_at < last
               AND (a.actor = of_actor OR of_actor IS NULL)
             UNION ALL
            SELECT c.asked_at, NULL, NULL
              FROM statistics_conversations c
             WHERE c.tenant_id = tenant
               AND c.asked_at >= first AND c.asked_at < last
               AND of_actor IS NULL
               AND "by" <> 'actor') AS q
     GROUP BY 1
     ORDER BY CASE WHEN "by" = 'actor' THEN -count(*) END, 1;
END
$$;


--
-- Name: statistics_sizes(text, date, date, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.statistics_sizes(tenant text, since date DEFAULT NULL::date, until date DEFAULT NULL::date, of_actor text DEFAULT NULL::text, zone text DEFAULT 'UTC'::text) RETURNS TABLE(what text, number bigint, characters bigint, bytes bigint, average_bytes double precision, largest_bytes bigint)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    RETURN QUERY
    SELECT l.what, l.number, l.characters, l.bytes, l.bytes::float8 / nullif(l.number, 0), l.largest::bigint
      FROM (SELECT coalesce(sum(a.messages), 0)::bigint AS messages,
                   coalesce(sum(a.characters), 0)::bigint AS characters,
                   coalesce(sum(a.bytes), 0)::bigint AS bytes,
                   coalesce(sum(a.parts), 0)::bigint AS parts,
                   coalesce(sum(a.parts_bytes), 0)::bigint AS parts_bytes,
                   coalesce(sum(a.artifacts), 0)::bigint AS artifacts,
                   coalesce(sum(a.artifact_bytes), 0)::bigint AS artifact_bytes,
                   coalesce(max(a.largest_text), 0) AS largest_text,
                   coalesce(max(a.largest_parts), 0) AS largest_parts,
                   coalesce(max(a.largest_artifact), 0) AS largest_artifact
              FROM statistics_activity a
             WHERE a.tenant_id = tenant
               AND a.quarter_hour >= first AND a.quarter_hour < last
               AND (a.actor = of_actor OR of_actor IS NULL)) AS s
     CROSS JOIN LATERAL (VALUES ('text', s.messages, s.characters, s.bytes, s.largest_text),
                                ('parts', s.parts, NULL, s.parts_bytes, s.largest_parts),
                                ('artifacts', s.artifacts, NULL, s.artifact_bytes, s.largest_artifact))
                        AS l (what, number, characters, bytes, largest);
END
$$;


--
-- Name: statistics_task_times(text, date, date, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.statistics_task_times(tenant text, since date DEFAULT NULL::date, until date DEFAULT NULL::date, of_actor text DEFAULT NULL::text, zone text DEFAULT 'UTC'::text) RETURNS TABLE(status text, is_final boolean, tasks bigint, unmeasured bigint, average double precision, median double precision, p95 double precision, stays bigint, unmeasured_stays bigint, average_stay double precision, median_stay double precision, p95_stay double precision)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    RETURN QUERY
    SELECT s.status::text, s.status IN ('completed', 'canceled', 'failed', 'rejected'),
           count(*) FILTER (WHERE s.is_task),
           count(*) FILTER (WHERE s.total < 0),
           avg(s.total) FILTER (WHERE s.total >= 0),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY s.total) FILTER (WHERE s.total >= 0),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY s.total) FILTER (WHERE s.total >= 0),
           count(*) FILTER (WHERE NOT s.is_task),
           count(*) FILTER (WHERE s.stay < 0),
           avg(s.stay) FILTER (WHERE s.stay >= 0),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY s.stay) FILTER (WHERE s.stay >= 0),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY s.stay) FILTER (WHERE s.stay >= 0)
      FROM (SELECT t.status, true AS is_task, NULL::float8 AS stay,
                   CASE WHEN t.status IN ('completed', 'canceled', 'failed', 'rejected')
                        THEN extract(epoch FROM t.entered_at - t.created_at)::float8
                   END AS total
              FROM statistics_tasks t
             WHERE t.tenant_id = tenant
               AND t.created_at >= first AND t.created_at < last
               AND (t.actor = of_actor OR of_actor IS NULL)
             UNION ALL
            SELECT w.status, false, extract(epoch FROM w.left_at - w.entered_at)::float8, NULL
              FROM statistics_tasks t
              JOIN statistics_status_periods w
                ON w.tenant_id = t.tenant_id
               AND w.conversation_id = t.conversation_id
               AND w.task_id = t.task_id
             WHERE t.tenant_id = tenant
               AND t.created_at >= first AND t.created_at < last
               AND (t.actor = of_actor OR of_actor IS NULL)) AS s
     GROUP BY s.status
     ORDER BY 3 DESC, 1;
END
$$;


--
-- Name: store_blob_chunk(text, uuid, bytea, integer, bytea, boolean); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.store_blob_chunk(tenant_id text, conversation_id uuid, sha256 bytea, number integer, content bytea, is_last boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    bound  text := append_tenant();
    found  bytea;
    size   bigint;
    chunks bigint;
BEGIN
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    PERFORM refuse_old_snapshots();
    PERFORM lock_chunks(ARRAY[sha256], false);
    IF current_setting('synchronous_commit') = 'off' THEN
        -- An event that refers to the file may be durable right after it.
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    INSERT INTO blob_chunks (tenant_id, sha256, number, content)
    VALUES (tenant_id, sha256, number, content)
    ON CONFLICT ON CONSTRAINT blob_chunks_pkey DO NOTHING;
    IF NOT is_last THEN
        RETURN;
    END IF;
    SELECT pg_catalog.sha256(string_agg(c.content, '' ORDER BY c.number)), sum(octet_length(c.content)), count(*)
      INTO found, size, chunks
      FROM blob_chunks c
     WHERE c.tenant_id = store_blob_chunk.tenant_id
       AND c.sha256 = store_blob_chunk.sha256;
    IF chunks <= number THEN
        RAISE EXCEPTION 'the file with the SHA-256 % lacks chunks before the last one', encode(sha256, 'hex')
            USING ERRCODE = 'ES011', HINT = 'Store all of them.';
    END IF;
    IF found <> sha256 THEN
        RAISE EXCEPTION 'the file has the SHA-256 %, not %', encode(found, 'hex'), encode(sha256, 'hex')
            USING ERRCODE = 'ES005';
    END IF;
    INSERT INTO blobs (tenant_id, conversation_id, sha256, size)
    VALUES (tenant_id, conversation_id, sha256, size)
    ON CONFLICT ON CONSTRAINT blobs_pkey DO NOTHING;
END
$$;


--
-- Name: swap_obstacles(text[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.swap_obstacles(tables text[]) RETURNS TABLE(obstacle text)
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    BEGIN ATOMIC
 WITH given AS (
          SELECT t.name,
             c.oid,
             c.relkind,
             c.relispartition,
             c.reltype,
             c.relowner
            FROM (unnest(swap_obstacles.tables) t(name)
              LEFT JOIN pg_class c ON (((c.relname = t.name) AND (c.relnamespace = ((public.stage_schema('live'::text))::regnamespace)::oid))))
         ), dependents AS (
          SELECT DISTINCT g.name,
             d.classid,
             d.objid
            FROM (given g
              JOIN pg_depend d ON (((d.refclassid = ('pg_class'::regclass)::oid) AND (d.refobjid = g.oid) AND (d.deptype = 'n'::"char"))))
         )
  SELECT format('%s is missing'::text, g.name) AS format
    FROM given g
   WHERE (g.oid IS NULL)
 UNION ALL
  SELECT format('%s is not an ordinary table'::text, g.name) AS format
    FROM given g
   WHERE ((g.relkind <> 'r'::"char") OR g.relispartition)
 UNION ALL
  SELECT format('%s belongs to %s, and %s is not a member of that role'::text, g.name, (g.relowner)::regrole, CURRENT_USER) AS format
    FROM given g
   WHERE (NOT pg_has_role(g.relowner, 'USAGE'::text))
 UNION ALL
  SELECT format('the foreign key %I of %s refers to %s: drop it'::text, k.conname, (k.conrelid)::regclass, g.name) AS format
    FROM (given g
      JOIN pg_constraint k ON (((k.confrelid = g.oid) AND (k.contype = 'f'::"char"))))
   WHERE (NOT (k.conrelid IN ( SELECT given.oid
            FROM given)))
 UNION ALL
  SELECT format('%s %s reads %s: drop it, and create it again afterwards'::text,
         CASE c.relkind
             WHEN 'm'::"char" THEN 'the materialized view'::text
             ELSE 'the view'::text
         END, (c.oid)::regclass, d.name) AS format
    FROM ((dependents d
      JOIN pg_rewrite r ON (((d.classid = ('pg_rewrite'::regclass)::oid) AND (r.oid = d.objid))))
      JOIN pg_class c ON ((c.oid = r.ev_class)))
   WHERE ((c.relkind <> 'v'::"char") OR (NOT pg_has_role(c.relowner, 'USAGE'::text)))
 UNION ALL
  SELECT format('%s depends on %s: drop it, and create it again afterwards'::text, pg_describe_object(d.classid, d.objid, 0), d.name) AS format
    FROM dependents d
   WHERE ((d.classid <> ALL (ARRAY[('pg_rewrite'::regclass)::oid, ('pg_class'::regclass)::oid, ('pg_constraint'::regclass)::oid, ('pg_proc'::regclass)::oid, ('pg_trigger'::regclass)::oid])) AND (NOT ((d.classid = ('pg_policy'::regclass)::oid) AND (EXISTS ( SELECT
            FROM pg_policy p
           WHERE ((p.oid = d.objid) AND (p.polrelid IN ( SELECT given.oid
                    FROM given))))))))
 UNION ALL
  SELECT format('the function %s reads %s, and %s is not a member of its owner'::text, (f.oid)::regprocedure, d.name, CURRENT_USER) AS format
    FROM (dependents d
      JOIN pg_proc f ON (((d.classid = ('pg_proc'::regclass)::oid) AND (f.oid = d.objid))))
   WHERE (NOT pg_has_role(f.proowner, 'USAGE'::text))
 UNION ALL
  SELECT format('%s uses the type of a row of %s: drop it, and create it again afterwards'::text, pg_describe_object(d.classid, d.objid, d.objsubid), g.name) AS format
    FROM (given g
      JOIN pg_depend d ON (((d.refclassid = ('pg_type'::regclass)::oid) AND (d.refobjid = g.reltype) AND (d.deptype = 'n'::"char"))));
END;


--
-- Name: swap_tables(text, text[], text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.swap_tables(projection text, tables text[], stage text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    original_path text := current_setting('search_path');
    moves         text[][] := CASE stage
                                  WHEN 'next' THEN '{{live,previous},{next,live}}'
                                  ELSE '{{live,next},{previous,live},{next,previous}}'
                              END;
    live_tables   oid[];
    definitions   text[];
    definition    text;
    move          text[];
BEGIN
    SELECT array_agg(format('%I.%I', stage_schema('live'), t)::regclass::oid) INTO live_tables FROM unnest(tables) AS t;
    -- With only the system catalogs in the path, definitions qualify every table.
    PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT array_agg(DISTINCT
               CASE
                   WHEN d.classid = 'pg_proc'::regclass THEN pg_get_functiondef(d.objid)
                   ELSE format('CREATE OR REPLACE VIEW %s%s AS %s', c.oid::regclass,
                               ' WITH (' || array_to_string(c.reloptions, ', ') || ')', pg_get_viewdef(c.oid))
               END)
      INTO definitions
      FROM pg_depend d
      LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
      LEFT JOIN pg_class c ON c.oid = r.ev_class
     WHERE d.refclassid = 'pg_class'::regclass
       AND d.refobjid = ANY (live_tables)
       AND d.deptype = 'n'
       AND (c.relkind = 'v' OR d.classid = 'pg_proc'::regclass);
    PERFORM set_config('search_path', original_path, true);

    EXECUTE 'LOCK TABLE ' || (SELECT string_agg(o::regclass::text, ', ') FROM unnest(live_tables) AS o)
            || ' IN ACCESS EXCLUSIVE MODE';
    FOREACH move SLICE 1 IN ARRAY moves LOOP
        PERFORM move_tables(tables, move[1], move[2]), move_stage(projection, move[1], move[2]);
    END LOOP;
    FOREACH definition IN ARRAY coalesce(definitions, '{}') LOOP
        EXECUTE definition;
    END LOOP;
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
-- Name: unbind_login(name); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.unbind_login(login name) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    DELETE FROM bound_logins b WHERE b.login = unbind_login.login;
    RETURN FOUND;
END
$$;


--
-- Name: unreceipted_erasure(public.events); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.unreceipted_erasure(event public.events) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    SELECT (event).salt IS NULL
           AND NOT (
                   (event).actor = ''
                   AND (event).content = erased_content((event).event_type, (event).content, false)
                   AND (event).metadata = erased_metadata((event).metadata, false)
                   AND EXISTS (
                           SELECT
                             FROM events r
                            CROSS JOIN LATERAL jsonb_array_elements(
                                      CASE WHEN jsonb_typeof(r.content -> 'versions') = 'array' THEN r.content -> 'versions' END
                                  ) AS named
                            WHERE r.tenant_id = (event).tenant_id
                              AND r.conversation_id = (event).conversation_id
                              AND r.event_type IN ('conversation.erased', 'event.erased')
                              AND r.salt IS NOT NULL
                              AND r.version > (event).version
                              AND to_jsonb((event).version) BETWEEN named -> 0 AND named -> 1
                       )
               )
$$;


--
-- Name: validate_conversation(text, uuid, text, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.validate_conversation(tenant_id text, conversation_id uuid, event_type text, content jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (jsonb_typeof(content) IS DISTINCT FROM 'object'::text) THEN 'its content is not an object'::text WHEN ((event_type = 'conversation.created'::text) AND (NOT public.optional_json_member_is(content, 'given_id'::text, 'string'::text))) THEN 'given_id is not a string'::text WHEN ((event_type = 'conversation.created'::text) AND (public.conversation_uuid(tenant_id, (content ->> 'given_id'::text)) <> conversation_id)) THEN 'given_id is the name of another conversation'::text WHEN ((event_type = ANY (ARRAY['conversation.created'::text, 'conversation.forked'::text])) AND (NOT public.optional_json_member_is(content, 'metadata'::text, 'object'::text))) THEN 'metadata is not an object'::text WHEN (((event_type = 'conversation.renamed'::text) OR ((event_type = ANY (ARRAY['conversation.created'::text, 'conversation.forked'::text])) AND (content ? 'name'::text))) AND (NOT public.json_member_is_text(content, 'name'::text, 255))) THEN 'name is not a string of at most 255 characters'::text WHEN ((event_type = 'conversation.forked'::text) AND (NOT (public.json_member_is_uuid(content, 'source_conversation_id'::text) AND COALESCE((jsonb_typeof((content -> 'source_version'::text)) = 'number'::text), false)))) THEN 'source_conversation_id is not a UUID, or source_version is not a number'::text WHEN ((event_type = 'conversation.rewound'::text) AND (NOT COALESCE(((content ->> 'to_version'::text) ~ '^[0-9]{1,9}$'::text), false))) THEN 'to_version is not a number from 0 to 999,999,999'::text ELSE NULL::text END;


--
-- Name: validate_event(text, uuid, text, jsonb, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.validate_event(tenant_id text, conversation_id uuid, event_type text, content jsonb, metadata jsonb) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$
DECLARE
    problem text;
BEGIN
    IF conversation_id = administration_id() THEN
        RETURN 'its conversation is that of administrative acts, which record_administrative_act alone appends';
    END IF;
    IF metadata IS DISTINCT FROM '{}' THEN
        problem := validate_metadata(metadata);
        IF problem IS NOT NULL THEN
            RETURN problem;
        END IF;
    END IF;
    IF event_type = 'message.added' THEN
        RETURN validate_message(content);
    ELSIF event_type IN ('conversation.created', 'conversation.renamed', 'conversation.forked',
                         'conversation.rewound') THEN
        RETURN validate_conversation(tenant_id, conversation_id, event_type, content);
    ELSIF event_type IN ('task.created', 'task.status_changed', 'task.described',
                         'task.artifact_added', 'task.artifact_extended') THEN
        RETURN validate_task(event_type, content);
    ELSIF event_type IN ('conversation.shared', 'conversation.unshared') THEN
        RETURN validate_sharing(event_type, content);
    ELSIF event_type IN ('conversation.erased', 'event.erased') THEN
        RETURN 'it is the receipt of an erasure, which the erasure alone writes';
    END IF;
    RETURN NULL;
END
$$;


--
-- Name: validate_message(jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.validate_message(content jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (jsonb_typeof(content) IS DISTINCT FROM 'object'::text) THEN 'its content is not an object'::text WHEN (NOT public.optional_json_member_is(content, 'given_id'::text, 'string'::text)) THEN 'given_id is not a string'::text WHEN (NOT public.optional_json_member_is(content, 'metadata'::text, 'object'::text)) THEN 'metadata is not an object'::text WHEN (NOT public.optional_json_member_is(content, 'extra'::text, 'object'::text)) THEN 'extra is not an object'::text WHEN (NOT (public.json_member_is_text(content, 'role'::text, 50) AND ((content ->> 'role'::text) <> ''::text) AND public.optional_json_member_is(content, 'content'::text, 'string'::text) AND public.optional_json_member_is(content, 'parts'::text, 'array'::text))) THEN 'role is not a string of 1 to 50 characters, content is not a string, or parts is not an array'::text ELSE NULL::text END;


--
-- Name: validate_metadata(jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.validate_metadata(metadata jsonb) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN (NOT COALESCE(((jsonb_typeof(metadata) = 'object'::text) AND public.optional_json_member_is(metadata, 'correlation_id'::text, 'string'::text) AND public.optional_json_member_is(metadata, 'causation_id'::text, 'string'::text) AND public.optional_json_member_is(metadata, 'traceparent'::text, 'string'::text)), false)) THEN 'its metadata is not an object, or an id in it is not a string'::text WHEN ((metadata ? 'eventstore.owner'::text) AND (NOT (public.json_member_is_text(metadata, 'eventstore.owner'::text, 255) AND ((metadata ->> 'eventstore.owner'::text) <> ''::text)))) THEN 'its metadata."eventstore.owner" is not a string of 1 to 255 characters'::text WHEN (metadata ? 'occurred_at'::text) THEN CASE WHEN (NOT COALESCE(((metadata ->> 'occurred_at'::text) ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})$'::text), false)) THEN 'its metadata.occurred_at is not an ISO 8601 time with a zone'::text WHEN ((((metadata ->> 'occurred_at'::text))::timestamp with time zone < '0001-01-01 00:00:00+00'::timestamp with time zone) OR (((metadata ->> 'occurred_at'::text))::timestamp with time zone > '9999-12-31 23:59:59.999999+00'::timestamp with time zone)) THEN 'its metadata.occurred_at lies outside the years 1 to 9999'::text ELSE NULL::text END ELSE NULL::text END;


--
-- Name: validate_sharing(text, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.validate_sharing(event_type text, content jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (jsonb_typeof(content) IS DISTINCT FROM 'object'::text) THEN 'its content is not an object'::text WHEN (NOT (public.json_member_is_text(content, 'user'::text, 255) AND ((content ->> 'user'::text) <> ''::text))) THEN 'user is not a string of 1 to 255 characters'::text WHEN ((event_type = 'conversation.shared'::text) AND (NOT COALESCE(((content -> 'access'::text) = ANY (ARRAY['"read"'::jsonb, '"write"'::jsonb])), false))) THEN 'access is neither read nor write'::text ELSE NULL::text END;


--
-- Name: validate_task(text, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.validate_task(event_type text, content jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (jsonb_typeof(content) IS DISTINCT FROM 'object'::text) THEN 'its content is not an object'::text WHEN ((event_type = 'task.created'::text) AND (NOT public.optional_json_member_is(content, 'given_id'::text, 'string'::text))) THEN 'given_id is not a string'::text WHEN ((event_type <> ALL (ARRAY['task.status_changed'::text, 'task.described'::text])) AND (NOT public.optional_json_member_is(content, 'metadata'::text, 'object'::text))) THEN 'metadata is not an object'::text WHEN ((event_type <> 'task.status_changed'::text) AND (NOT public.optional_json_member_is(content, 'extra'::text, 'object'::text))) THEN 'extra is not an object'::text WHEN ((event_type = 'task.described'::text) AND (NOT public.optional_json_member_is(content, 'history'::text, 'array'::text))) THEN 'history is not an array'::text WHEN (NOT public.json_member_is_uuid(content, 'task_id'::text)) THEN 'task_id is not a UUID in lower case'::text WHEN ((event_type = ANY (ARRAY['task.created'::text, 'task.status_changed'::text])) AND (NOT (public.json_member_is_text(content, 'status'::text, 50) AND ((content ->> 'status'::text) <> ''::text) AND ((event_type <> 'task.status_changed'::text) OR public.optional_json_member_is(content, 'message'::text, 'object'::text))))) THEN 'status is not a string of 1 to 50 characters, or message is not an object'::text WHEN ((event_type = ANY (ARRAY['task.created'::text, 'task.described'::text])) AND (NOT COALESCE((jsonb_typeof((content -> 'description'::text)) = 'string'::text), (event_type = 'task.described'::text)))) THEN 'description is not a string'::text WHEN ((event_type = ANY (ARRAY['task.artifact_added'::text, 'task.artifact_extended'::text])) AND (NOT COALESCE(((jsonb_typeof((content -> 'artifact_id'::text)) = 'string'::text) AND (jsonb_typeof((content -> 'parts'::text)) = 'array'::text) AND (jsonb_typeof((content -> 'last_chunk'::text)) = 'boolean'::text) AND public.optional_json_member_is(content, 'name'::text, 'string'::text) AND public.optional_json_member_is(content, 'description'::text, 'string'::text)), false))) THEN 'artifact_id, name or description is not a string, parts is not an array, or last_chunk is not a boolean'::text ELSE NULL::text END;


--
-- Name: answer_leases; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.answer_leases (
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    conversation_id uuid NOT NULL,
    message_id uuid NOT NULL,
    holder uuid NOT NULL,
    expires_at timestamp with time zone NOT NULL
);

ALTER TABLE ONLY public.answer_leases FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE answer_leases; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.answer_leases IS 'Messages that a process is answering';


--
-- Name: COLUMN answer_leases.holder; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.answer_leases.holder IS 'Id that the manager has generated for itself';


--
-- Name: audit_trail; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.audit_trail WITH (security_invoker='true') AS
 SELECT tenant_id,
    "position",
    "timestamp" AS recorded_at,
    public.occurred_at(metadata, "timestamp") AS happened_at,
    actor,
    event_type AS action,
    conversation_id,
    version,
    id AS event_id,
    (metadata ->> 'correlation_id'::text) AS correlation_id,
    (metadata ->> 'causation_id'::text) AS causation_id,
    COALESCE((content ->> 'reason'::text), (content ->> 'error'::text)) AS reason,
    (metadata ->> 'via'::text) AS via,
    (metadata ->> 'login'::text) AS login,
    content,
    metadata,
    encode(digest, 'hex'::text) AS digest
   FROM public.events e;


--
-- Name: VIEW audit_trail; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON VIEW public.audit_trail IS 'Who did what, when, why and through what: the events that the login may see';


--
-- Name: audit_acts; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.audit_acts WITH (security_invoker='true') AS
 SELECT tenant_id,
    "position",
    recorded_at,
    actor,
    substr((action)::text, (length('eventstore.'::text) + 1)) AS act,
    content AS details,
    reason,
    via,
    login
   FROM public.audit_trail t
  WHERE (conversation_id = public.administration_id());


--
-- Name: VIEW audit_acts; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON VIEW public.audit_acts IS 'Administrative acts: keys, users, tenants, logins, rebuilds, restores, migrations';


--
-- Name: audit_checkpoints; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.audit_checkpoints (
    size bigint NOT NULL,
    last_position bigint NOT NULL,
    sealed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    note text NOT NULL,
    bundle bytea NOT NULL,
    CONSTRAINT audit_checkpoints_size_check CHECK ((size > 0))
);
ALTER TABLE ONLY public.audit_checkpoints ALTER COLUMN bundle SET STORAGE EXTERNAL;


--
-- Name: TABLE audit_checkpoints; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.audit_checkpoints IS 'Signed sizes and roots of the Merkle tree over the events';


--
-- Name: audit_cosignatures; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.audit_cosignatures (
    size bigint NOT NULL,
    line text NOT NULL
);


--
-- Name: TABLE audit_cosignatures; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.audit_cosignatures IS 'Lines by which witnesses have signed checkpoints';


--
-- Name: audit_tiles; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.audit_tiles (
    level smallint NOT NULL,
    index bigint NOT NULL,
    last_position bigint NOT NULL,
    hash bytea NOT NULL,
    content bytea NOT NULL,
    CONSTRAINT audit_tiles_content_check CHECK (((octet_length(hash) = 32) AND (octet_length(content) = (256 *
CASE level
    WHEN 0 THEN 42
    ELSE 32
END))))
);
ALTER TABLE ONLY public.audit_tiles ALTER COLUMN content SET STORAGE EXTERNAL;


--
-- Name: TABLE audit_tiles; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.audit_tiles IS 'Full tiles of the Merkle tree over the events, each written once';


--
-- Name: blob_chunks; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.blob_chunks (
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    sha256 bytea NOT NULL,
    number integer NOT NULL,
    content bytea NOT NULL,
    CONSTRAINT blob_chunks_number_check CHECK ((number >= 0))
);
ALTER TABLE ONLY public.blob_chunks ALTER COLUMN content SET STATISTICS 0;
ALTER TABLE ONLY public.blob_chunks ALTER COLUMN content SET STORAGE EXTERNAL;

ALTER TABLE ONLY public.blob_chunks FORCE ROW LEVEL SECURITY;


--
-- Name: COLUMN blob_chunks.number; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.blob_chunks.number IS '0, 1, 2 and so on within one file';


--
-- Name: conversation_actors; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.conversation_actors (
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    conversation_id uuid NOT NULL,
    actor character varying(255) NOT NULL COLLATE pg_catalog."C",
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

ALTER TABLE ONLY public.conversation_actors FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE conversation_actors; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.conversation_actors IS 'Actors of the events of each conversation, the empty one included';


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
    erased_count integer DEFAULT 0 NOT NULL,
    version integer NOT NULL,
    given_id text,
    forked_from jsonb,
    metadata jsonb,
    member_order jsonb
);
ALTER TABLE ONLY public.conversations ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE ONLY public.conversations ALTER COLUMN given_id SET STATISTICS 0;

ALTER TABLE ONLY public.conversations FORCE ROW LEVEL SECURITY;


--
-- Name: COLUMN conversations.erased_count; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.conversations.erased_count IS 'Number of its events that were erased';


--
-- Name: COLUMN conversations.version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.conversations.version IS 'Version of the last event applied to the row';


--
-- Name: COLUMN conversations.given_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.conversations.given_id IS 'Id that the client gave, if it was not a UUID';


--
-- Name: COLUMN conversations.member_order; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.conversations.member_order IS 'Order of the members of JSON values, by column: jsonb does not keep it; see eventstore/member_order.py';


--
-- Name: eventstore_migrations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.eventstore_migrations (
    version character varying NOT NULL
);


--
-- Name: idempotency_keys; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.idempotency_keys (
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    id uuid NOT NULL,
    request bytea NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    status smallint,
    media_type text,
    location text,
    body bytea
);


--
-- Name: COLUMN idempotency_keys.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.id IS 'Derived from the tenant, the caller, the address and the key';


--
-- Name: COLUMN idempotency_keys.request; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.request IS 'SHA-256 of the request';


--
-- Name: COLUMN idempotency_keys.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.status IS 'Status of the response; null: there is none yet';


--
-- Name: identity_erasures; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.identity_erasures (
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    salt bytea NOT NULL,
    hash bytea NOT NULL,
    erased_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);


--
-- Name: COLUMN identity_erasures.hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.identity_erasures.hash IS 'SHA-256 of the salt and the id';


--
-- Name: identity_keys; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.identity_keys (
    id character varying(12) NOT NULL COLLATE pg_catalog."C",
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    user_id character varying(255) COLLATE pg_catalog."C",
    name character varying(100) NOT NULL,
    hash bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    CONSTRAINT identity_keys_hash_check CHECK ((length(hash) = 32)),
    CONSTRAINT identity_keys_name_check CHECK (((name)::text <> ''::text)),
    CONSTRAINT identity_keys_scopes_check CHECK (((cardinality(scopes) > 0) AND (scopes <@ ARRAY['read'::text, 'write'::text, 'audit'::text, 'erase'::text, 'admin'::text])))
);


--
-- Name: COLUMN identity_keys.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.identity_keys.user_id IS 'Its holder; null if the key acts for the whole tenant';


--
-- Name: COLUMN identity_keys.hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.identity_keys.hash IS 'SHA-256 of the secret';


--
-- Name: COLUMN identity_keys.last_used_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.identity_keys.last_used_at IS 'Last use; up to a minute late';


--
-- Name: identity_tenants; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.identity_tenants (
    id character varying(255) NOT NULL COLLATE pg_catalog."C",
    name character varying(255) DEFAULT ''::character varying NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    suspended_at timestamp with time zone,
    CONSTRAINT identity_tenants_id_check CHECK (((id)::text <> ''::text))
);


--
-- Name: COLUMN identity_tenants.suspended_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.identity_tenants.suspended_at IS 'Start of the suspension, in which no caller of the tenant is admitted; null: not suspended';


--
-- Name: identity_users; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.identity_users (
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    id character varying(255) NOT NULL COLLATE pg_catalog."C",
    kind character varying(5) DEFAULT 'user'::character varying NOT NULL,
    name character varying(255) DEFAULT ''::character varying NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    disabled_at timestamp with time zone,
    CONSTRAINT identity_users_id_check CHECK ((((id)::text <> ''::text) AND (NOT starts_with((id)::text, 'key:'::text)))),
    CONSTRAINT identity_users_kind_check CHECK (((kind)::text = ANY ((ARRAY['user'::character varying, 'agent'::character varying])::text[])))
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
    metadata jsonb,
    member_order jsonb,
    status character varying(20),
    error text
);
ALTER TABLE ONLY public.messages ALTER COLUMN content SET STATISTICS 0;
ALTER TABLE ONLY public.messages ALTER COLUMN given_id SET STATISTICS 0;
ALTER TABLE ONLY public.messages ALTER COLUMN error SET STATISTICS 0;

ALTER TABLE ONLY public.messages FORCE ROW LEVEL SECURITY;


--
-- Name: COLUMN messages.content; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.messages.content IS 'Text; if the message was sent as parts, that of the parts';


--
-- Name: COLUMN messages.extra; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.messages.extra IS 'Members of the message that no other column holds';


--
-- Name: COLUMN messages.member_order; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.messages.member_order IS 'As in conversations; "sent" is the order of the message itself';


--
-- Name: COLUMN messages.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.messages.status IS 'Of its answer: pending, answered, failed, abandoned; null if it awaits none';


--
-- Name: COLUMN messages.error; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.messages.error IS 'Why the answer failed or was abandoned, or what was not stored of it';


--
-- Name: paused_projections; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.paused_projections (
    projection text NOT NULL COLLATE pg_catalog."C",
    paused_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);


--
-- Name: pending_messages; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.pending_messages (
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    conversation_id uuid NOT NULL,
    id uuid NOT NULL,
    "position" bigint NOT NULL,
    given_id text,
    created_at timestamp with time zone NOT NULL
);
ALTER TABLE ONLY public.pending_messages ALTER COLUMN given_id SET STATISTICS 0;

ALTER TABLE ONLY public.pending_messages FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE pending_messages; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.pending_messages IS 'Messages that await an answer';


--
-- Name: pending_receipts; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.pending_receipts (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    conversation_id uuid NOT NULL,
    versions int4multirange NOT NULL,
    last_version integer NOT NULL
);


--
-- Name: TABLE pending_receipts; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.pending_receipts IS 'Erasures of transactions that have not ended, until their receipts are appended';


--
-- Name: COLUMN pending_receipts.versions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_receipts.versions IS 'The events that a receipt must name';


--
-- Name: COLUMN pending_receipts.last_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_receipts.last_version IS 'Of the conversation; the receipt comes after it';


--
-- Name: search_conversations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.search_conversations (
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    conversation_id uuid NOT NULL,
    language character varying(20) COLLATE pg_catalog."C",
    language_from integer,
    is_deleted boolean DEFAULT false NOT NULL
);

ALTER TABLE ONLY public.search_conversations FORCE ROW LEVEL SECURITY;


--
-- Name: COLUMN search_conversations.language_from; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.search_conversations.language_from IS 'Version of the event that named the language: it holds for what follows';


--
-- Name: search_documents; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.search_documents (
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    conversation_id uuid NOT NULL,
    version integer NOT NULL,
    "position" bigint NOT NULL,
    kind character varying(20) NOT NULL COLLATE pg_catalog."C",
    id uuid NOT NULL,
    role character varying(50),
    actor character varying(255) DEFAULT ''::character varying NOT NULL,
    created_at timestamp with time zone NOT NULL,
    language character varying(20) NOT NULL COLLATE pg_catalog."C",
    words tsvector NOT NULL
);

ALTER TABLE ONLY public.search_documents FORCE ROW LEVEL SECURITY;


--
-- Name: COLUMN search_documents.kind; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.search_documents.kind IS 'message; task (its description), status (its message) or artifact; conversation (its name)';


--
-- Name: COLUMN search_documents.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.search_documents.id IS 'Id of the message, task or conversation';


--
-- Name: COLUMN search_documents.words; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.search_documents.words IS 'Words of the text (weight A), their stems (weight D), and labels for filters: see search_document, search_labels';


--
-- Name: server_secrets; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.server_secrets (
    name text NOT NULL,
    secret bytea NOT NULL
);


--
-- Name: statistics_activity; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.statistics_activity (
    conversation_id uuid NOT NULL,
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    quarter_hour timestamp with time zone NOT NULL,
    role character varying(50) NOT NULL COLLATE pg_catalog."C",
    actor character varying(255) NOT NULL COLLATE pg_catalog."C",
    events bigint NOT NULL,
    messages bigint NOT NULL,
    characters bigint NOT NULL,
    bytes bigint NOT NULL,
    parts bigint NOT NULL,
    parts_bytes bigint NOT NULL,
    artifacts bigint NOT NULL,
    artifact_bytes bigint NOT NULL,
    largest_text integer NOT NULL,
    largest_parts integer NOT NULL,
    largest_artifact integer NOT NULL
)
WITH (fillfactor='80');

ALTER TABLE ONLY public.statistics_activity FORCE ROW LEVEL SECURITY;


--
-- Name: COLUMN statistics_activity.quarter_hour; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.statistics_activity.quarter_hour IS 'Beginning of the quarter of an hour';


--
-- Name: COLUMN statistics_activity.role; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.statistics_activity.role IS 'Role of the messages; empty for all other events';


--
-- Name: COLUMN statistics_activity.bytes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.statistics_activity.bytes IS 'Size of the text of the messages, in UTF-8';


--
-- Name: COLUMN statistics_activity.parts_bytes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.statistics_activity.parts_bytes IS 'Size of the parts of the messages, as JSON';


--
-- Name: COLUMN statistics_activity.artifacts; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.statistics_activity.artifacts IS 'Chunks of artifacts of tasks; artifact_bytes is the size of their parts, as JSON';


--
-- Name: COLUMN statistics_activity.largest_text; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.statistics_activity.largest_text IS 'Bytes of the largest text of a message; likewise for parts and artifact';


--
-- Name: statistics_answers; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.statistics_answers (
    conversation_id uuid NOT NULL,
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    question_version integer NOT NULL,
    asked_at timestamp with time zone NOT NULL,
    answered_at timestamp with time zone NOT NULL,
    actor character varying(255) NOT NULL COLLATE pg_catalog."C"
);

ALTER TABLE ONLY public.statistics_answers FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE statistics_answers; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.statistics_answers IS 'Messages of assistants that answer users: the first after each run of questions';


--
-- Name: statistics_conversations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.statistics_conversations (
    conversation_id uuid NOT NULL,
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    began_at timestamp with time zone NOT NULL,
    asked_at timestamp with time zone,
    question_version integer,
    is_active boolean NOT NULL,
    is_deleted boolean NOT NULL,
    actor character varying(255) NOT NULL COLLATE pg_catalog."C"
)
WITH (fillfactor='80');

ALTER TABLE ONLY public.statistics_conversations FORCE ROW LEVEL SECURITY;


--
-- Name: COLUMN statistics_conversations.question_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.statistics_conversations.question_version IS 'Oldest unanswered message of a user';


--
-- Name: statistics_status_periods; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.statistics_status_periods (
    task_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    entered_at timestamp with time zone NOT NULL,
    left_at timestamp with time zone NOT NULL,
    version integer NOT NULL,
    status character varying(50) NOT NULL COLLATE pg_catalog."C"
);

ALTER TABLE ONLY public.statistics_status_periods FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE statistics_status_periods; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.statistics_status_periods IS 'Time that a task spent in a status that it has left';


--
-- Name: statistics_tasks; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.statistics_tasks (
    task_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    created_at timestamp with time zone NOT NULL,
    entered_at timestamp with time zone NOT NULL,
    version integer NOT NULL,
    status character varying(50) NOT NULL COLLATE pg_catalog."C",
    actor character varying(255) NOT NULL COLLATE pg_catalog."C"
)
WITH (fillfactor='80');

ALTER TABLE ONLY public.statistics_tasks FORCE ROW LEVEL SECURITY;


--
-- Name: COLUMN statistics_tasks.entered_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.statistics_tasks.entered_at IS 'When the task entered its status; version is that of the event';


--
-- Name: COLUMN statistics_tasks.actor; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.statistics_tasks.actor IS 'Actor of the first event of the task';


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
    metadata jsonb,
    member_order jsonb,
    continues_text boolean DEFAULT false NOT NULL
);
ALTER TABLE ONLY public.task_artifacts ALTER COLUMN artifact_id SET STATISTICS 0;
ALTER TABLE ONLY public.task_artifacts ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE ONLY public.task_artifacts ALTER COLUMN description SET STATISTICS 0;

ALTER TABLE ONLY public.task_artifacts FORCE ROW LEVEL SECURITY;


--
-- Name: COLUMN task_artifacts.member_order; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.task_artifacts.member_order IS 'As in conversations';


--
-- Name: COLUMN task_artifacts.continues_text; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.task_artifacts.continues_text IS 'The text of the first part continues that of the last part of the chunk before';


--
-- Name: tasks; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.tasks (
    id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    first_version integer NOT NULL,
    status character varying(50) NOT NULL,
    description text NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    given_id text,
    status_message jsonb,
    metadata jsonb,
    member_order jsonb,
    extra jsonb,
    status_extra jsonb,
    added_history jsonb
);
ALTER TABLE ONLY public.tasks ALTER COLUMN description SET STATISTICS 0;
ALTER TABLE ONLY public.tasks ALTER COLUMN given_id SET STATISTICS 0;

ALTER TABLE ONLY public.tasks FORCE ROW LEVEL SECURITY;


--
-- Name: COLUMN tasks.version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.tasks.version IS 'Version of the last event applied to the row';


--
-- Name: COLUMN tasks.first_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.tasks.first_version IS 'Version of the first event of the task';


--
-- Name: COLUMN tasks.member_order; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.tasks.member_order IS 'As in conversations';


--
-- Name: COLUMN tasks.extra; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.tasks.extra IS 'Members of the task that no other column holds';


--
-- Name: COLUMN tasks.status_extra; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.tasks.status_extra IS 'Members of the status that no other column holds';


--
-- Name: COLUMN tasks.added_history; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.tasks.added_history IS 'Messages added to the history in extra, with the order of their members';


--
-- Name: answer_leases answer_leases_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.answer_leases
    ADD CONSTRAINT answer_leases_pkey PRIMARY KEY (tenant_id, conversation_id, message_id);


--
-- Name: audit_checkpoints audit_checkpoints_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_checkpoints
    ADD CONSTRAINT audit_checkpoints_pkey PRIMARY KEY (size);


--
-- Name: audit_cosignatures audit_cosignatures_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_cosignatures
    ADD CONSTRAINT audit_cosignatures_pkey PRIMARY KEY (size, line);


--
-- Name: audit_tiles audit_tiles_last_position_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_tiles
    ADD CONSTRAINT audit_tiles_last_position_key UNIQUE (level, last_position);


--
-- Name: audit_tiles audit_tiles_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_tiles
    ADD CONSTRAINT audit_tiles_pkey PRIMARY KEY (level, index);


--
-- Name: blob_chunks blob_chunks_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.blob_chunks
    ADD CONSTRAINT blob_chunks_pkey PRIMARY KEY (tenant_id, sha256, number);


--
-- Name: blobs blobs_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.blobs
    ADD CONSTRAINT blobs_pkey PRIMARY KEY (tenant_id, conversation_id, sha256);


--
-- Name: bound_logins bound_logins_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.bound_logins
    ADD CONSTRAINT bound_logins_pkey PRIMARY KEY (login);


--
-- Name: checkpoints checkpoints_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.checkpoints
    ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (projection, stage, partition);


--
-- Name: conversation_actors conversation_actors_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.conversation_actors
    ADD CONSTRAINT conversation_actors_pkey PRIMARY KEY (tenant_id, conversation_id, actor);


--
-- Name: conversation_members conversation_members_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.conversation_members
    ADD CONSTRAINT conversation_members_pkey PRIMARY KEY (tenant_id, conversation_id, user_id);


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
-- Name: idempotency_keys idempotency_keys_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, id);


--
-- Name: identity_erasures identity_erasures_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.identity_erasures
    ADD CONSTRAINT identity_erasures_pkey PRIMARY KEY (tenant_id, hash);


--
-- Name: identity_keys identity_keys_hash_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.identity_keys
    ADD CONSTRAINT identity_keys_hash_key UNIQUE (hash);


--
-- Name: identity_keys identity_keys_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.identity_keys
    ADD CONSTRAINT identity_keys_pkey PRIMARY KEY (id);


--
-- Name: identity_tenants identity_tenants_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.identity_tenants
    ADD CONSTRAINT identity_tenants_pkey PRIMARY KEY (id);


--
-- Name: identity_users identity_users_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.identity_users
    ADD CONSTRAINT identity_users_pkey PRIMARY KEY (tenant_id, id);


--
-- Name: legal_holds legal_holds_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.legal_holds
    ADD CONSTRAINT legal_holds_pkey PRIMARY KEY (tenant_id, id);


--
-- Name: messages messages_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_pkey PRIMARY KEY (tenant_id, conversation_id, id);


--
-- Name: parked parked_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.parked
    ADD CONSTRAINT parked_pkey PRIMARY KEY (projection, stage, tenant_id, conversation_id);


--
-- Name: paused_projections paused_projections_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.paused_projections
    ADD CONSTRAINT paused_projections_pkey PRIMARY KEY (projection);


--
-- Name: pending_messages pending_messages_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.pending_messages
    ADD CONSTRAINT pending_messages_pkey PRIMARY KEY (tenant_id, conversation_id, id);


--
-- Name: pending_receipts pending_receipts_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.pending_receipts
    ADD CONSTRAINT pending_receipts_pkey PRIMARY KEY (id);


--
-- Name: projection_definitions projection_definitions_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.projection_definitions
    ADD CONSTRAINT projection_definitions_pkey PRIMARY KEY (projection, stage);


--
-- Name: retention_rules retention_rules_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.retention_rules
    ADD CONSTRAINT retention_rules_pkey PRIMARY KEY (tenant_id, id);


--
-- Name: search_conversations search_conversations_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.search_conversations
    ADD CONSTRAINT search_conversations_pkey PRIMARY KEY (tenant_id, conversation_id);


--
-- Name: search_documents search_documents_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.search_documents
    ADD CONSTRAINT search_documents_pkey PRIMARY KEY (tenant_id, conversation_id, version);


--
-- Name: server_secrets server_secrets_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.server_secrets
    ADD CONSTRAINT server_secrets_pkey PRIMARY KEY (name);


--
-- Name: statistics_activity statistics_activity_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.statistics_activity
    ADD CONSTRAINT statistics_activity_pkey PRIMARY KEY (tenant_id, quarter_hour, conversation_id, role, actor);


--
-- Name: statistics_answers statistics_answers_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.statistics_answers
    ADD CONSTRAINT statistics_answers_pkey PRIMARY KEY (tenant_id, asked_at, conversation_id, version);


--
-- Name: statistics_conversations statistics_conversations_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.statistics_conversations
    ADD CONSTRAINT statistics_conversations_pkey PRIMARY KEY (tenant_id, conversation_id);


--
-- Name: statistics_status_periods statistics_status_periods_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.statistics_status_periods
    ADD CONSTRAINT statistics_status_periods_pkey PRIMARY KEY (tenant_id, conversation_id, task_id, version);


--
-- Name: statistics_tasks statistics_tasks_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.statistics_tasks
    ADD CONSTRAINT statistics_tasks_pkey PRIMARY KEY (tenant_id, conversation_id, task_id);


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
-- Name: idx_blobs_sha256; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_blobs_sha256 ON public.blobs USING btree (tenant_id, sha256);


--
-- Name: idx_conversation_actors_pages; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_conversation_actors_pages ON public.conversation_actors USING btree (tenant_id, actor, created_at, conversation_id);


--
-- Name: idx_conversation_actors_pages_by_update; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_conversation_actors_pages_by_update ON public.conversation_actors USING btree (tenant_id, actor, updated_at, conversation_id);


--
-- Name: idx_conversation_members_user_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_conversation_members_user_id ON public.conversation_members USING btree (tenant_id, user_id, conversation_id);


--
-- Name: idx_conversations_given_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_conversations_given_id ON public.conversations USING btree (tenant_id, given_id COLLATE "C") WHERE (octet_length(given_id) <= 1000);


--
-- Name: idx_conversations_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_conversations_id ON public.conversations USING btree (id);


--
-- Name: idx_conversations_pages; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_conversations_pages ON public.conversations USING btree (tenant_id, created_at, id);


--
-- Name: idx_conversations_pages_by_update; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_conversations_pages_by_update ON public.conversations USING btree (tenant_id, updated_at, id);


--
-- Name: idx_conversations_updated_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_conversations_updated_at ON public.conversations USING btree (updated_at DESC);


--
-- Name: idx_events_conversation_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_events_conversation_id ON public.events USING btree (conversation_id);


--
-- Name: idx_events_erased; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_events_erased ON public.events USING btree ("position") WHERE (salt IS NULL);


--
-- Name: idx_events_files; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_events_files ON public.events USING gin (((metadata -> 'eventstore.files'::text))) WHERE (metadata ? 'eventstore.files'::text);


--
-- Name: idx_events_lifecycle; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_events_lifecycle ON public.events USING btree (tenant_id, conversation_id, version) WHERE ((event_type)::text = ANY ((ARRAY['conversation.deleted'::character varying, 'conversation.reactivated'::character varying, 'conversation.erased'::character varying, 'event.erased'::character varying, 'conversation.shared'::character varying, 'conversation.unshared'::character varying, 'conversation.forked'::character varying, 'conversation.rewound'::character varying])::text[]));


--
-- Name: idx_events_position; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_events_position ON public.events USING btree ("position");


--
-- Name: idx_events_receipts; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_events_receipts ON public.events USING btree (tenant_id, "position") WHERE ((event_type)::text = ANY ((ARRAY['conversation.erased'::character varying, 'event.erased'::character varying])::text[]));


--
-- Name: idx_events_timestamp; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_events_timestamp ON public.events USING btree ("timestamp" DESC);


--
-- Name: idx_idempotency_keys_created_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_idempotency_keys_created_at ON public.idempotency_keys USING btree (created_at);


--
-- Name: idx_identity_keys_tenant_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_identity_keys_tenant_id ON public.identity_keys USING btree (tenant_id, created_at);


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
-- Name: idx_messages_pages; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_messages_pages ON public.messages USING btree (tenant_id, created_at, conversation_id, version);


--
-- Name: idx_pending_messages_position; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_pending_messages_position ON public.pending_messages USING btree (tenant_id, "position");


--
-- Name: idx_search_conversations_deleted; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_search_conversations_deleted ON public.search_conversations USING btree (tenant_id) WHERE is_deleted;


--
-- Name: idx_search_conversations_language; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_search_conversations_language ON public.search_conversations USING btree (tenant_id, language) WHERE (language IS NOT NULL);


--
-- Name: idx_search_documents_created_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_search_documents_created_at ON public.search_documents USING btree (tenant_id, created_at, "position");


--
-- Name: idx_search_documents_replaced; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_search_documents_replaced ON public.search_documents USING btree (tenant_id, conversation_id, id) WHERE ((kind)::text = ANY ((ARRAY['task'::character varying, 'conversation'::character varying])::text[]));


--
-- Name: idx_search_documents_words; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_search_documents_words ON public.search_documents USING gin (words) WITH (gin_pending_list_limit='256');


--
-- Name: idx_statistics_conversations_began_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_statistics_conversations_began_at ON public.statistics_conversations USING btree (tenant_id, began_at);


--
-- Name: idx_statistics_tasks_created_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_statistics_tasks_created_at ON public.statistics_tasks USING btree (tenant_id, created_at);


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
-- Name: idx_tasks_pages; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_tasks_pages ON public.tasks USING btree (tenant_id, created_at, conversation_id, id);


--
-- Name: idx_tasks_pages_by_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_tasks_pages_by_status ON public.tasks USING btree (tenant_id, status, created_at, conversation_id, id);


--
-- Name: idx_tasks_pages_of_conversation; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_tasks_pages_of_conversation ON public.tasks USING btree (tenant_id, conversation_id, created_at, id);


--
-- Name: audit_checkpoints audit_checkpoints_are_append_only; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER audit_checkpoints_are_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit_checkpoints FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change_of_events();

ALTER TABLE public.audit_checkpoints ENABLE ALWAYS TRIGGER audit_checkpoints_are_append_only;


--
-- Name: audit_cosignatures audit_cosignatures_are_append_only; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER audit_cosignatures_are_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit_cosignatures FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change_of_events();

ALTER TABLE public.audit_cosignatures ENABLE ALWAYS TRIGGER audit_cosignatures_are_append_only;


--
-- Name: audit_tiles audit_tiles_are_append_only; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER audit_tiles_are_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit_tiles FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change_of_events();

ALTER TABLE public.audit_tiles ENABLE ALWAYS TRIGGER audit_tiles_are_append_only;


--
-- Name: bound_logins changes_are_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER changes_are_recorded AFTER INSERT OR DELETE OR UPDATE ON public.bound_logins FOR EACH ROW EXECUTE FUNCTION public.record_identity_change();


--
-- Name: identity_erasures changes_are_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER changes_are_recorded AFTER DELETE OR UPDATE ON public.identity_erasures FOR EACH STATEMENT EXECUTE FUNCTION public.record_table_change();


--
-- Name: identity_keys changes_are_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER changes_are_recorded AFTER INSERT OR DELETE OR UPDATE OF id, tenant_id, user_id, name, hash, scopes, created_at, expires_at, revoked_at ON public.identity_keys FOR EACH ROW EXECUTE FUNCTION public.record_identity_change();


--
-- Name: identity_tenants changes_are_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER changes_are_recorded AFTER INSERT OR DELETE OR UPDATE ON public.identity_tenants FOR EACH ROW EXECUTE FUNCTION public.record_identity_change();


--
-- Name: identity_users changes_are_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER changes_are_recorded AFTER INSERT OR DELETE OR UPDATE ON public.identity_users FOR EACH ROW EXECUTE FUNCTION public.record_identity_change();


--
-- Name: legal_holds changes_are_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER changes_are_recorded AFTER INSERT OR DELETE OR UPDATE ON public.legal_holds FOR EACH ROW EXECUTE FUNCTION public.record_retention_change();


--
-- Name: paused_projections changes_are_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER changes_are_recorded AFTER INSERT OR DELETE OR UPDATE OF projection ON public.paused_projections FOR EACH ROW EXECUTE FUNCTION public.record_pause();


--
-- Name: retention_rules changes_are_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER changes_are_recorded AFTER INSERT OR DELETE OR UPDATE OF tenant_id, id, age, since, state, user_id, metadata, reason, added_by, added_at ON public.retention_rules FOR EACH ROW EXECUTE FUNCTION public.record_retention_change();


--
-- Name: events erasure_is_complete; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER erasure_is_complete AFTER UPDATE ON public.events REFERENCING OLD TABLE AS old_events FOR EACH STATEMENT EXECUTE FUNCTION public.complete_erasure();

ALTER TABLE public.events ENABLE ALWAYS TRIGGER erasure_is_complete;


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
-- Name: pending_receipts require_receipt; Type: TRIGGER; Schema: public; Owner: -
--

CREATE CONSTRAINT TRIGGER require_receipt AFTER INSERT ON public.pending_receipts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.require_receipt();

ALTER TABLE public.pending_receipts ENABLE ALWAYS TRIGGER require_receipt;


--
-- Name: bound_logins truncation_is_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER truncation_is_recorded AFTER TRUNCATE ON public.bound_logins FOR EACH STATEMENT EXECUTE FUNCTION public.record_table_change();


--
-- Name: identity_erasures truncation_is_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER truncation_is_recorded AFTER TRUNCATE ON public.identity_erasures FOR EACH STATEMENT EXECUTE FUNCTION public.record_table_change();


--
-- Name: identity_keys truncation_is_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER truncation_is_recorded AFTER TRUNCATE ON public.identity_keys FOR EACH STATEMENT EXECUTE FUNCTION public.record_table_change();


--
-- Name: identity_tenants truncation_is_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER truncation_is_recorded AFTER TRUNCATE ON public.identity_tenants FOR EACH STATEMENT EXECUTE FUNCTION public.record_table_change();


--
-- Name: identity_users truncation_is_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER truncation_is_recorded AFTER TRUNCATE ON public.identity_users FOR EACH STATEMENT EXECUTE FUNCTION public.record_table_change();


--
-- Name: legal_holds truncation_is_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER truncation_is_recorded AFTER TRUNCATE ON public.legal_holds FOR EACH STATEMENT EXECUTE FUNCTION public.record_table_change();


--
-- Name: paused_projections truncation_is_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER truncation_is_recorded AFTER TRUNCATE ON public.paused_projections FOR EACH STATEMENT EXECUTE FUNCTION public.record_table_change();


--
-- Name: retention_rules truncation_is_recorded; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER truncation_is_recorded AFTER TRUNCATE ON public.retention_rules FOR EACH STATEMENT EXECUTE FUNCTION public.record_table_change();


--
-- Name: identity_keys identity_keys_tenant_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.identity_keys
    ADD CONSTRAINT identity_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.identity_tenants(id);


--
-- Name: identity_keys identity_keys_user_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.identity_keys
    ADD CONSTRAINT identity_keys_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES public.identity_users(tenant_id, id);


--
-- Name: identity_users identity_users_tenant_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.identity_users
    ADD CONSTRAINT identity_users_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.identity_tenants(id);


--
-- Name: answer_leases; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.answer_leases ENABLE ROW LEVEL SECURITY;

--
-- Name: blob_chunks; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.blob_chunks ENABLE ROW LEVEL SECURITY;

--
-- Name: blobs; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.blobs ENABLE ROW LEVEL SECURITY;

--
-- Name: bound_logins; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.bound_logins ENABLE ROW LEVEL SECURITY;

--
-- Name: conversation_actors; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.conversation_actors ENABLE ROW LEVEL SECURITY;

--
-- Name: conversation_members; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.conversation_members ENABLE ROW LEVEL SECURITY;

--
-- Name: conversations; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.conversations ENABLE ROW LEVEL SECURITY;

--
-- Name: events; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.events ENABLE ROW LEVEL SECURITY;

--
-- Name: idempotency_keys; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.idempotency_keys ENABLE ROW LEVEL SECURITY;

--
-- Name: identity_erasures; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.identity_erasures ENABLE ROW LEVEL SECURITY;

--
-- Name: identity_keys; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.identity_keys ENABLE ROW LEVEL SECURITY;

--
-- Name: identity_tenants; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.identity_tenants ENABLE ROW LEVEL SECURITY;

--
-- Name: identity_users; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.identity_users ENABLE ROW LEVEL SECURITY;

--
-- Name: legal_holds; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.legal_holds ENABLE ROW LEVEL SECURITY;

--
-- Name: messages; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.messages ENABLE ROW LEVEL SECURITY;

--
-- Name: bound_logins of_itself; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY of_itself ON public.bound_logins FOR SELECT USING ((login = SESSION_USER));


--
-- Name: answer_leases open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.answer_leases FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = answer_leases.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: blob_chunks open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.blob_chunks FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND (( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL)) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: blobs open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.blobs FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = blobs.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: conversation_actors open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.conversation_actors FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = conversation_actors.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: conversation_members open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.conversation_members FOR SELECT USING ((((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
           FROM public.bound_logins b
          WHERE (b.login = SESSION_USER)), (
        CASE
            WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
            ELSE NULL::text
        END)::character varying) AS "coalesce"))::text) AND ((user_id)::text = ( SELECT public.current_tenant_user() AS current_tenant_user))));


--
-- Name: conversations open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.conversations FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = conversations.id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: events open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.events FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = events.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: messages open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.messages FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = messages.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: parked open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.parked FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = parked.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: pending_messages open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.pending_messages FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = pending_messages.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: search_conversations open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.search_conversations FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = search_conversations.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: search_documents open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.search_documents FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = search_documents.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: statistics_activity open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.statistics_activity FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = statistics_activity.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: statistics_answers open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.statistics_answers FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = statistics_answers.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: statistics_conversations open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.statistics_conversations FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = statistics_conversations.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: statistics_status_periods open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.statistics_status_periods FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = statistics_status_periods.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: statistics_tasks open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.statistics_tasks FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = statistics_tasks.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: task_artifacts open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.task_artifacts FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = task_artifacts.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: tasks open_to_caller; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_caller ON public.tasks FOR SELECT USING ((
CASE
    WHEN (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
               FROM public.bound_logins b
              WHERE (b.login = SESSION_USER)), (
            CASE
                WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
                ELSE NULL::text
            END)::character varying) AS "coalesce"))::text) AND ((( SELECT public.current_tenant_user() AS current_tenant_user) IS NULL) OR (conversation_id = ( SELECT m.conversation_id
       FROM public.conversation_members m
      WHERE (m.conversation_id = public.current_conversation()))) OR ( SELECT true
       FROM public.conversation_members m
      WHERE (m.conversation_id = tasks.conversation_id)))) THEN true
    ELSE NULL::boolean
END IS NOT NULL));


--
-- Name: events open_to_eraser; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_eraser ON public.events FOR UPDATE TO eventstore_eraser USING (((tenant_id)::text = (( SELECT COALESCE(( SELECT b.tenant_id
           FROM public.bound_logins b
          WHERE (b.login = SESSION_USER)), (
        CASE
            WHEN public.may_set_tenant() THEN NULLIF(current_setting('eventstore.tenant'::text, true), ''::text)
            ELSE NULL::text
        END)::character varying) AS "coalesce"))::text));


--
-- Name: answer_leases open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.answer_leases TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: blob_chunks open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.blob_chunks TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: blobs open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.blobs TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: conversation_actors open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.conversation_actors TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: conversation_members open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.conversation_members TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: conversations open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.conversations TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: events open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.events TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: messages open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.messages TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: parked open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.parked TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: pending_messages open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.pending_messages TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: search_conversations open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.search_conversations TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: search_documents open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.search_documents TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: statistics_activity open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.statistics_activity TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: statistics_answers open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.statistics_answers TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: statistics_conversations open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.statistics_conversations TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: statistics_status_periods open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.statistics_status_periods TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: statistics_tasks open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.statistics_tasks TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: task_artifacts open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.task_artifacts TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: tasks open_to_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_owner ON public.tasks TO eventstore_owner USING (public.is_current_role('eventstore_owner'::name)) WITH CHECK (public.is_current_role('eventstore_owner'::name));


--
-- Name: answer_leases open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.answer_leases TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: blob_chunks open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.blob_chunks TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: blobs open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.blobs TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: conversation_actors open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.conversation_actors TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: conversation_members open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.conversation_members TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: conversations open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.conversations TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: events open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.events TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: messages open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.messages TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: parked open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.parked TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: pending_messages open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.pending_messages TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: search_conversations open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.search_conversations TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: search_documents open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.search_documents TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: statistics_activity open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.statistics_activity TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: statistics_answers open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.statistics_answers TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: statistics_conversations open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.statistics_conversations TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: statistics_status_periods open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.statistics_status_periods TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: statistics_tasks open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.statistics_tasks TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: task_artifacts open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.task_artifacts TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: tasks open_to_projector; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_projector ON public.tasks TO eventstore_projector USING (public.is_current_role('eventstore_projector'::name)) WITH CHECK (public.is_current_role('eventstore_projector'::name));


--
-- Name: events open_to_search; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_search ON public.events FOR SELECT TO eventstore_search USING (public.is_current_role('eventstore_search'::name));


--
-- Name: search_conversations open_to_search; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_search ON public.search_conversations FOR SELECT TO eventstore_search USING (public.is_current_role('eventstore_search'::name));


--
-- Name: search_documents open_to_search; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY open_to_search ON public.search_documents FOR SELECT TO eventstore_search USING (public.is_current_role('eventstore_search'::name));


--
-- Name: parked; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.parked ENABLE ROW LEVEL SECURITY;

--
-- Name: pending_messages; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.pending_messages ENABLE ROW LEVEL SECURITY;

--
-- Name: pending_receipts; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.pending_receipts ENABLE ROW LEVEL SECURITY;

--
-- Name: answer_leases require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.answer_leases FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: blob_chunks require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.blob_chunks FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: blobs require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.blobs FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: conversation_actors require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.conversation_actors FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: conversation_members require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.conversation_members FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: conversations require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.conversations FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: events require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.events FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: messages require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.messages FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: parked require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.parked FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: pending_messages require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.pending_messages FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: search_conversations require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.search_conversations FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: search_documents require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.search_documents FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: statistics_activity require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.statistics_activity FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: statistics_answers require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.statistics_answers FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: statistics_conversations require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.statistics_conversations FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: statistics_status_periods require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.statistics_status_periods FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: statistics_tasks require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.statistics_tasks FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: task_artifacts require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.task_artifacts FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: tasks require_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY require_tenant ON public.tasks FOR SELECT TO eventstore_owner USING ((NOT (public.is_current_role('eventstore_owner'::name) OR ( SELECT public.require_tenant() AS require_tenant))));


--
-- Name: retention_rules; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.retention_rules ENABLE ROW LEVEL SECURITY;

--
-- Name: search_conversations; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.search_conversations ENABLE ROW LEVEL SECURITY;

--
-- Name: search_documents; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.search_documents ENABLE ROW LEVEL SECURITY;

--
-- Name: server_secrets; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.server_secrets ENABLE ROW LEVEL SECURITY;

--
-- Name: statistics_activity; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.statistics_activity ENABLE ROW LEVEL SECURITY;

--
-- Name: statistics_answers; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.statistics_answers ENABLE ROW LEVEL SECURITY;

--
-- Name: statistics_conversations; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.statistics_conversations ENABLE ROW LEVEL SECURITY;

--
-- Name: statistics_status_periods; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.statistics_status_periods ENABLE ROW LEVEL SECURITY;

--
-- Name: statistics_tasks; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.statistics_tasks ENABLE ROW LEVEL SECURITY;

--
-- Name: task_artifacts; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.task_artifacts ENABLE ROW LEVEL SECURITY;

--
-- Name: tasks; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.tasks ENABLE ROW LEVEL SECURITY;

--
-- Name: idempotency_keys unbound; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY unbound ON public.idempotency_keys USING ((( SELECT (NOT public.login_is_bound())) OR ((tenant_id)::text = ( SELECT public.current_tenant() AS current_tenant))));


--
-- Name: identity_erasures unbound; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY unbound ON public.identity_erasures USING (( SELECT (NOT public.login_is_bound())));


--
-- Name: identity_keys unbound; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY unbound ON public.identity_keys USING (( SELECT (NOT public.login_is_bound())));


--
-- Name: identity_tenants unbound; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY unbound ON public.identity_tenants USING (( SELECT (NOT public.login_is_bound())));


--
-- Name: identity_users unbound; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY unbound ON public.identity_users USING (( SELECT (NOT public.login_is_bound())));


--
-- Name: legal_holds unbound; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY unbound ON public.legal_holds USING ((( SELECT (NOT public.login_is_bound())) OR ((tenant_id)::text = ( SELECT public.current_tenant() AS current_tenant))));


--
-- Name: retention_rules unbound; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY unbound ON public.retention_rules USING ((( SELECT (NOT public.login_is_bound())) OR ((tenant_id)::text = ( SELECT public.current_tenant() AS current_tenant))));


--
-- Name: server_secrets unbound; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY unbound ON public.server_secrets USING (( SELECT (NOT public.login_is_bound())));


--
-- PostgreSQL database dump complete
--



--
-- Dbmate schema migrations
--

INSERT INTO public.eventstore_migrations (version) VALUES
    ('20261129000100'),
    ('20261129000200'),
    ('20261129000300'),
    ('20261129000400'),
    ('20261129000500'),
    ('20261129000600'),
    ('20261129000700'),
    ('20261129000800'),
    ('20261129000900'),
    ('20261129001000'),
    ('20261129001100'),
    ('20261129001200'),
    ('20261129001300'),
    ('20261129001400'),
    ('20261129001500');
