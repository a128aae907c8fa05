-- name: search
SELECT s.kind, s.id, s.conversation_id, s.version, s.position, s.role, s.actor, s.created_at, s.language, s.rank,
       s.snippet, s.searched, s.cursor
  FROM search_for(%(query)s, %(tenant)s, by => %(by)s, only_kind => %(kind)s, only_role => %(role)s,
                  only_actor => %(actor)s, only_conversation => %(conversation)s, since => %(since)s, until => %(until)s,
                  query_language => %(language)s, page => %(limit)s, after => %(after)s, opening => %(opening)s,
                  closing => %(closing)s) AS s
