-- What the checker itself needs: checkpoints of readers, and something that foreign transactions write to.
CREATE TABLE check_checkpoints (
    reader   text   PRIMARY KEY,
    position bigint NOT NULL
);
CREATE TABLE check_strangers (
    note text NOT NULL
);
