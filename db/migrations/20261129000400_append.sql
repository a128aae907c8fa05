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

-- file: validation/validate_given_id.sql
-- What is invalid in the conversation of an event, or in the given_id that it states for it; null if both are valid. A
-- given_id that belongs to another conversation would lead readers there.
CREATE FUNCTION validate_given_id(tenant_id text, conversation_id uuid, event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN conversation_id = administration_id()
        THEN 'its conversation is that of administrative acts, which record_administrative_act alone appends'
    WHEN event_type = 'conversation.created' AND conversation_uuid(tenant_id, content ->> 'given_id') <> conversation_id
        THEN 'given_id is the name of another conversation'
END;

SELECT eventstore_set_owner('FUNCTION validate_given_id');

-- file: validation/optional_json_member_is.sql
-- Whether a member of a JSON object is absent or of a type.
CREATE FUNCTION optional_json_member_is(object jsonb, member text, type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(jsonb_typeof(object -> member) = type, true);

SELECT eventstore_set_owner('FUNCTION optional_json_member_is');

-- file: validation/json_member_is_text.sql
-- Whether a member of a JSON object is a string of at most so many characters.
CREATE FUNCTION json_member_is_text(object jsonb, member text, longest integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(jsonb_typeof(object -> member) = 'string' AND char_length(object ->> member) <= longest, false);

SELECT eventstore_set_owner('FUNCTION json_member_is_text');

-- file: validation/json_member_is_uuid.sql
-- Whether a member of a JSON object is a UUID as PostgreSQL prints one.
CREATE FUNCTION json_member_is_uuid(object jsonb, member text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(object ->> member ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$', false);

SELECT eventstore_set_owner('FUNCTION json_member_is_uuid');

-- file: validation/validate_message.sql
-- What is invalid in the content of a message; null if it is valid.
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
-- What is invalid in the content of an event of a conversation; null if it is valid.
CREATE FUNCTION validate_conversation(event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is not an object'
    WHEN event_type = 'conversation.created' AND NOT optional_json_member_is(content, 'given_id', 'string')
        THEN 'given_id is not a string'
    WHEN event_type <> 'conversation.renamed' AND NOT optional_json_member_is(content, 'metadata', 'object')
        THEN 'metadata is not an object'
    WHEN (content ? 'name' OR event_type = 'conversation.renamed') AND NOT json_member_is_text(content, 'name', 255)
        THEN 'name is not a string of at most 255 characters'
    WHEN event_type = 'conversation.forked' AND NOT (
             json_member_is_uuid(content, 'source_conversation_id')
             AND coalesce(jsonb_typeof(content -> 'source_version') = 'number', false))
        THEN 'source_conversation_id is not a UUID, or source_version is not a number'
    WHEN event_type = 'conversation.rewound' AND NOT (
             coalesce(content ->> 'to_version' ~ '^[0-9]{1,9}$', false)
             AND coalesce(content ->> 'message_count' ~ '^[0-9]{1,9}$', false))
        THEN 'to_version or message_count is not a number from 0 to 999,999,999'
END;

SELECT eventstore_set_owner('FUNCTION validate_conversation');

-- file: validation/validate_task.sql
-- What is invalid in the content of an event of a task; null if it is valid.
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
-- What is invalid in the content of an event that shares or unshares a conversation; null if it is valid.
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
-- What is invalid in the metadata of an event; null if it is valid.
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
-- What is invalid in an event; null if it is valid. No valid event can fail in a projection, whatever client and
-- version sent it, because the log keeps it for ever. In PL/pgSQL, which prepares only the expressions that it reaches:
-- as a single expression, the preparation alone would cost half as much as the rest of an append.
CREATE FUNCTION validate_event(event_type text, content jsonb, metadata jsonb) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    problem text;
BEGIN
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
        RETURN validate_conversation(event_type, content);
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

-- file: members/add_owner.sql
-- Make a user the owner of a conversation.
CREATE FUNCTION add_owner(tenant_id text, conversation_id uuid, user_id text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
BEGIN
    INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
    VALUES (tenant_id, conversation_id, user_id, 'own')
        ON CONFLICT ON CONSTRAINT conversation_members_pkey DO UPDATE SET access = 'own';
END
$$;

SELECT eventstore_set_owner('FUNCTION add_owner');
REVOKE ALL ON FUNCTION add_owner FROM PUBLIC;

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

-- file: append/digest_text.sql
-- The bytes of a text in a digest: its length in bytes, four bytes big-endian, then the text in UTF-8.
CREATE FUNCTION digest_text(value text) RETURNS bytea
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN int4send(octet_length(value)) || convert_to(value, 'UTF8');

SELECT eventstore_set_owner('FUNCTION digest_text');

-- file: append/rendered_event_digest.sql
-- The digest of an event, of which content and metadata are canonical JSON texts already (content::text). The planner
-- replaces a call by this expression, in which each text occurs twice; so an append renders its JSON once.
CREATE FUNCTION rendered_event_digest(
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
    content         text,
    metadata        text
) RETURNS bytea
LANGUAGE sql STABLE STRICT PARALLEL SAFE
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
    || digest_text(content)
    || digest_text(metadata)
);

SELECT eventstore_set_owner('FUNCTION rendered_event_digest');

-- file: append/event_digest.sql
-- The digest of an event. Its byte format never changes: docs/concepts/digest.md documents it, with test vectors.
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
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN rendered_event_digest(
    salt, "position", "timestamp", version, schema_version, conversation_id, id, tenant_id, event_type, actor,
    content::text, metadata::text
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

-- file: append/limit_lock_wait.sql
-- Limit each wait for a lock in the rest of the transaction (then SQLSTATE 55P03); a negative number keeps the limit of
-- the session.
CREATE FUNCTION limit_lock_wait(milliseconds integer) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF milliseconds > 0 THEN
        PERFORM set_config('lock_timeout', milliseconds::text, true);
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION limit_lock_wait');
REVOKE ALL ON FUNCTION limit_lock_wait FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION limit_lock_wait', 'eventstore_eraser');

-- file: append/event_differences.sql
-- The members in which an event differs from the one that is stored under its id; null if they are the same. The owner
-- in the metadata counts only if the caller names it, not if the append adds it (see append_one). The trace context
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

-- file: append/await_durability.sql
-- Make the commit of a transaction that changes nothing durable, for an event that is stored already: the transaction
-- that stored it may be committed here and not yet on a synchronous standby, if its backend was ended while it waited.
-- A transaction that writes any record to the WAL is flushed and waits for the standby (see docs/concepts/order.md).
CREATE FUNCTION await_durability() RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_logical_emit_message(true, 'eventstore', '');
END
$$;

SELECT eventstore_set_owner('FUNCTION await_durability');
REVOKE ALL ON FUNCTION await_durability FROM PUBLIC;

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

-- file: append/append_one.sql
-- Append one event to one conversation: append_group without the cost of sets, if the event is new and accepted.
-- Otherwise append_group finds the outcome.
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
    head           record;
    is_plain       boolean;
    salt           bytea;
    content_text   text;
    metadata_text  text;
    allowed_tenant text;
    must_notify    boolean;
BEGIN
    IF num_nulls(tenant_id, conversation_id, expected_version, event_id, event_type, schema_version, actor, content,
                 metadata, lock_wait_ms, user_id) > 0 THEN
        RAISE EXCEPTION 'an argument of the append is null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    allowed_tenant := append_tenant();
    IF allowed_tenant <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    problem := coalesce(validate_event(event_type, content, metadata),
                        validate_given_id(tenant_id, conversation_id, event_type, content));
    IF problem IS NOT NULL THEN
        outcome := 'r';
        RETURN;
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        -- An acknowledged event is durable, whatever the session prefers.
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    IF lock_wait_ms <> 0 THEN
        PERFORM limit_lock_wait(lock_wait_ms);
        PERFORM pg_advisory_xact_lock(conversation_lock_key(tenant_id, conversation_id));
    ELSIF NOT pg_try_advisory_xact_lock(conversation_lock_key(tenant_id, conversation_id)) THEN
        outcome := 'b';
        RETURN;
    END IF;
    must_notify := register_append();

    -- From here on each statement sees everything that was committed to this conversation.
    SELECT h.version, h.timestamp, h.event_type,
           (SELECT (k.tenant_id, k.conversation_id, k.id)
                   = (append_one.tenant_id, append_one.conversation_id, append_one.event_id)
              FROM events k
             WHERE (k.tenant_id, k.conversation_id, k.id)
                   >= (append_one.tenant_id, append_one.conversation_id, append_one.event_id)
             ORDER BY k.tenant_id, k.conversation_id, k.id
             LIMIT 1) AS is_known
      INTO head
      FROM (SELECT e.tenant_id, e.conversation_id, e.version, e.timestamp, e.event_type
              FROM events e
             WHERE (e.tenant_id, e.conversation_id, e.version)
                   <= (append_one.tenant_id, append_one.conversation_id, 2147483647)
             ORDER BY e.tenant_id DESC, e.conversation_id DESC, e.version DESC
             LIMIT 1) AS h
     WHERE h.tenant_id = append_one.tenant_id
       AND h.conversation_id = append_one.conversation_id;
    version := coalesce(head.version, 0);
    is_plain := CASE expected_version WHEN -2 THEN true WHEN -1 THEN version > 0 ELSE expected_version = version END
                AND head.is_known IS NOT TRUE
                AND CASE WHEN may_be_deleted(head.event_type) THEN NOT conversation_is_deleted(tenant_id, conversation_id)
                         ELSE true
                    END;
    IF is_plain AND version > 0 AND user_id <> '' THEN
        is_plain := EXISTS (SELECT FROM may_append(tenant_id, conversation_id, user_id, event_type));
    END IF;
    IF NOT is_plain THEN
        -- Under the locks that are held, so this finds the same.
        SELECT g.outcome, g.position, g.version, g.timestamp, g.problem
          INTO outcome, position, version, timestamp, problem
          FROM append_group(
                   ARRAY[tenant_id], ARRAY[conversation_id], ARRAY[expected_version], ARRAY[1], ARRAY[1],
                   ARRAY[event_id], ARRAY[event_type], ARRAY[schema_version], ARRAY[actor], ARRAY[content],
                   ARRAY[metadata], ARRAY[user_id], lock_wait_ms
               ) AS g;
        RETURN;
    END IF;

    outcome := 'n';
    position := nextval('events_position');
    version := version + 1;
    timestamp := event_timestamp(head.timestamp);
    salt := uuid_send(gen_random_uuid());
    IF version = 1 THEN
        -- The log records the owner. Only an append for the whole tenant (a restored backup) may name another user.
        IF user_id <> '' THEN
            metadata := metadata || jsonb_build_object('eventstore.owner', user_id);
        END IF;
        IF metadata ? 'eventstore.owner' THEN
            PERFORM add_owner(tenant_id, conversation_id, metadata ->> 'eventstore.owner');
        END IF;
    END IF;
    content_text := content::text;
    metadata_text := metadata::text;
    INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                        event_type, actor, content, metadata, salt, digest)
    VALUES (position, timestamp, version, schema_version, conversation_id, event_id, tenant_id,
            event_type, actor, content, metadata, salt,
            rendered_event_digest(salt, position, timestamp, version, schema_version, conversation_id, event_id,
                                  tenant_id, event_type, actor, content_text, metadata_text));
    IF event_type IN ('conversation.shared', 'conversation.unshared') THEN
        PERFORM share_conversation(tenant_id, conversation_id, event_type, content);
    END IF;
    IF must_notify THEN
        PERFORM pg_notify(notify_channel(), '');
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION append_one');
REVOKE ALL ON FUNCTION append_one FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION append_one', 'eventstore_writer');

-- file: append/append_events.sql
-- Append events to one or several conversations, all of them or none, in a transaction that has set the tenant and the
-- user (current_tenant, current_tenant_user). It raises errors instead of returning outcomes.
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
        SELECT g.outcome, g.position, g.version, g.timestamp, g.problem, g.ordinality::integer AS ordinal
          FROM append_group(
                   tenant_ids, conversation_ids, expected_versions,
                   array_fill(1, ARRAY[cardinality(conversation_nos)]), conversation_nos, event_ids, event_types,
                   schema_versions, actors, contents, metadatas,
                   array_fill(coalesce(current_tenant_user(), ''), ARRAY[cardinality(conversation_nos)]), -1
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

SELECT eventstore_set_owner('FUNCTION append_events');
REVOKE ALL ON FUNCTION append_events FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION append_events', 'eventstore_writer');

-- file: append/append_verdicts.sql
-- The verdict on each event of a group that append_group does not find plain. The caller holds the locks of all
-- conversations but the busy ones, and has found the versions of all of them; the codes are those of append_group.
CREATE FUNCTION append_verdicts(
    tenant_ids        text[],     -- for each conversation
    conversation_ids  uuid[],
    expected_versions integer[],
    head_versions     integer[],
    busy              bigint[],   -- the numbers of the busy ones
    append_nos        integer[],  -- for each event
    conversation_nos  integer[],
    event_ids         uuid[],
    event_types       text[],
    schema_versions   smallint[],
    actors            text[],
    contents          jsonb[],
    metadatas         jsonb[],
    users             text[]
) RETURNS TABLE (ordinal bigint, code text, "position" bigint, version integer, "timestamp" timestamptz, problem text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH checked AS (
        SELECT n.ordinal, n.append_no, n.problem, compared.differences, h.version AS head,
               known.position, known.version, known.timestamp,
               CASE
                   WHEN n.problem IS NOT NULL THEN 'r'
                   WHEN n.conversation_no = ANY (busy) THEN 'b'
                   WHEN n.user_id <> '' AND h.version > 0
                        AND NOT EXISTS (SELECT FROM may_append(h.tenant_id, h.conversation_id, n.user_id, n.event_type))
                       THEN 'f'
                   WHEN compared.differences IS NOT NULL THEN 'i'
                   WHEN known.position IS NOT NULL THEN 'k'
                   WHEN NOT deleted_conversation_accepts(n.event_type)
                        -- The last change that this append adds before it, otherwise the state of the log.
                        AND coalesce((
                                SELECT b.event_type = 'conversation.deleted'
                                  FROM unnest(conversation_nos, event_types, event_ids) WITH ORDINALITY
                                           AS b (conversation_no, event_type, id, ordinal)
                                 WHERE b.event_type IN ('conversation.deleted', 'conversation.reactivated')
                                   AND b.conversation_no = n.conversation_no
                                   AND b.ordinal < n.ordinal
                                   AND NOT EXISTS (
                                           SELECT
                                             FROM events e
                                            WHERE e.tenant_id = h.tenant_id
                                              AND e.conversation_id = h.conversation_id
                                              AND e.id = b.id
                                       )
                                 ORDER BY b.ordinal DESC
                                 LIMIT 1
                            ), h.is_deleted) THEN 'd'
                   WHEN CASE h.expected
                            WHEN -2 THEN false
                            WHEN -1 THEN h.version = 0
                            ELSE h.expected <> h.version
                        END THEN 'v'
                   ELSE 'n'
               END AS code
          FROM (SELECT e.*,
                       coalesce(validate_event(e.event_type, e.content, e.metadata),
                                validate_given_id(tenant_ids[e.conversation_no], conversation_ids[e.conversation_no],
                                                  e.event_type, e.content)) AS problem
                  FROM unnest(append_nos, conversation_nos, event_ids, event_types, schema_versions, actors, contents,
                              metadatas, users)
                           WITH ORDINALITY
                           AS e (append_no, conversation_no, id, event_type, schema_version, actor, content, metadata,
                                 user_id, ordinal)
                OFFSET 0) AS n
          -- An event whose number names no conversation must not get lost: without a tenant the insertion fails.
          LEFT JOIN (SELECT c.*, c.version > 0 AND conversation_is_deleted(c.tenant_id, c.conversation_id) AS is_deleted
                       FROM unnest(tenant_ids, conversation_ids, expected_versions, head_versions)
                                WITH ORDINALITY AS c (tenant_id, conversation_id, expected, version, no)
                     OFFSET 0) AS h
            ON h.no = n.conversation_no
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
                              n.event_type, n.schema_version, n.actor, n.content, n.metadata, n.user_id
                          ) END AS differences
               ) AS compared
        OFFSET 0
    )
    -- Of a busy or forbidden conversation, nothing is returned.
    SELECT c.ordinal,
           CASE
               WHEN c.code = 'n' AND NOT bool_and(c.code IN ('n', 'k')) OVER (PARTITION BY c.append_no) THEN 'x'
               ELSE c.code
           END,
           CASE WHEN c.code IN ('k', 'i') THEN c.position END,
           CASE WHEN c.code IN ('k', 'i') THEN c.version WHEN c.code = 'v' THEN c.head END,
           CASE WHEN c.code IN ('k', 'i') THEN c.timestamp END,
           CASE c.code WHEN 'r' THEN c.problem WHEN 'i' THEN c.differences END
      FROM checked c;
END;

SELECT eventstore_set_owner('FUNCTION append_verdicts');
REVOKE ALL ON FUNCTION append_verdicts FROM PUBLIC;

-- file: append/append_group.sql
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
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
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
            rendered_event_digest(salt, position, timestamp, coalesce(head.version, 0) + 1, 1::smallint,
                                  administration_id(), id, tenant, type, actor, content::text, metadata::text));
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
DROP FUNCTION append_group;
DROP FUNCTION append_verdicts;
DROP FUNCTION append_events;
DROP FUNCTION append_one;
DROP FUNCTION event_timestamp;
DROP FUNCTION await_durability;
DROP FUNCTION event_differences;
DROP FUNCTION limit_lock_wait;
DROP FUNCTION conversation_lock_key;
DROP FUNCTION event_digest;
DROP FUNCTION rendered_event_digest;
DROP FUNCTION digest_text;
DROP FUNCTION differing_members;
DROP FUNCTION members_of;
DROP FUNCTION members_of_log;
DROP FUNCTION may_append;
DROP FUNCTION share_conversation;
DROP FUNCTION add_owner;
DROP FUNCTION validate_event;
DROP FUNCTION validate_metadata;
DROP FUNCTION validate_sharing;
DROP FUNCTION validate_task;
DROP FUNCTION validate_conversation;
DROP FUNCTION validate_message;
DROP FUNCTION json_member_is_uuid;
DROP FUNCTION json_member_is_text;
DROP FUNCTION optional_json_member_is;
DROP FUNCTION validate_given_id;
DROP FUNCTION administration_id;
DROP FUNCTION conversation_uuid;
DROP FUNCTION sha1;
