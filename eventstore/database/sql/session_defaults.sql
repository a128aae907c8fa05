-- What the sessions of this login begin with and the store cannot work with; in a pooler's sessions nobody sets it anew.
SELECT w.name, w.value
  FROM (VALUES ('array_nulls', 'on'),
               ('default_transaction_isolation', 'read committed'),
               ('exit_on_error', 'off'),
               ('gin_fuzzy_search_limit', '0'),
               ('intervalstyle', 'postgres'),
               ('quote_all_identifiers', 'off'),
               ('row_security', 'on'),
               ('transform_null_equals', 'off')) AS w (name, value)
  JOIN pg_settings s
    ON lower(s.name) = w.name
   AND s.reset_val <> w.value
UNION ALL
SELECT s.name, %(schema)s
  FROM pg_settings s
 WHERE s.name = 'search_path'
   AND %(schema)s <> ALL (string_to_array(replace(replace(s.reset_val, '"', ''), ' ', ''), ','))
 LIMIT 1
