-- The distinct words at the beginning of a text (search_words), as search_documents keeps them.
CREATE FUNCTION search_plain_words(words text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN array_to_string(tsvector_to_array(to_tsvector('pg_catalog.simple'::regconfig, left(words, 1000))), ' ');

SELECT eventstore_set_owner('FUNCTION search_plain_words');
