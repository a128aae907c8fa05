-- The day of a time. Days that only some zones reach are moved to the last day that clients can read.
CREATE FUNCTION statistics_day(moment timestamptz, zone text) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN greatest(least((moment AT TIME ZONE zone)::date, '9999-12-31'::date), '0001-01-01'::date);

SELECT eventstore_own('FUNCTION statistics_day');
