-- The documents of one page. `cursor_values` is the content of the cursor, null for the first page.
CREATE FUNCTION search_page(
    by text, languages text[], queries tsquery[], tenant text, conversation uuid, kind text, role text, actor text,
    since timestamptz, until timestamptz, up_to bigint, cursor_values json, page integer
) RETURNS search_match[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    best  CONSTANT integer := 400;
    matches search_match[];
BEGIN
    IF by = 'time' THEN
        RETURN search_latest(languages, queries, tenant, conversation, kind, role, actor, since,
                             coalesce((cursor_values ->> 3)::timestamptz, until),
                             coalesce((cursor_values ->> 4)::bigint, 0), up_to, page);
    END IF;
    -- A call of its own: within the query below the planner would call it as well, to estimate the length of the array.
    matches := search_latest(languages, queries, tenant, conversation, kind, role, actor, since, until, 0, up_to,
                           greatest(best, page));
    RETURN ARRAY(
        SELECT f
          FROM unnest(matches) AS f
         WHERE cursor_values IS NULL OR (f.rank, f.position) < ((cursor_values ->> 3)::real, (cursor_values ->> 4)::bigint)
         ORDER BY f.rank DESC, f.position DESC
         LIMIT page
    );
END
$$;

SELECT eventstore_own('FUNCTION search_page');
REVOKE ALL ON FUNCTION search_page FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_page', 'eventstore_search');
