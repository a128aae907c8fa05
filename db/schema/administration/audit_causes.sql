-- The cause of each event of a conversation that is another one of its events; null if it has none there.
--
-- An event names its cause (causation_id). Events of one answer all name the message that is answered; in between are their
-- task and, for a chunk, its artifact. A message that continues a task, and names
-- no cause, belongs to the task, and the outcome of a message to the message. A cause precedes its effects, so the causes
-- make trees.
CREATE FUNCTION audit_causes(tenant_id text, conversation_id uuid)
RETURNS TABLE (version integer, event_id uuid, cause_id uuid)
LANGUAGE sql STABLE SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH facts AS MATERIALIZED (
        SELECT e.version, e.id, e.event_type, e.metadata ->> 'causation_id' AS cause,
               CASE WHEN starts_with(e.event_type, 'task.') THEN e.content ->> 'task_id' END AS task_id,
               CASE WHEN starts_with(e.event_type, 'task.artifact_') THEN e.content ->> 'artifact_id' END AS artifact_id,
               CASE e.event_type
                   WHEN 'message.added' THEN e.content #>> '{extra,taskId}'
                   WHEN 'task.created' THEN coalesce(e.content ->> 'given_id', e.content ->> 'task_id')
               END AS task_name,
               CASE WHEN e.event_type = 'message.answered' THEN e.content ->> 'message_id' END AS message_id
          FROM events e
         WHERE e.tenant_id = audit_causes.tenant_id
           AND e.conversation_id = audit_causes.conversation_id
    ),
    tasks AS (
        SELECT DISTINCT ON (f.task_id) f.task_id, f.task_name, f.version, f.id, f.cause
          FROM facts f
         WHERE f.task_id IS NOT NULL
         ORDER BY f.task_id, f.version
    ),
    artifacts AS (
        SELECT DISTINCT ON (f.task_id, f.artifact_id) f.task_id, f.artifact_id, f.version, f.id, f.cause
          FROM facts f
         WHERE f.event_type = 'task.artifact_added'
         ORDER BY f.task_id, f.artifact_id, f.version
    ),
    named AS (
        SELECT DISTINCT ON (f.version) f.version, f.id,
               CASE
                   WHEN f.message_id IS NOT NULL THEN f.message_id
                   WHEN a.version < f.version AND f.cause IS NOT DISTINCT FROM a.cause THEN a.id::text
                   WHEN t.id IS NOT NULL AND coalesce(f.cause = t.cause, f.cause IS NULL) THEN t.id::text
                   ELSE f.cause
               END AS cause
          FROM facts f
          LEFT JOIN artifacts a
            ON a.task_id = f.task_id
           AND a.artifact_id = f.artifact_id
          LEFT JOIN tasks t
            ON t.version < f.version
           AND (t.task_id = f.task_id
                OR f.event_type = 'message.added' AND f.task_name IN (t.task_id, t.task_name))
         ORDER BY f.version, t.version DESC
    )
    SELECT n.version, n.id, c.id
      FROM named n
      LEFT JOIN facts c
        ON c.id::text = n.cause
       AND c.version < n.version
     ORDER BY n.version;
END;

SELECT eventstore_set_owner('FUNCTION audit_causes');
REVOKE ALL ON FUNCTION audit_causes FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION audit_causes', 'eventstore_auditor', 'eventstore_projector');
