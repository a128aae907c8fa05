-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- It avoids sequential scans, and before PostgreSQL 18 that makes reading a sequence look so dear that it would be
-- compiled first, anew in each call: a second for an append. (The connections of the library compile nothing at all;
-- this is for those who call it on connections of their own.)
ALTER FUNCTION append_events(text[], uuid[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[])
    SET jit = off;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

ALTER FUNCTION append_events(text[], uuid[], integer[], integer[], uuid[], text[], smallint[], text[], jsonb[], jsonb[])
    RESET jit;
