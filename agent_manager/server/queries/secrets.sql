-- name: store_secret
-- Stores a secret under a name, unless another process has stored one.
INSERT INTO server_secrets AS s (name, secret)
VALUES (%(name)s, %(secret)s)
    ON CONFLICT ON CONSTRAINT server_secrets_pkey DO NOTHING
RETURNING s.secret

-- name: read_secret
-- Returns the secret of a name, which all server processes share.
SELECT s.secret
  FROM server_secrets s
 WHERE s.name = %(name)s
