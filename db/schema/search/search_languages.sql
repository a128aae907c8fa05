-- The possible languages of a tenant's documents: those that are detected, and those that its conversations name.
CREATE FUNCTION search_languages(tenant text) RETURNS text[]
LANGUAGE plpgsql STABLE STRICT SET search_path FROM CURRENT AS $$
BEGIN
    RETURN (
        WITH RECURSIVE named (language) AS (
            SELECT min(c.language::text) FROM search_conversations c
             WHERE c.tenant_id = search_languages.tenant AND c.language IS NOT NULL
            UNION ALL
            SELECT (SELECT min(c.language::text) FROM search_conversations c
                     WHERE c.tenant_id = search_languages.tenant AND c.language > n.language)
              FROM named n
             WHERE n.language IS NOT NULL
        )
        SELECT array_agg(DISTINCT l.language)
          FROM (SELECT n.language FROM named n
                 UNION ALL
                SELECT unnest(ARRAY['und', 'pt', 'en', 'es', 'fr', 'de', 'it'])) AS l
         WHERE l.language IS NOT NULL
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_languages');
REVOKE ALL ON FUNCTION search_languages FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_languages', 'eventstore_search');
