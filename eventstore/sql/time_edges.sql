-- Positions of the first event in time at or after a moment, and of the last before another; null where there is none.
SELECT (SELECT e.position FROM events e WHERE e.timestamp >= %(since)s::timestamptz ORDER BY e.timestamp ASC LIMIT 1),
       (SELECT e.position FROM events e WHERE e.timestamp < %(until)s::timestamptz ORDER BY e.timestamp DESC LIMIT 1)
