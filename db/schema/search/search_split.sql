-- A word in camel case with spaces between its parts, such as "get User Name" of getUserName.
CREATE FUNCTION search_split(word text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN regexp_replace(regexp_replace(word, '([a-z0-9])([A-Z])', '\1 \2', 'g'), '([A-Z]+)([A-Z][a-z])', '\1 \2', 'g');

SELECT eventstore_set_owner('FUNCTION search_split');
