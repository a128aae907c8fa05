-- The query for the index of words: the query in each language, and the filters.
CREATE FUNCTION search_index_query(queries tsquery[], tenant text, kind text, role text, actor text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    combined tsquery := '';
    query    tsquery;
BEGIN
    FOR query IN SELECT DISTINCT q FROM unnest(queries) AS q WHERE numnode(q) > 0 LOOP
        combined := combined || query;
    END LOOP;
    RETURN CASE WHEN numnode(combined) = 0 THEN combined
                ELSE combined && search_label_query(tenant, kind, role, actor)
           END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_index_query');
