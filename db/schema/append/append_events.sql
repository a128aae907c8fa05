-- Append events, for callers in SQL (the library calls append_one and append_group): to one or several
-- conversations, all of them or none, in a transaction that has set the tenant and the user (current_tenant,
-- current_tenant_user). It raises errors instead of returning outcomes.
CREATE FUNCTION append_events(
    tenant_ids        text[],
    conversation_ids  uuid[],
    expected_versions integer[],
    conversation_nos  integer[],
    event_ids         uuid[],
    event_types       text[],
    schema_versions   smallint[],
    actors            text[],
    contents          jsonb[],
    metadatas         jsonb[]
) RETURNS TABLE (ordinal integer, "position" bigint, version integer, "timestamp" timestamptz, is_new boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
-- A plan that was made while the log was short must also serve when it is long, and planning each call would take
-- several times as long as the append. Before PostgreSQL 18, enable_seqscan = off makes reading a sequence look so
-- expensive that the query would be JIT-compiled in each call. (The connections of the library set this once, because a
-- SET for each call of append_one would take a fifth of its time.)
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    event  record;
    target integer;
    tenant text := current_tenant();
BEGIN
    IF tenant IS NULL THEN
        RAISE EXCEPTION 'this transaction has not set a tenant'
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'SELECT set_config(''eventstore.tenant'', …, true) in the same transaction, '
                         || 'by a login that may set it.';
    END IF;
    PERFORM refuse_tenant(t) FROM unnest(tenant_ids) AS t WHERE t <> tenant;
    FOR event IN
        SELECT o.*
          FROM append_group(
                   tenant_ids, conversation_ids, expected_versions,
                   array_fill(1, ARRAY[cardinality(conversation_nos)]), conversation_nos, event_ids, event_types,
                   schema_versions, actors, contents, metadatas,
                   array_fill(coalesce(current_tenant_user(), ''), ARRAY[cardinality(conversation_nos)]), -1
               ) AS g
         CROSS JOIN unnest(g.outcomes, g.positions, g.versions, g.timestamps, g.problems)
                        WITH ORDINALITY AS o (outcome, position, version, timestamp, problem, ordinal)
         ORDER BY CASE o.outcome
                      WHEN 'r' THEN 1 WHEN 'f' THEN 2 WHEN 'i' THEN 3 WHEN 'd' THEN 4 WHEN 'v' THEN 5 ELSE 6
                  END, o.ordinal
    LOOP
        target := conversation_nos[event.ordinal];
        CASE event.outcome
            WHEN 'r' THEN
                RAISE EXCEPTION 'event % of the append (%) cannot be stored: %',
                                event.ordinal, event_types[event.ordinal], event.problem
                    USING ERRCODE = 'ES005';
            WHEN 'f' THEN
                RAISE EXCEPTION 'the user may not append this to conversation %', conversation_ids[target]
                    USING ERRCODE = 'ES007',
                          DETAIL = jsonb_build_object('conversation_id', conversation_ids[target])::text;
            WHEN 'd' THEN
                RAISE EXCEPTION 'conversation % is deleted', conversation_ids[target]
                    USING ERRCODE = 'ES008',
                          DETAIL = jsonb_build_object('conversation_id', conversation_ids[target])::text,
                          HINT = 'Append conversation.reactivated to it first.';
            WHEN 'v' THEN
                RAISE EXCEPTION 'conversation % is at version %, not at the expected one',
                                conversation_ids[target], event.version
                    USING ERRCODE = 'ES001',
                          DETAIL = jsonb_build_object('conversation_id', conversation_ids[target],
                                                      'expected', expected_versions[target],
                                                      'actual', event.version)::text;
            WHEN 'i' THEN
                RAISE EXCEPTION 'conversation % already holds another event under the id %: they differ in %',
                                conversation_ids[target], event_ids[event.ordinal], event.problem
                    USING ERRCODE = 'ES002',
                          DETAIL = jsonb_build_object('conversation_id', conversation_ids[target],
                                                      'event_id', event_ids[event.ordinal],
                                                      'differences', event.problem)::text;
            ELSE
                ordinal := event.ordinal;
                position := event.position;
                version := event.version;
                timestamp := event.timestamp;
                is_new := event.outcome = 'n';
                RETURN NEXT;
        END CASE;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION append_events');
REVOKE ALL ON FUNCTION append_events FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION append_events', 'eventstore_writer');
