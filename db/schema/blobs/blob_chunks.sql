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
