CREATE TABLE log (
    position     INTEGER NOT NULL,
    tenant       TEXT    NOT NULL,
    conversation TEXT    NOT NULL,
    version      INTEGER NOT NULL,
    id           TEXT    NOT NULL,
    intact       INTEGER NOT NULL
);

-- An append as its writer knew it. The offsets say where in the journal its first and its deciding line stand.
CREATE TABLE appends (
    number  INTEGER PRIMARY KEY,
    journal TEXT    NOT NULL,
    begun   INTEGER NOT NULL,
    decided INTEGER NOT NULL,
    fate    TEXT    NOT NULL
);

-- The events that it was to store, and where it was told that they stand.
CREATE TABLE wanted (
    append       INTEGER NOT NULL,
    tenant       TEXT    NOT NULL,
    conversation TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    position     INTEGER,
    version      INTEGER
);
