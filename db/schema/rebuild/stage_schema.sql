-- The schema of the tables of a stage.
CREATE FUNCTION stage_schema(stage text) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN CASE stage
    WHEN 'live' THEN current_schema()::text
    ELSE left(current_schema(), 54) || '_' || stage
END;

SELECT eventstore_own('FUNCTION stage_schema');

-- The schemas of the other stages.
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

-- migrate:down
DO $$
BEGIN
    EXECUTE format('DROP SCHEMA IF EXISTS %I, %I CASCADE', stage_schema('next'), stage_schema('previous'));
END
$$;
DROP FUNCTION stage_schema;
