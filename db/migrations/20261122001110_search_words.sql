-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Text as it is compared: small letters without accents, and signs that would join words to one (a-b, a/b, a@b.c, <a>)
-- taken for spaces. A character stays a character, so that what is found can be marked in the text as it was written;
-- only marks that combine with nothing are lost. An own function and no extension: "unaccent" is not on every server,
-- and not every login may install it. The chain of replace() is ten times faster than translate().
CREATE FUNCTION search_fold(given text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    folded text := replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(lower(given),
        '-', ' '), '/', ' '), '@', ' '), '.', ' '), '_', ' '), '<', ' '), '&', ' '), '+', ' '), '\', ' '),
        chr(1), ' '), chr(2), ' ');
BEGIN
    IF octet_length(folded) = length(folded) THEN
        RETURN folded;
    END IF;
    -- The letters that Western European languages use; what else there is takes the longer way.
    folded := replace(replace(replace(replace(replace(replace(folded,
        'ã', 'a'), 'á', 'a'), 'ç', 'c'), 'é', 'e'), 'õ', 'o'), 'í', 'i');
    folded := replace(replace(replace(replace(replace(replace(folded,
        'ó', 'o'), 'ê', 'e'), 'ú', 'u'), 'â', 'a'), 'à', 'a'), 'ô', 'o');
    IF folded ~ '[^\u0001-\u007f\u2010-\u203a]' THEN
        folded := replace(replace(replace(replace(folded, 'ø', 'o'), 'ł', 'l'), 'đ', 'd'), 'ı', 'i');
        folded := lower(normalize(regexp_replace(normalize(folded, NFD), '[\u0300-\u036f]+', '', 'g'), NFC));
    END IF;
    RETURN folded;
END
$$;

