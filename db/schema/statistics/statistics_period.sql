-- The period from the beginning of the day since to the end of the day until. Only if both are null, it contains undated
-- times (statistics_day).
CREATE FUNCTION statistics_period(since date, until date, zone text, OUT first timestamptz, OUT last timestamptz)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    first := statistics_midnight(since, zone);
    last := statistics_midnight(until + 1, zone);
    IF since IS NULL AND until IS NULL THEN
        first := '-infinity';
        last := 'infinity';
    ELSE
        first := greatest(first, '0001-01-03 00:00+00');
        last := least(last, '9999-01-01 00:00+00');
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION statistics_period');
