-- A folded word as a text spells it, in lower case; the word itself if the text does not have it in one piece.
CREATE FUNCTION search_spelling(word text, document text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    original text := normalize(document, NFKC);
    folded   text := search_fold(original);
    place    integer := length(substring(folded FROM format('^(.*?(?:^|[^0-9a-z%1$s]))%2$s(?![0-9a-z%1$s])',
                                                            search_characters('letters'), word)));
BEGIN
    RETURN CASE WHEN length(folded) <> length(original) THEN word
                ELSE coalesce(translate(lower(substr(original, place + 1, length(word)) COLLATE "C"),
                                        'ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞ', 'àáâãäåæçèéêëìíîïðñòóôõöøùúûüýþ'), word)
           END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_spelling');
