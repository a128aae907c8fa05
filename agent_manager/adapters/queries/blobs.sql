-- name: has_blob
-- Whether a conversation has a file, and whether the tenant has its bytes: all chunks of a file are stored at once.
SELECT EXISTS (
           SELECT
             FROM blobs b
            WHERE b.tenant_id = %(tenant)s
              AND b.conversation_id = %(conversation_id)s
              AND b.sha256 = %(sha256)s
       ),
       EXISTS (
           SELECT
             FROM blob_chunks c
            WHERE c.tenant_id = %(tenant)s
              AND c.sha256 = %(sha256)s
              AND c.number = 0
       )

-- name: store_blob_chunk
SELECT store_blob_chunk(%(tenant)s, %(conversation_id)s, %(sha256)s, %(number)s, %(content)s, %(is_last)s)

-- name: blob
-- The chunks of a file of a conversation.
SELECT c.content
  FROM blobs b
  JOIN blob_chunks c
    ON c.tenant_id = b.tenant_id
   AND c.sha256 = b.sha256
 WHERE b.tenant_id = %(tenant)s
   AND b.conversation_id = %(conversation_id)s
   AND b.sha256 = %(sha256)s
 ORDER BY c.number
