-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- What a task and its status held beside what has a column: contextId and history, timestamp. See projections/tasks.sql.
ALTER TABLE tasks
    ADD COLUMN extra         jsonb,
    ADD COLUMN status_extra  jsonb,
    ADD COLUMN added_history jsonb;

-- Whether the text of the first part belongs to the last part of the chunk before.
ALTER TABLE task_artifacts ADD COLUMN continues_text boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN tasks.extra IS 'Members of the task as its agent showed it that no other column gives back';
COMMENT ON COLUMN tasks.added_history IS 'Messages that came to the history in extra, with the order of their members';
COMMENT ON COLUMN tasks.status_extra IS 'Members of its status that no other column gives back';

-- Tables that were set aside are without these columns.
SELECT drop_stage('tasks', s) FROM unnest(ARRAY['next', 'previous']) AS s;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

SELECT drop_stage('tasks', s) FROM unnest(ARRAY['next', 'previous']) AS s;

ALTER TABLE task_artifacts DROP COLUMN continues_text;

ALTER TABLE tasks
    DROP COLUMN added_history,
    DROP COLUMN status_extra,
    DROP COLUMN extra;
