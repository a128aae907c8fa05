-- The tables of the projections that have row-level security, in the stages live and previous; a rebuild copies it to
-- the next one with the table.
CREATE FUNCTION projected_tables() RETURNS TABLE (projected regclass, conversation_column name)
LANGUAGE sql STABLE SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT c.oid::regclass, CASE c.relname WHEN 'conversations' THEN 'id' ELSE 'conversation_id' END
      FROM pg_class c
     WHERE c.relkind = 'r'
       AND c.relnamespace IN (to_regnamespace(quote_ident(stage_schema('live'))),
                              to_regnamespace(quote_ident(stage_schema('previous'))))
       AND c.relname IN (
               SELECT unnest(t.tables) FROM projection_definitions t
                UNION ALL
               SELECT unnest(ARRAY['conversations', 'messages', 'tasks', 'task_artifacts', 'conversation_actors',
                                   'pending_messages', 'search_documents', 'search_conversations', 'statistics_activity',
                                   'statistics_conversations', 'statistics_answers', 'statistics_tasks',
                                   'statistics_status_periods'])
           );
END;

SELECT eventstore_set_owner('FUNCTION projected_tables');
REVOKE ALL ON FUNCTION projected_tables FROM PUBLIC;
