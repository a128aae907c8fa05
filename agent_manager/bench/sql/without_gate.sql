-- For a schema in which the same appends are measured without the gate: they order nothing, and find nobody asleep.
CREATE OR REPLACE FUNCTION hold_gate() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ BEGIN RETURN false; END $$;
CREATE OR REPLACE FUNCTION somebody_sleeps() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ BEGIN RETURN false; END $$;
