-- A projection's text as a function of this session, which keeps the plans of its statements.
CREATE OR REPLACE FUNCTION pg_temp.{function}() RETURNS void
LANGUAGE plpgsql AS $fold$
BEGIN
{text}
END
$fold$
