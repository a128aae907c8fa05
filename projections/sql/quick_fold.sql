-- A projection's text as a function of this session, which keeps the plans of its statements. They are made once for
-- batches of any content, so they must not rest on how large the tables are: a small batch finds its rows by the keys.
CREATE OR REPLACE FUNCTION pg_temp.{function}() RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $fold$
BEGIN
{text}
END
$fold$
