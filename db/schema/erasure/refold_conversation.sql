-- Make the rows of a conversation again from the log, as erase_events has left it in this transaction: in the tables of all
-- projections, in every stage. It locks the conversation's checkpoint of each, in the order of their names, so no worker
-- applies its partition meanwhile, and a rebuild neither begins nor swaps. The current role is the projector's.
--
-- Returns a row for each projection that cannot do this: if it is written in Python or fails, its rows of the conversation
-- are removed, and the conversation is parked; if it has a table whose rows belong to no single conversation, only a
-- rebuild makes that again.
CREATE FUNCTION refold_conversation(tenant_id text, conversation_id uuid)
RETURNS TABLE (projection text, stage text, problem text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
DECLARE
    path    text := current_setting('search_path');
    target  record;
    made    record;
    failed  record;
    applied bigint;
BEGIN
    LOCK TABLE projection_definitions IN SHARE MODE;
    PERFORM set_config('eventstore.tenant', tenant_id, true),
            set_config('eventstore.retried_conversation', conversation_id::text, true),
            set_config('eventstore.lower_position', '0', true);
    -- A copy, and its statistics: what the planner expects of a conversation is far too little for a long one, and then
    -- some statements of projections take a time that grows with the square of its length.
    EXECUTE $copy$
        CREATE TEMPORARY TABLE IF NOT EXISTS refolded_events (LIKE events) ON COMMIT DROP;
        TRUNCATE pg_temp.refolded_events;
        INSERT INTO pg_temp.refolded_events
        SELECT e.*
          FROM events e
         WHERE e.tenant_id = current_setting('eventstore.tenant')
           AND e.conversation_id = current_setting('eventstore.retried_conversation')::uuid;
        ANALYZE pg_temp.refolded_events (position, version, conversation_id, tenant_id, event_type);
    $copy$;
    EXECUTE $view$
        CREATE OR REPLACE TEMPORARY VIEW batch AS
        SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
               e.actor, e.content, e.metadata, e.salt, e.digest
          FROM pg_temp.refolded_events e
         WHERE e.position > current_setting('eventstore.lower_position')::bigint
           AND e.position <= current_setting('eventstore.upper_position')::bigint
           AND NOT EXISTS (
                   SELECT
                     FROM parked p
                    WHERE p.projection = current_setting('eventstore.projection')
                      AND p.stage = current_setting('eventstore.stage')
                      AND p.tenant_id = e.tenant_id
                      AND p.conversation_id = e.conversation_id
                      AND p.position <= e.position
               )
    $view$;
    FOR target IN
        SELECT t.relation, t.conversation_column FROM conversation_tables('live') AS t WHERE t.projection IS NULL
    LOOP
        EXECUTE format('DELETE FROM %s WHERE tenant_id = $1 AND %I = $2', target.relation, target.conversation_column)
          USING tenant_id, conversation_id;
    END LOOP;
    FOR made IN
        SELECT d.projection, d.stage, d.text, d.tables FROM projection_definitions d ORDER BY d.projection, d.stage
    LOOP
        projection := made.projection;
        stage := made.stage;
        problem := NULL;
        -- The time tells readers who keep responses that rows have changed (tables_change_token).
        UPDATE checkpoints c
           SET updated_at = clock_timestamp()
         WHERE c.projection = made.projection
           AND c.stage = made.stage
           AND c.partition = partition_of(conversation_id)
        RETURNING c.position INTO applied;
        FOR target IN
            SELECT t.name, t.relation, t.conversation_column
              FROM conversation_tables(made.stage) AS t
             WHERE t.projection = made.projection
        LOOP
            IF target.conversation_column IS NULL THEN
                problem := format('the table %s has no columns tenant_id and conversation_id', target.name);
                CONTINUE;
            END IF;
            EXECUTE format('DELETE FROM %s WHERE tenant_id = $1 AND %I = $2', target.relation, target.conversation_column)
              USING tenant_id, conversation_id;
        END LOOP;
        IF problem IS NOT NULL THEN
            RETURN NEXT;
            CONTINUE;
        END IF;
        PERFORM set_config('eventstore.projection', made.projection, true),
                set_config('eventstore.stage', made.stage, true),
                set_config('eventstore.upper_position', coalesce(applied, 0)::text, true),
                set_config('search_path', format('pg_temp, %I, %I', stage_schema(made.stage), stage_schema('live')), true);
        -- Its error may quote what is erased.
        DELETE FROM parked p
         WHERE p.projection = made.projection
           AND p.stage = made.stage
           AND p.tenant_id = refold_conversation.tenant_id
           AND p.conversation_id = refold_conversation.conversation_id
        RETURNING p.position INTO failed;
        FOR attempt IN 1 .. 3 LOOP
            BEGIN
                IF made.text IS NULL AND attempt < 3 THEN
                    RAISE EXCEPTION 'it is written in Python: eventstore parked retry applies the events again';
                ELSIF made.text IS NOT NULL THEN
                    EXECUTE made.text;
                END IF;
                EXIT;
            EXCEPTION WHEN OTHERS THEN
                IF left(SQLSTATE, 2) IN ('40', '53', '55', '57', '58', 'XX') THEN
                    RAISE;
                END IF;
                -- The conversation is parked where it was, then at its first event.
                problem := SQLERRM;
                INSERT INTO parked (projection, stage, tenant_id, conversation_id, position, version, event_id, event_type,
                                    sqlstate, error)
                SELECT made.projection, made.stage, e.tenant_id, e.conversation_id, e.position, e.version, e.id,
                       e.event_type, SQLSTATE, SQLERRM
                  FROM events e
                 WHERE e.tenant_id = refold_conversation.tenant_id
                   AND e.conversation_id = refold_conversation.conversation_id
                   AND e.position <= applied
                   AND (attempt > 1 OR failed.position IS NULL OR e.position = failed.position)
                 ORDER BY e.version
                 LIMIT 1
                    ON CONFLICT ON CONSTRAINT parked_pkey DO UPDATE
                    SET position = excluded.position, version = excluded.version, event_id = excluded.event_id,
                        event_type = excluded.event_type, sqlstate = excluded.sqlstate, error = excluded.error;
            END;
        END LOOP;
        IF problem IS NOT NULL THEN
            RETURN NEXT;
        END IF;
    END LOOP;
    PERFORM set_config('search_path', path, true);
END
$$;

SELECT eventstore_set_owner('FUNCTION refold_conversation');
REVOKE ALL ON FUNCTION refold_conversation FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION refold_conversation', 'eventstore_projector');
