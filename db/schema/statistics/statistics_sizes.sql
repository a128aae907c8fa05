-- Sizes of the texts of messages, of the parts of messages, and of the chunks of artifacts, the last two as JSON.
CREATE FUNCTION statistics_sizes(
    tenant text, since date DEFAULT NULL, until date DEFAULT NULL, of_actor text DEFAULT NULL, zone text DEFAULT 'UTC'
) RETURNS TABLE (what text, number bigint, characters bigint, bytes bigint, average_bytes float8, largest_bytes bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan SET jit = off SET work_mem = '64MB' AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    RETURN QUERY
    SELECT l.what, l.number, l.characters, l.bytes, l.bytes::float8 / nullif(l.number, 0), l.largest::bigint
      FROM (SELECT coalesce(sum(a.messages), 0)::bigint AS messages,
                   coalesce(sum(a.characters), 0)::bigint AS characters,
                   coalesce(sum(a.bytes), 0)::bigint AS bytes,
                   coalesce(sum(a.parts), 0)::bigint AS parts,
                   coalesce(sum(a.parts_bytes), 0)::bigint AS parts_bytes,
                   coalesce(sum(a.artifacts), 0)::bigint AS artifacts,
                   coalesce(sum(a.artifact_bytes), 0)::bigint AS artifact_bytes,
                   coalesce(max(a.largest_text), 0) AS largest_text,
                   coalesce(max(a.largest_parts), 0) AS largest_parts,
                   coalesce(max(a.largest_artifact), 0) AS largest_artifact
              FROM statistics_activity a
             WHERE a.tenant_id = tenant
               AND a.quarter_hour >= first AND a.quarter_hour < last
               AND (a.actor = of_actor OR of_actor IS NULL)) AS s
     CROSS JOIN LATERAL (VALUES ('text', s.messages, s.characters, s.bytes, s.largest_text),
                                ('parts', s.parts, NULL, s.parts_bytes, s.largest_parts),
                                ('artifacts', s.artifacts, NULL, s.artifact_bytes, s.largest_artifact))
                        AS l (what, number, characters, bytes, largest);
END
$$;

SELECT eventstore_set_owner('FUNCTION statistics_sizes');
REVOKE ALL ON FUNCTION statistics_sizes FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION statistics_sizes', 'eventstore_reader');
