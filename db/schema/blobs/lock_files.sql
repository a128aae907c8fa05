-- Lock the files of a conversation that an event of it refers to until the append has committed, as a foreign key
-- would; its error is for an append whose file was deleted after it was stored. See delete_unreferenced_files.
CREATE FUNCTION lock_files(tenant_id text, conversation_id uuid, files jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    named   bytea[] := ARRAY(SELECT decode(f, 'hex') FROM jsonb_array_elements_text(lock_files.files) AS f);
    missing bytea;
BEGIN
    PERFORM
       FROM blobs b
      WHERE b.tenant_id = lock_files.tenant_id
        AND b.conversation_id = lock_files.conversation_id
        AND b.sha256 = ANY (named)
      ORDER BY b.sha256
        FOR KEY SHARE;
    SELECT n
      INTO missing
      FROM unnest(named) AS n
     WHERE NOT EXISTS (
               SELECT
                 FROM blobs b
                WHERE b.tenant_id = lock_files.tenant_id
                  AND b.conversation_id = lock_files.conversation_id
                  AND b.sha256 = n
           )
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the conversation % has no file with the SHA-256 %', lock_files.conversation_id,
                        encode(missing, 'hex')
            USING ERRCODE = 'ES011', HINT = 'Store the file again, then append the event.';
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION lock_files');
REVOKE ALL ON FUNCTION lock_files FROM PUBLIC;
