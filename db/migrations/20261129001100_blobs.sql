-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- file: blobs/blobs.sql
-- Files whose bytes are too large for an event, under their SHA-256: a row for each conversation whose events refer to a
-- file. Any number of events and conversations of a tenant share the bytes (blob_chunks). A row is written with the last
-- of the file's chunks, so that a file is complete or does not exist.
--
-- Only what was stored for a conversation can be read by a reference in its events: who learns the hash of a file cannot
-- read the file by an event of their own that refers to it. A user sees the rows of their conversations, and no bytes:
-- the library reads these for the tenant, once the event has been read for the user.
CREATE TABLE blobs (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    sha256          bytea NOT NULL,
    size            bigint NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT blobs_sha256_check CHECK (octet_length(sha256) = 32)
);

-- Finds whether any conversation of a tenant has a file, before its bytes are deleted.
CREATE INDEX idx_blobs_sha256 ON blobs (tenant_id, sha256);

-- Created last: see the table conversations.
ALTER TABLE blobs ADD CONSTRAINT blobs_pkey PRIMARY KEY (tenant_id, conversation_id, sha256);

COMMENT ON TABLE blobs IS 'Large files of events, by tenant, conversation and SHA-256; written by functions alone';

SELECT eventstore_set_owner('TABLE blobs');
SELECT eventstore_grant('SELECT ON TABLE blobs', 'eventstore_reader', 'eventstore_projector');
SELECT enable_rls('blobs');

-- file: blobs/blob_chunks.sql
-- The bytes of the files in blobs, in chunks.
CREATE TABLE blob_chunks (
    tenant_id varchar(255) COLLATE "C" NOT NULL,
    sha256    bytea NOT NULL,
    number    integer NOT NULL,
    content   bytea NOT NULL,
    CONSTRAINT blob_chunks_pkey PRIMARY KEY (tenant_id, sha256, number),
    CONSTRAINT blob_chunks_number_check CHECK (number >= 0)
);

COMMENT ON COLUMN blob_chunks.number IS '0, 1, 2 and so on within one file';

-- Images and archives are compressed already: PostgreSQL would try it again on every chunk.
ALTER TABLE blob_chunks ALTER COLUMN content SET STORAGE EXTERNAL;
ALTER TABLE blob_chunks ALTER COLUMN content SET STATISTICS 0;

SELECT eventstore_set_owner('TABLE blob_chunks');
SELECT eventstore_grant('SELECT ON TABLE blob_chunks', 'eventstore_reader', 'eventstore_projector');
SELECT enable_rls('blob_chunks', '');

-- file: blobs/lock_chunks.sql
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

-- file: blobs/store_blob_chunk.sql
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

-- file: blobs/lock_files.sql
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

-- file: blobs/file_is_referenced.sql
-- Return whether an event of a conversation refers to a file of it. The index idx_events_files finds it.
CREATE FUNCTION file_is_referenced(tenant_id text, conversation_id uuid, sha256 bytea) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (
    SELECT
      FROM events e
     WHERE e.tenant_id = file_is_referenced.tenant_id
       AND e.conversation_id = file_is_referenced.conversation_id
       AND e.metadata ? 'eventstore.files'
       AND e.metadata -> 'eventstore.files' ? encode(file_is_referenced.sha256, 'hex')
);

SELECT eventstore_set_owner('FUNCTION file_is_referenced');
REVOKE ALL ON FUNCTION file_is_referenced FROM PUBLIC;

