-- Of a conversation, or of all. See conversations.sql.
SELECT t.id, t.conversation_id, t.status, t.description, t.created_at, t.updated_at, t.metadata, t.tenant_id,
       t.given_id, t.version, t.status_message,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('artifact_id', a.artifact_id, 'extends', a.extends,
                                                     'last_chunk', a.last_chunk,
                                                     'continues_text', a.continues_text, 'name', a.name,
                                                     'description', a.description, 'parts', a.parts,
                                                     'extra', a.extra, 'metadata', a.metadata,
                                                     'member_order', a.member_order) ORDER BY a.version),
                        '[]')
          FROM task_artifacts a
         WHERE a.task_id = t.id
           AND coalesce(a.tenant_id = t.tenant_id AND a.conversation_id = t.conversation_id, false)) AS artifacts,
       CASE WHEN t.added_history IS NULL THEN t.extra ELSE coalesce(t.extra, '{{}}') END AS extra,
       t.status_extra,
       CASE WHEN t.added_history IS NULL THEN t.member_order
            ELSE coalesce(t.member_order, '{{}}') || jsonb_build_object('added_history', t.added_history)
       END AS member_order
  FROM tasks t
 WHERE {within}
   AND coalesce(true
                AND t.status = %(status)s
                AND coalesce((SELECT c.is_deleted FROM conversations c WHERE c.tenant_id = t.tenant_id AND c.id = t.conversation_id), false) = %(deleted)s
       , false)
 ORDER BY {order}
 LIMIT (SELECT %(limit)s)
