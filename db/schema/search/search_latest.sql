-- The latest matches, found in the cheaper way: frequent words by scanning along the times, rare ones by the index of
-- words. The last two thousand documents tell how frequent the words are; planner statistics, which may be missing or
-- outdated, are not used. Reading a row by the index costs as much as scanning eight along the times, which are
-- adjacent.
CREATE FUNCTION search_latest(
    languages text[], queries tsquery[], tenant text, conversation uuid, kind text, role text, actor text,
    since timestamptz, below timestamptz, below_position bigint, up_to bigint, wanted integer
) RETURNS search_found[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    sample CONSTANT integer := 2000;
    asked  tsquery := search_narrowed(queries, tenant, kind, role, actor);
    way    text := CASE WHEN conversation IS NULL THEN 'time' ELSE 'conversation' END;
    budget integer := sample;
    found  search_found[];
    rows   real := pg_relation_size('search_documents') / 500;
    share  real;
    -- A user with so few conversations has few documents: only these are read.
    few    CONSTANT integer := 200;
BEGIN
    IF numnode(asked) = 0 THEN
        RETURN ARRAY[]::search_found[];
    END IF;
    IF way = 'time' AND current_tenant_user() IS NOT NULL
       AND (SELECT count(*)
              FROM (SELECT
                      FROM conversation_members m
                     WHERE m.tenant_id = search_latest.tenant AND m.user_id = current_tenant_user()
                     LIMIT few + 1) AS m) <= few THEN
        way := 'own';
    END IF;
    LOOP
        found := ARRAY(SELECT f FROM search_look(way, languages, queries, asked, tenant, conversation, kind, role, actor, since,
                                                 below, below_position, up_to, budget, wanted) AS f);
        IF cardinality(found) >= wanted OR way <> 'time' OR search_is_short(tenant, since, below, below_position, budget) THEN
            RETURN found;
        END IF;
        way := 'words';
        share := cardinality(found)::real / sample;
        IF budget = sample AND cardinality(found) > 2 THEN
            IF wanted / share < share * rows * 8 THEN
                way := 'time';
                budget := 2 * wanted / share;
            END IF;
        END IF;
    END LOOP;
END
$$;

SELECT eventstore_own('FUNCTION search_latest');
REVOKE ALL ON FUNCTION search_latest FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_latest', 'eventstore_search');
