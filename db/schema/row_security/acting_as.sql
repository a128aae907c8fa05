-- Whether the current user is that role. Declared immutable although it is not, so that it is gone when a plan is made:
-- then the wall costs those roles nothing, and full text, whose operators are not leakproof, can use its index. This is
-- right for policies and nothing else: PostgreSQL never uses a plan with row level security for another role than the one
-- it was made for.
CREATE FUNCTION acting_as(role name) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN current_user = role;

SELECT eventstore_own('FUNCTION acting_as');
