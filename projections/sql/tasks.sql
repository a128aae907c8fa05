SELECT t.id, t.conversation_id, t.status, t.description, t.created_at, t.updated_at, t.metadata, t.tenant_id,
       t.given_id, t.version, t.status_message,
       coalesce(a.artifacts, '[]') AS artifacts
  FROM tasks t
  LEFT JOIN LATERAL (
           SELECT jsonb_agg(jsonb_build_object('artifact_id', a.artifact_id, 'extends', a.extends,
                                               'last_chunk', a.last_chunk, 'name', a.name,
                                               'description', a.description, 'parts', a.parts,
                                               'extra', a.extra, 'metadata', a.metadata) ORDER BY a.version) AS artifacts
             FROM task_artifacts a
            WHERE a.tenant_id = t.tenant_id
              AND a.conversation_id = t.conversation_id
              AND a.task_id = t.id
       ) AS a ON true
 WHERE t.tenant_id = %(tenant)s
   AND t.conversation_id = %(conversation_id)s
   AND (t.status = %(status)s OR %(status)s::text IS NULL)
 ORDER BY t.created_at, t.version, t.id
 LIMIT %(limit)s
