-- A document in which corrections look for words.
CREATE TYPE search_sampled AS (
    conversation_id uuid,
    version         integer,
    language        text,
    words           tsvector
);

SELECT eventstore_set_owner('TYPE search_sampled');
