-- An original text with marks where its folded form has them (chr(1) before, chr(2) after a match). Both have the same
-- length in characters, so pieces of one are cut out of the other.
CREATE FUNCTION search_highlighted(original text, prepared text, marked text, opening text, closing text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    plain    text := replace(replace(marked, chr(1), ''), chr(2), '');
    begins   integer := greatest(position(plain IN prepared), 1);
    -- The last letter of a plural that was changed to a singular follows the mark.
    piece    text := substr(original, begins, length(plain))
                     || coalesce(substring(substr(original, begins + length(plain), 1) FROM '[[:alnum:]]'), '');
    -- ts_headline omits the last full stop.
    ending   text := coalesce(substring(substr(original, begins + length(piece)) FROM '^[^[:alnum:]]{1,3}$'), '');
    shown    text := '';
    rest     text := marked;
    is_open  boolean := false;
    size     integer;
BEGIN
    LOOP
        size := strpos(rest, CASE WHEN is_open THEN chr(2) ELSE chr(1) END);
        EXIT WHEN size = 0;
        shown := shown || left(piece, size - 1);
        piece := substr(piece, size);
        rest := substr(rest, size + 1);
        IF is_open THEN
            size := length(substring(piece FROM '^[[:alnum:]]?'));
            shown := shown || left(piece, size) || closing;
            piece := substr(piece, size + 1);
            rest := substr(rest, size + 1);
        ELSE
            shown := shown || opening;
        END IF;
        is_open := NOT is_open;
    END LOOP;
    RETURN shown || piece || rtrim(ending);
END
$$;

SELECT eventstore_own('FUNCTION search_highlighted');
