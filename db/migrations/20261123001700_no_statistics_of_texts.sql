-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- The planner's statistics are of all rows, whoever asks: EXPLAIN says by how many rows it believes a text to be held or
-- to stand before another, and so word by word what others have written. No query looks for these columns by their
-- values, so there are none of them.
DO $$
DECLARE
    found_column record;
BEGIN
    FOR found_column IN
        SELECT c.oid::regclass AS of_table, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
          FROM (VALUES ('events', 'salt'), ('events', 'digest'), ('conversations', 'name'), ('conversations', 'given_id'),
                       ('messages', 'content'), ('messages', 'given_id'), ('tasks', 'description'), ('tasks', 'given_id'),
                       ('task_artifacts', 'artifact_id'), ('task_artifacts', 'name'), ('task_artifacts', 'description'),
                       ('pending_messages', 'given_id'), ('parked', 'error')) AS t (relation, attribute)
          JOIN pg_class c ON c.relname = t.relation
                         AND c.relnamespace IN (SELECT to_regnamespace(quote_ident(stage_schema(s)))
                                                  FROM unnest(ARRAY['live', 'next', 'previous']) AS s)
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = t.attribute
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS 0', found_column.of_table, found_column.name);
        BEGIN
            -- To the type that it has: that rewrites nothing, and drops what was gathered already.
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I TYPE %s', found_column.of_table, found_column.name,
                           found_column.type);
        EXCEPTION
            WHEN feature_not_supported THEN
                RAISE WARNING 'the statistics of %.% stay as they are: %', found_column.of_table, found_column.name, SQLERRM
                    USING HINT = 'Drop what hinders it, and ALTER the column to the TYPE that it has.';
        END;
    END LOOP;
END
$$;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DO $$
DECLARE
    found_column record;
BEGIN
    FOR found_column IN
        SELECT c.oid::regclass AS of_table, a.attname AS name
          FROM pg_class c
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND a.attstattarget = 0
         WHERE c.relname IN ('events', 'conversations', 'messages', 'tasks', 'task_artifacts', 'pending_messages', 'parked')
           AND c.relkind = 'r'
           AND c.relnamespace IN (SELECT to_regnamespace(quote_ident(stage_schema(s)))
                                    FROM unnest(ARRAY['live', 'next', 'previous']) AS s)
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS -1', found_column.of_table, found_column.name);
    END LOOP;
END
$$;
