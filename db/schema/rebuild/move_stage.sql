-- Rename a stage in the checkpoints, definitions and parked conversations of a projection.
CREATE FUNCTION move_stage(projection text, stage text, to_stage text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    UPDATE projection_definitions t SET stage = to_stage WHERE t.projection = move_stage.projection AND t.stage = move_stage.stage;
    UPDATE checkpoints c SET stage = to_stage WHERE c.projection = move_stage.projection AND c.stage = move_stage.stage;
    UPDATE parked p SET stage = to_stage WHERE p.projection = move_stage.projection AND p.stage = move_stage.stage;
END;

SELECT eventstore_set_owner('FUNCTION move_stage');
REVOKE ALL ON FUNCTION move_stage FROM PUBLIC;
