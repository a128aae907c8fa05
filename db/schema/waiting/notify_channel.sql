-- The channel on which appends notify waiting sessions.
CREATE FUNCTION notify_channel() RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN 'eventstore_' || current_schema();

SELECT eventstore_set_owner('FUNCTION notify_channel');
