-- The language of a folded text, from the words at its beginning: the one of six with most votes, if these are at least
-- a twentieth of all words (JSON data has a few by accident); otherwise 'und'.
CREATE FUNCTION search_language(folded text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    words tsvector := to_tsvector('pg_catalog.simple'::regconfig, left(folded, 250));
    pt    real := search_language_score(words, 'pt');
    en    real := search_language_score(words, 'en');
    es    real;
    fr    real;
    de    real;
    it    real;
    best  real;
BEGIN
    -- Most texts are decided here.
    IF least(pt, en) = 0 AND greatest(pt, en) > 0.15 * length(words) + 0.5 THEN
        RETURN CASE WHEN pt > en THEN 'pt' ELSE 'en' END;
    END IF;
    es := search_language_score(words, 'es');
    fr := search_language_score(words, 'fr');
    de := search_language_score(words, 'de');
    it := search_language_score(words, 'it');
    best := greatest(pt, en, es, fr, de, it, 0.05 * length(words)) * 0.99;
    RETURN CASE (pt > best)::integer + (en > best)::integer + (es > best)::integer + (fr > best)::integer
                + (de > best)::integer + (it > best)::integer
        WHEN 1 THEN
            CASE WHEN pt > best THEN 'pt' WHEN en > best THEN 'en' WHEN es > best THEN 'es'
                 WHEN fr > best THEN 'fr' WHEN de > best THEN 'de' ELSE 'it' END
        ELSE 'und'
    END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_language');
