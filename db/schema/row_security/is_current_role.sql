-- Return whether a role is the current user. Declared immutable although it is not, so that the planner replaces it
-- by its value: then policies cost those roles nothing, and full text, whose operators are not leakproof, can use
-- its index. This is only right in policies: PostgreSQL never uses a plan with row-level security for another role
-- than the one it was made for.
CREATE FUNCTION is_current_role(role name) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN current_user = role;

SELECT eventstore_set_owner('FUNCTION is_current_role');
