-- The position of the first event at or above another, whosever it is; the highest there can be if there is none.
SELECT event_not_below(%(first)s)
