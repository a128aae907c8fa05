-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- The read tables. Derived from events by the projections, one .sql file each in projections/; they can be emptied
-- and refilled at any time. No foreign keys among them: a projection may run ahead of another.

CREATE TABLE conversations (
    id            uuid NOT NULL,
    tenant_id     varchar(255) COLLATE "C" NOT NULL,
    name          varchar(255) NOT NULL DEFAULT '',
    is_active     boolean NOT NULL DEFAULT true,
    is_deleted    boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at    timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    message_count integer NOT NULL DEFAULT 0,
    version       integer NOT NULL,
    given_id      text,
    forked_from   jsonb,
    metadata      jsonb,
    member_order  jsonb,
    CONSTRAINT conversations_pkey PRIMARY KEY (tenant_id, id)
);

CREATE INDEX idx_conversations_id ON conversations (id);
CREATE INDEX idx_conversations_updated_at ON conversations (updated_at DESC);

COMMENT ON COLUMN conversations.given_id IS 'The id as the client gave it, where that was not a UUID';
COMMENT ON COLUMN conversations.member_order IS
    'Order of the members in the values of other columns, by column: see eventstore/memberorder.py; jsonb keeps none';
COMMENT ON COLUMN conversations.version IS 'Version of the last event that this row holds';

CREATE TABLE messages (
    id              uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    version         integer NOT NULL,
    role            varchar(50) NOT NULL,
    content         text NOT NULL,
    parts           jsonb,
    created_at      timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    actor           varchar(255) NOT NULL DEFAULT '',
    given_id        text,
    extra           jsonb,
    metadata        jsonb,
    member_order    jsonb,
    CONSTRAINT messages_pkey PRIMARY KEY (tenant_id, conversation_id, id)
);

CREATE INDEX idx_messages_id ON messages (id);
CREATE INDEX idx_messages_conversation_id ON messages (conversation_id, version);
CREATE INDEX idx_messages_created_at ON messages (created_at DESC);

COMMENT ON COLUMN messages.content IS 'The text; that of the parts where the message was sent as parts';
COMMENT ON COLUMN messages.member_order IS 'As in conversations; "sent" is that of the message itself';
COMMENT ON COLUMN messages.extra IS 'Members of the message as sent that no other column gives back';

CREATE TABLE tasks (
    id              uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    version         integer NOT NULL,
    status          varchar(50) NOT NULL,
    description     text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at      timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    given_id        text,
    status_message  jsonb,
    metadata        jsonb,
    member_order    jsonb,
    CONSTRAINT tasks_pkey PRIMARY KEY (tenant_id, conversation_id, id)
);

CREATE INDEX idx_tasks_id ON tasks (id);
CREATE INDEX idx_tasks_conversation_id ON tasks (conversation_id);

COMMENT ON COLUMN tasks.member_order IS 'As in conversations';
COMMENT ON COLUMN tasks.version IS 'Version of the last event that this row holds';

-- Chunks of artifacts are rows, not a growing JSON value.
CREATE TABLE task_artifacts (
    task_id         uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    version         integer NOT NULL,
    artifact_id     text NOT NULL,
    extends         boolean NOT NULL,
    last_chunk      boolean NOT NULL,
    name            text,
    description     text,
    parts           jsonb NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    extra           jsonb,
    metadata        jsonb,
    member_order    jsonb,
    CONSTRAINT task_artifacts_pkey PRIMARY KEY (tenant_id, conversation_id, version)
);

COMMENT ON COLUMN task_artifacts.member_order IS 'As in conversations';

CREATE INDEX idx_task_artifacts_task_id ON task_artifacts (task_id, version);

-- Up to where each projection has applied the log, for each share of the conversations.
CREATE TABLE checkpoints (
    projection text COLLATE "C" NOT NULL,
    share      smallint NOT NULL,
    position   bigint NOT NULL DEFAULT 0,
    source     text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT checkpoints_pkey PRIMARY KEY (projection, share),
    CONSTRAINT checkpoints_share_check CHECK (share BETWEEN 0 AND 15)
);

COMMENT ON COLUMN checkpoints.source IS 'SHA-256 of the text of the projection that made the rows';

-- The part of the conversations that one worker follows, 0 to 15. For good: checkpoints are kept by it.
CREATE FUNCTION share_of(conversation_id uuid) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (uuid_hash(conversation_id) & 15)::smallint;

-- The text of a message made of parts: that of its text parts, a line each; null where it has none.
CREATE FUNCTION text_of_parts(parts jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT string_agg(p.part ->> 'text', E'\n' ORDER BY p.ordinal)
      FROM jsonb_array_elements(
               CASE WHEN jsonb_typeof(text_of_parts.parts) = 'array' THEN text_of_parts.parts END
           ) WITH ORDINALITY AS p (part, ordinal)
     WHERE jsonb_typeof(p.part -> 'text') = 'string';
END;

-- When an event happened, as far as anybody said; otherwise when the log took it.
CREATE FUNCTION occurred_at(metadata jsonb, "timestamp" timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce((metadata ->> 'occurred_at')::timestamptz, "timestamp");

-- Opens a batch in the caller's transaction: locks the projection's checkpoints, so that of two workers one waits, and
-- fixes the range of positions that the relation "batch" shows. No row: there is nothing to apply.
CREATE FUNCTION begin_batch(projection text, size integer) RETURNS TABLE (lower_position bigint, upper_position bigint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
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

SELECT eventstore_own('TABLE ' || t),
       eventstore_grant(format('SELECT ON TABLE %I', t), 'eventstore_app'),
       eventstore_grant(format('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE %I', t), 'eventstore_projector')
  FROM unnest(ARRAY['conversations', 'messages', 'tasks', 'task_artifacts', 'checkpoints']) AS t;
SELECT eventstore_own('FUNCTION share_of(uuid)');
SELECT eventstore_own('FUNCTION text_of_parts(jsonb)');
SELECT eventstore_own('FUNCTION occurred_at(jsonb, timestamptz)');
SELECT eventstore_own('FUNCTION begin_batch(text, integer)');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION begin_batch(text, integer);
DROP FUNCTION occurred_at(jsonb, timestamptz);
DROP FUNCTION text_of_parts(jsonb);
DROP FUNCTION share_of(uuid);
DROP TABLE checkpoints;
DROP TABLE task_artifacts;
DROP TABLE tasks;
DROP TABLE messages;
DROP TABLE conversations;
