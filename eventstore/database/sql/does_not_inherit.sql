-- Whether the login may give objects to the owner's role, but would not keep the owner's rights to them.
SELECT NOT l.rolsuper
       AND (l.rolcreaterole AND NOT l.rolinherit
            OR EXISTS (
                SELECT FROM pg_roles o
                 WHERE o.rolname = 'eventstore_owner'
                   AND pg_has_role(l.oid, o.oid, %(right_to_set)s)
                   AND NOT pg_has_role(l.oid, o.oid, 'USAGE')
            ))
  FROM pg_roles l
 WHERE l.rolname = session_user
