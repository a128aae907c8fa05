-- Drop the tables of a stage that is not live, with its checkpoints and parked conversations.
CREATE FUNCTION drop_stage(projection text, stage text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
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

SELECT eventstore_set_owner('FUNCTION drop_stage');
REVOKE ALL ON FUNCTION drop_stage FROM PUBLIC;
