-- name: has_blob
SELECT EXISTS (
           SELECT
             FROM blobs b
            WHERE b.tenant_id = %(tenant)s
              AND b.sha256 = %(sha256)s
       )

-- name: store_blob_chunk
SELECT store_blob_chunk(%(tenant)s, %(sha256)s, %(number)s, %(content)s, %(is_last)s)

-- name: blob
-- The chunks of a file; of one that is not complete, nothing.
SELECT c.content
  FROM blobs b
  JOIN blob_chunks c
    ON c.tenant_id = b.tenant_id
   AND c.sha256 = b.sha256
 WHERE b.tenant_id = %(tenant)s
   AND b.sha256 = %(sha256)s
 ORDER BY c.number
