-- A folded text without the characters that are not compared (see search_fold), and with two letters for ß, æ and œ.
CREATE FUNCTION search_expand(folded text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN replace(replace(replace(replace(folded, U&'\00AD', ''), 'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe');

SELECT eventstore_set_owner('FUNCTION search_expand');
