-- One word as a tsquery that stands for exactly it, whatever characters it has.
CREATE FUNCTION search_word(word text) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN ('''' || replace(replace(word, '\', '\\'), '''', '''''') || '''')::tsquery;

SELECT eventstore_own('FUNCTION search_word');
