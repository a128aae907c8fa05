-- Return a word as a tsquery that matches exactly it, whatever its characters.
CREATE FUNCTION search_word_query(word text) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN ('''' || replace(replace(word, '\', '\\'), '''', '''''') || '''')::tsquery;

SELECT eventstore_set_owner('FUNCTION search_word_query');
