-- All words at one edit (a letter missing, added, replaced, or exchanged with the next) from a folded word, in its alphabet.
CREATE FUNCTION search_edits(word text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    letters text := CASE WHEN word ~ '[\u0370-\u03ff]' THEN 'αβγδεζηθικλμνξοπρστυφχψω'
                         WHEN word ~ '[\u0400-\u052f]' THEN 'абвгдежзиклмнопрстуфхцчшщъыьэюяђєѕіјљњћџґ'
                         WHEN word ~ '[\u0530-\u058f]' THEN 'աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆև'
                         WHEN word ~ '[\u05d0-\u05ea]' THEN 'אבגדהוזחטיךכלםמןנסעףפץצקרשת'
                         WHEN word ~ '[\u0620-\u06ff]' THEN 'ءابةتثجحخدذرزسشصضطظعغفقكلمنهوىيپچژکگی'
                         WHEN word ~ '[\u10d0-\u10ff]' THEN 'აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ'
                         ELSE 'abcdefghijklmnopqrstuvwxyz'
                    END;
BEGIN
    RETURN ARRAY(
        SELECT DISTINCT e.edit
          FROM generate_series(0, length(word)) AS i,
               LATERAL (SELECT left(word, i) AS before, substr(word, i + 1) AS behind) AS cut,
               LATERAL (
                   SELECT cut.before || substr(cut.behind, 2)
                    UNION ALL
                   SELECT cut.before || substr(cut.behind, 2, 1) || left(cut.behind, 1) || substr(cut.behind, 3)
                    UNION ALL
                   SELECT cut.before || l.letter || substr(cut.behind, n)
                     FROM string_to_table(letters, NULL) AS l (letter), generate_series(1, 2) AS n
               ) AS e (edit)
         WHERE e.edit <> word
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_edits');
