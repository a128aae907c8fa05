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
