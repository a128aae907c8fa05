-- The beginning of a day; null for null. It is an error if the zone is unknown, or if its days do not begin on a
-- quarter of an hour.
--
-- If clocks are turned back at midnight or soon after, the day's first hours come twice, and AT TIME ZONE may return the
-- second: the day begins with the first moment that has its date. Antarctica/Casey turns its clocks back by three hours.
CREATE FUNCTION statistics_midnight(day date, zone text) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    midnight timestamptz := day::timestamp AT TIME ZONE zone;
BEGIN
    PERFORM 'epoch'::timestamptz AT TIME ZONE zone;  -- an unknown zone is an error, also without a day
    IF isfinite(midnight) THEN
        midnight := (SELECT min(m.moment)
                       FROM generate_series(midnight - interval '4 hours', midnight, '15 minutes') AS m (moment)
                      WHERE (m.moment AT TIME ZONE zone)::date >= day);
    END IF;
    IF isfinite(midnight) AND date_bin('15 minutes', midnight, '4714-11-24 00:00+00 BC') <> midnight THEN
        RAISE EXCEPTION '% does not begin on a quarter of an hour of UTC in the time zone "%"', day, zone
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'Statistics are kept by quarter of an hour, on which the days of all zones begin since 1972.',
                  HINT = 'Ask for UTC, or for later days.';
    END IF;
    RETURN midnight;
END
$$;

SELECT eventstore_set_owner('FUNCTION statistics_midnight');
