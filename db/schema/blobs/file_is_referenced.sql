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
