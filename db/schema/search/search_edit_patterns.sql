-- The patterns (LIKE) of all words at one edit from a word, in any alphabet.
CREATE FUNCTION search_edit_patterns(word text) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT array_agg(DISTINCT p.pattern)
      FROM generate_series(0, length(search_edit_patterns.word)) AS i,
           LATERAL (VALUES (left(word, i), substr(word, i + 1))) AS cut (before, behind),
           LATERAL (
               VALUES (cut.before || '_' || cut.behind),
                      (CASE WHEN cut.behind <> '' THEN cut.before || '_' || substr(cut.behind, 2) END),
                      (CASE WHEN cut.behind <> '' THEN cut.before || substr(cut.behind, 2) END),
                      (CASE WHEN length(cut.behind) > 1 THEN
                          cut.before || substr(cut.behind, 2, 1) || substr(cut.behind, 1, 1) || substr(cut.behind, 3)
                       END)
           ) AS p (pattern)
     WHERE p.pattern IS NOT NULL;
END;

SELECT eventstore_set_owner('FUNCTION search_edit_patterns');
