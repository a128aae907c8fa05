-- Record each migration of a log that has events, in the transaction of the migration: dbmate inserts and deletes the rows
-- of its table there. The migrations of an empty log create it. A version that begins with 0 is a note of
-- eventstore/database/migrate.py.
CREATE FUNCTION record_migration() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM events) THEN
        IF TG_OP = 'INSERT' THEN
            PERFORM record_administrative_act(NULL, 'migration_applied', jsonb_build_object('version', NEW.version));
        ELSE
            PERFORM record_administrative_act(NULL, 'migration_reverted', jsonb_build_object('version', OLD.version));
        END IF;
    END IF;
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION record_migration');
REVOKE ALL ON FUNCTION record_migration FROM PUBLIC;

CREATE TRIGGER applied_migration_is_recorded
    AFTER INSERT ON eventstore_migrations
    FOR EACH ROW WHEN (NOT starts_with(NEW.version, '0')) EXECUTE FUNCTION record_migration();

CREATE TRIGGER reverted_migration_is_recorded
    AFTER DELETE ON eventstore_migrations
    FOR EACH ROW WHEN (NOT starts_with(OLD.version, '0')) EXECUTE FUNCTION record_migration();

-- migrate:down
DROP TRIGGER reverted_migration_is_recorded ON eventstore_migrations;
DROP TRIGGER applied_migration_is_recorded ON eventstore_migrations;
DROP FUNCTION record_migration;
