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
