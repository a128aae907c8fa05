-- The day of a time; null if the time is undated. Programs write the first day of the calendar, or the last year that
-- they know, for a time that they do not have.
CREATE FUNCTION statistics_day(moment timestamptz, zone text) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN moment >= '0001-01-03 00:00+00' AND moment < '9999-01-01 00:00+00'
            THEN (moment AT TIME ZONE zone)::date
       END;

SELECT eventstore_set_owner('FUNCTION statistics_day');
