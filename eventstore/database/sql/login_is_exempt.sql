-- Whether row-level security does not hold for the session's login.
SELECT r.rolsuper OR r.rolbypassrls
  FROM pg_roles r
 WHERE r.rolname = session_user
