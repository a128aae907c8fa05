-- The conversation that a query names as its only one, by the setting eventstore.conversation_id: policies then look up its
-- members once instead of once a row. It is a hint; naming a conversation shows no more rows, and naming none shows no
-- fewer.
CREATE FUNCTION current_conversation() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('eventstore.conversation_id', true), '')::uuid;

SELECT eventstore_set_owner('FUNCTION current_conversation');
