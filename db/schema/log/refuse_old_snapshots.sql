-- Raise an error in a transaction whose snapshot may be old: readers and writers of the log must see what was just
-- committed.
CREATE FUNCTION refuse_old_snapshots() RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'the log cannot be used in a % transaction', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'ES003',
                  DETAIL = 'Its snapshot is older than the locks that order the log: events would be missed silently.',
                  HINT = 'Use a READ COMMITTED transaction, the default of PostgreSQL.';
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION refuse_old_snapshots');
