-- The passages of an original text that match a query, with marks around the matches: of the first window that matches,
-- otherwise of the beginning.
CREATE FUNCTION search_snippet(document text, query tsquery, language text, marks text[], opening text, closing text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    original text;
BEGIN
    FOR at IN 0 .. length(document) / 1000 LOOP
        original := normalize(substr(document, at * 1000 + 1, 1200), NFKC);
        IF search_document(search_words(original), language, '{}') @@ query THEN
            RETURN search_marked(original, language, marks, opening, closing);
        END IF;
    END LOOP;
    RETURN search_marked(normalize(left(document, 1200), NFKC), language, marks, opening, closing);
END
$$;

SELECT eventstore_own('FUNCTION search_snippet');
