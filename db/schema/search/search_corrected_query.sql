-- The query with its misspelt words corrected; null if there are none.
CREATE FUNCTION search_corrected_query(
    query text, languages text[], tenant text, conversation uuid, kind text, role text, actor text, since timestamptz,
    until timestamptz
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    term      record;
    corrected text := '';
    last_side integer := 0;
    changed   boolean := false;
BEGIN
    FOR term IN
        SELECT t.side, t.negated, t.quoted, t.prefix, t.original, c.correction
          FROM search_parse_query(query) AS t
          LEFT JOIN search_corrections(query, languages, tenant, conversation, kind, role, actor, since, until) AS c
            ON c.ordinal = t.ordinal
         ORDER BY t.ordinal
    LOOP
        changed := changed OR term.correction IS NOT NULL;
        corrected := concat_ws(' ', nullif(corrected, ''), CASE WHEN term.side > last_side THEN 'or' END,
                           CASE WHEN term.negated THEN '-' ELSE '' END
                           || CASE WHEN term.quoted THEN '"' || term.original || '"'
                                   ELSE coalesce(term.correction, term.original)
                              END
                           || CASE WHEN term.prefix THEN '*' ELSE '' END);
        last_side := term.side;
    END LOOP;
    RETURN CASE WHEN changed THEN corrected END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_corrected_query');
REVOKE ALL ON FUNCTION search_corrected_query FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_corrected_query', 'eventstore_search');
