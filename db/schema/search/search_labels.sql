-- The filters of a search, as words that no text can contain, so that one index serves all of them. The search also
-- compares the columns, so a label may be truncated.
CREATE FUNCTION search_labels(tenant text, role text, actor text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY['=' || tenant, '=' || coalesce(role, 'task') || ' of ' || tenant, left('=' || actor || ' in ' || tenant, 500)];

SELECT eventstore_set_owner('FUNCTION search_labels');
