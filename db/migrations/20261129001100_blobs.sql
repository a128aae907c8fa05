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
    CONSTRAINT blobs_pkey PRIMARY KEY (tenant_id, conversation_id, sha256),
    CONSTRAINT blobs_sha256_check CHECK (octet_length(sha256) = 32)
);

COMMENT ON TABLE blobs IS 'Large files of events, by tenant, conversation and SHA-256; written by store_blob_chunk alone';

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

-- file: blobs/store_blob_chunk.sql
-- Store a chunk of a file of a conversation; the chunks of one file are stored in order, in one transaction. The last one
-- completes the file: its bytes must have the hash under which they are stored, so that a file never has other bytes than
-- its name says. Of a file that the tenant has already, the last chunk alone is enough. Storing a file again changes
-- nothing. Writers of the same file wait for each other.
CREATE FUNCTION store_blob_chunk(
    tenant_id text, conversation_id uuid, sha256 bytea, number integer, content bytea, is_last boolean
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    bound text := append_tenant();
    found bytea;
    size  bigint;
BEGIN
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
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
    SELECT pg_catalog.sha256(string_agg(c.content, '' ORDER BY c.number)), sum(octet_length(c.content))
      INTO found, size
      FROM blob_chunks c
     WHERE c.tenant_id = store_blob_chunk.tenant_id
       AND c.sha256 = store_blob_chunk.sha256;
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

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION store_blob_chunk;
DROP TABLE blob_chunks;
DROP TABLE blobs;
