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

-- Appends one or many events to one or several conversations: all of them or none.
--
-- The conversations stand in three parallel arrays; each event names its conversation by number, from 1.
-- Expected versions: n ≥ 1 exactly n, 0 no such conversation (NO_STREAM), -1 any that exists (EXISTS),
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
    wanted   record;
    found_in record;
    asleep   boolean;
BEGIN
    PERFORM refuse_old_snapshots();
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
DROP FUNCTION event_digest(bytea, bigint, timestamptz, integer, smallint, uuid, uuid, text, text, text, jsonb, jsonb);
DROP FUNCTION digest_text(text);
