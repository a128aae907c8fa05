-- The latest matches, found by the cheaper strategy: frequent words by scanning along the times, rare ones by the index
-- of words or, for a user, by reading the user's own documents: the index also has those of others. The last two
-- thousand documents show how frequent the words are; planner statistics, which may be missing or outdated, are not
-- used. Reading a row by the index costs as much as scanning four along the times, which are adjacent.
CREATE FUNCTION search_latest(
    languages text[], queries tsquery[], tenant text, conversation uuid, kind text, role text, actor text,
    since timestamptz, below timestamptz, below_position bigint, wanted integer
) RETURNS search_match[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    sample            CONSTANT integer := 2000;
    -- A user with so few conversations has few documents: only these are read.
    few_conversations CONSTANT integer := 200;
    index_query tsquery := search_index_query(queries, tenant, kind, role, actor);
    is_user     CONSTANT boolean := current_tenant_user() IS NOT NULL;
    strategy    text := CASE WHEN conversation IS NULL THEN 'time' WHEN is_user THEN 'own' ELSE 'conversation' END;
    budget      integer := sample;
    matches     search_match[];
    rows        real := pg_relation_size('search_documents') / 500;
    share       real;
BEGIN
    IF numnode(index_query) = 0 THEN
        RETURN ARRAY[]::search_match[];
    END IF;
    IF strategy = 'time' AND is_user
       AND (SELECT count(*)
              FROM (SELECT
                      FROM conversation_members m
                     WHERE m.tenant_id = search_latest.tenant AND m.user_id = current_tenant_user()
                     LIMIT few_conversations + 1) AS m) <= few_conversations THEN
        strategy := 'own';
    END IF;
    LOOP
        matches := ARRAY(
            SELECT m
              FROM search_matches(strategy, languages, queries, index_query, tenant, conversation, kind, role, actor,
                                  since, below, below_position, budget, wanted) AS m
        );
        IF cardinality(matches) >= wanted
           OR strategy <> 'time'
           OR search_period_is_short(tenant, since, below, below_position, budget) THEN
            RETURN matches;
        END IF;
        strategy := CASE WHEN is_user THEN 'own' ELSE 'words' END;
        share := cardinality(matches)::real / sample;
        IF budget = sample AND cardinality(matches) > 2 THEN
            IF wanted / share < share * rows * 4 THEN
                strategy := 'time';
                budget := 2 * wanted / share;
            END IF;
        END IF;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_latest');
REVOKE ALL ON FUNCTION search_latest FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_latest', 'eventstore_search');
