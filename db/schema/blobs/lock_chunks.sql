-- Lock the chunks of files until the transaction ends: shared to store a file, which relies on chunks that are there;
-- exclusively to delete files, before their rows are locked. The first byte of the hash is the key, so that a
-- deletion of thousands of files holds few locks.
CREATE FUNCTION lock_chunks(files bytea[], is_deletion boolean) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    class integer := low_32_bits('blob_chunks'::regclass::oid::bigint);
    key   integer;
BEGIN
    FOR key IN SELECT DISTINCT get_byte(f, 0) AS k FROM unnest(files) AS f ORDER BY k LOOP
        IF is_deletion THEN
            PERFORM pg_advisory_xact_lock(class, key);
        ELSE
            PERFORM pg_advisory_xact_lock_shared(class, key);
        END IF;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION lock_chunks');
REVOKE ALL ON FUNCTION lock_chunks FROM PUBLIC;
