-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Read tables exist in stages: the live ones that everybody reads, the next ones that a rebuild fills beside them, and
-- the previous ones that a rebuild has replaced and that can be taken back. Each stage has checkpoints of its own.
ALTER TABLE checkpoints
    ADD COLUMN stage text COLLATE "C" NOT NULL DEFAULT 'live',
    ADD CONSTRAINT checkpoints_stage_check CHECK (stage IN ('live', 'next', 'previous')),
    DROP CONSTRAINT checkpoints_pkey,
    ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (projection, stage, share);

CREATE TABLE projection_texts (
    projection text COLLATE "C" NOT NULL,
    stage      text COLLATE "C" NOT NULL,
    source     text NOT NULL,
    text       text,
    tables     text[] NOT NULL,
    made_at    timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT projection_texts_pkey PRIMARY KEY (projection, stage),
    CONSTRAINT projection_texts_stage_check CHECK (stage IN ('live', 'next', 'previous'))
);

COMMENT ON TABLE projection_texts IS 'By which text the tables of a stage are made';
COMMENT ON COLUMN projection_texts.source IS 'SHA-256 of the projection';
COMMENT ON COLUMN projection_texts.text IS 'Its statements; null where it is written in Python';

INSERT INTO projection_texts (projection, stage, source, tables)
SELECT DISTINCT c.projection, 'live', c.source,
       CASE c.projection WHEN 'tasks' THEN '{tasks,task_artifacts}' ELSE ARRAY[c.projection::text] END
  FROM checkpoints c;

ALTER TABLE checkpoints DROP COLUMN source;

-- Conversations that a projection does not go on with, because one of their events cannot be digested.
CREATE TABLE parked (
    projection      text COLLATE "C" NOT NULL,
    stage           text COLLATE "C" NOT NULL,
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    position        bigint NOT NULL,
    version         integer NOT NULL,
    event_id        uuid NOT NULL,
    event_type      text NOT NULL,
    sqlstate        text NOT NULL,
    error           text NOT NULL,
    tries           integer NOT NULL DEFAULT 1,
    parked_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT parked_pkey PRIMARY KEY (projection, stage, tenant_id, conversation_id)
);

COMMENT ON COLUMN parked.position IS 'Of the event that failed: it and all later ones of the conversation are not applied';

