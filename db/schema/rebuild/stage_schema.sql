-- The schema of the tables of a stage.
CREATE FUNCTION stage_schema(stage text) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN CASE stage
    WHEN 'live' THEN current_schema()::text
    ELSE left(current_schema(), 54) || '_' || stage
END;

SELECT eventstore_set_owner('FUNCTION stage_schema');

-- The schemas of the other stages.
DO $$
DECLARE
    schema_name text;
BEGIN
    FOREACH schema_name IN ARRAY ARRAY[stage_schema('next'), stage_schema('previous')] LOOP
        BEGIN
            EXECUTE format('CREATE SCHEMA %I', schema_name);
            EXECUTE format('COMMENT ON SCHEMA %I IS %L', schema_name,
                           'Read tables of ' || current_schema() || ' while they are rebuilt');
        EXCEPTION
            WHEN duplicate_schema THEN
                RAISE EXCEPTION
                    'the schema "%" exists already: rename it, or set EVENTSTORE_SCHEMA to another name', schema_name
                    USING ERRCODE = 'duplicate_schema';
            WHEN insufficient_privilege THEN
                RAISE WARNING
                    '% may not create the schema %: until another role creates it, read tables cannot be rebuilt',
                    session_user, schema_name;
                CONTINUE;
        END;
        PERFORM eventstore_grant(format('USAGE, CREATE ON SCHEMA %I', schema_name), 'eventstore_owner');
        PERFORM eventstore_grant(format('USAGE ON SCHEMA %I', schema_name), 'eventstore_projector');
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
