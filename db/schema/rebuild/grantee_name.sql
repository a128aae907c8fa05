-- The name of a role in a GRANT; 0 is PUBLIC.
CREATE FUNCTION grantee_name(role oid) RETURNS text
LANGUAGE sql STABLE
RETURN CASE role WHEN 0 THEN 'PUBLIC' ELSE role::regrole::text END;

SELECT eventstore_set_owner('FUNCTION grantee_name');
