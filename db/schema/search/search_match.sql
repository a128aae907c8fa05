-- A document that was found, with its rank.
CREATE TYPE search_match AS (
    conversation_id uuid,
    version         integer,
    "position"      bigint,
    kind            text,
    id              uuid,
    role            text,
    actor           text,
    created_at      timestamptz,
    language        text,
    rank            real
);

SELECT eventstore_set_owner('TYPE search_match');
