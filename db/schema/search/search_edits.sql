-- The words at one edit from a folded word, in its alphabet: of another than Latin it has two letters, because one may be
-- the wrong one. is_likely: whether the word lacks a letter, or has two exchanged; an added or replaced letter could be
-- any of the alphabet, which makes each such edit less likely.
CREATE FUNCTION search_edits(word text) RETURNS TABLE (edit text, is_likely boolean)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    letters text := CASE WHEN word ~ '[\u0370-\u03ff].*[\u0370-\u03ff]' THEN 'αβγδεζηθικλμνξοπρστυφχψω'
                         WHEN word ~ '[\u0400-\u052f].*[\u0400-\u052f]' THEN 'абвгдежзийклмнопрстуфхцчшщъыьэюяђєѕіјљњћџґ'
                         WHEN word ~ '[\u0530-\u058f].*[\u0530-\u058f]' THEN 'աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆև'
                         WHEN word ~ '[\u05d0-\u05ea].*[\u05d0-\u05ea]' THEN 'אבגדהוזחטיךכלםמןנסעףפץצקרשת'
                         WHEN word ~ '[\u0620-\u06ff].*[\u0620-\u06ff]' THEN 'ءابةتثجحخدذرزسشصضطظعغفقكلمنهوىيپچژکگی'
                         WHEN word ~ '[\u10d0-\u10ff].*[\u10d0-\u10ff]' THEN 'აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ'
                         ELSE 'abcdefghijklmnopqrstuvwxyz'
                    END;
BEGIN
    RETURN QUERY
    SELECT e.edit, bool_or(e.is_likely)
      FROM generate_series(0, length(word)) AS i,
           LATERAL (SELECT left(word, i) AS before, substr(word, i + 1) AS behind) AS cut,
           LATERAL (
               SELECT cut.before || substr(cut.behind, 2, 1) || left(cut.behind, 1) || substr(cut.behind, 3), true
                UNION ALL
               SELECT cut.before || substr(cut.behind, 2), false
                UNION ALL
               SELECT cut.before || l.letter || substr(cut.behind, n), n = 1
                 FROM string_to_table(letters, NULL) AS l (letter), generate_series(1, 2) AS n
           ) AS e (edit, is_likely)
     WHERE e.edit <> word
     GROUP BY e.edit;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_edits');
