-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Who may see and write a conversation. Written by the append functions in the transaction of the append, and by nothing
-- else, so that what was shared or taken back holds from the instant in which the append returns. It can be made anew from
-- the log (members_of_log).
CREATE TABLE conversation_members (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    user_id         varchar(255) COLLATE "C" NOT NULL,
    access          text COLLATE "C" NOT NULL,
    CONSTRAINT conversation_members_pkey PRIMARY KEY (tenant_id, conversation_id, user_id),
    CONSTRAINT conversation_members_access_check CHECK (access IN ('own', 'write', 'read')),
    CONSTRAINT conversation_members_user_check CHECK (user_id <> '')
);

CREATE INDEX idx_conversation_members_user_id ON conversation_members (tenant_id, user_id, conversation_id);

COMMENT ON TABLE conversation_members IS 'Who may see and write a conversation; written by the append functions alone';
COMMENT ON COLUMN conversation_members.access IS 'own: also share and delete; write: also append; read';

SELECT eventstore_own('TABLE conversation_members');

-- Makes the user for whom a conversation began its owner.
CREATE FUNCTION own_conversation(tenant_id text, conversation_id uuid, user_id text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
BEGIN
    INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
    VALUES (tenant_id, conversation_id, user_id, 'own')
        ON CONFLICT ON CONSTRAINT conversation_members_pkey DO UPDATE SET access = 'own';
END
$$;

-- Applies an event conversation.shared or conversation.unshared. The owner stays what he is.
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

-- Whether somebody may append such an event to a conversation that exists.
CREATE FUNCTION may_append(tenant_id text, conversation_id uuid, user_id text, event_type text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (
        SELECT
          FROM conversation_members m
         WHERE m.tenant_id = may_append.tenant_id
           AND m.conversation_id = may_append.conversation_id
           AND m.user_id = may_append.user_id
           AND (m.access = 'own'
                OR m.access = 'write'
                   AND may_append.event_type NOT IN ('conversation.shared', 'conversation.unshared', 'conversation.deleted'))
    );
END
$$;

-- The members as the log gives them: who is named as the owner by the first event of a conversation, and with whom it was
-- shared since.
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

-- What is wrong with an event by which a conversation is shared, or no longer shared, with a user.
CREATE FUNCTION sharing_problem(event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is no object'
    WHEN NOT (member_is_text(content, 'user', 255) AND content ->> 'user' <> '')
        THEN 'user is no text of 1 to 255 characters'
    WHEN event_type = 'conversation.shared' AND NOT coalesce(content -> 'access' IN ('"read"', '"write"'), false)
        THEN 'access is neither read nor write'
END;

CREATE OR REPLACE FUNCTION metadata_problem(metadata jsonb) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN NOT coalesce(jsonb_typeof(metadata) = 'object'
                      AND member_is(metadata, 'correlation_id', 'string')
                      AND member_is(metadata, 'causation_id', 'string')
                      AND member_is(metadata, 'traceparent', 'string'), false)
        THEN 'its metadata is no object, or an id in it no text'
    WHEN metadata ? 'eventstore.owner'
         AND NOT (member_is_text(metadata, 'eventstore.owner', 255) AND metadata ->> 'eventstore.owner' <> '')
        THEN 'its metadata."eventstore.owner" is no text of 1 to 255 characters'
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

CREATE OR REPLACE FUNCTION event_problem(event_type text, content jsonb, metadata jsonb) RETURNS text
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
    ELSIF event_type IN ('conversation.shared', 'conversation.unshared') THEN
        RETURN sharing_problem(event_type, content);
    END IF;
    RETURN NULL;
END
$$;

SELECT eventstore_own('FUNCTION ' || f)
  FROM unnest(ARRAY['own_conversation(text, uuid, text)', 'share_conversation(text, uuid, text, jsonb)',
                    'may_append(text, uuid, text, text)', 'members_of_log()', 'sharing_problem(text, jsonb)']) AS f;
REVOKE ALL ON FUNCTION own_conversation(text, uuid, text), share_conversation(text, uuid, text, jsonb),
                       may_append(text, uuid, text, text), members_of_log(), sharing_problem(text, jsonb)
    FROM PUBLIC;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

CREATE OR REPLACE FUNCTION event_problem(event_type text, content jsonb, metadata jsonb) RETURNS text
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

CREATE OR REPLACE FUNCTION metadata_problem(metadata jsonb) RETURNS text
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

DROP FUNCTION sharing_problem(text, jsonb);
DROP FUNCTION members_of_log();
DROP FUNCTION may_append(text, uuid, text, text);
DROP FUNCTION share_conversation(text, uuid, text, jsonb);
DROP FUNCTION own_conversation(text, uuid, text);
DROP TABLE conversation_members;
