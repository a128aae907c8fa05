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
