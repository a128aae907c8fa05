-- Beside each that is wrong, the one before it in its conversation; beside the first, the next.
SELECT NULL, coalesce(l.before, l.after), l.id
  FROM (SELECT position, id, version,
               lag(version, 1, 0) OVER conversation AS version_before,
               lag(id) OVER conversation AS before,
               lead(id) OVER conversation AS after
          FROM log
        WINDOW conversation AS (PARTITION BY tenant, conversation ORDER BY position)) AS l
 WHERE l.version <> l.version_before + 1
