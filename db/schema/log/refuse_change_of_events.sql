-- Raise the error of a change of the log, or of the tables that seal it. Its triggers are ENABLE ALWAYS: they also fire
-- for superusers and under session_replication_role = replica, which skips ordinary triggers; the one at statement level
-- also fires if a statement changes no rows.
--
-- The one change of an event that it makes is its erasure, by the role eventstore_eraser; if the schema was migrated
-- without roles, by the owner of the table. Such a statement sets the salt to null and nothing else, and the event then
-- takes its erased form (erased_content, erased_metadata): what an erased event holds is not for the statement to say.
-- The setting eventstore.erases_members tells which of the two forms that is.
CREATE FUNCTION refuse_change_of_events() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    erases_members boolean;
BEGIN
    IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'events'
       AND (CASE
                WHEN current_user = 'eventstore_eraser' THEN true
                WHEN has_column_privilege(to_regrole('eventstore_eraser')::oid, TG_RELID, 'salt', 'UPDATE') THEN false
                ELSE current_user = (SELECT r.rolname
                                       FROM pg_class c
                                       JOIN pg_roles r ON r.oid = c.relowner
                                      WHERE c.oid = TG_RELID)
            END) THEN
        IF TG_LEVEL = 'STATEMENT' THEN
            RETURN NULL;
        END IF;
        OLD.salt := NULL;
        IF NEW *= OLD THEN
            erases_members := coalesce(current_setting('eventstore.erases_members', true), '') = 'true';
            NEW.actor := '';
            NEW.content := erased_content(OLD.event_type, OLD.content, erases_members);
            NEW.metadata := erased_metadata(OLD.metadata, erases_members);
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% on the table % is refused: the log is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation',
              DETAIL = 'Events are the source of truth, the audit trail and the backup; they never change.',
              HINT = 'Append another event that states the change. What must not be kept can be erased: docs/guides/erasure.md.';
END
$$;

SELECT eventstore_set_owner('FUNCTION refuse_change_of_events');
