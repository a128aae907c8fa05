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
