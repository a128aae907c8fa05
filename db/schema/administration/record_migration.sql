-- Record a migration of a log that has events; one of an empty log is part of its creation. Each migration calls it at its
-- end, in its own transaction (eventstore/database/dbmate.py); for one that has none it is called afterwards.
CREATE FUNCTION record_migration(version text, act text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM events) THEN
        PERFORM record_administrative_act(NULL, act, jsonb_build_object('version', version));
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION record_migration');
REVOKE ALL ON FUNCTION record_migration FROM PUBLIC;
