-- What the store is measured against: a table like its log, with the same columns, constraints and indexes, and nothing
-- else; and a counter for its positions.
CREATE SEQUENCE bare_position AS bigint;
CREATE TABLE bare_events (LIKE events INCLUDING ALL);
