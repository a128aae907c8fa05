INSERT INTO check_checkpoints AS c (reader, position)
VALUES (%(reader)s, %(position)s)
    ON CONFLICT (reader) DO UPDATE SET position = excluded.position
