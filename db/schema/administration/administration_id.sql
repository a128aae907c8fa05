-- The conversation of administrative acts: the same id for every tenant. The append functions refuse it, and projections
-- do not see it; record_administrative_act alone writes to it.
CREATE FUNCTION administration_id() RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '704a23d0-25df-52d6-b826-5b26f57f7d51'::uuid;

SELECT eventstore_set_owner('FUNCTION administration_id');
