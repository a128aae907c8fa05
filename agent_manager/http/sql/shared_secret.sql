-- The secret of a name, which all server processes share.
SELECT s.secret
  FROM server_secrets s
 WHERE s.name = %(name)s
