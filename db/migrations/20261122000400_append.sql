-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- A text as it goes into a digest: its length in bytes, four bytes big-endian, then its bytes in UTF-8.
CREATE FUNCTION digest_text(value text) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN int4send(octet_length(convert_to(value, 'UTF8'))) || convert_to(value, 'UTF8');

-- The byte format is for good: eventstore/DIGEST.md documents it, with test vectors.
CREATE FUNCTION event_digest(
    salt            bytea,
    "position"      bigint,
    "timestamp"     timestamptz,
    version         integer,
    schema_version  smallint,
    conversation_id uuid,
    id              uuid,
    tenant_id       text,
    event_type      text,
    actor           text,
    content         jsonb,
    metadata        jsonb
) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN sha256(
    salt
    || int8send("position")
    || timestamptz_send("timestamp")
    || int4send(version)
    || int2send(schema_version)
    || uuid_send(conversation_id)
    || uuid_send(id)
    || digest_text(tenant_id)
    || digest_text(event_type)
    || digest_text(actor)
    || digest_text(content::text)
    || digest_text(metadata::text)
);

-- Whether a member of a JSON object is absent, or of that type.
CREATE FUNCTION member_is(object jsonb, member text, type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(jsonb_typeof(object -> member) = type, true);

-- Whether a member of a JSON object is a text of at most so many characters.
CREATE FUNCTION member_is_text(object jsonb, member text, longest integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(jsonb_typeof(object -> member) = 'string' AND char_length(object ->> member) <= longest, false);

-- Whether a member of a JSON object is a UUID as PostgreSQL prints one.
CREATE FUNCTION member_is_uuid(object jsonb, member text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(object ->> member ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$', false);

-- What is wrong with an event's metadata, and with the content of a built-in event; null if nothing is. No event that
-- passes can fail in a projection, whoever sent it and whatever version: what the log has taken it keeps for good.
CREATE FUNCTION metadata_problem(metadata jsonb) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN NOT coalesce(jsonb_typeof(metadata) = 'object'
                      AND member_is(metadata, 'correlation_id', 'string')
                      AND member_is(metadata, 'causation_id', 'string')
                      AND member_is(metadata, 'traceparent', 'string'), false)
        THEN 'its metadata is no object, or an id in it no text'
    WHEN metadata ? 'occurred_at' THEN
        CASE
            WHEN NOT coalesce(metadata ->> 'occurred_at'
                              ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})$', false)
                THEN 'its metadata.occurred_at is no ISO 8601 time with a zone'
            -- The cast raises an error of its own for the 30th of February.
            WHEN (metadata ->> 'occurred_at')::timestamptz
                 NOT BETWEEN '0001-01-01 00:00+00'::timestamptz AND '9999-12-31 23:59:59.999999+00'::timestamptz
                THEN 'its metadata.occurred_at lies outside the years 1 to 9999'
        END
END;

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

-- Appends one or many events to one or several conversations: all of them or none.
--
-- The conversations stand in three parallel arrays; each event names its conversation by number, from 1.
-- Expected versions: n from 1 exactly n, 0 no such conversation (NO_STREAM), -1 any that exists (EXISTS),
-- -2 whatever there is (ANY).
--
-- An event that is already there under the same id is left where it is and reported with is_new = false;
-- a conversation whose events are all there already is not checked for its version, so a repeated append
-- is harmless.
CREATE FUNCTION append_events(
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

SELECT eventstore_own('FUNCTION digest_text(text)');
SELECT eventstore_own('FUNCTION member_is(jsonb, text, text)');
SELECT eventstore_own('FUNCTION member_is_text(jsonb, text, integer)');
SELECT eventstore_own('FUNCTION member_is_uuid(jsonb, text)');
SELECT eventstore_own('FUNCTION metadata_problem(jsonb)');
SELECT eventstore_own('FUNCTION content_problem(text, jsonb)');
SELECT eventstore_own(
    'FUNCTION event_digest(bytea, bigint, timestamptz, integer, smallint, uuid, uuid, text, text, text, jsonb, jsonb)'
);
SELECT eventstore_own(
    'FUNCTION append_events(text[], uuid[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[])'
);
REVOKE ALL ON FUNCTION append_events(text[], uuid[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[])
    FROM PUBLIC;
SELECT eventstore_grant(
    'EXECUTE ON FUNCTION append_events(text[], uuid[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[])',
    'eventstore_app'
);

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION append_events(text[], uuid[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[]);
DROP FUNCTION content_problem(text, jsonb);
DROP FUNCTION metadata_problem(jsonb);
DROP FUNCTION member_is_uuid(jsonb, text);
DROP FUNCTION member_is_text(jsonb, text, integer);
DROP FUNCTION member_is(jsonb, text, text);
DROP FUNCTION event_digest(bytea, bigint, timestamptz, integer, smallint, uuid, uuid, text, text, text, jsonb, jsonb);
DROP FUNCTION digest_text(text);
