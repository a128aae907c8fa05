-- Return one or two characters, encoded as a word of ASCII letters and digits.
CREATE FUNCTION search_bigram(characters text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN 'q' || lpad(to_hex(ascii(characters)), 5, '0')
           || CASE WHEN length(characters) > 1 THEN lpad(to_hex(ascii(substr(characters, 2))), 5, '0') ELSE '' END;

SELECT eventstore_set_owner('FUNCTION search_bigram');