-- The language that a text such as "pt", "pt-BR" or "en_US" names, by its code; null where none of ours.
CREATE FUNCTION search_language_named(given text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    code text := lower(substring(given FROM '^([A-Za-z]{2})(?:[-_].*)?$'));
BEGIN
    IF code = ANY (ARRAY['ar', 'ca', 'da', 'de', 'el', 'en', 'es', 'eu', 'fi', 'fr', 'ga', 'hi', 'hu', 'hy', 'id', 'it',
                         'lt', 'ne', 'nl', 'no', 'pt', 'ro', 'ru', 'sr', 'sv', 'ta', 'tr', 'yi']) THEN
        RETURN code;
    END IF;
    -- Some write it out; these two are those that such logs are mostly in.
    RETURN CASE lower(given) WHEN 'portuguese' THEN 'pt' WHEN 'português' THEN 'pt' WHEN 'english' THEN 'en' END;
END
$$;

-- The server's stemmer for a language; every server from 15 on has these.
CREATE FUNCTION search_config(language text) RETURNS regconfig
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN CASE language
        WHEN 'pt' THEN 'pg_catalog.portuguese'::regconfig
        WHEN 'en' THEN 'pg_catalog.english'::regconfig
        WHEN 'es' THEN 'pg_catalog.spanish'::regconfig
        WHEN 'fr' THEN 'pg_catalog.french'::regconfig
        WHEN 'de' THEN 'pg_catalog.german'::regconfig
        WHEN 'it' THEN 'pg_catalog.italian'::regconfig
        WHEN 'ar' THEN 'pg_catalog.arabic'::regconfig
        WHEN 'ca' THEN 'pg_catalog.catalan'::regconfig
        WHEN 'da' THEN 'pg_catalog.danish'::regconfig
        WHEN 'el' THEN 'pg_catalog.greek'::regconfig
        WHEN 'eu' THEN 'pg_catalog.basque'::regconfig
        WHEN 'fi' THEN 'pg_catalog.finnish'::regconfig
        WHEN 'ga' THEN 'pg_catalog.irish'::regconfig
        WHEN 'hi' THEN 'pg_catalog.hindi'::regconfig
        WHEN 'hu' THEN 'pg_catalog.hungarian'::regconfig
        WHEN 'hy' THEN 'pg_catalog.armenian'::regconfig
        WHEN 'id' THEN 'pg_catalog.indonesian'::regconfig
        WHEN 'lt' THEN 'pg_catalog.lithuanian'::regconfig
        WHEN 'ne' THEN 'pg_catalog.nepali'::regconfig
        WHEN 'nl' THEN 'pg_catalog.dutch'::regconfig
        WHEN 'no' THEN 'pg_catalog.norwegian'::regconfig
        WHEN 'ro' THEN 'pg_catalog.romanian'::regconfig
        WHEN 'ru' THEN 'pg_catalog.russian'::regconfig
        WHEN 'sr' THEN 'pg_catalog.serbian'::regconfig
        WHEN 'sv' THEN 'pg_catalog.swedish'::regconfig
        WHEN 'ta' THEN 'pg_catalog.tamil'::regconfig
        WHEN 'tr' THEN 'pg_catalog.turkish'::regconfig
        WHEN 'yi' THEN 'pg_catalog.yiddish'::regconfig
        ELSE 'pg_catalog.simple'::regconfig
    END;
END
$$;

-- Folded text made ready for a language's stemmer, which reads accents: the Portuguese one knows "ção" and "ções", not
-- "cao" and "coes", and few of the plurals that change a letter (viagens, hotéis, animais). So those endings become
-- the singular, and get the accent back, whether or not it was typed. A letter less is made up for by a space.
CREATE FUNCTION search_prepare(folded text, language text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    prepared text := folded;
BEGIN
    IF language = 'pt' THEN
        prepared := regexp_replace(prepared, 'oes\M', 'ao ', 'g');
        prepared := regexp_replace(prepared, '([^\Wm])aes\M', '\1ao ', 'g');
        prepared := regexp_replace(prepared, 'cao\M', 'ção', 'g');
        prepared := regexp_replace(prepared, 'ao\M', 'ão', 'g');
        prepared := regexp_replace(prepared, '([aeiou])ns\M', '\1m ', 'g');
        prepared := regexp_replace(prepared, 'ceis\M', 'cil ', 'g');
        prepared := regexp_replace(prepared, '([a-z]{2}[ae])is\M', '\1l ', 'g');
    END IF;
    RETURN prepared;
END
$$;

-- How many words a text has of those that are frequent in a language and seldom in the others: about so many. ts_rank
-- counts them, much faster than any join would, as a share of all of the list.
CREATE FUNCTION search_vote(words tsvector, language text) RETURNS real
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN CASE language
        WHEN 'pt' THEN 43 * ts_rank('{1,1,1,1}', words,
            'nao | uma | um | com | em | do | dos | na | no | ao | os | voce | eu | meu | minha | isso |
             foi | sao | mais | pelo | pela | ou | ola | qual | tem | seu | sua | obrigado | quando |
             muito | ele | ela | dela | dele | mas | ja | tambem | aqui | porque | preciso | quero | esse |
             essa')
        WHEN 'en' THEN 43 * ts_rank('{1,1,1,1}', words,
            'the | and | of | to | is | you | for | it | that | with | was | i | my | have | this | are |
             not | be | on | can | your | what | please | from | how | at | an | or | we | but | they |
             there | would | when | he | she | if | all | me | does | has | were | by')
        WHEN 'es' THEN 25 * ts_rank('{1,1,1,1}', words,
            'el | los | las | una | y | en | del | con | mi | pero | esta | usted | su | muy | hola |
             gracias | hay | yo | lo | es | puedo | donde | cuando | tiene | quiero')
        WHEN 'fr' THEN 28 * ts_rank('{1,1,1,1}', words,
            'le | les | des | est | et | une | dans | pour | je | vous | pas | du | au | ce | sur | avec |
             mon | nous | il | qui | bonjour | merci | votre | sont | ne | cette | elle | plus')
        WHEN 'de' THEN 30 * ts_rank('{1,1,1,1}', words,
            'der | und | ist | nicht | ich | ein | eine | mit | zu | auf | den | sie | wie | fur | von |
             im | bitte | wir | dem | auch | haben | kann | mein | aber | danke | das | die | es | wenn |
             sich')
        WHEN 'it' THEN 30 * ts_rank('{1,1,1,1}', words,
            'il | di | che | non | sono | della | gli | per | mi | questo | una | nel | ho | ciao |
             grazie | alla | anche | come | piu | dei | con | vorrei | sul | essere | dove | la | le | si |
             ma | quando')
    END;
END
$$;

-- The language of a folded text, by the words at its beginning: the one of six that has most votes, a twentieth of all
-- words at least (data in JSON has a few by accident); 'und' where that does not decide.
CREATE FUNCTION search_language(folded text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    words tsvector := to_tsvector('pg_catalog.simple'::regconfig, left(folded, 250));
    pt    real := search_vote(words, 'pt');
    en    real := search_vote(words, 'en');
    es    real;
    fr    real;
    de    real;
    it    real;
    best  real;
BEGIN
    -- Most texts are clear at once.
    IF least(pt, en) = 0 AND greatest(pt, en) > 0.15 * length(words) + 0.5 THEN
        RETURN CASE WHEN pt > en THEN 'pt' ELSE 'en' END;
    END IF;
    es := search_vote(words, 'es');
    fr := search_vote(words, 'fr');
    de := search_vote(words, 'de');
    it := search_vote(words, 'it');
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

-- The stems of a folded text. Of a text whose language is not known, those of the two main languages and the words
-- as they are. Everything is looked up again in the same way, see search_query.
CREATE FUNCTION search_stems(folded text, language text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF language = 'und' THEN
        RETURN to_tsvector('pg_catalog.simple'::regconfig, folded)
            || to_tsvector('pg_catalog.english'::regconfig, folded)
            || to_tsvector('pg_catalog.portuguese'::regconfig, search_prepare(folded, 'pt'));
    END IF;
    RETURN to_tsvector(search_config(language), search_prepare(folded, language));
END
$$;

-- What is indexed of a folded text: its stems and the labels, cut to what a tsvector holds (1,048,575 bytes of words and
-- positions). Three readings of 100,000 bytes always fit: a word with its separator takes at most 2.5 times its bytes,
-- position included. A longer text is shortened by a quarter until it fits. Not parallel safe: a parallel query cannot
-- enter the exception block before PostgreSQL 17.
CREATE FUNCTION search_document(folded text, language text, labels text[]) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    fitting text := folded;
BEGIN
    WHILE octet_length(fitting) > 100000 LOOP
        BEGIN
            RETURN search_stems(fitting, language) || array_to_tsvector(labels);
        EXCEPTION
            WHEN program_limit_exceeded THEN
                fitting := left(fitting, length(fitting) * 3 / 4);
        END;
    END LOOP;
    RETURN search_stems(fitting, language) || array_to_tsvector(labels);
END
$$;

SELECT eventstore_own(format('FUNCTION %s', p.oid::regprocedure))
  FROM pg_proc p
 WHERE p.pronamespace = current_schema()::regnamespace
   AND p.proname IN ('search_fold',
                     'search_language_named',
                     'search_config',
                     'search_prepare',
                     'search_vote',
                     'search_language',
                     'search_stems',
                     'search_document');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION search_document;
DROP FUNCTION search_stems;
DROP FUNCTION search_language;
DROP FUNCTION search_vote;
DROP FUNCTION search_prepare;
DROP FUNCTION search_config;
DROP FUNCTION search_language_named;
DROP FUNCTION search_fold;
