-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- file: search/search_documents.sql
-- The searchable documents: one for each event with text, filled by the projection search. The text itself is not
-- stored again: a page of results reads it from the log, by conversation and version.
CREATE TABLE search_documents (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    version         integer NOT NULL,
    position        bigint NOT NULL,
    kind            varchar(20) COLLATE "C" NOT NULL,
    id              uuid NOT NULL,
    role            varchar(50),
    actor           varchar(255) NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL,
    language        varchar(20) COLLATE "C" NOT NULL,
    words           tsvector NOT NULL
);

-- A search reads pending entries one by one: the list is short, so that searches stay fast while rows arrive.
CREATE INDEX idx_search_documents_words ON search_documents USING gin (words) WITH (gin_pending_list_limit = 256);
CREATE INDEX idx_search_documents_created_at ON search_documents (tenant_id, created_at, position);

-- A new description of a task, or name of a conversation, replaces the former one.
CREATE INDEX idx_search_documents_replaced ON search_documents (tenant_id, conversation_id, id)
 WHERE kind IN ('task', 'conversation');

-- Created last: see the table conversations.
ALTER TABLE search_documents ADD CONSTRAINT search_documents_pkey PRIMARY KEY (tenant_id, conversation_id, version);

COMMENT ON COLUMN search_documents.kind IS
    'message; task (its description), status (its message) or artifact; conversation (its name)';
COMMENT ON COLUMN search_documents.id IS 'Id of the message, task or conversation';
COMMENT ON COLUMN search_documents.words IS
    'Words of the text (weight A), their stems (weight D), and labels for filters: see search_document, search_labels';

SELECT eventstore_set_owner('TABLE search_documents');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE search_documents', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE search_documents', 'eventstore_search');
SELECT enable_rls('search_documents');

-- file: search/search_conversations.sql
-- The properties of conversations that searches use. Only those that name a language or were ever deleted have a row.
CREATE TABLE search_conversations (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    language        varchar(20) COLLATE "C",
    language_from   integer,
    is_deleted      boolean NOT NULL DEFAULT false
);

CREATE INDEX idx_search_conversations_deleted ON search_conversations (tenant_id) WHERE is_deleted;
CREATE INDEX idx_search_conversations_language ON search_conversations (tenant_id, language) WHERE language IS NOT NULL;

-- Created last: see the table conversations.
ALTER TABLE search_conversations ADD CONSTRAINT search_conversations_pkey PRIMARY KEY (tenant_id, conversation_id);

COMMENT ON COLUMN search_conversations.language_from IS
    'Version of the event that named the language: it holds for what follows';

SELECT eventstore_set_owner('TABLE search_conversations');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE search_conversations',
                        'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE search_conversations', 'eventstore_search');
SELECT enable_rls('search_conversations');

-- file: search/search_characters.sql
-- The characters outside ASCII that text search treats as parts of words, for a bracket expression. Ranges of code
-- points mean the same in every locale, \w and [[:alpha:]] do not. All other characters separate words.
--
--   letters      of alphabets whose words are separated by spaces: every locale treats them as letters
--   unsegmented  scripts without spaces between words, and those whose vowel signs some locales treat as punctuation
--   symbols      that stand for themselves, such as emoji
CREATE FUNCTION search_characters(class text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN CASE class
        WHEN 'letters' THEN
            '\u00aa\u00b5\u00ba\u00df-\u00f6\u00f8-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u0386-\u0481\u048a-\u0556'
            '\u0560-\u0586\u05d0-\u05ea\u0620-\u063f\u0641-\u064a\u066e\u066f\u0671-\u06d3\u06d5\u06fa-\u06ff'
            '\u0750-\u077f\u08a0-\u08c7\u10a0-\u10fa\u10fd-\u10ff\u1d00-\u1d2b\u1d6b-\u1d9a\u1e00-\u1fff\u2c60-\u2c7f'
            '\ua722-\ua787\ua78b-\ua7ff'
        WHEN 'unsegmented' THEN
            '\u0700-\u0963\u0971-\u0df3\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0f00\u0f18-\u0fbc\u1000-\u1049\u1050-\u109f'
            '\u1100-\u1360\u1369-\u166c\u166f-\u16ea\u16ee-\u1734\u1740-\u17d3\u17d7\u17dc-\u17ff\u180b-\u1cff'
            '\u2c00-\u2c5f\u2c80-\u2ddf\u3005-\u3007\u3021-\u302f\u3031-\u3035\u3038-\u303c\u3041-\u30fa\u30fc-\u31bf'
            '\u31f0-\u31ff\u3400-\u4dbf\u4e00-\ua4fd\ua500-\ua60c\ua610-\ua716\ua800-\ud7ff\uf900-\ufaff'
            '\U00010000-\U0001cfff\U0001e000-\U0001efff\U00020000-\U0003ffff'
        WHEN 'symbols' THEN
            '\u2190-\u24ff\u25a0-\u2bff\U0001f000-\U0001faff'
    END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_characters');

-- file: search/search_fold.sql
-- A text as it is compared: in compatibility form (NFKC), lower case, without accents, and with spaces for characters
-- that are neither letters nor digits, or that would join words (a-b, a/b, a@b.c, <a>, and the T and Z of times). The result does not depend on the
-- server's locale: in the locale C, lower() changes ASCII only, and every character beyond it is taken for a letter. Not
-- the extension "unaccent": not every server has it, and not every login may install it.
--
-- A character of the compatibility form stays one character, so that matches can be marked in it: what is not compared,
-- such as vowel marks of Hebrew and Arabic, becomes a soft hyphen. The chain of replace() is ten times faster than
-- translate().
CREATE FUNCTION search_fold(original text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    is_ascii boolean := octet_length(original) = length(original);
    -- Nearly every text is normalized already, which is found out three times as fast as it is normalized.
    folded   text := lower((CASE WHEN is_ascii OR original IS NFKC NORMALIZED THEN original
                                 ELSE normalize(original, NFKC)
                            END) COLLATE "C");
BEGIN
    folded := replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(folded,
        '-', ' '), '/', ' '), '@', ' '), '.', ' '), '_', ' '), '<', ' '), '&', ' '), '+', ' '), '\', ' '),
        chr(1), ' '), chr(2), ' ');
    IF folded LIKE '%t__:__%' THEN  -- 2026-01-31T09:30:00Z
        folded := regexp_replace(folded, '([0-9]{2})t([0-9]{2}:[0-9]{2})', '\1 \2', 'g');
        folded := regexp_replace(folded, '(:[0-9]{2}(?: [0-9]{1,9})?)z(?![0-9a-z])', '\1 ', 'g');
    END IF;
    IF is_ascii THEN
        RETURN folded;
    END IF;
    -- The letters of Western European languages; others take the slower way.
    folded := replace(replace(replace(replace(replace(replace(folded,
        'ã', 'a'), 'á', 'a'), 'ç', 'c'), 'é', 'e'), 'õ', 'o'), 'í', 'i');
    folded := replace(replace(replace(replace(replace(replace(folded,
        'ó', 'o'), 'ê', 'e'), 'ú', 'u'), 'â', 'a'), 'à', 'a'), 'ô', 'o');
    IF octet_length(folded) = length(folded) THEN
        RETURN folded;
    END IF;
    folded := regexp_replace(folded, '[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640'
                                     '\u064b-\u065f\u0670\u06d6-\u06ed\u200c\u200d\u2060\ufe00-\ufe0f\ufeff]', U&'\00AD', 'g');
    folded := lower(normalize(regexp_replace(normalize(folded, NFD), '(?<![\u0418\u0438](?=\u0306))[\u0300-\u036f]+',
                                             '', 'g'), NFC) COLLATE "C");
    IF folded ~ '[\u00c6-\u02af\u1e9e]' THEN
        folded := translate(folded, 'ÆÐØÞĐĦŁŊŒŦƁƆƉƊƎƏƐƑƓƔƖƗƘƝƟƤƬƮƱƲƳƵƷǤɃẞøłđħŧı',
                                    'æðoþdhlŋœtɓɔɖɗǝəɛƒɠɣɩɨƙɲɵƥƭʈʊʋƴƶʒǥƀßoldhti');
    END IF;
    IF folded ~ '[\u0391-\u03c2]' THEN
        folded := translate(folded, 'ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩς', 'αβγδεζηθικλμνξοπρστυφχψωσ');
    END IF;
    IF folded ~ '[\u0400-\u052f]' THEN
        folded := translate(folded, 'ЂЄЅІЈЉЊЋЏАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯѢѲѴҐҒҔҖҘҚҜҞҠҢҤҦҨҪҬҮҰҲҴҶҸҺҼҾӀӃӅӇӉӋӍӘӠӨ',
                                    'ђєѕіјљњћџабвгдежзийклмнопрстуфхцчшщъыьэюяѣѳѵґғҕҗҙқҝҟҡңҥҧҩҫҭүұҳҵҷҹһҽҿӏӄӆӈӊӌӎәӡө');
    END IF;
    IF folded ~ '[\u0531-\u0556]' THEN
        folded := translate(folded, 'ԱԲԳԴԵԶԷԸԹԺԻԼԽԾԿՀՁՂՃՄՅՆՇՈՉՊՋՌՍՎՏՐՑՒՓՔՕՖ', 'աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆ');
    END IF;
    IF folded ~ '[\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\u09e6-\u09ef\u0e50-\u0e59]' THEN
        folded := translate(folded, '٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹०१२३४५६७८९০১২৩৪৫৬৭৮৯๐๑๒๓๔๕๖๗๘๙',
                                    '01234567890123456789012345678901234567890123456789');
    END IF;
    RETURN regexp_replace(folded, format('[^\u0001-\u007f\u00ad%s%s%s]', search_characters('letters'),
                                         search_characters('unsegmented'), search_characters('symbols')), ' ', 'g');
