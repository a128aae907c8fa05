-- Statement level and ENABLE ALWAYS: fires also for no rows, for superusers, and under
-- session_replication_role = replica, where an ordinary trigger is skipped.
CREATE FUNCTION refuse_change_of_events() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION '% on the table events is refused: the log is append-only', TG_OP
        USING ERRCODE = 'restrict_violation',
              DETAIL = 'Events are the source of truth, the audit trail and the backup; none is ever changed.',
              HINT = 'Append a further event that says what is different now.';
END
$$;

SELECT eventstore_own('FUNCTION refuse_change_of_events');
