-- A log as one would first draw it.
CREATE TABLE seed_events (
    id              uuid         NOT NULL PRIMARY KEY,
    conversation_id uuid         NOT NULL,
    actor           varchar(255) NOT NULL,
    content         jsonb        NOT NULL,
    timestamp       timestamptz  NOT NULL,
    event_type      varchar(100) NOT NULL
);
