-- The table that the PostgreSQL adapter of logicblocks-event-store writes to, with the keys and indexes it is meant to have.
CREATE TABLE events (
    sequence_number bigserial   NOT NULL,
    id              text        NOT NULL PRIMARY KEY,
    category        text        NOT NULL,
    stream          text        NOT NULL,
    position        integer     NOT NULL,
    name            text        NOT NULL,
    payload         jsonb       NOT NULL,
    observed_at     timestamptz NOT NULL,
    occurred_at     timestamptz NOT NULL
);
CREATE INDEX ON events (sequence_number);
CREATE INDEX ON events (category, stream, position);
CREATE INDEX ON events (category, sequence_number);
