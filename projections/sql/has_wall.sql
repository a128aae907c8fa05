-- Whether the wall around a table stands before whoever asks: neither superuser nor its owner, who sees everything.
SELECT row_security_active(c.oid) AND c.relowner <> (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user)
  FROM pg_class c
 WHERE c.oid = %(table)s::text::regclass
