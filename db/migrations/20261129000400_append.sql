-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- file: validation/sha1.sql
-- The SHA-1 of a message (RFC 3174), for UUIDs of version 5; in PostgreSQL only an extension has it. It takes about 25
-- microseconds for 64 bytes.
CREATE FUNCTION sha1(message bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
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

SELECT eventstore_set_owner('FUNCTION sha1');

-- file: validation/conversation_uuid.sql
-- The id of the conversation that a client calls by a text: the same as conversation_uuid in eventstore/ids.py.
CREATE FUNCTION conversation_uuid(tenant_id text, given_id text) RETURNS uuid
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
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
$$;

SELECT eventstore_set_owner('FUNCTION conversation_uuid');

-- file: administration/administration_id.sql
-- The conversation of administrative acts: the same id for every tenant. The append functions refuse it, and projections
-- do not see it; record_administrative_act alone writes to it.
CREATE FUNCTION administration_id() RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '704a23d0-25df-52d6-b826-5b26f57f7d51'::uuid;

SELECT eventstore_set_owner('FUNCTION administration_id');

-- file: validation/optional_json_member_is.sql
-- Return whether a member of a JSON object is absent or of a type.
CREATE FUNCTION optional_json_member_is(object jsonb, member text, type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(jsonb_typeof(object -> member) = type, true);

SELECT eventstore_set_owner('FUNCTION optional_json_member_is');

-- file: validation/json_member_is_text.sql
-- Return whether a member of a JSON object is a string of at most so many characters.
CREATE FUNCTION json_member_is_text(object jsonb, member text, longest integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(jsonb_typeof(object -> member) = 'string' AND char_length(object ->> member) <= longest, false);

SELECT eventstore_set_owner('FUNCTION json_member_is_text');

-- file: validation/json_member_is_uuid.sql
-- Return whether a member of a JSON object is a UUID as PostgreSQL prints one.
CREATE FUNCTION json_member_is_uuid(object jsonb, member text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(object ->> member ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$', false);

SELECT eventstore_set_owner('FUNCTION json_member_is_uuid');

-- file: validation/validate_message.sql
-- Return what is invalid in the content of a message; null if it is valid.
CREATE FUNCTION validate_message(content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is not an object'
    WHEN NOT optional_json_member_is(content, 'given_id', 'string')
        THEN 'given_id is not a string'
    WHEN NOT optional_json_member_is(content, 'metadata', 'object')
        THEN 'metadata is not an object'
    WHEN NOT optional_json_member_is(content, 'extra', 'object')
        THEN 'extra is not an object'
    WHEN NOT (json_member_is_text(content, 'role', 50) AND content ->> 'role' <> ''
              AND optional_json_member_is(content, 'content', 'string')
              AND optional_json_member_is(content, 'parts', 'array'))
        THEN 'role is not a string of 1 to 50 characters, content is not a string, or parts is not an array'
END;

SELECT eventstore_set_owner('FUNCTION validate_message');

-- file: validation/validate_conversation.sql
-- Return what is invalid in the content of an event of a conversation; null if it is valid.
CREATE FUNCTION validate_conversation(tenant_id text, conversation_id uuid, event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is not an object'
    WHEN event_type = 'conversation.created' AND NOT optional_json_member_is(content, 'given_id', 'string')
        THEN 'given_id is not a string'
    -- One that belongs to another conversation would lead readers there.
    WHEN event_type = 'conversation.created' AND conversation_uuid(tenant_id, content ->> 'given_id') <> conversation_id
        THEN 'given_id is the name of another conversation'
    WHEN event_type IN ('conversation.created', 'conversation.forked') AND NOT optional_json_member_is(content, 'metadata', 'object')
        THEN 'metadata is not an object'
    WHEN (event_type = 'conversation.renamed'
          OR event_type IN ('conversation.created', 'conversation.forked') AND content ? 'name') AND NOT json_member_is_text(content, 'name', 255)
        THEN 'name is not a string of at most 255 characters'
    WHEN event_type = 'conversation.forked' AND NOT (
             json_member_is_uuid(content, 'source_conversation_id')
             AND coalesce(jsonb_typeof(content -> 'source_version') = 'number', false))
        THEN 'source_conversation_id is not a UUID, or source_version is not a number'
    WHEN event_type = 'conversation.rewound' AND NOT coalesce(content ->> 'to_version' ~ '^[0-9]{1,9}$', false)
        THEN 'to_version is not a number from 0 to 999,999,999'
END;

SELECT eventstore_set_owner('FUNCTION validate_conversation');

-- file: validation/validate_task.sql
-- Return what is invalid in the content of an event of a task; null if it is valid.
CREATE FUNCTION validate_task(event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is not an object'
    WHEN event_type = 'task.created' AND NOT optional_json_member_is(content, 'given_id', 'string')
        THEN 'given_id is not a string'
    WHEN event_type NOT IN ('task.status_changed', 'task.described')
         AND NOT optional_json_member_is(content, 'metadata', 'object')
        THEN 'metadata is not an object'
    WHEN event_type <> 'task.status_changed' AND NOT optional_json_member_is(content, 'extra', 'object')
        THEN 'extra is not an object'
    WHEN event_type = 'task.described' AND NOT optional_json_member_is(content, 'history', 'array')
        THEN 'history is not an array'
    WHEN NOT json_member_is_uuid(content, 'task_id')
        THEN 'task_id is not a UUID in lower case'
    WHEN event_type IN ('task.created', 'task.status_changed') AND NOT (
             json_member_is_text(content, 'status', 50) AND content ->> 'status' <> ''
             AND (event_type <> 'task.status_changed' OR optional_json_member_is(content, 'message', 'object')))
        THEN 'status is not a string of 1 to 50 characters, or message is not an object'
    WHEN event_type IN ('task.created', 'task.described') AND NOT coalesce(
             jsonb_typeof(content -> 'description') = 'string', event_type = 'task.described')
        THEN 'description is not a string'
    WHEN event_type IN ('task.artifact_added', 'task.artifact_extended') AND NOT coalesce(
             jsonb_typeof(content -> 'artifact_id') = 'string' AND jsonb_typeof(content -> 'parts') = 'array'
             AND jsonb_typeof(content -> 'last_chunk') = 'boolean'
             AND optional_json_member_is(content, 'name', 'string')
             AND optional_json_member_is(content, 'description', 'string'), false)
        THEN 'artifact_id, name or description is not a string, parts is not an array, or last_chunk is not a boolean'
END;

SELECT eventstore_set_owner('FUNCTION validate_task');

-- file: validation/validate_sharing.sql
-- Return what is invalid in the content of an event that shares or unshares a conversation; null if it is valid.
CREATE FUNCTION validate_sharing(event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is not an object'
    WHEN NOT (json_member_is_text(content, 'user', 255) AND content ->> 'user' <> '')
        THEN 'user is not a string of 1 to 255 characters'
    WHEN event_type = 'conversation.shared' AND NOT coalesce(content -> 'access' IN ('"read"', '"write"'), false)
        THEN 'access is neither read nor write'
END;

SELECT eventstore_set_owner('FUNCTION validate_sharing');
REVOKE ALL ON FUNCTION validate_sharing FROM PUBLIC;

-- file: validation/validate_metadata.sql
-- Return what is invalid in the metadata of an event; null if it is valid.
CREATE FUNCTION validate_metadata(metadata jsonb) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN NOT coalesce(jsonb_typeof(metadata) = 'object'
                      AND optional_json_member_is(metadata, 'correlation_id', 'string')
                      AND optional_json_member_is(metadata, 'causation_id', 'string')
                      AND optional_json_member_is(metadata, 'traceparent', 'string'), false)
        THEN 'its metadata is not an object, or an id in it is not a string'
    WHEN metadata ? 'eventstore.owner'
         AND NOT (json_member_is_text(metadata, 'eventstore.owner', 255) AND metadata ->> 'eventstore.owner' <> '')
        THEN 'its metadata."eventstore.owner" is not a string of 1 to 255 characters'
    WHEN metadata ? 'occurred_at' THEN
        CASE
            WHEN NOT coalesce(metadata ->> 'occurred_at'
                              ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})$', false)
                THEN 'its metadata.occurred_at is not an ISO 8601 time with a zone'
            -- The cast raises its own error for the 30th of February.
            WHEN (metadata ->> 'occurred_at')::timestamptz
                 NOT BETWEEN '0001-01-01 00:00+00'::timestamptz AND '9999-12-31 23:59:59.999999+00'::timestamptz
                THEN 'its metadata.occurred_at lies outside the years 1 to 9999'
        END
END;

SELECT eventstore_set_owner('FUNCTION validate_metadata');

-- file: validation/validate_event.sql
-- Return what is invalid in an event; null if it is valid. No valid event can fail in a projection, whatever client and
-- version sent it, because the log keeps it for ever. In PL/pgSQL, which prepares only the expressions that it reaches:
-- as a single expression, the preparation alone would cost half as much as the rest of an append.
CREATE FUNCTION validate_event(tenant_id text, conversation_id uuid, event_type text, content jsonb, metadata jsonb)
RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
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

SELECT eventstore_set_owner('FUNCTION validate_event');

-- file: members/share_conversation.sql
-- Apply an event conversation.shared or conversation.unshared. The owner stays the owner.
CREATE FUNCTION share_conversation(tenant_id text, conversation_id uuid, event_type text, content jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
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

SELECT eventstore_set_owner('FUNCTION share_conversation');
REVOKE ALL ON FUNCTION share_conversation FROM PUBLIC;

-- file: members/may_append.sql
-- A row if a user may append an event of a type to a conversation that exists, and none otherwise.
--
-- It returns a set so that the planner inlines it where it is called: a function call for each event would be slower.
CREATE FUNCTION may_append(tenant_id text, conversation_id uuid, user_id text, event_type text)
RETURNS TABLE (access text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT m.access
      FROM conversation_members m
     WHERE m.tenant_id = may_append.tenant_id
       AND m.conversation_id = may_append.conversation_id
       AND m.user_id = may_append.user_id
       AND (m.access = 'own'
            OR m.access = 'write'
               AND may_append.event_type NOT IN ('conversation.shared', 'conversation.unshared', 'conversation.deleted',
                                                 'conversation.rewound'));
END;

SELECT eventstore_set_owner('FUNCTION may_append');
REVOKE ALL ON FUNCTION may_append FROM PUBLIC;

-- file: members/members_of_log.sql
-- The members according to the log: the owner whom the first event of a conversation names, and the users with whom it
-- was shared since.
CREATE FUNCTION members_of_log() RETURNS TABLE (tenant_id text, conversation_id uuid, user_id text, access text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH owners AS (
        SELECT e.tenant_id, e.conversation_id, e.metadata ->> 'eventstore.owner' AS user_id
          FROM events e
         WHERE e.version = 1
           AND e.metadata ? 'eventstore.owner'
    ),
    shared AS (
        SELECT DISTINCT ON (e.tenant_id, e.conversation_id, e.content ->> 'user')
               e.tenant_id, e.conversation_id, e.content ->> 'user' AS user_id, e.content ->> 'access' AS access,
               e.event_type
          FROM events e
         WHERE e.event_type IN ('conversation.shared', 'conversation.unshared')
           AND e.content ? 'user'  -- unless it was erased
         ORDER BY e.tenant_id, e.conversation_id, e.content ->> 'user', e.version DESC
    )
    SELECT o.tenant_id, o.conversation_id, o.user_id, 'own' FROM owners o
     UNION ALL
    SELECT s.tenant_id, s.conversation_id, s.user_id, s.access
      FROM shared s
     WHERE s.event_type = 'conversation.shared'
       AND NOT EXISTS (
               SELECT
                 FROM owners o
                WHERE o.tenant_id = s.tenant_id AND o.conversation_id = s.conversation_id AND o.user_id = s.user_id
           );
END;

SELECT eventstore_set_owner('FUNCTION members_of_log');
REVOKE ALL ON FUNCTION members_of_log FROM PUBLIC;

-- file: members/members_of.sql
-- The users who may see a conversation, for callers who may see it themselves.
CREATE FUNCTION members_of(conversation uuid) RETURNS TABLE (user_id text, access text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT m.user_id, m.access
      FROM conversation_members m
     WHERE m.tenant_id = (SELECT current_tenant())
       AND m.conversation_id = members_of.conversation
       AND ((SELECT current_tenant_user()) IS NULL
            OR EXISTS (
                   SELECT
                     FROM conversation_members own
                    WHERE own.tenant_id = (SELECT current_tenant())
                      AND own.conversation_id = members_of.conversation
                      AND own.user_id = (SELECT current_tenant_user())
               ))
     ORDER BY m.access = 'own' DESC, m.user_id;
END;

SELECT eventstore_set_owner('FUNCTION members_of');
REVOKE ALL ON FUNCTION members_of FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION members_of', 'eventstore_eraser', 'eventstore_reader');

-- file: members/differing_members.sql
-- The members of all tenants that differ from those of the log; null if one of the two does not have the user.
CREATE FUNCTION differing_members() RETURNS TABLE (tenant_id text, conversation_id uuid, user_id text, expected text, found text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT coalesce(l.tenant_id, m.tenant_id), coalesce(l.conversation_id, m.conversation_id),
           coalesce(l.user_id, m.user_id), l.access, m.access
      FROM members_of_log() AS l
      FULL JOIN conversation_members m
        ON m.tenant_id = l.tenant_id
       AND m.conversation_id = l.conversation_id
       AND m.user_id = l.user_id
     WHERE m.access IS DISTINCT FROM l.access;
END;

SELECT eventstore_set_owner('FUNCTION differing_members');
REVOKE ALL ON FUNCTION differing_members FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION differing_members', 'eventstore_projector');

-- file: append/event_digest.sql
-- The digest of an event. Its byte format never changes: docs/concepts/digest.md documents it, with test vectors.
--
-- array_send writes the texts as the format has them, each after its length, behind a header of 20 bytes. So each text is
-- rendered and copied once, and the planner can replace a call by the expression.
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
LANGUAGE sql STABLE PARALLEL SAFE
RETURN sha256(
    salt
    || int8send("position")
    || timestamptz_send("timestamp")
    || int4send(version)
    || int2send(schema_version)
    || uuid_send(conversation_id)
    || uuid_send(id)
    || substr(array_send(ARRAY[
           convert_to(tenant_id, 'UTF8'), convert_to(event_type, 'UTF8'), convert_to(actor, 'UTF8'),
           convert_to(content::text, 'UTF8'), convert_to(metadata::text, 'UTF8')
       ]), 21)
);

SELECT eventstore_set_owner('FUNCTION event_digest');

-- file: append/conversation_lock_key.sql
-- The key of the advisory lock of a conversation. Its low four bits are the conversation's partition, by which
-- lowest_append_in_flight tells the partitions that an append writes to. Keys can collide: then two conversations of one
-- partition share a lock.
CREATE FUNCTION conversation_lock_key(tenant_id text, conversation_id uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN uuid_hash_extended(conversation_id, hashtextextended(tenant_id, 0)) & ~15::bigint
       | partition_of(conversation_id);

SELECT eventstore_set_owner('FUNCTION conversation_lock_key');

-- file: append/event_differences.sql
-- The members in which an event differs from the one that is stored under its id; null if they are the same. The owner
-- in the metadata counts only if the caller names it, not if the append adds it (see append_group). The trace context
-- does not count: it describes the request that brought the event, and a repetition is another request.
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
    user_id               text
) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
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

SELECT eventstore_set_owner('FUNCTION event_differences');

-- file: append/event_timestamp.sql
-- The timestamp of an event that follows one with the timestamp previous, null if none: now, but not before it, if the
-- server's clock steps back by up to a minute, as a correction of the time or another server with another clock does. A
-- clock that was further ahead was wrong: the events that follow must not be dated by it.
CREATE FUNCTION event_timestamp(previous timestamptz) RETURNS timestamptz
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN CASE
    WHEN previous > clock_timestamp() AND previous <= clock_timestamp() + interval '1 minute' THEN previous
    ELSE clock_timestamp()
END;

SELECT eventstore_set_owner('FUNCTION event_timestamp');

-- file: append/append_verdicts.sql
-- The slow path of append_group, which has taken the locks and explains the outcomes: give each event a verdict, and append
-- those that are accepted.
CREATE FUNCTION append_verdicts(
    tenant_ids        text[],     -- for each conversation
    conversation_ids  uuid[],
    expected_versions integer[],
    busy              bigint[],   -- the numbers of the conversations that are locked
    append_nos        integer[],  -- for each event
    conversation_nos  integer[],
    event_ids         uuid[],
    event_types       text[],
    schema_versions   smallint[],
    actors            text[],
    contents          jsonb[],
    metadatas         jsonb[],
    users             text[],
    OUT outcomes      "char"[],
    OUT positions     bigint[],
    OUT versions      integer[],
    OUT timestamps    timestamptz[],
    OUT problems      text[]
)
LANGUAGE plpgsql VOLATILE AS $$
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

SELECT eventstore_set_owner('FUNCTION append_verdicts');
REVOKE ALL ON FUNCTION append_verdicts FROM PUBLIC;

-- file: append/append_group.sql
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

-- file: append/append_one.sql
-- Append one event to one conversation, if it is plain: new, accepted, and neither one that shares the conversation nor
-- one that refers to files. Otherwise, and if it has to wait for the conversation, append_group appends it or finds the
-- reason.
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
    lock_wait_ms     integer,
    user_id          text,
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

SELECT eventstore_set_owner('FUNCTION append_one');
REVOKE ALL ON FUNCTION append_one FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION append_one', 'eventstore_writer');

-- file: append/append_events.sql
-- Append events, for callers in SQL (the library calls append_one and append_group): to one or several
-- conversations, all of them or none, in a transaction that has set the tenant and the user (current_tenant,
-- current_tenant_user). It raises errors instead of returning outcomes.
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
-- A plan that was made while the log was short must also serve when it is long, and planning each call would take
-- several times as long as the append. Before PostgreSQL 18, enable_seqscan = off makes reading a sequence look so
-- expensive that the query would be JIT-compiled in each call. (The connections of the library set this once, because a
-- SET for each call of append_one would take a fifth of its time.)
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off
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

SELECT eventstore_set_owner('FUNCTION append_events');
REVOKE ALL ON FUNCTION append_events FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION append_events', 'eventstore_writer');

-- file: administration/record_administrative_act.sql
-- Record an administrative act in the transaction of the act, as an event of the conversation administration_id(); return
-- its position.
--
-- tenant_id: the tenant that the act concerns; null for the whole system, whose acts are those of a tenant of its own.
-- act: what was done, such as key_revoked, which makes an event of the type eventstore.key_revoked.
-- details: a JSON object.
-- reason, actor: why and who; by default what the settings eventstore.reason and eventstore.actor say. Without an actor
-- it is the login of the session, which the metadata names in any case, with the program (eventstore.via).
--
-- Until the transaction ends, the horizon stays below the event, and other acts of the tenant wait: call it last. It
-- appends as append_one does (see there and docs/concepts/order.md), for sessions that may not append, such as the
-- projector's.
CREATE FUNCTION record_administrative_act(
    tenant_id text,
    act       text,
    details   jsonb DEFAULT '{}',
    reason    text DEFAULT NULL,
    actor     text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
$$;

SELECT eventstore_set_owner('FUNCTION record_administrative_act');
REVOKE ALL ON FUNCTION record_administrative_act FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION record_administrative_act', 'eventstore_app', 'eventstore_projector');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION record_administrative_act;
DROP FUNCTION append_events;
DROP FUNCTION append_one;
DROP FUNCTION append_group;
DROP FUNCTION append_verdicts;
DROP FUNCTION event_timestamp;
DROP FUNCTION event_differences;
DROP FUNCTION conversation_lock_key;
DROP FUNCTION event_digest;
DROP FUNCTION differing_members;
DROP FUNCTION members_of;
DROP FUNCTION members_of_log;
DROP FUNCTION may_append;
DROP FUNCTION share_conversation;
DROP FUNCTION validate_event;
DROP FUNCTION validate_metadata;
DROP FUNCTION validate_sharing;
DROP FUNCTION validate_task;
DROP FUNCTION validate_conversation;
DROP FUNCTION validate_message;
DROP FUNCTION json_member_is_uuid;
DROP FUNCTION json_member_is_text;
DROP FUNCTION optional_json_member_is;
DROP FUNCTION administration_id;
DROP FUNCTION conversation_uuid;
DROP FUNCTION sha1;
