-- The filters of a search as a query for the index of words (see search_labels).
CREATE FUNCTION search_label_query(tenant text, kind text, role text, actor text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    labels text[] := search_labels(tenant, role, actor);
BEGIN
    -- The labels of roles and actors include the tenant.
    RETURN CASE
        WHEN role IS NULL AND actor IS NULL AND coalesce(kind, 'message') IN ('message', 'conversation') THEN
            search_word_query(labels[1])
        WHEN actor IS NULL THEN
            search_word_query(labels[2])
        WHEN role IS NULL AND coalesce(kind, 'message') IN ('message', 'conversation') THEN
            search_word_query(labels[3])
        ELSE
            search_word_query(labels[2]) && search_word_query(labels[3])
    END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_label_query');