-- file: blobs/delete_unreferenced_files.sql
-- Delete those of some files of conversations that no event of the same conversation refers to, and their bytes if no
-- conversation of the tenant has the file any more. Returns the numbers of files and of bytes for each tenant. A fork reads
-- the events that it shares, and their files, as those of the conversation that it continues.
--
-- An append locks the files that its events refer to (lock_files), so a locked file is about to be referred to and stays.
-- Whether the others are referred to, and then whether another conversation has them, is read by later statements than
-- those that lock them, which see everything that was committed until then.
CREATE FUNCTION delete_unreferenced_files(tenant_ids text[], conversation_ids uuid[], files bytea[])
RETURNS TABLE (tenant_id text, deleted bigint, bytes bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    tenants       text[];
    conversations uuid[];
    unreferenced  bytea[];
BEGIN
    PERFORM refuse_old_snapshots();
    PERFORM lock_chunks(files, true);
    SELECT array_agg(l.tenant_id), array_agg(l.conversation_id), array_agg(l.sha256)
      INTO tenants, conversations, unreferenced
      FROM (SELECT b.tenant_id, b.conversation_id, b.sha256
              FROM unnest(tenant_ids, conversation_ids, files) AS f (tenant_id, conversation_id, sha256)
              JOIN blobs b
                ON b.tenant_id = f.tenant_id
               AND b.conversation_id = f.conversation_id
               AND b.sha256 = f.sha256
               FOR UPDATE OF b SKIP LOCKED) AS l;
    WITH gone AS (
        DELETE FROM blobs b
         USING unnest(tenants, conversations, unreferenced) AS f (tenant_id, conversation_id, sha256)
         WHERE b.tenant_id = f.tenant_id
           AND b.conversation_id = f.conversation_id
           AND b.sha256 = f.sha256
           AND NOT file_is_referenced(f.tenant_id, f.conversation_id, f.sha256)
        RETURNING b.tenant_id, b.sha256
    )
    SELECT array_agg(g.tenant_id), array_agg(g.sha256) INTO tenants, unreferenced FROM gone g;
    RETURN QUERY
    WITH gone AS (
        DELETE FROM blob_chunks c
         USING (SELECT DISTINCT f.tenant_id, f.sha256
                  FROM unnest(tenants, unreferenced) AS f (tenant_id, sha256)) AS f
         WHERE c.tenant_id = f.tenant_id
           AND c.sha256 = f.sha256
           AND NOT EXISTS (SELECT FROM blobs b WHERE b.tenant_id = f.tenant_id AND b.sha256 = f.sha256)
        RETURNING c.tenant_id, octet_length(c.content) AS size
    )
    SELECT t.tenant_id, count(*),
           (SELECT coalesce(sum(g.size), 0)::bigint FROM gone g WHERE g.tenant_id = t.tenant_id)
      FROM unnest(tenants) AS t (tenant_id)
     GROUP BY t.tenant_id;
END
$$;

SELECT eventstore_set_owner('FUNCTION delete_unreferenced_files');
REVOKE ALL ON FUNCTION delete_unreferenced_files FROM PUBLIC;

-- file: blobs/delete_orphaned_files.sql
-- Delete files that were stored more than a day ago and that no event of their conversation refers to, a limited
-- number of them: those of the transaction's tenant, or of all tenants if it has none. A file is stored shortly
-- before the event that refers to it; one that was never referred to is what an interrupted upload has left.
CREATE FUNCTION delete_orphaned_files(maximum integer) RETURNS TABLE (tenant_id text, deleted bigint, bytes bigint)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT d.tenant_id, d.deleted, d.bytes
      FROM (SELECT array_agg(f.tenant_id::text) AS tenant_ids, array_agg(f.conversation_id) AS conversation_ids,
                   array_agg(f.sha256) AS files
              FROM (SELECT b.tenant_id, b.conversation_id, b.sha256
                      FROM blobs b
                     WHERE b.tenant_id = coalesce((SELECT append_tenant()), b.tenant_id)
                       AND b.created_at < clock_timestamp() - interval '1 day'
                       AND NOT file_is_referenced(b.tenant_id, b.conversation_id, b.sha256)
                     LIMIT delete_orphaned_files.maximum) AS f) AS c
     CROSS JOIN LATERAL delete_unreferenced_files(c.tenant_ids, c.conversation_ids, c.files) AS d;
END;

SELECT eventstore_set_owner('FUNCTION delete_orphaned_files');
REVOKE ALL ON FUNCTION delete_orphaned_files FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION delete_orphaned_files', 'eventstore_app');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION delete_orphaned_files;
DROP FUNCTION delete_unreferenced_files;
DROP FUNCTION file_is_referenced;
DROP FUNCTION lock_files;
DROP FUNCTION store_blob_chunk;
DROP FUNCTION lock_chunks;
DROP TABLE blob_chunks;
DROP TABLE blobs;
