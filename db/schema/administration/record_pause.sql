-- Record every pause of a projection, and its end, as an administrative act.
CREATE FUNCTION record_pause() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM record_administrative_act(NULL, r.act, jsonb_build_object('projection', r.projection))
       FROM (VALUES (CASE WHEN TG_OP <> 'INSERT' THEN OLD.projection END, 'projection_resumed'),
                    (CASE WHEN TG_OP <> 'DELETE' THEN NEW.projection END, 'projection_paused')) AS r (projection, act)
      WHERE r.projection IS NOT NULL;
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION record_pause');
REVOKE ALL ON FUNCTION record_pause FROM PUBLIC;

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE OR UPDATE OF projection ON paused_projections
    FOR EACH ROW EXECUTE FUNCTION record_pause();

-- migrate:down
DROP TRIGGER changes_are_recorded ON paused_projections;
DROP FUNCTION record_pause;