-- Opens a batch in the caller's transaction: locks the checkpoints of the shares, so that of two workers one waits, and
-- fixes the range of positions that the relation "batch" shows. No row: there is nothing to apply. What is applied must
-- be the text that the tables are made by: which one that is can change while the locks are waited for.
DROP FUNCTION begin_batch(text, integer);
CREATE FUNCTION begin_batch(
    projection text,
    stage      text,
    source     text,
    shares     smallint[],
    size       integer,
    until      bigint
) RETURNS TABLE (lower_position bigint, upper_position bigint, events bigint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    SELECT min(locked.position)
      INTO lower_position
      FROM (SELECT c.position
              FROM checkpoints c
             WHERE c.projection = begin_batch.projection
               AND c.stage = begin_batch.stage
               AND c.share = ANY (begin_batch.shares)
             ORDER BY c.share
               FOR UPDATE) AS locked;
    IF lower_position IS NULL THEN
        RETURN;
    END IF;
    IF NOT EXISTS (
           SELECT
             FROM projection_texts t
            WHERE t.projection = begin_batch.projection
              AND t.stage = begin_batch.stage
              AND t.source = begin_batch.source) THEN
        RAISE EXCEPTION 'the % tables of projection % are made by another text', begin_batch.stage, begin_batch.projection
            USING ERRCODE = 'ES006';
    END IF;
    until := least(until, log_horizon());
    SELECT max(next.position), count(*)
      INTO upper_position, events
      FROM (SELECT e.position
              FROM events e
             WHERE e.position > lower_position
               AND e.position <= begin_batch.until
             ORDER BY e.position
             LIMIT begin_batch.size) AS next;
    IF upper_position IS NOT NULL THEN
        PERFORM set_config('eventstore.projection', begin_batch.projection, true),
                set_config('eventstore.stage', begin_batch.stage, true),
                set_config('eventstore.shares', begin_batch.shares::text, true),
                set_config('eventstore.lower_position', lower_position::text, true),
                set_config('eventstore.upper_position', upper_position::text, true);
        RETURN NEXT;
    END IF;
END
$$;

-- Of two that make, fill or swap the same tables one must wait; a lock of the session's, so that it ends with it.
CREATE FUNCTION rebuild_key(projection text) RETURNS bigint
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN ('projection_texts'::regclass::oid::bigint << 32) | (hashtext(projection)::bigint & 4294967295);

-- Where the tables of a stage stand.
CREATE FUNCTION stage_schema(stage text) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN CASE stage
    WHEN 'live' THEN current_schema()::text
    ELSE left(current_schema(), 54) || '_' || stage
END;

DO $$
DECLARE
    side text;
BEGIN
    FOREACH side IN ARRAY ARRAY[stage_schema('next'), stage_schema('previous')] LOOP
        BEGIN
            EXECUTE format('CREATE SCHEMA %I', side);
            EXECUTE format('COMMENT ON SCHEMA %I IS %L', side, 'Read tables of ' || current_schema() || ' while they are rebuilt');
        EXCEPTION
            WHEN duplicate_schema THEN
                RAISE EXCEPTION 'the schema "%" exists already: rename it, or set EVENTSTORE_SCHEMA to another name', side
                    USING ERRCODE = 'duplicate_schema';
            WHEN insufficient_privilege THEN
                RAISE WARNING '% may not create the schema %: until somebody does, read tables cannot be rebuilt', session_user, side;
                CONTINUE;
        END;
        PERFORM eventstore_grant(format('USAGE, CREATE ON SCHEMA %I', side), 'eventstore_owner');
        PERFORM eventstore_grant(format('USAGE ON SCHEMA %I', side), 'eventstore_projector');
    END LOOP;
END
$$;

SELECT eventstore_own('TABLE ' || t),
       eventstore_grant(format('SELECT ON TABLE %I', t), 'eventstore_app'),
       eventstore_grant(format('SELECT, INSERT, UPDATE, DELETE ON TABLE %I', t), 'eventstore_projector')
  FROM unnest(ARRAY['projection_texts', 'parked']) AS t;
SELECT eventstore_own('FUNCTION begin_batch(text, text, text, smallint[], integer, bigint)');
SELECT eventstore_own('FUNCTION rebuild_key(text)');
SELECT eventstore_own('FUNCTION stage_schema(text)');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DO $$
DECLARE
    side text;
BEGIN
    FOREACH side IN ARRAY ARRAY[stage_schema('next'), stage_schema('previous')] LOOP
        EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', side);
    END LOOP;
END
$$;

DROP FUNCTION stage_schema(text);
DROP FUNCTION rebuild_key(text);
DROP FUNCTION begin_batch(text, text, text, smallint[], integer, bigint);
DROP TABLE parked;

DELETE FROM checkpoints WHERE stage <> 'live';
ALTER TABLE checkpoints ADD COLUMN source text NOT NULL DEFAULT '';
UPDATE checkpoints c
   SET source = t.source
  FROM projection_texts t
 WHERE t.projection = c.projection
   AND t.stage = 'live';
ALTER TABLE checkpoints
    ALTER COLUMN source DROP DEFAULT,
    DROP CONSTRAINT checkpoints_pkey,
    DROP COLUMN stage,
    ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (projection, share);
COMMENT ON COLUMN checkpoints.source IS 'SHA-256 of the text of the projection that made the rows';
DROP TABLE projection_texts;

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
SELECT eventstore_own('FUNCTION begin_batch(text, integer)');
