-- Documents that were found, with their ranks.
CREATE TYPE search_found AS (
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

SELECT eventstore_own('TYPE search_found');
