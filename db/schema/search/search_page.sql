-- The documents of one page, and, by relevance, the period of the matches that are ranked: from oldest to newest and
-- newest_position. `cursor_values` is the content of the cursor, null for the first page.
--
-- Ranked are the latest four hundred matches, and on later pages those of the same period. What the projection has applied
-- in the meantime can only add to them: no page lacks a match because others came between.
CREATE FUNCTION search_page(
    by text, languages text[], queries tsquery[], tenant text, conversation uuid, kind text, role text, actor text,
    since timestamptz, until timestamptz, cursor_values json, page integer,
    OUT matches search_match[], OUT oldest timestamptz, OUT newest timestamptz, OUT newest_position bigint
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    best CONSTANT integer := 400;
    most integer := greatest(best, page);
BEGIN
    IF by = 'time' THEN
        matches := search_latest(languages, queries, tenant, conversation, kind, role, actor, since,
                                 coalesce((cursor_values ->> 2)::timestamptz, until),
                                 coalesce((cursor_values ->> 3)::bigint, 0), page);
        RETURN;
    END IF;
    IF cursor_values IS NULL THEN
        matches := search_latest(languages, queries, tenant, conversation, kind, role, actor, since, until, 0, most);
        oldest := CASE WHEN cardinality(matches) < most THEN since ELSE (matches[most]).created_at END;
        newest := coalesce((matches[1]).created_at, since);
        newest_position := coalesce((matches[1]).position, 0);
    ELSE
        oldest := cursor_values ->> 4;
        newest := cursor_values ->> 5;
        newest_position := cursor_values ->> 6;
        matches := search_latest(languages, queries, tenant, conversation, kind, role, actor, oldest, newest,
                                 newest_position + 1, 10 * most);
    END IF;
    matches := ARRAY(
        SELECT f
          FROM unnest(matches) AS f
         WHERE cursor_values IS NULL OR (f.rank, f.position) < ((cursor_values ->> 2)::real, (cursor_values ->> 3)::bigint)
         ORDER BY f.rank DESC, f.position DESC
         LIMIT page
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_page');
REVOKE ALL ON FUNCTION search_page FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_page', 'eventstore_search');
