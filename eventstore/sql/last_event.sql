-- The position of the last event at or below the horizon, whosever it is; 0 in an empty log.
SELECT event_not_above(%(horizon)s)