END
$$;

SELECT eventstore_set_owner('FUNCTION search_fold');

-- file: search/search_expand.sql
-- A folded text without the characters that are not compared (see search_fold), and with two letters for ß, æ and œ.
CREATE FUNCTION search_expand(folded text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN replace(replace(replace(replace(folded, U&'\00AD', ''), 'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe');

SELECT eventstore_set_owner('FUNCTION search_expand');

-- file: search/search_bigram.sql
-- Return one or two characters, encoded as a word of ASCII letters and digits.
CREATE FUNCTION search_bigram(characters text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN 'q' || lpad(to_hex(ascii(characters)), 5, '0')
           || CASE WHEN length(characters) > 1 THEN lpad(to_hex(ascii(substr(characters, 2))), 5, '0') ELSE '' END;

SELECT eventstore_set_owner('FUNCTION search_bigram');

-- file: search/search_bigrams.sql
-- Each character of a text with the one that follows it, and the last one, as words.
CREATE FUNCTION search_bigrams(run text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN (
        SELECT string_agg(search_bigram(p.pair), ' ' ORDER BY p.n)
          FROM (SELECT c.n, concat(c.character, lead(c.character) OVER (ORDER BY c.n)) AS pair
                  FROM string_to_table(run, NULL) WITH ORDINALITY AS c (character, n)) AS p
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_bigrams');

-- file: search/search_words.sql
-- The words of a text, folded and separated by spaces, as the parser of text search must see them:
--
--   c++ and c#      as cq2b2b and cq23, of languages of one or two letters
--   東京都           as pairs of characters and the last one, each as q and its code points in hexadecimal, because no
--                   spaces separate the words: so every part of it is found
--   a symbol        as q and its code point
CREATE FUNCTION search_words(original text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    words text := original;
BEGIN
    IF words ~ '[A-Za-z](\+\+|#)' THEN
        words := regexp_replace(words, '(?<![A-Za-z0-9])([A-Za-z]{1,2})\+\+(?![+A-Za-z0-9])', '\1q2b2b ', 'g');
        words := regexp_replace(words, '(?<![A-Za-z0-9])([A-Za-z]{1,2})#(?![#A-Za-z0-9])', '\1q23 ', 'g');
    END IF;
    words := search_expand(search_fold(words));
    IF octet_length(words) = length(words)
       OR words !~ format('[%s%s]', search_characters('unsegmented'), search_characters('symbols')) THEN
        RETURN words;
    END IF;
    RETURN (
        SELECT string_agg(CASE WHEN r.run[1] IS NOT NULL THEN ' ' || search_bigrams(r.run[1]) || ' '
                               WHEN r.run[2] IS NOT NULL THEN ' ' || search_bigram(r.run[2]) || ' '
                               ELSE r.run[3]
                          END, '' ORDER BY r.ordinal)
          FROM regexp_matches(words, format('([%1$s]+)|([%2$s])|([^%1$s%2$s]+)', search_characters('unsegmented'),
                                            search_characters('symbols')), 'g') WITH ORDINALITY AS r (run, ordinal)
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_words');

-- file: search/search_split.sql
-- A word in camel case with spaces between its parts, such as "get User Name" of getUserName.
CREATE FUNCTION search_split(word text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN regexp_replace(regexp_replace(word, '([a-z0-9])([A-Z])', '\1 \2', 'g'), '([A-Z]+)([A-Z][a-z])', '\1 \2', 'g');

SELECT eventstore_set_owner('FUNCTION search_split');

-- file: search/search_identifier_parts.sql
-- The parts of the words in camel case of a text, such as "get user name" of getUserName; empty if there is none.
CREATE FUNCTION search_identifier_parts(original text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF original !~ '[a-z0-9][A-Z]|[A-Z]{2}[a-z]' THEN
        RETURN '';
    END IF;
    RETURN coalesce((
        SELECT string_agg(lower(search_split(m.word[1]) COLLATE "C"), E'\x1e')
          FROM regexp_matches(original, '(?<![A-Za-z0-9])([A-Za-z0-9]*(?:[a-z0-9][A-Z]|[A-Z]{2}[a-z])[A-Za-z0-9]*)', 'g') AS m (word)
    ), '');
END
$$;

SELECT eventstore_set_owner('FUNCTION search_identifier_parts');

-- file: search/search_language_code.sql
-- The code of a language that a text such as "pt", "pt-BR" or "en_US" names; null if it is unknown.
CREATE FUNCTION search_language_code(original text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    code text := lower(substring(original FROM '^([A-Za-z]{2})(?:[-_].*)?$'));
BEGIN
    IF code = ANY (ARRAY['ar', 'ca', 'da', 'de', 'el', 'en', 'es', 'eu', 'fi', 'fr', 'ga', 'hi', 'hu', 'hy', 'id', 'it',
                         'lt', 'ne', 'nl', 'no', 'pt', 'ro', 'ru', 'sr', 'sv', 'ta', 'tr', 'yi']) THEN
        RETURN code;
    END IF;
    -- Some clients write out the names of the two most frequent languages.
    RETURN CASE lower(original) WHEN 'portuguese' THEN 'pt' WHEN 'português' THEN 'pt' WHEN 'english' THEN 'en' END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_language_code');

-- file: search/search_config.sql
-- The text search configuration of a language; each server from version 15 on has these.
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

SELECT eventstore_set_owner('FUNCTION search_config');

-- file: search/search_prepare.sql
-- A folded text prepared for the stemmer of a language, which needs accents: the Portuguese one knows "ção" and "ções",
-- not "cao" and "coes", and few of the plurals that change a letter (viagens, hotéis, animais). These endings become
-- singular, with the accent, whether or not it was typed. A space replaces a removed letter.
CREATE FUNCTION search_prepare(folded text, language text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    prepared text := folded;
BEGIN
    IF language = 'pt' THEN
        prepared := regexp_replace(prepared, 'oes\M', 'ao ', 'g');
        prepared := regexp_replace(prepared, '([^\Wm])aes\M', '\1ao ', 'g');
        prepared := regexp_replace(prepared, '([^\Wc])aos\M', '\1ao ', 'g');
        prepared := regexp_replace(prepared, 'cao\M', 'ção', 'g');
        prepared := regexp_replace(prepared, 'ao\M', 'ão', 'g');
        prepared := regexp_replace(prepared, '([aeiou])ns\M', '\1m ', 'g');
        prepared := regexp_replace(prepared, 'ceis\M', 'cil ', 'g');
        prepared := regexp_replace(prepared, '([a-z]{2}[ae])is\M', '\1l ', 'g');
    END IF;
    RETURN prepared;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_prepare');

-- file: search/search_language_score.sql
-- Estimate the number of words of a text that are frequent in a language and rare in the others. ts_rank counts them as
-- a share of the list, much faster than a join.
CREATE FUNCTION search_language_score(words tsvector, language text) RETURNS real
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

SELECT eventstore_set_owner('FUNCTION search_language_score');

-- file: search/search_language.sql
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

-- file: search/search_script_language.sql
-- The language whose stemmer reads words of unknown language in another script than Latin; null if it is Latin, or no
-- stemmer reads the script. Words of related languages get stems too, the same in texts and queries.
CREATE FUNCTION search_script_language(words text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN CASE WHEN octet_length(words) = length(words) THEN NULL
                WHEN words ~ '[\u0430-\u052f]' THEN 'ru'
                WHEN words ~ '[\u03b1-\u03c9]' THEN 'el'
                WHEN words ~ '[\u0561-\u0587]' THEN 'hy'
                WHEN words ~ '[\u0621-\u064a]' THEN 'ar'
           END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_script_language');

-- file: search/search_stems.sql
-- The stems of words in a language, as search_query makes them. If the language is unknown, those of both main ones,
-- and, in other scripts than Latin, of the script's main one.
CREATE FUNCTION search_stems(words text, language text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    -- What search_words has encoded has no stem.
    stemmed text := CASE WHEN position('q' IN words) = 0 THEN words
                         ELSE regexp_replace(words, '\mq[0-3][0-9a-f]{4,9}\M', ' ', 'g')
                    END;
    other   text;
BEGIN
    IF language = 'und' THEN
        other := search_script_language(stemmed);
        RETURN to_tsvector('pg_catalog.english'::regconfig, stemmed)
            || to_tsvector('pg_catalog.portuguese'::regconfig, search_prepare(stemmed, 'pt'))
            || CASE WHEN other IS NULL THEN ''::tsvector ELSE to_tsvector(search_config(other), stemmed) END;
    END IF;
    RETURN to_tsvector(search_config(language), search_prepare(stemmed, language));
END
$$;

SELECT eventstore_set_owner('FUNCTION search_stems');

-- file: search/search_document.sql
-- The tsvector of the words of a text (search_words): the words as they are, with weight A, by which phrases are found;
-- their stems, with weight D; and the labels. It stays within the limit of a tsvector (1,048,575 bytes of words and
-- positions): a longer text is shortened by a quarter until it fits. Not parallel safe: a parallel query cannot enter the
-- exception block before PostgreSQL 17.
CREATE FUNCTION search_document(words text, language text, labels text[]) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    -- The control character 1E interrupts phrases: a word there, which is deleted, leaves its position free.
    fitting text := replace(words, E'\x1e', ' q00000 ');
BEGIN
    LOOP
        BEGIN
            RETURN ts_delete(setweight(to_tsvector('pg_catalog.simple'::regconfig, fitting), 'A'), 'q00000')
                || search_stems(fitting, language)
                || array_to_tsvector(labels);
        EXCEPTION
            WHEN program_limit_exceeded THEN
                fitting := left(fitting, length(fitting) * 3 / 4);
        END;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_document');

-- file: search/search_labels.sql
-- The filters of a search, as words that no text can contain, so that one index serves all of them. The search also
-- compares the columns, so a label may be truncated.
CREATE FUNCTION search_labels(tenant text, role text, actor text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY['=' || tenant, '=' || coalesce(role, 'task') || ' of ' || tenant, left('=' || actor || ' in ' || tenant, 500)];

SELECT eventstore_set_owner('FUNCTION search_labels');

-- file: search/search_json_text.sql
-- JSON as a readable string, such as the arguments of a tool call: "\u00e3" becomes a letter that can be found. Neither
-- this nor its callers are parallel safe: a parallel query cannot enter the exception block before PostgreSQL 17.
CREATE FUNCTION search_json_text(original text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    IF position('\' IN original) = 0 THEN
        RETURN original;
    END IF;
    RETURN original::jsonb::text;
EXCEPTION
    WHEN OTHERS THEN
        RETURN original;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_json_text');

-- file: search/search_text_of_parts.sql
-- The text of parts, with the control character 1E between them, which no phrase crosses: texts, names and addresses of
-- files, structured data as JSON, metadata, tool calls and their results. The contents of files are not included.
CREATE FUNCTION search_text_of_parts(parts jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    IF jsonb_typeof(parts) <> 'array' THEN
        RETURN CASE jsonb_typeof(parts) WHEN 'string' THEN parts #>> '{}' WHEN 'object' THEN (parts - 'bytes')::text END;
    END IF;
    RETURN (
        SELECT string_agg(
                   CASE jsonb_typeof(p.part)
                       WHEN 'string' THEN p.part #>> '{}'
                       WHEN 'object' THEN
                           concat_ws(' ',
                               p.part ->> 'name',
                               CASE WHEN jsonb_typeof(p.part -> 'text') = 'string' THEN p.part ->> 'text' END,
                               CASE WHEN NOT p.part ?| ARRAY['file', 'mediaType', 'mimeType', 'media_type'] THEN p.part ->> 'data' END,
                               p.part #>> '{file,name}',
                               p.part #>> '{file,uri}',
                               p.part ->> 'filename',
                               CASE WHEN p.part ->> 'url' NOT LIKE 'data:%' THEN p.part ->> 'url' END,
                               CASE WHEN p.part ->> 'uri' NOT LIKE 'data:%' THEN p.part ->> 'uri' END,
                               p.part ->> 'metadata',
                               p.part ->> 'input',
                               p.part ->> 'result',
                               search_json_text(p.part ->> 'arguments'),
                               CASE WHEN jsonb_typeof(p.part -> 'content') = 'string' THEN p.part ->> 'content'
                                    WHEN jsonb_typeof(p.part -> 'content') = 'array' THEN
                                        (SELECT string_agg(c.part ->> 'text', ' ' ORDER BY c.ordinal)
                                           FROM jsonb_array_elements(p.part -> 'content') WITH ORDINALITY AS c (part, ordinal)
                                          WHERE jsonb_typeof(c.part) = 'object')
                               END)
                   END, E'\x1e' ORDER BY p.ordinal)
          FROM jsonb_array_elements(parts) WITH ORDINALITY AS p (part, ordinal)
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_text_of_parts');

-- file: search/search_text.sql
-- The searchable text of an event: its first 100,000 characters, which search_document shortens further if they do not
-- fit. Null if the event has no text.
CREATE FUNCTION search_text(event_type text, content jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    result text;
BEGIN
    IF event_type = 'message.added' THEN
        result := concat_ws(E'\x1e', content ->> 'content', content ->> 'metadata');
        IF content ? 'parts' THEN
            result := concat_ws(E'\x1e', result, search_text_of_parts(content -> 'parts'));
        END IF;
        IF content ? 'extra' THEN
            result := concat_ws(E'\x1e', result,
                search_text_of_parts(content #> '{extra,content}'),
                search_text_of_parts(content #> '{extra,parts}'),
                (SELECT string_agg(concat_ws(' ', c.call #>> '{function,name}', search_json_text(c.call #>> '{function,arguments}'),
                                             c.call ->> 'name', c.call ->> 'args', c.call ->> 'input',
                                             search_json_text(c.call ->> 'arguments')),
                                   E'\x1e' ORDER BY c.ordinal)
                   FROM jsonb_array_elements(CASE WHEN jsonb_typeof(content #> '{extra,tool_calls}') = 'array'
                                                  THEN content #> '{extra,tool_calls}' END)
                        WITH ORDINALITY AS c (call, ordinal)),
                content #>> '{extra,function_call,name}',
                search_json_text(content #>> '{extra,function_call,arguments}'),
                content #>> '{extra,name}');
        END IF;
    ELSIF event_type IN ('conversation.created', 'conversation.renamed', 'conversation.forked') THEN
        result := content ->> 'name';
    ELSIF event_type IN ('task.created', 'task.described') THEN
        result := content ->> 'description';
    ELSIF event_type = 'task.status_changed' THEN
        result := concat_ws(E'\x1e', search_text_of_parts(content #> '{message,parts}'),
                          search_text_of_parts(content #> '{message,content}'), content #>> '{message,text}');
    ELSIF event_type IN ('task.artifact_added', 'task.artifact_extended') THEN
        result := concat_ws(E'\x1e', content ->> 'name', content ->> 'description', search_text_of_parts(content -> 'parts'));
    END IF;
    RETURN nullif(left(result, 100000), '');
END
$$;

SELECT eventstore_set_owner('FUNCTION search_text');

-- file: search/search_word_query.sql
-- Return a word as a tsquery that matches exactly it, whatever its characters.
CREATE FUNCTION search_word_query(word text) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN ('''' || replace(replace(word, '\', '\\'), '''', '''''') || '''')::tsquery;

SELECT eventstore_set_owner('FUNCTION search_word_query');

-- file: search/search_parse_query.sql
-- The terms of a query in their order: whether they are excluded or prefixes, and on which side of an "or" they are.
-- Limited to a thousand characters and forty words, also in a phrase: the time to find one grows with the square of its
-- words.
--
-- "-" excludes a word of two letters or more, or a phrase, if something else is searched for; "--help", "-5" and "ls -F"
-- are words. original: as it was typed, without the operators; words: see search_words.
CREATE FUNCTION search_parse_query(query text)
RETURNS TABLE (ordinal integer, side integer, negated boolean, quoted boolean, prefix boolean, original text, words text)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    given      text := left(query, 1000);
    groups     text[];
    has_wanted boolean := regexp_replace(given, '(?<!\S)-(?:"[^"]*"?|[^-0-9\s"][^\s"]+)', ' ', 'g') ~ '[^\s"*]';
BEGIN
    ordinal := 0;
    side := 0;
    FOR groups IN
        SELECT regexp_matches(given, '(?:((?<!\S)-)?"([^"]*)"?|([^\s"]+))', 'g')
    LOOP
        quoted := groups[2] IS NOT NULL;
        original := coalesce(groups[2], groups[3]);
        IF lower(original) = 'or' AND NOT quoted THEN
            side := side + 1;
            CONTINUE;
        END IF;
        negated := has_wanted AND (groups[1] IS NOT NULL OR (NOT quoted AND original ~ '^-[^-0-9\s][^\s]'));
        prefix := NOT quoted AND original ~ '\*$';
        original := regexp_replace(original, CASE WHEN negated AND NOT quoted THEN '^-|\*$' WHEN prefix THEN '\*$' ELSE '^$' END,
                                   '', 'g');
        words := trim(search_words(original));
        words := substring(words FROM '^[\s[:punct:]]*((?:[\s[:punct:]]*[^\s[:punct:]]+){0,40})');
        -- A quarter of all words begin with the same letter as another.
        prefix := prefix AND coalesce(length(substring(words FROM '[^\s[:punct:]]+(?=[\s[:punct:]]*$)')) > 1, false);
        IF words ~ '[^\s[:punct:]]' THEN
            ordinal := ordinal + 1;
            RETURN NEXT;
            EXIT WHEN ordinal = 40;
        END IF;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_parse_query');

-- file: search/search_exact_query.sql
-- Words (search_words) as they are, adjacent and in this order, as a tsquery; empty if there is none. A single character of
-- a script without spaces matches each pair that begins with it; after a pair, it is in that pair.
CREATE FUNCTION search_exact_query(words text, prefix boolean DEFAULT false) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    pairs text := regexp_replace(words, '(\mq[0-3][0-9a-f]{9}) q[0-3][0-9a-f]{4}\s*$', '\1');
    query text := regexp_replace(phraseto_tsquery('pg_catalog.simple'::regconfig, pairs)::text, '(''[^'']+'')', '\1:A', 'g');
BEGIN
    IF prefix THEN
        query := query || '*';
    END IF;
    RETURN regexp_replace(query, '(''q[0-3][0-9a-f]{4}'':)A', '\1*A', 'g')::tsquery;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_exact_query');

-- file: search/search_prefix_query.sql
-- The stems of words with a prefix in a language. A stem can be shorter than the typed prefix, so the prefix is
-- completed with the usual endings.
CREATE FUNCTION search_prefix_query(prefix text, language text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    found tsquery := (search_word_query(prefix)::text || ':*')::tsquery;
    word  text;
BEGIN
    FOR word IN
        SELECT DISTINCT s.lexeme
          FROM unnest(CASE language
                   WHEN 'pt' THEN ARRAY['', 'o', 'a', 'ao', 'm', 'em', 'r', 'ar', 'er', 'ir', 's', 'os', 'as', 'do', 'ado',
                                        'ndo', 'mente', 'ento', 'l', 'el', 'ia', 'ncia', 'cao', 'dade', 'e', 'es', 'vel']
                   WHEN 'en' THEN ARRAY['', 's', 'e', 'es', 'ed', 'd', 'ing', 'ng', 'ion', 'on', 'tion', 'ation', 'er', 'r', 'ly',
                                        'y', 'ment', 'ent', 'al', 'ies', 'ness', 'n', 't', 'able', 'ive', 'ity']
                   ELSE ARRAY['', 'a', 'e', 'o', 's', 'n', 'en', 'er', 'es']
               END) AS ending,
               LATERAL unnest(to_tsvector(search_config(language), search_prepare(prefix || ending, language))) AS s
         WHERE NOT starts_with(s.lexeme, prefix)
    LOOP
        found := found || search_word_query(word);
    END LOOP;
    RETURN found;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_prefix_query');

-- file: search/search_term_query.sql
-- Return one term of a query in the stems of a language; empty if it consists of stop words or of words without a
-- stem. In the language "exact", the words as they are.
CREATE FUNCTION search_term_query(words text, prefix boolean, quoted boolean, language text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    last_word text;
    before    tsquery;
BEGIN
    IF language = 'exact' OR quoted OR words ~ '\mq[0-3][0-9a-f]{4}' THEN
        RETURN search_exact_query(words, prefix);
    END IF;
    IF NOT prefix THEN
        RETURN phraseto_tsquery(search_config(language), search_prepare(words, language));
    END IF;
    last_word := left(substring(words FROM '[^\s[:punct:]]+(?=[\s[:punct:]]*$)'), 100);
    before := phraseto_tsquery(search_config(language),
                               search_prepare(substring(words FROM '^(.*?)[^\s[:punct:]]+[\s[:punct:]]*$'), language));
    RETURN before && search_prefix_query(last_word, language);
END
$$;

SELECT eventstore_set_owner('FUNCTION search_term_query');

-- file: search/search_query.sql
-- A query in the words of a language: in its stems, or, for texts whose language was not recognised, in the words as they
-- are. For texts of unknown language, the readings in the two main languages, and in that of the script, are combined.
--
-- shown: whether to return the query for the passages of a snippet instead: all words that are not excluded.
CREATE FUNCTION search_query(query text, language text, shown boolean DEFAULT false) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    combined   tsquery := '';
    whole      tsquery;
    part       tsquery;
    reading    text;
    term       record;
    term_query tsquery;
    last_side  integer;
    has_wanted boolean;
BEGIN
    FOREACH reading IN ARRAY array_remove(
        ARRAY['exact'] || CASE language WHEN 'und' THEN ARRAY['en', 'pt', search_script_language(search_fold(query))]
                                        ELSE ARRAY[language]
                          END, NULL)
    LOOP
        whole := '';
        part := '';
        last_side := 0;
        has_wanted := false;
        FOR term IN
            SELECT t.side, t.negated, t.prefix, t.quoted, t.words FROM search_parse_query(query) AS t ORDER BY t.ordinal
        LOOP
            IF term.side > last_side THEN
                whole := whole || part;
                part := '';
                last_side := term.side;
            END IF;
            term_query := search_term_query(term.words, term.prefix, term.quoted, reading);
            IF term.negated AND numnode(term_query) = 0 THEN
                term_query := search_exact_query(term.words, term.prefix);
            END IF;
            CONTINUE WHEN numnode(term_query) = 0 OR (shown AND term.negated);
            has_wanted := has_wanted OR NOT term.negated;
            part := CASE
                        WHEN shown THEN part || term_query
                        WHEN term.negated THEN part && !!term_query
                        ELSE part && term_query
                    END;
        END LOOP;
        whole := whole || part;
        -- Stop words alone leave nothing to search for but what is excluded.
        IF reading = 'exact' OR shown OR has_wanted THEN
            combined := combined || whole;
        END IF;
    END LOOP;
    RETURN combined;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_query');

-- file: search/search_languages.sql
-- The possible languages of a tenant's documents: those that are detected, and those that its conversations name.
CREATE FUNCTION search_languages(tenant text) RETURNS text[]
LANGUAGE plpgsql STABLE STRICT SET search_path FROM CURRENT AS $$
BEGIN
    RETURN (
        WITH RECURSIVE named (language) AS (
            SELECT min(c.language::text) FROM search_conversations c
             WHERE c.tenant_id = search_languages.tenant AND c.language IS NOT NULL
            UNION ALL
            SELECT (SELECT min(c.language::text) FROM search_conversations c
                     WHERE c.tenant_id = search_languages.tenant AND c.language > n.language)
              FROM named n
             WHERE n.language IS NOT NULL
        )
        SELECT array_agg(DISTINCT l.language)
          FROM (SELECT n.language FROM named n
                 UNION ALL
                SELECT unnest(ARRAY['und', 'pt', 'en', 'es', 'fr', 'de', 'it'])) AS l
         WHERE l.language IS NOT NULL
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_languages');
REVOKE ALL ON FUNCTION search_languages FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_languages', 'eventstore_search');

-- file: search/search_match.sql
-- A document that was found, with its rank.
CREATE TYPE search_match AS (
    conversation_id uuid,
    version         integer,
    "position"      bigint,
    kind            text,
    id              uuid,
    role            text,
    actor           text,
    created_at      timestamptz,
    language        text,
    rank            real
);

SELECT eventstore_set_owner('TYPE search_match');

-- file: search/search_label_query.sql
-- The filters of a search as a query for the index of words (see search_labels).
CREATE FUNCTION search_label_query(tenant text, kind text, role text, actor text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    labels text[] := search_labels(tenant, role, actor);
BEGIN
    -- The labels of roles and actors include the tenant.
    RETURN CASE
        WHEN role IS NULL AND actor IS NULL AND coalesce(kind, 'message') IN ('message', 'conversation') THEN
            search_word_query(labels[1])
        WHEN actor IS NULL THEN
            search_word_query(labels[2])
        WHEN role IS NULL AND coalesce(kind, 'message') IN ('message', 'conversation') THEN
            search_word_query(labels[3])
        ELSE
            search_word_query(labels[2]) && search_word_query(labels[3])
    END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_label_query');

-- file: search/search_index_query.sql
-- The query for the index of words: the query in each language, and the filters.
CREATE FUNCTION search_index_query(queries tsquery[], tenant text, kind text, role text, actor text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    combined tsquery := '';
    query    tsquery;
BEGIN
    FOR query IN SELECT DISTINCT q FROM unnest(queries) AS q WHERE numnode(q) > 0 LOOP
        combined := combined || query;
    END LOOP;
    RETURN CASE WHEN numnode(combined) = 0 THEN combined
                ELSE combined && search_label_query(tenant, kind, role, actor)
           END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_index_query');

-- file: search/search_period_is_short.sql
-- Return whether a period has at most so many documents. Like all functions that read the tables, it looks them up
-- by name when it runs: a rebuild replaces them.
CREATE FUNCTION search_period_is_short(tenant text, since timestamptz, below timestamptz, below_position bigint, budget integer)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET enable_seqscan = off SET jit = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
BEGIN
    RETURN NOT EXISTS (
        SELECT
          FROM search_documents d
         WHERE d.tenant_id = search_period_is_short.tenant
           AND d.created_at >= search_period_is_short.since
           AND (d.created_at, d.position) < (search_period_is_short.below, search_period_is_short.below_position)
         ORDER BY d.created_at DESC, d.position DESC
        OFFSET search_period_is_short.budget
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_period_is_short');
REVOKE ALL ON FUNCTION search_period_is_short FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_period_is_short', 'eventstore_search');

-- file: search/search_page.sql
-- The documents of one page, and, by relevance, the period of the matches that are ranked: from oldest to newest and
-- newest_position. `cursor_values` is the content of the cursor, null for the first page.
--
-- Ranked are the latest four hundred matches, and on later pages those of the same period. What the projection has applied
-- in the meantime can only add to them: no page lacks a match because others came between.
CREATE FUNCTION search_page(
    by text, languages text[], queries tsquery[], tenant text, conversation uuid, kind text, role text, actor text,
    since timestamptz, until timestamptz, cursor_values json, page integer,
    OUT matches search_match[], OUT oldest timestamptz, OUT newest timestamptz, OUT newest_position bigint
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    best CONSTANT integer := 400;
    most integer := greatest(best, page);
BEGIN
    IF by = 'time' THEN
        matches := search_latest(languages, queries, tenant, conversation, kind, role, actor, since,
                                 coalesce((cursor_values ->> 2)::timestamptz, until),
                                 coalesce((cursor_values ->> 3)::bigint, 0), page);
        RETURN;
    END IF;
    IF cursor_values IS NULL THEN
        matches := search_latest(languages, queries, tenant, conversation, kind, role, actor, since, until, 0, most);
        oldest := CASE WHEN cardinality(matches) < most THEN since ELSE (matches[most]).created_at END;
        newest := coalesce((matches[1]).created_at, since);
        newest_position := coalesce((matches[1]).position, 0);
    ELSE
        oldest := cursor_values ->> 4;
        newest := cursor_values ->> 5;
        newest_position := cursor_values ->> 6;
        matches := search_latest(languages, queries, tenant, conversation, kind, role, actor, oldest, newest,
                                 newest_position + 1, 10 * most);
    END IF;
    matches := ARRAY(
        SELECT f
          FROM unnest(matches) AS f
         WHERE cursor_values IS NULL OR (f.rank, f.position) < ((cursor_values ->> 2)::real, (cursor_values ->> 3)::bigint)
         ORDER BY f.rank DESC, f.position DESC
         LIMIT page
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_page');
REVOKE ALL ON FUNCTION search_page FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_page', 'eventstore_search');

-- file: search/search_highlight_terms.sql
-- The terms of a query to highlight in texts of a language. The first character of each is its kind:
--
--   =  a word, as it is or as a stem          *  the beginning of a word
--   "  adjacent words, separated by spaces    ~  characters, wherever they are
CREATE FUNCTION search_highlight_terms(query text, language text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    term  record;
    marks text[] := '{}';
BEGIN
    FOR term IN
        SELECT t.prefix, t.quoted, t.original, t.words, search_expand(search_fold(t.original)) AS folded
          FROM search_parse_query(query) AS t
         WHERE NOT t.negated
    LOOP
        IF term.words ~ 'q[0-3][0-9a-f]{4}|q2b2b|q23' THEN
            marks := marks || ARRAY(
                SELECT '~' || r.run[1]
                  FROM regexp_matches(lower(normalize(term.original, NFKC) COLLATE "C"),
                                      format('([%s]+|[%s]|[a-z]{1,2}(?:\+\+|#))', search_characters('unsegmented'),
                                             search_characters('symbols')), 'g') AS r (run)
            );
        END IF;
        IF term.quoted THEN
            marks := marks || ('"' || trim(regexp_replace(term.folded, '[\s[:punct:]]+', ' ', 'g')));
        ELSIF term.prefix THEN
            marks := marks || ('*' || substring(term.folded FROM '[^\s[:punct:]]+(?=[\s[:punct:]]*$)'));
        ELSE
            marks := marks || ARRAY(
                SELECT '=' || w.word
                  FROM unnest(tsvector_to_array(to_tsvector('pg_catalog.simple'::regconfig, term.folded)
                                                || search_stems(term.folded, language))) AS w (word)
            );
        END IF;
    END LOOP;
    RETURN ARRAY(SELECT DISTINCT m FROM unnest(marks) AS m);
END
$$;

SELECT eventstore_set_owner('FUNCTION search_highlight_terms');

-- file: search/search_grapheme_end.sql
-- The first place of a text, from a given one on, that is not within a character as readers see it: before it are its
-- combining marks, vowel signs, modifiers and joined emoji. The beginning of the next grapheme of Unicode, approximately.
CREATE FUNCTION search_grapheme_end(original text, place integer) RETURNS integer
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    joiner CONSTANT integer := x'200d'::integer;
    code   integer;
BEGIN
    FOR n IN place .. place + 30 LOOP
        code := ascii(substr(original, n, 1));
        IF code < 768 OR n = 1 OR NOT (
            code BETWEEN x'0300'::integer AND x'036f'::integer
            OR code BETWEEN x'0591'::integer AND x'05c7'::integer
            OR code BETWEEN x'064b'::integer AND x'065f'::integer
            -- The blocks of Indic scripts, which have the same layout.
            OR code BETWEEN x'0900'::integer AND x'0dff'::integer
               AND (code % 128 BETWEEN 1 AND 3 OR code % 128 BETWEEN 60 AND 79 OR code % 128 IN (86, 87, 98, 99))
            OR code BETWEEN x'0e31'::integer AND x'0e4e'::integer AND code NOT BETWEEN x'0e3f'::integer AND x'0e46'::integer
            OR code BETWEEN x'1160'::integer AND x'11ff'::integer
            OR code BETWEEN x'20d0'::integer AND x'20ff'::integer
            OR code BETWEEN x'fe00'::integer AND x'fe0f'::integer
            OR code BETWEEN x'1f3fb'::integer AND x'1f3ff'::integer
            OR code BETWEEN x'e0020'::integer AND x'e007f'::integer
            OR code IN (joiner, x'3099'::integer, x'309a'::integer)
            OR ascii(substr(original, n - 1, 1)) = joiner) THEN
            RETURN n;
        END IF;
    END LOOP;
    RETURN place + 31;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_grapheme_end');

-- file: search/search_highlight.sql
-- The passages of a text with matches (search_highlight_terms), and marks around the matches: at most two of about 24
-- words. If the text has no matches, its beginning.
--
-- A character of the folded text stands for the one at the same place of the text.
CREATE FUNCTION search_highlight(document text, language text, marks text[], opening text, closing text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    folded    text := search_fold(document);
    original  text := CASE WHEN length(folded) = length(document) THEN document ELSE folded END;
    -- The first two letters of the words to be marked and of their stems: what begins otherwise has another stem.
    stems     text[] := ARRAY(SELECT substr(m, 2) FROM unnest(marks) AS m WHERE m LIKE '=%');
    initials  text[] := ARRAY(SELECT left(s, 2) FROM unnest(stems) AS s);
    prefixes  text[] := ARRAY(SELECT substr(m, 2) || '%' FROM unnest(marks) AS m WHERE m LIKE '*%');
    words     text[] := '{}';
    parts     text[];
    part      text;
    places    integer[] := '{}';
    ends      integer[] := '{}';
    spans     int4multirange := '{}';
    piece     text[];
    place     integer := 1;
    next      integer;
    mark      text;
    phrase    text[];
    size      integer;
    span      int4range;
    passage   int4range;
    shown     text := '';
BEGIN
    FOR piece IN
        SELECT regexp_matches(folded, format('([0-9a-z\u00ad%1$s]+)|([^0-9a-z\u00ad%1$s]+)', search_characters('letters')),
                              'g')
    LOOP
        IF piece[1] IS NOT NULL THEN
            words := words || search_expand(piece[1]);
            places := places || place;
            ends := ends || place + length(piece[1]);
            parts := piece[1:1];
            part := substr(original, place, length(piece[1]));
            IF part ~ '[a-z0-9][A-Z]|[A-Z]{2}[a-z]' THEN
                parts := parts || string_to_array(lower(search_split(part) COLLATE "C"), ' ');
            END IF;
            next := place;
            FOR n IN 1 .. cardinality(parts) LOOP
                part := search_expand(parts[n]);
                IF part = ANY (stems)
                   OR part LIKE ANY (prefixes)
                   OR (left(part, 2) = ANY (initials) AND tsvector_to_array(search_stems(part, language)) && stems) THEN
                    spans := spans + int4multirange(int4range(next, next + length(parts[n])));
                    EXIT WHEN n = 1;
                END IF;
                next := next + CASE n WHEN 1 THEN 0 ELSE length(parts[n]) END;
            END LOOP;
        END IF;
        place := place + length(coalesce(piece[1], piece[2]));
    END LOOP;
    FOREACH mark IN ARRAY marks LOOP
        IF mark LIKE '"%' THEN
            phrase := string_to_array(substr(mark, 2), ' ');
            size := cardinality(phrase);
            FOR n IN 1 .. cardinality(words) - size + 1 LOOP
                IF words[n] = phrase[1] AND words[n:n + size - 1] = phrase THEN
                    spans := spans + int4multirange(int4range(places[n], ends[n + size - 1]));
                END IF;
            END LOOP;
        ELSIF mark LIKE '~%' THEN
            size := length(mark) - 1;
            place := 1;
            LOOP
                next := strpos(substr(lower(original COLLATE "C"), place), substr(mark, 2));
                EXIT WHEN next = 0;
                spans := spans + int4multirange(int4range(place + next - 1,
                                                          search_grapheme_end(original, place + next - 1 + size)));
                place := place + next - 1 + size;
            END LOOP;
        END IF;
    END LOOP;

    FOR number IN 1 .. 2 LOOP
        -- The first passage begins eight words before the first mark; the second, before the first one after it.
        span := (SELECT s FROM unnest(spans) AS s WHERE passage IS NULL OR lower(s) >= upper(passage) ORDER BY s LIMIT 1);
        EXIT WHEN number = 2 AND span IS NULL;
        place := coalesce(lower(span), 1);
        place := search_grapheme_end(original, greatest(
            place - least(length(substring(left(original, place - 1) FROM '(?:\S+\s+){0,8}\S*$')), 200),
            coalesce(upper(passage), 1)));
        passage := int4range(place, greatest(
            search_grapheme_end(original, place + least(
                length(substring(substr(original, place) FROM '^\s*(?:\S+\s+){0,23}\S*')), 500)),
            coalesce(upper(span), 1)));
        shown := shown || CASE WHEN number = 2 THEN ' … ' ELSE '' END;
        FOR span IN SELECT s FROM unnest(spans) AS s WHERE s <@ passage ORDER BY s LOOP
            shown := shown || substr(original, place, lower(span) - place)
                  || opening || substr(original, lower(span), upper(span) - lower(span)) || closing;
            place := upper(span);
        END LOOP;
        shown := shown || substr(original, place, upper(passage) - place);
    END LOOP;
    RETURN shown;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_highlight');

-- file: search/search_snippet.sql
-- The passages of an original text that match a query, with marks around the matches: of the first window that matches,
-- otherwise of the beginning. Characters of scripts without spaces are looked for as they are: that is faster.
CREATE FUNCTION search_snippet(document text, query tsquery, language text, marks text[], opening text, closing text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    place  integer := (SELECT min(nullif(strpos(lower(document COLLATE "C"), substr(m, 2)), 0))
                         FROM unnest(marks) AS m
                        WHERE m LIKE '~%');
    folded text;
BEGIN
    IF place IS NULL THEN
        FOR at IN 0 .. length(document) / 1000 LOOP
            folded := substr(document, at * 1000 + 1, 1200);
            folded := concat_ws(' ', search_expand(search_fold(folded)), search_identifier_parts(folded));
            IF setweight(to_tsvector('pg_catalog.simple'::regconfig, folded), 'A') || search_stems(folded, language)
               @@ query THEN
                -- With a little of what comes before, from a word on if there are spaces.
                place := greatest(at * 1000 - 199, 1);
                place := search_grapheme_end(document, place + coalesce(length(substring(
                             substr(document, place, CASE at WHEN 0 THEN 0 ELSE 50 END) FROM '^\S*\s+')), 0));
                EXIT;
            END IF;
        END LOOP;
    ELSE
        place := search_grapheme_end(document, greatest(place - 100, 1));
    END IF;
    place := coalesce(place, 1);
    RETURN search_highlight(
        normalize(replace(substr(document, place, search_grapheme_end(document, place + 1400) - place), E'\x1e', E'\n'),
                  NFKC),
        language, marks, opening, closing);
END
$$;

SELECT eventstore_set_owner('FUNCTION search_snippet');

-- file: search/search_edits.sql
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

-- file: search/search_spelling.sql
-- A folded word as a text spells it, in lower case; the word itself if the text does not have it in one piece.
CREATE FUNCTION search_spelling(word text, document text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    original text := normalize(document, NFKC);
    folded   text := search_fold(original);
    place    integer := length(substring(folded FROM format('^(.*?(?:^|[^0-9a-z%1$s]))%2$s(?![0-9a-z%1$s])',
                                                            search_characters('letters'), word)));
BEGIN
    RETURN CASE WHEN length(folded) <> length(original) THEN word
                ELSE coalesce(translate(lower(substr(original, place + 1, length(word)) COLLATE "C"),
                                        'ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞ', 'àáâãäåæçèéêëìíîïðñòóôõöøùúûüýþ'), word)
           END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_spelling');

-- file: search/search_sampled.sql
-- A document in which corrections look for words.
CREATE TYPE search_sampled AS (
    conversation_id uuid,
    version         integer,
    language        text,
    words           tsvector
);

SELECT eventstore_set_owner('TYPE search_sampled');

-- file: search/search_sample.sql
-- Return those documents of a limited number (and four megabytes) that the filters of a search match: of those that
-- the index of words finds; if there is no query for it, of the latest of the period or, for a user or in a
-- conversation, of theirs.
CREATE FUNCTION search_sample(
    index_query tsquery, tenant text, conversation uuid, kind text, role text, actor text, since timestamptz,
    until timestamptz, budget integer
) RETURNS search_sampled[]
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET enable_sort = off
SET jit = off
SET max_parallel_workers_per_gather = 0
AS $$
DECLARE
    -- Of a user with more conversations, the latest documents of some of them.
    conversations CONSTANT integer := 400;
    columns       CONSTANT text :=
        'd.tenant_id, d.conversation_id, d.version, d.kind, d.role, d.actor, d.created_at, d.language, d.words';
    own           uuid[] := ARRAY[conversation];
    result        search_sampled[];
BEGIN
    IF current_tenant_user() IS NOT NULL THEN
        own := ARRAY(SELECT m.conversation_id
                       FROM conversation_members m
                      WHERE m.tenant_id = search_sample.tenant
                        AND m.user_id = current_tenant_user()
                        AND (conversation IS NULL OR m.conversation_id = conversation)
                      LIMIT conversations);
    END IF;
    EXECUTE format(
        'SELECT array_agg(ROW(s.conversation_id, s.version, s.language, s.words)::search_sampled)
           FROM (SELECT d.*, sum(pg_column_size(d.words)) OVER (ROWS UNBOUNDED PRECEDING) AS bytes
                   FROM (%s) AS d) AS s
          WHERE s.bytes <= 4000000
            AND s.tenant_id = $2
            AND s.created_at >= $7
            AND s.created_at < $8
            AND ($4 IS NULL OR s.kind = $4 OR $4 = ''task'' AND s.kind IN (''status'', ''artifact''))
            AND ($5 IS NULL OR s.role = $5)
            AND ($6 IS NULL OR s.actor = $6)
            AND (SELECT c.is_deleted
                   FROM search_conversations c
                  WHERE c.tenant_id = $2
                    AND c.conversation_id = s.conversation_id) IS NOT TRUE',
        CASE
            WHEN index_query IS NOT NULL THEN
                format('SELECT %s FROM search_documents d WHERE d.words @@ $1 LIMIT $9', columns)
            WHEN conversation IS NULL AND current_tenant_user() IS NULL THEN
                format('SELECT %s
                          FROM search_documents d
                         WHERE d.tenant_id = $2 AND d.created_at >= $7 AND d.created_at < $8
                         ORDER BY d.created_at DESC, d.position DESC
                         LIMIT $9', columns)
            ELSE
                format('SELECT latest.*
                          FROM unnest($3) AS o (conversation_id),
                               LATERAL (SELECT %s
                                          FROM search_documents d
                                         WHERE d.tenant_id = $2 AND d.conversation_id = o.conversation_id
                                         ORDER BY d.version DESC
                                         LIMIT $9 / greatest(cardinality($3), 1)) AS latest', columns)
        END)
    INTO result
    USING index_query, tenant, own, kind, role, actor, since, until, budget;
    RETURN coalesce(result, '{}');
END
$$;

SELECT eventstore_set_owner('FUNCTION search_sample');
REVOKE ALL ON FUNCTION search_sample FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_sample', 'eventstore_search');

-- file: search/search_corrections.sql
-- The corrections of the words of a query. Corrected are the first three words of four letters or more that have no form
-- in a document that the search could return, each to a word of such documents at one edit: a likely one (search_edits)
-- if there is any, and the most frequent of these.
--
-- Words are looked for in the sample, and what it lacks by the index of words; not for a user, because the time would
-- reveal which words occur in documents of others.
CREATE FUNCTION search_corrections(
    query text, languages text[], tenant text, conversation uuid, kind text, role text, actor text, since timestamptz,
    until timestamptz
) RETURNS TABLE (ordinal integer, correction text)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    by_index CONSTANT boolean := conversation IS NULL AND current_tenant_user() IS NULL;
    labels   CONSTANT tsquery := search_label_query(tenant, kind, role, actor);
    frequent CONSTANT integer := 1000;
    sample   CONSTANT search_sampled[] := search_sample(NULL, tenant, conversation, kind, role, actor, since, until,
                                                        CASE WHEN by_index THEN frequent ELSE 5 * frequent END);
    known    text[];
    word     text;
    forms    tsquery[];
    unknown  integer := 0;
BEGIN
    FOR ordinal, word IN
        SELECT t.ordinal, t.words
          FROM search_parse_query(query) AS t
         WHERE NOT (t.negated OR t.quoted OR t.prefix)
           AND length(t.words) BETWEEN 4 AND 30
           AND t.words !~ '[0-9[:space:][:punct:]]'
         ORDER BY t.ordinal
    LOOP
        -- The word itself, and its stems in each of the languages.
        forms := ARRAY(SELECT search_exact_query(word)
                              || coalesce(string_agg(search_word_query(s.stem)::text, '|'), '')::tsquery
                         FROM unnest(languages) WITH ORDINALITY AS l (language, n)
                         LEFT JOIN LATERAL unnest(tsvector_to_array(search_stems(word, l.language))) AS s (stem)
                           ON true
                        GROUP BY l.n
                        ORDER BY l.n);
        CONTINUE WHEN EXISTS (SELECT
                                FROM unnest(sample) AS s
                               WHERE s.words @@ forms[array_position(languages, s.language)])
                   OR by_index
                      AND EXISTS (SELECT
                                    FROM unnest(search_sample(search_index_query(forms, tenant, kind, role, actor), tenant,
                                                              NULL, kind, role, actor, since, until, frequent)) AS s
                                   WHERE s.words @@ forms[array_position(languages, s.language)]);
        known := coalesce(known, ARRAY(
            SELECT DISTINCT unnest(tsvector_to_array(ts_filter(s.words, '{a}'))) FROM unnest(sample) AS s));
        correction := (
            SELECT search_spelling(f.word, (SELECT search_text(e.event_type, e.content)
                                              FROM events e
                                             WHERE e.tenant_id = search_corrections.tenant
                                               AND e.conversation_id = (f.documents[1]).conversation_id
                                               AND e.version = (f.documents[1]).version))
              FROM (SELECT c.word, c.is_likely, c.is_recent, array_agg(s) AS documents
                      FROM (SELECT e.edit AS word, e.is_likely, k.word IS NOT NULL AS is_recent
                              FROM search_edits(word) AS e
                              LEFT JOIN unnest(known) AS k (word)
                                ON k.word = e.edit
                             WHERE k.word IS NOT NULL
                                OR by_index
                                   AND EXISTS (SELECT
                                                 FROM search_documents d
                                                WHERE d.words @@ search_word_query(e.edit)
                                               OFFSET 0)
                            OFFSET 0) AS c,
                           unnest(CASE WHEN c.is_recent THEN sample
                                       ELSE search_sample(search_word_query(c.word) && labels, tenant, NULL, kind, role,
                                                          actor, since, until, frequent)
                                  END) AS s
                     WHERE s.words @@ search_exact_query(c.word)
                     GROUP BY c.word, c.is_likely, c.is_recent) AS f
             ORDER BY f.is_likely DESC, f.is_recent DESC, cardinality(f.documents) DESC, f.word
             LIMIT 1
        );
        RETURN NEXT;
        unknown := unknown + 1;
        EXIT WHEN unknown = 3;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_corrections');
REVOKE ALL ON FUNCTION search_corrections FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_corrections', 'eventstore_search');

-- file: search/search_corrected_query.sql
-- The query with its misspelt words corrected; null if there are none.
CREATE FUNCTION search_corrected_query(
    query text, languages text[], tenant text, conversation uuid, kind text, role text, actor text, since timestamptz,
    until timestamptz
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    term      record;
    corrected text := '';
    last_side integer := 0;
    changed   boolean := false;
BEGIN
    FOR term IN
        SELECT t.side, t.negated, t.quoted, t.prefix, t.original, c.correction
          FROM search_parse_query(query) AS t
          LEFT JOIN search_corrections(query, languages, tenant, conversation, kind, role, actor, since, until) AS c
            ON c.ordinal = t.ordinal
         ORDER BY t.ordinal
    LOOP
        changed := changed OR term.correction IS NOT NULL;
        corrected := concat_ws(' ', nullif(corrected, ''), CASE WHEN term.side > last_side THEN 'or' END,
                           CASE WHEN term.negated THEN '-' ELSE '' END
                           || CASE WHEN term.quoted THEN '"' || term.original || '"'
                                   ELSE coalesce(term.correction, term.original)
                              END
                           || CASE WHEN term.prefix THEN '*' ELSE '' END);
        last_side := term.side;
    END LOOP;
    RETURN CASE WHEN changed THEN corrected END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_corrected_query');
REVOKE ALL ON FUNCTION search_corrected_query FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_corrected_query', 'eventstore_search');

-- file: search/search_relaxed_query.sql
-- The query with some of its words left out: of the five longest that are not stop words in the main languages, every
-- choice of all but `fewer`. Null if it has an "or", or if less than half of the words would remain.
CREATE FUNCTION search_relaxed_query(query text, fewer integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    words    text[] := ARRAY(
        SELECT w.original
          FROM (SELECT t.ordinal, t.original
                  FROM search_parse_query(query) AS t
                 WHERE NOT (t.negated OR t.quoted OR t.prefix)
                   AND numnode(search_term_query(t.words, false, false, 'en')) > 0
                   AND numnode(search_term_query(t.words, false, false, 'pt')) > 0
                 ORDER BY length(t.original) DESC, t.ordinal
                 LIMIT 5) AS w
         ORDER BY w.ordinal
    );
    excluded text := (SELECT string_agg(' -' || CASE WHEN t.quoted THEN '"' || t.original || '"' ELSE t.original END, '')
                        FROM search_parse_query(query) AS t
                       WHERE t.negated);
    wanted   integer := cardinality(words) - fewer;
BEGIN
    IF wanted < 2 OR 2 * wanted < cardinality(words) OR EXISTS (SELECT FROM search_parse_query(query) AS t WHERE t.side > 0) THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT string_agg(c.choice || coalesce(excluded, ''), ' or ' ORDER BY c.bits)
          FROM generate_series(1, (1 << cardinality(words)) - 1) AS bits,
               LATERAL (SELECT bits, string_agg(w.word, ' ' ORDER BY w.n) AS choice, count(*) AS words
                          FROM unnest(words) WITH ORDINALITY AS w (word, n)
                         WHERE bits & (1 << (w.n::integer - 1)) <> 0) AS c
         WHERE c.words = wanted
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_relaxed_query');

-- file: search/search_cursor.sql
-- The cursor of a row: the search to which it belongs, the query that was used, the row's place in the order, and, of
-- results by relevance, the period of the matches that are ranked. Opaque to clients.
CREATE FUNCTION search_cursor(
    search text, query text, key text, "position" bigint, oldest timestamptz, newest timestamptz, newest_position bigint
) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN translate(encode(convert_to(json_build_array(search, query, key, "position", oldest, newest,
                                                    newest_position)::text, 'UTF8'), 'base64'), E'\n', '');

SELECT eventstore_set_owner('FUNCTION search_cursor');

-- file: search/search_cursor_values.sql
-- The content of a cursor; an error if it is not a cursor of this search.
CREATE FUNCTION search_cursor_values(cursor text, search text) RETURNS json
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    members json;
BEGIN
    BEGIN
        members := convert_from(decode(cursor, 'base64'), 'UTF8')::json;
        PERFORM (members ->> 3)::bigint,
                CASE left(search, 1) WHEN 't' THEN (members ->> 2)::timestamptz::text
                                     ELSE concat((members ->> 2)::real, (members ->> 4)::timestamptz,
                                                 (members ->> 5)::timestamptz, (members ->> 6)::bigint)
                END;
    EXCEPTION
        WHEN OTHERS THEN
            members := NULL;
    END;
    IF members IS NULL
       OR json_array_length(members) <> 7
       OR (members ->> 0) IS DISTINCT FROM search
       OR (members ->> 1) IS NULL
       OR (members ->> 2) IS NULL
       OR (members ->> 3) IS NULL
       OR left(search, 1) <> 't' AND num_nulls(members ->> 4, members ->> 5, members ->> 6) > 0 THEN
        RAISE EXCEPTION 'the cursor does not belong to this search'
            USING ERRCODE = 'ES005', HINT = 'Use the cursor of the last row, with the same query and filters.';
    END IF;
    RETURN members;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_cursor_values');

-- file: search/search_matches.sql
-- Find documents by one of four strategies, the latest first. Each has its own plan, made for these values: the
-- settings, and conditions in a form that no index matches, leave the planner no other, whatever its statistics.
--
-- words:        by the index of words: reads all matches;
-- time:         along the times: reads at most `budget` documents;
-- conversation: reads all documents of one conversation;
-- own:          reads all documents of the user's conversations, or of the given one if it is the user's.
--
-- For a user, no document is compared with the query unless the user may see it: otherwise the time of a search would
-- reveal which words occur in the others.
--
-- The rank is ts_rank normalised by length: a word counts less in a longer text.
--
-- queries: the query in each of the languages, in their order. Each document is matched in its own language.
-- index_query: the query for the index of words, with labels.
-- below:   only documents before this time or, at this time, below this position.
CREATE FUNCTION search_matches(
    strategy text, languages text[], queries tsquery[], index_query tsquery, tenant text, conversation uuid, kind text,
    role text, actor text, since timestamptz, below timestamptz, below_position bigint, budget integer,
    wanted integer
) RETURNS SETOF search_match
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET enable_sort = off
SET jit = off
SET max_parallel_workers_per_gather = 0
AS $$
DECLARE
    columns CONSTANT text :=
        'd.conversation_id, d.version, d.position, d.kind, d.id, d.role, d.actor, d.created_at, d.language, d.words';
    candidates CONSTANT text := CASE strategy
        WHEN 'words' THEN 'd.words @@ $4'
        WHEN 'time' THEN 'd.tenant_id = $5 AND d.created_at >= $10 AND (d.created_at, d.position) < ($11, $12)
                           ORDER BY d.created_at DESC, d.position DESC LIMIT $13'
        WHEN 'conversation' THEN 'd.tenant_id = $5 AND d.conversation_id = $6'
        WHEN 'own' THEN 'd.tenant_id = $5 AND d.conversation_id = ANY (ARRAY(
                             SELECT m.conversation_id
                               FROM conversation_members m
                              WHERE m.tenant_id = $5 AND m.user_id = $15
                                AND ($6 IS NULL OR m.conversation_id = $6)))'
    END;
    visible CONSTANT text := CASE WHEN current_tenant_user() IS NULL OR strategy = 'own' THEN 'true'
        ELSE '(SELECT true FROM conversation_members m
                WHERE m.tenant_id = $5 AND m.conversation_id = d.conversation_id AND m.user_id = $15)'
    END;
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT f.conversation_id, f.version, f.position, f.kind::text, f.id, f.role::text, f.actor::text, f.created_at,
                f.language::text,
                (ts_rank(f.words, $3[array_position($2, f.language::text)]) / (40 + length(f.words)))::real
           FROM (SELECT %1$s
                   FROM (SELECT d.*
                           FROM (SELECT %1$s, d.tenant_id FROM search_documents d WHERE %2$s OFFSET 0) AS d
                          WHERE %3$s
                         OFFSET 0) AS d
                  WHERE d.tenant_id = $5 AND d.created_at >= $10 AND (d.created_at, d.position) < ($11, $12)
                    %4$s
                    AND ts_match_vq(d.words, $3[array_position($2, d.language::text)])
                  ORDER BY d.created_at DESC, d.position DESC LIMIT $14) AS f',
        columns, candidates, visible,
        concat(CASE WHEN kind = 'task' THEN ' AND d.kind IN (''task'', ''status'', ''artifact'')'
                    WHEN kind IS NOT NULL THEN ' AND d.kind = $7'
               END,
               CASE WHEN role IS NOT NULL THEN ' AND d.role = $8' END,
               CASE WHEN actor IS NOT NULL THEN ' AND d.actor = $9' END,
               -- One lookup for each match instead of a join of all rows; none if no conversation is deleted.
               CASE WHEN EXISTS (SELECT FROM search_conversations c WHERE c.tenant_id = tenant AND c.is_deleted) THEN
                   ' AND (SELECT c.is_deleted FROM search_conversations c
                           WHERE c.tenant_id = $5 AND c.conversation_id = d.conversation_id) IS NOT TRUE'
               END))
    USING strategy, languages, queries, index_query, tenant, conversation, kind, role, actor, since, below,
          below_position, budget, wanted, current_tenant_user();
END
$$;

SELECT eventstore_set_owner('FUNCTION search_matches');
REVOKE ALL ON FUNCTION search_matches FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_matches', 'eventstore_search');

-- file: search/search_latest.sql
-- The latest matches, found by the cheaper strategy: frequent words by scanning along the times, rare ones by the index
-- of words or, for a user, by reading the user's own documents: the index also has those of others. The last two
-- thousand documents show how frequent the words are; planner statistics, which may be missing or outdated, are not
-- used. Reading a row by the index costs as much as scanning four along the times, which are adjacent.
CREATE FUNCTION search_latest(
    languages text[], queries tsquery[], tenant text, conversation uuid, kind text, role text, actor text,
    since timestamptz, below timestamptz, below_position bigint, wanted integer
) RETURNS search_match[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    sample            CONSTANT integer := 2000;
    -- A user with so few conversations has few documents: only these are read.
    few_conversations CONSTANT integer := 200;
    index_query tsquery := search_index_query(queries, tenant, kind, role, actor);
    is_user     CONSTANT boolean := current_tenant_user() IS NOT NULL;
    strategy    text := CASE WHEN conversation IS NULL THEN 'time' WHEN is_user THEN 'own' ELSE 'conversation' END;
    budget      integer := sample;
    matches     search_match[];
    rows        real := pg_relation_size('search_documents') / 500;
    share       real;
BEGIN
    IF numnode(index_query) = 0 THEN
        RETURN ARRAY[]::search_match[];
    END IF;
    IF strategy = 'time' AND is_user
       AND (SELECT count(*)
              FROM (SELECT
                      FROM conversation_members m
                     WHERE m.tenant_id = search_latest.tenant AND m.user_id = current_tenant_user()
                     LIMIT few_conversations + 1) AS m) <= few_conversations THEN
        strategy := 'own';
    END IF;
    LOOP
        matches := ARRAY(
            SELECT m
              FROM search_matches(strategy, languages, queries, index_query, tenant, conversation, kind, role, actor,
                                  since, below, below_position, budget, wanted) AS m
        );
        IF cardinality(matches) >= wanted
           OR strategy <> 'time'
           OR search_period_is_short(tenant, since, below, below_position, budget) THEN
            RETURN matches;
        END IF;
        strategy := CASE WHEN is_user THEN 'own' ELSE 'words' END;
        share := cardinality(matches)::real / sample;
        IF budget = sample AND cardinality(matches) > 2 THEN
            IF wanted / share < share * rows * 4 THEN
                strategy := 'time';
                budget := 2 * wanted / share;
            END IF;
        END IF;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_latest');
REVOKE ALL ON FUNCTION search_latest FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_latest', 'eventstore_search');

-- file: search/search_for.sql
-- Search the messages and tasks of a tenant.
--
-- query:    words; "a phrase"; -without; one or another; begins*
-- by:       'relevance': the best first, of the latest four hundred matches; 'time': all matches, the latest first.
-- only_kind: 'message'; 'task': its description, the messages of its statuses, and its artifacts; 'status'; 'artifact';
-- 'conversation': its name. only_role,
-- only_actor, only_conversation, since (inclusive), until (exclusive): null means all. query_language: the language of
-- the query, such as "pt" or "en-US"; null tries all languages of the tenant's documents.
-- page:     the maximum number of rows.
-- after:    the cursor of the last row of the previous page.
-- opening, closing: the marks around matches in snippets.
--
-- searched: the query that was used: the given one; if that finds nothing, the one with its misspelt words corrected; if
-- neither does, one with some of the words left out.
CREATE FUNCTION search_for(
    query text, tenant text, by text DEFAULT 'relevance', only_kind text DEFAULT NULL, only_role text DEFAULT NULL,
    only_actor text DEFAULT NULL, only_conversation uuid DEFAULT NULL, since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL, query_language text DEFAULT NULL, page integer DEFAULT 20, after text DEFAULT NULL,
    opening text DEFAULT '«', closing text DEFAULT '»'
) RETURNS TABLE (
    kind text, id uuid, conversation_id uuid, version integer, "position" bigint, role text, actor text,
    created_at timestamptz, language text, rank real, snippet text, searched text, cursor text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT SET client_min_messages = warning AS $$
#variable_conflict use_column
DECLARE
    languages text[];
    -- A cursor is valid only in the same search.
    search CONSTANT text := left(by, 1) || hashtextextended(concat_ws(E'\x01', query, tenant, by, only_kind,
                                only_role, only_actor, only_conversation::text, extract(epoch FROM since)::text,
                                extract(epoch FROM until)::text, query_language), 0);
    cursor_values json;
    used          text := query;
    attempt       integer := 0;
    queries       tsquery[];
    found         record;
BEGIN
    IF tenant IS DISTINCT FROM current_tenant() THEN
        RAISE EXCEPTION 'this transaction may not search the tenant %', quote_nullable(tenant)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'SELECT set_config(''eventstore.tenant'', …, true) in the same transaction, by a login that may set it.';
    END IF;
    languages := CASE WHEN query_language IS NULL THEN search_languages(tenant)
                      ELSE ARRAY[search_language_code(query_language), 'und'] END;
    IF by IS NULL OR by NOT IN ('relevance', 'time') THEN
        RAISE EXCEPTION 'by: % is unknown', quote_nullable(by) USING ERRCODE = 'ES005', HINT = 'Use relevance or time.';
    ELSIF only_kind NOT IN ('message', 'task', 'status', 'artifact', 'conversation') THEN
        RAISE EXCEPTION 'kind: % is unknown', quote_nullable(only_kind)
            USING ERRCODE = 'ES005', HINT = 'Use message, task, status, artifact or conversation.';
    ELSIF languages[1] IS NULL THEN
        RAISE EXCEPTION 'language: % is not a language that can be searched', quote_nullable(query_language)
            USING ERRCODE = 'ES005', HINT = 'Use the code of a language, such as pt or en-US.';
    ELSIF page IS NULL OR page NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'page: % is not between 1 and 1000', coalesce(page::text, 'null') USING ERRCODE = 'ES005';
    END IF;
    IF after IS NOT NULL THEN
        cursor_values := search_cursor_values(after, search);
        used := cursor_values ->> 1;
    END IF;
    LOOP
        queries := ARRAY(SELECT search_query(used, l.language) FROM unnest(languages) WITH ORDINALITY AS l (language, n)
                          ORDER BY l.n);
        found := search_page(by, languages, queries, tenant, only_conversation, only_kind, only_role, only_actor,
                             coalesce(since, '-infinity'), coalesce(until, 'infinity'), cursor_values, page);
        EXIT WHEN cardinality(found.matches) > 0 OR cursor_values IS NOT NULL;
        -- What finds nothing is tried with misspelt words corrected, then with some words left out.
        used := CASE attempt
                    WHEN 0 THEN search_corrected_query(query, languages, tenant, only_conversation, only_kind, only_role,
                                                 only_actor, coalesce(since, '-infinity'), coalesce(until, 'infinity'))
                    ELSE search_relaxed_query(query, attempt)
                END;
        attempt := attempt + 1;
        IF used IS NULL AND attempt = 1 THEN
            used := search_relaxed_query(query, attempt);
            attempt := attempt + 1;
        END IF;
        EXIT WHEN used IS NULL;
    END LOOP;
    RETURN QUERY
    SELECT m.kind, m.id, m.conversation_id, m.version, m.position, m.role, m.actor, m.created_at, m.language, m.rank,
           coalesce(search_snippet(search_text(e.event_type, e.content), shown.query, m.language, shown.marks, opening,
                                   closing), ''),
           used,
           search_cursor(search, used,
                         CASE by
                             WHEN 'time' THEN to_char(m.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.USOF')
                             ELSE m.rank::text
                         END,
                         m.position, found.oldest, found.newest, found.newest_position)
      FROM unnest(found.matches) WITH ORDINALITY AS m (conversation_id, version, "position", kind, id, role, actor, created_at,
                                                 language, rank, n)
      LEFT JOIN events e
        ON e.tenant_id = search_for.tenant
       AND e.conversation_id = m.conversation_id
       AND e.version = m.version
      LEFT JOIN (SELECT l.language, search_query(used, l.language, true) AS query, search_highlight_terms(used, l.language) AS marks
                   FROM unnest(languages) AS l (language)
                 OFFSET 0) AS shown
        ON shown.language = m.language
     ORDER BY m.n;
END
$$;

REVOKE ALL ON FUNCTION search_for FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_for', 'eventstore_reader', 'eventstore_search');

-- eventstore_search may create nothing in the schema, except at the moment at which it becomes the owner.
DO $$
BEGIN
    IF to_regrole('eventstore_search') IS NOT NULL THEN
        EXECUTE format('GRANT CREATE ON SCHEMA %I TO eventstore_search', current_schema());
        ALTER FUNCTION search_for OWNER TO eventstore_search;
        EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM eventstore_search', current_schema());
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE WARNING '% may not make eventstore_search the owner of search_for', session_user;
END
$$;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION search_for;
DROP FUNCTION search_latest;
DROP FUNCTION search_matches;
DROP FUNCTION search_cursor_values;
DROP FUNCTION search_cursor;
DROP FUNCTION search_relaxed_query;
DROP FUNCTION search_corrected_query;
DROP FUNCTION search_corrections;
DROP FUNCTION search_sample;
DROP TYPE search_sampled;
DROP FUNCTION search_spelling;
DROP FUNCTION search_edits;
DROP FUNCTION search_snippet;
DROP FUNCTION search_highlight;
DROP FUNCTION search_grapheme_end;
DROP FUNCTION search_highlight_terms;
DROP FUNCTION search_page;
DROP FUNCTION search_period_is_short;
DROP FUNCTION search_index_query;
DROP FUNCTION search_label_query;
DROP TYPE search_match;
DROP FUNCTION search_languages;
DROP FUNCTION search_query;
DROP FUNCTION search_term_query;
DROP FUNCTION search_prefix_query;
DROP FUNCTION search_exact_query;
DROP FUNCTION search_parse_query;
DROP FUNCTION search_word_query;
DROP FUNCTION search_text;
DROP FUNCTION search_text_of_parts;
DROP FUNCTION search_json_text;
DROP FUNCTION search_labels;
DROP FUNCTION search_document;
DROP FUNCTION search_stems;
DROP FUNCTION search_script_language;
DROP FUNCTION search_language;
DROP FUNCTION search_language_score;
DROP FUNCTION search_prepare;
DROP FUNCTION search_config;
DROP FUNCTION search_language_code;
DROP FUNCTION search_identifier_parts;
DROP FUNCTION search_split;
DROP FUNCTION search_words;
DROP FUNCTION search_bigrams;
DROP FUNCTION search_bigram;
DROP FUNCTION search_expand;
DROP FUNCTION search_fold;
DROP FUNCTION search_characters;
DROP TABLE search_conversations;
DROP TABLE search_documents;
