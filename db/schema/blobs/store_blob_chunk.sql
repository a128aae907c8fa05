-- Store a chunk of a file of a conversation; the chunks of one file are stored in order, in one transaction. The last one
-- completes the file: its bytes must have the hash under which they are stored, so that a file never has other bytes than
-- its name says. Of a file that the tenant has already, the last chunk alone is enough, unless the others were deleted
-- meanwhile (delete_unreferenced_files). Storing a file again changes nothing. Writers of the same file wait for each
-- other.
CREATE FUNCTION store_blob_chunk(
    tenant_id text, conversation_id uuid, sha256 bytea, number integer, content bytea, is_last boolean
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    bound  text := append_tenant();
    found  bytea;
    size   bigint;
    chunks bigint;
BEGIN
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    PERFORM refuse_old_snapshots();
    PERFORM lock_chunks(ARRAY[sha256], false);
    IF current_setting('synchronous_commit') = 'off' THEN
        -- An event that refers to the file may be durable right after it.
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    INSERT INTO blob_chunks (tenant_id, sha256, number, content)
    VALUES (tenant_id, sha256, number, content)
    ON CONFLICT ON CONSTRAINT blob_chunks_pkey DO NOTHING;
    IF NOT is_last THEN
        RETURN;
    END IF;
    SELECT pg_catalog.sha256(string_agg(c.content, '' ORDER BY c.number)), sum(octet_length(c.content)), count(*)
      INTO found, size, chunks
      FROM blob_chunks c
     WHERE c.tenant_id = store_blob_chunk.tenant_id
       AND c.sha256 = store_blob_chunk.sha256;
    IF chunks <= number THEN
        RAISE EXCEPTION 'the file with the SHA-256 % lacks chunks before the last one', encode(sha256, 'hex')
            USING ERRCODE = 'ES011', HINT = 'Store all of them.';
    END IF;
    IF found <> sha256 THEN
        RAISE EXCEPTION 'the file has the SHA-256 %, not %', encode(found, 'hex'), encode(sha256, 'hex')
            USING ERRCODE = 'ES005';
    END IF;
    INSERT INTO blobs (tenant_id, conversation_id, sha256, size)
    VALUES (tenant_id, conversation_id, sha256, size)
    ON CONFLICT ON CONSTRAINT blobs_pkey DO NOTHING;
END
$$;

SELECT eventstore_set_owner('FUNCTION store_blob_chunk');
REVOKE ALL ON FUNCTION store_blob_chunk FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION store_blob_chunk', 'eventstore_app');
