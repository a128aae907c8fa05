-- The settings on which migrations rely, until the transaction ends, whatever the server, the database, the login or an
-- earlier user of a pooled session has set. Settings that this version of the server does not have are left out.
SET LOCAL role TO DEFAULT;
SELECT pg_catalog.set_config(v.name, v.value, true)
  FROM (VALUES
           -- Names: ours first, temporary objects last.
           ('search_path', '{schema}, pg_temp'),
           -- Reading values, and writing them into definitions.
           ('datestyle', 'ISO, MDY'), ('intervalstyle', 'postgres'), ('timezone', 'UTC'), ('bytea_output', 'hex'),
           ('extra_float_digits', '1'), ('xmloption', 'content'), ('quote_all_identifiers', 'off'),
           -- Reading SQL.
           ('backslash_quote', 'safe_encoding'), ('transform_null_equals', 'off'),
           ('array_nulls', 'on'), ('check_function_bodies', 'on'), ('plpgsql.extra_errors', 'none'),
           -- What is made, and where.
           ('default_tablespace', ''), ('temp_tablespaces', ''), ('default_table_access_method', 'heap'),
           ('createrole_self_grant', ''),
           -- Row-level security filters; it does not raise errors.
           ('row_security', 'on'),
           -- A migration takes the time it takes.
           ('lock_timeout', '0'), ('statement_timeout', '0'), ('transaction_timeout', '0'),
           ('idle_in_transaction_session_timeout', '0')
       ) AS v (name, value)
 WHERE v.name LIKE '%.%'
    OR v.name IN (SELECT lower(s.name) FROM pg_catalog.pg_settings s);
