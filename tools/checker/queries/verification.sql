-- name: altered
SELECT w.append, l.id
  FROM log l
  JOIN wanted w ON w.id = l.id
 WHERE NOT l.intact
    OR (l.tenant, l.conversation) <> (w.tenant, w.conversation)

-- name: outcomes
SELECT a.outcome,
       EXISTS (SELECT 1 FROM wanted w JOIN log l ON l.id = w.id WHERE w.append = a.number) AS is_found,
       count(*)
  FROM appends a
 GROUP BY 1, 2

-- name: foreign
SELECT NULL, l.id
  FROM log l
 WHERE NOT EXISTS (SELECT 1 FROM wanted w WHERE w.id = l.id)

-- name: half
-- Acknowledged appends are left to the query "lost".
SELECT w.append, max(l.id), max(w.id) FILTER (WHERE l.id IS NULL)
  FROM wanted w
  JOIN appends a ON a.number = w.append
  LEFT JOIN log l ON l.id = w.id
 WHERE a.outcome = 'unknown'
 GROUP BY w.append
HAVING count(l.id) > 0 AND count(*) > count(l.id)

-- name: indexes
CREATE INDEX log_position ON log (position);
CREATE INDEX log_id ON log (id);
CREATE INDEX wanted_id ON wanted (id);
CREATE INDEX wanted_append ON wanted (append);

-- name: log_after
SELECT position, tenant, conversation, version, id, intact
  FROM log
 WHERE position > :after
   AND (:tenant IS NULL OR tenant = :tenant)
 ORDER BY position

-- name: lost
SELECT w.append, w.id
  FROM wanted w
  JOIN appends a ON a.number = w.append
 WHERE a.outcome = 'acknowledged'
   AND NOT EXISTS (SELECT 1 FROM log l WHERE l.id = w.id)

-- name: moved
SELECT w.append, w.id
  FROM wanted w
  JOIN appends a ON a.number = w.append
  JOIN log l ON l.id = w.id
 WHERE a.outcome = 'acknowledged'
   AND (l.position, l.version) IS NOT (w.position, w.version)

-- name: same_position
SELECT NULL, min(l.id), max(l.id)
  FROM log l
 GROUP BY l.position
HAVING count(DISTINCT l.id) > 1

-- name: tables
CREATE TABLE log (
    position     INTEGER NOT NULL,
    tenant       TEXT    NOT NULL,
    conversation TEXT    NOT NULL,
    version      INTEGER NOT NULL,
    id           TEXT    NOT NULL,
    intact       INTEGER NOT NULL
);

-- An append as its writer knew it, with the offsets of its first and its deciding line in the journal.
CREATE TABLE appends (
    number  INTEGER PRIMARY KEY,
    journal TEXT    NOT NULL,
    begun   INTEGER NOT NULL,
    decided INTEGER NOT NULL,
    outcome TEXT    NOT NULL
);

-- The events that it should store, and the position and version that the store returned.
CREATE TABLE wanted (
    append       INTEGER NOT NULL,
    tenant       TEXT    NOT NULL,
    conversation TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    position     INTEGER,
    version      INTEGER
);

-- name: twice
SELECT w.append, l.id
  FROM log l
  LEFT JOIN wanted w ON w.id = l.id
 GROUP BY l.id
HAVING count(DISTINCT l.rowid) > 1

-- name: unwanted
SELECT w.append, max(w.id)
  FROM wanted w
  JOIN appends a ON a.number = w.append
  JOIN log l ON l.id = w.id
 WHERE a.outcome IN ('refused', 'aborted')
 GROUP BY w.append

-- name: versions
-- With each wrong event, the one before it in its conversation; with the first, the next.
SELECT NULL, coalesce(l.before, l.after), l.id
  FROM (SELECT position, id, version,
               lag(version, 1, 0) OVER conversation AS version_before,
               lag(id) OVER conversation AS before,
               lead(id) OVER conversation AS after
          FROM log
        WINDOW conversation AS (PARTITION BY tenant, conversation ORDER BY position)) AS l
 WHERE l.version <> l.version_before + 1
