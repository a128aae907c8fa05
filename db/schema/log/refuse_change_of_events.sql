-- Raise the error of a change of the log, or of the tables that seal it. Its triggers are ENABLE ALWAYS: they also fire
-- for superusers and under session_replication_role = replica, which skips ordinary triggers; the one at statement level
-- also fires if a statement changes no rows.
CREATE FUNCTION refuse_change_of_events() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION '% on the table % is refused: the log is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation',
              DETAIL = 'Events are the source of truth, the audit trail and the backup; they never change.',
              HINT = 'Append another event that states the change.';
END
$$;

SELECT eventstore_set_owner('FUNCTION refuse_change_of_events');
