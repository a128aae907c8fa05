-- The query for the index of words: the query in each language, and the labels (see search_labels).
CREATE FUNCTION search_index_query(queries tsquery[], tenant text, kind text, role text, actor text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    combined tsquery := '';
    query    tsquery;
    labels   text[];
BEGIN
    FOR query IN SELECT DISTINCT q FROM unnest(queries) AS q WHERE numnode(q) > 0 LOOP
        combined := combined || query;
    END LOOP;
    IF numnode(combined) = 0 THEN
        RETURN combined;
    END IF;
    labels := search_labels(tenant, role, actor);
    IF role IS NULL AND actor IS NULL AND coalesce(kind, 'message') IN ('message', 'conversation') THEN
        RETURN combined && search_word_query(labels[1]);
    END IF;
    -- These labels include the tenant.
    IF role IS NOT NULL OR kind IN ('task', 'status', 'artifact') THEN
        combined := combined && search_word_query(labels[2]);
    END IF;
    IF actor IS NOT NULL THEN
        combined := combined && search_word_query(labels[3]);
    END IF;
    RETURN combined;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_index_query');
