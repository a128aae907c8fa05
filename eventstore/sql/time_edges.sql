-- Positions of the first event in time at or after a moment, and of the last before another; null where there is none.
SELECT t.low, t.high
  FROM positions_in_time(%(since)s::timestamptz, %(until)s::timestamptz) AS t
