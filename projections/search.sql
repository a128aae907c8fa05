-- Apply a batch of the log to the table search_documents: a document for each event that has text, under the version of
-- the event. The language that a conversation names, and whether it is deleted, are in search_conversations.
WITH folded AS MATERIALIZED (
    SELECT b.tenant_id,
           b.conversation_id,
           (array_agg(search_language_code(b.content #>> '{metadata,language}') ORDER BY b.version)
               FILTER (WHERE search_language_code(b.content #>> '{metadata,language}') IS NOT NULL))[1] AS language,
           min(b.version) FILTER (WHERE search_language_code(b.content #>> '{metadata,language}') IS NOT NULL) AS language_from,
           (array_agg(b.event_type = 'conversation.deleted' ORDER BY b.version DESC)
               FILTER (WHERE b.event_type IN ('conversation.deleted', 'conversation.reactivated')))[1] AS is_deleted
      FROM batch b
     WHERE b.event_type IN ('conversation.created', 'conversation.forked',
                            'conversation.deleted', 'conversation.reactivated')
     GROUP BY b.tenant_id, b.conversation_id
),
updated AS (
    UPDATE search_conversations c
       SET language      = coalesce(c.language, f.language),
           language_from = coalesce(c.language_from, f.language_from),
           is_deleted    = coalesce(f.is_deleted, c.is_deleted)
      FROM folded f
     WHERE c.tenant_id = f.tenant_id
       AND c.conversation_id = f.conversation_id
)
INSERT INTO search_conversations (tenant_id, conversation_id, language, language_from, is_deleted)
SELECT f.tenant_id, f.conversation_id, f.language, f.language_from, coalesce(f.is_deleted, false)
  FROM folded f
 WHERE (f.language IS NOT NULL OR f.is_deleted IS NOT NULL)
   AND NOT EXISTS (
           SELECT
             FROM search_conversations c
            WHERE c.tenant_id = f.tenant_id
              AND c.conversation_id = f.conversation_id
       );

-- A deleted task has no documents. Ids are compared as texts, which cannot fail, whatever the log holds.
DELETE FROM search_documents d
 USING batch b
 WHERE b.event_type = 'task.deleted'
   AND d.tenant_id = b.tenant_id
   AND d.conversation_id = b.conversation_id
   AND d.id::text = b.content ->> 'task_id'
   AND d.kind IN ('task', 'status', 'artifact');

-- A description replaces the earlier ones of its task, a name those of its conversation.
WITH replaced AS MATERIALIZED (
    SELECT b.tenant_id, b.conversation_id, 'task' AS kind, (b.content ->> 'task_id')::uuid AS id
      FROM batch b
     WHERE b.event_type = 'task.described'
       AND b.content ? 'description'
     UNION
    SELECT b.tenant_id, b.conversation_id, 'conversation', b.conversation_id
      FROM batch b
     WHERE b.event_type = 'conversation.renamed'
)
DELETE FROM search_documents d
 USING replaced r
 WHERE d.tenant_id = r.tenant_id
   AND d.conversation_id = r.conversation_id
   AND d.id = r.id
   AND d.kind = r.kind
   AND d.kind IN ('task', 'conversation');

WITH deleted AS MATERIALIZED (  -- looked up once, however many events a conversation has
    SELECT b.tenant_id, b.conversation_id, b.version, b.content ->> 'task_id' AS task_id
      FROM batch b
     WHERE b.event_type = 'task.deleted'
),
texts AS MATERIALIZED (
    SELECT b.tenant_id, b.conversation_id, b.version, b.position, b.id,
           CASE b.event_type
               WHEN 'message.added' THEN 'message'
               WHEN 'task.created' THEN 'task'
               WHEN 'task.described' THEN 'task'
               WHEN 'task.status_changed' THEN 'status'
               WHEN 'task.artifact_added' THEN 'artifact'
               WHEN 'task.artifact_extended' THEN 'artifact'
               ELSE 'conversation'
           END AS kind,
           b.content ->> 'task_id' AS task_id,
           b.content ->> 'role' AS role,
           b.actor,
           occurred_at(b.metadata, b.timestamp) AS created_at,
           CASE WHEN b.salt IS NOT NULL THEN search_text(b.event_type, b.content) END AS original,  -- unless it was erased
           -- Whether a later one of the batch replaces it.
           bool_or(b.event_type = 'conversation.renamed' OR b.event_type = 'task.described' AND b.content ? 'description')
               OVER (PARTITION BY b.tenant_id, b.conversation_id, b.content ->> 'task_id',
                                  b.event_type IN ('conversation.created', 'conversation.renamed', 'conversation.forked'),
                                  b.event_type IN ('task.created', 'task.described')
                         ORDER BY b.version ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS is_replaced
      FROM batch b
     WHERE b.event_type IN ('message.added', 'task.created', 'task.described', 'task.status_changed',
                            'task.artifact_added', 'task.artifact_extended',
                            'conversation.created', 'conversation.renamed', 'conversation.forked')
       AND NOT EXISTS (
               SELECT
                 FROM deleted d
                WHERE d.tenant_id = b.tenant_id
                  AND d.conversation_id = b.conversation_id
                  AND d.task_id = b.content ->> 'task_id'
                  AND d.version > b.version
           )
),
in_language AS MATERIALIZED (
    SELECT s.tenant_id, s.conversation_id, s.version, s.position, s.kind, s.id, s.task_id, s.role, s.actor,
           s.created_at, s.original, s.words,
           coalesce(c.language, search_language(s.words)) AS language
      FROM (SELECT t.*, search_words(t.original) AS words FROM texts t
             WHERE t.original IS NOT NULL AND t.is_replaced IS NOT TRUE
            OFFSET 0) AS s
      LEFT JOIN search_conversations c
        ON c.tenant_id = s.tenant_id
       AND c.conversation_id = s.conversation_id
       AND c.language_from < s.version
)
INSERT INTO search_documents (tenant_id, conversation_id, version, position, kind, id, role, actor, created_at, language,
                              words)
SELECT s.tenant_id, s.conversation_id, s.version, s.position, s.kind,
       CASE s.kind WHEN 'conversation' THEN s.conversation_id ELSE coalesce(s.task_id::uuid, s.id) END,
       s.role, s.actor, s.created_at, s.language,
       search_document(concat_ws(E'\x1e', s.words, search_identifier_parts(s.original)), s.language,
                       search_labels(s.tenant_id, s.role, s.actor))
  FROM in_language s
 ORDER BY s.position;

-- The texts from before a conversation went back to an earlier version; its name remains.
DELETE FROM search_documents d
 USING batch r
 WHERE r.event_type = 'conversation.rewound'
   AND d.tenant_id = r.tenant_id
   AND d.conversation_id = r.conversation_id
   AND d.version > (r.content ->> 'to_version')::integer
   AND d.version < r.version
   AND d.kind <> 'conversation';
