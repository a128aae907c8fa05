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
