-- What narrows a search, as words of the document that no text can have: so the one index answers for all of it. The
-- search compares the columns as well, so a label may be cut to what fits.
CREATE FUNCTION search_labels(tenant text, role text, actor text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY['=' || tenant, '=' || coalesce(role, 'task') || ' of ' || tenant, left('=' || actor || ' in ' || tenant, 500)];

SELECT eventstore_own('FUNCTION search_labels');
