-- Raise the error of a change of the log, or of the tables that seal it. Its triggers are ENABLE ALWAYS: they also fire
-- for superusers and under session_replication_role = replica, which skips ordinary triggers; the one at statement level
-- also fires if a statement changes no rows.
--
-- The one change that it lets through is that of an event into its erased form (erased_content, erased_metadata), with
-- the same digest, by the role eventstore_eraser. If the schema was migrated without roles, by the owner of the table.
CREATE FUNCTION refuse_change_of_events() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
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
        ELSIF NEW.salt IS NULL
              AND NEW.actor = ''
              AND (NEW.position, NEW.timestamp, NEW.version, NEW.schema_version, NEW.conversation_id, NEW.id,
                   NEW.tenant_id, NEW.event_type, NEW.digest)
                  = (OLD.position, OLD.timestamp, OLD.version, OLD.schema_version, OLD.conversation_id, OLD.id,
                     OLD.tenant_id, OLD.event_type, OLD.digest)
              AND (CASE
                       WHEN NEW.content = erased_content(OLD.event_type, OLD.content, false)
                            AND NEW.metadata = erased_metadata(OLD.metadata, false) THEN true
                       ELSE NEW.content = erased_content(OLD.event_type, OLD.content, true)
                            AND NEW.metadata = erased_metadata(OLD.metadata, true)
                   END) THEN
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
