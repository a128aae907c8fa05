-- The query for the index of words: the query in each language, and the labels (see search_labels).
CREATE FUNCTION search_narrowed(queries tsquery[], tenant text, kind text, role text, actor text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    asked   tsquery := '';
    reading tsquery;
    labels  text[];
BEGIN
    FOR reading IN SELECT DISTINCT q FROM unnest(queries) AS q WHERE numnode(q) > 0 LOOP
        asked := asked || reading;
    END LOOP;
    IF numnode(asked) = 0 THEN
        RETURN asked;
    END IF;
    labels := search_labels(tenant, role, actor);
    IF role IS NULL AND actor IS NULL AND kind IS DISTINCT FROM 'task' THEN
        RETURN asked && search_word(labels[1]);
    END IF;
    -- These labels include the tenant.
    IF role IS NOT NULL OR kind = 'task' THEN
        asked := asked && search_word(labels[2]);
    END IF;
    IF actor IS NOT NULL THEN
        asked := asked && search_word(labels[3]);
    END IF;
    RETURN asked;
END
$$;

SELECT eventstore_own('FUNCTION search_narrowed');
