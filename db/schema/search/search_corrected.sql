-- The query with its misspelt words corrected; null if there are none.
CREATE FUNCTION search_corrected(
    query text, tenant text, conversation uuid, kind text, role text, actor text, since timestamptz, until timestamptz,
    up_to bigint
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    unit    record;
    words   text := '';
    at      integer := 0;
    changed boolean := false;
BEGIN
    FOR unit IN
        SELECT u.side, u.negated, u.quoted, u.prefix, u.said, c.correction
          FROM search_units(query) AS u
          LEFT JOIN search_corrections(query, tenant, conversation, kind, role, actor, since, until, up_to) AS c
            ON c.ordinal = u.ordinal
         ORDER BY u.ordinal
    LOOP
        changed := changed OR unit.correction IS NOT NULL;
        words := concat_ws(' ', nullif(words, ''), CASE WHEN unit.side > at THEN 'or' END,
                           CASE WHEN unit.negated THEN '-' ELSE '' END
                           || CASE WHEN unit.quoted OR unit.said ~ '\s' THEN '"' || unit.said || '"'
                                   ELSE coalesce(unit.correction, unit.said)
                              END
                           || CASE WHEN unit.prefix THEN '*' ELSE '' END);
        at := unit.side;
    END LOOP;
    RETURN CASE WHEN changed THEN words END;
END
$$;

SELECT eventstore_own('FUNCTION search_corrected');
REVOKE ALL ON FUNCTION search_corrected FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_corrected', 'eventstore_search');
