-- Files whose bytes are too large for an event: each once for a tenant, under its SHA-256. Events refer to a file by
-- its hash, and any number of them share it. A row is written together with the last of the file's chunks, so that a
-- file is complete or does not exist.
--
-- No policy opens the files to a user: a user who sees an event sees the hash of its files, and the library reads them
-- for the tenant once the event has been read for the user.
CREATE TABLE blobs (
    tenant_id  varchar(255) COLLATE "C" NOT NULL,
    sha256     bytea NOT NULL,
    size       bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT blobs_pkey PRIMARY KEY (tenant_id, sha256),
    CONSTRAINT blobs_sha256_check CHECK (octet_length(sha256) = 32)
);

COMMENT ON TABLE blobs IS 'Large files of events, by tenant and SHA-256; written by store_blob_chunk alone';

SELECT eventstore_set_owner('TABLE blobs');
SELECT eventstore_grant('SELECT ON TABLE blobs', 'eventstore_reader', 'eventstore_projector');
SELECT enable_rls('blobs', '');
