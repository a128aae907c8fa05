-- Raise the error of a change of the log, or of the tables that seal it. Its triggers are ENABLE ALWAYS: they also fire
-- for superusers and under session_replication_role = replica, which skips ordinary triggers; the one at statement level
-- also fires if a statement changes no rows.
--
-- The one change that it lets through is that of an event into its erased form (erased_content, erased_metadata), with
-- the same digest, by the role eventstore_eraser. If the schema was migrated without roles, by the owner of the table.
CREATE FUNCTION refuse_change_of_events() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    eraser name := 'eventstore_eraser';
BEGIN
    IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'events' THEN
        IF coalesce(NOT has_column_privilege(to_regrole(eraser::text)::oid, TG_RELID, 'salt', 'UPDATE'), true) THEN
            eraser := (SELECT c.relowner::regrole::name FROM pg_class c WHERE c.oid = TG_RELID);
        END IF;
        IF current_user = eraser AND TG_LEVEL = 'STATEMENT' THEN
            RETURN NULL;
        ELSIF current_user = eraser
              AND (NEW.position, NEW.timestamp, NEW.version, NEW.schema_version, NEW.conversation_id, NEW.id,
                   NEW.tenant_id, NEW.event_type, NEW.digest)
                  = (OLD.position, OLD.timestamp, OLD.version, OLD.schema_version, OLD.conversation_id, OLD.id,
                     OLD.tenant_id, OLD.event_type, OLD.digest)
              AND NEW.salt IS NULL
              AND NEW.actor = ''
              AND (NEW.content, NEW.metadata)
                  IN ((erased_content(OLD.event_type, OLD.content, false), erased_metadata(OLD.metadata, false)),
                      (erased_content(OLD.event_type, OLD.content, true), erased_metadata(OLD.metadata, true))) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% on the table % is refused: the log is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation',
              DETAIL = 'Events are the source of truth, the audit trail and the backup; they never change.',
              HINT = 'Append another event that states the change; eventstore erase removes personal data.';
END
$$;

SELECT eventstore_set_owner('FUNCTION refuse_change_of_events');
