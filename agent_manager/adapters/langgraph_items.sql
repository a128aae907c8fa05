-- projection: langgraph_items
-- tables: langgraph_items
-- setup
CREATE TABLE langgraph_items (
    tenant_id       text        NOT NULL,
    conversation_id uuid        NOT NULL,
    owner           text        NOT NULL,
    path            text        COLLATE "C" NOT NULL,
    key             text        COLLATE "C" NOT NULL,
    version         integer     NOT NULL,
    value           jsonb,
    vectors         jsonb,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    ttl             interval,
    expires_at      timestamptz,
    PRIMARY KEY (tenant_id, conversation_id, path, key)
);
CREATE INDEX idx_langgraph_items_path ON langgraph_items (tenant_id, owner, path, key);
CREATE INDEX idx_langgraph_items_expiry ON langgraph_items (tenant_id, expires_at) WHERE expires_at IS NOT NULL;
COMMENT ON TABLE langgraph_items IS 'The items of LangGraph''s store; a deleted one is a row without a value';
COMMENT ON COLUMN langgraph_items.path IS 'The labels of the namespace, each with %25 for %, %2F for /, and / at its end';
COMMENT ON COLUMN langgraph_items.vectors IS 'By the path of a text in the value its embedding: base64 of floats of 4 bytes';
-- batch
-- Events may be applied again, or after later ones: an item has the version of the last event that changed it.
INSERT INTO langgraph_items AS i (tenant_id, conversation_id, owner, path, key, version, created_at, updated_at)
SELECT b.tenant_id, b.conversation_id, coalesce(b.content ->> 'user', ''), b.content ->> 'path', b.content ->> 'key',
       max(b.version), max(b.timestamp), max(b.timestamp)
  FROM batch b
 WHERE b.event_type = 'langgraph.item_deleted'
   AND b.content ? 'path'  -- unless it was erased
 GROUP BY 1, 2, 3, 4, 5
ON CONFLICT (tenant_id, conversation_id, path, key) DO UPDATE
   SET version = excluded.version, value = NULL, vectors = NULL, created_at = excluded.created_at, updated_at = excluded.updated_at,
       ttl = NULL, expires_at = NULL
 WHERE i.version < excluded.version;

INSERT INTO langgraph_items AS i (tenant_id, conversation_id, owner, path, key, version, value, vectors, created_at,
                                  updated_at, ttl, expires_at)
SELECT p.tenant_id, p.conversation_id, coalesce(p.content ->> 'user', ''), p.path, p.key, p.version,
       p.content -> 'value', p.content -> 'vectors', p.created_at, p.timestamp, t.ttl, p.timestamp + t.ttl
  FROM (SELECT DISTINCT ON (d.tenant_id, d.conversation_id, d.path, d.key)
               d.*,
               -- When it was put for the first time since it was deleted, as far as this batch shows.
               min(d.timestamp) FILTER (WHERE d.event_type = 'langgraph.item_put') OVER (
                   PARTITION BY d.tenant_id, d.conversation_id, d.path, d.key, d.deletions
               ) AS created_at
          FROM (SELECT b.tenant_id, b.conversation_id, b.content ->> 'path' AS path, b.content ->> 'key' AS key,
                       b.version, b.content, b.timestamp, b.event_type,
                       count(*) FILTER (WHERE b.event_type = 'langgraph.item_deleted') OVER (
                           PARTITION BY b.tenant_id, b.conversation_id, b.content ->> 'path', b.content ->> 'key'
                           ORDER BY b.version
                       ) AS deletions
                  FROM batch b
                 WHERE b.event_type IN ('langgraph.item_put', 'langgraph.item_deleted')
                   AND b.content ? 'path') AS d
         ORDER BY d.tenant_id, d.conversation_id, d.path, d.key, d.version DESC) AS p
 CROSS JOIN LATERAL (SELECT (p.content ->> 'ttl')::double precision * interval '1 minute' AS ttl) AS t
 WHERE p.event_type = 'langgraph.item_put'
ON CONFLICT (tenant_id, conversation_id, path, key) DO UPDATE
   SET version = excluded.version, value = excluded.value, vectors = excluded.vectors, updated_at = excluded.updated_at, ttl = excluded.ttl,
       created_at = CASE WHEN i.value IS NULL THEN excluded.created_at ELSE i.created_at END,
       expires_at = excluded.expires_at
 WHERE i.version < excluded.version;

UPDATE langgraph_items i
   SET version = r.version, expires_at = r.timestamp + i.ttl
  FROM (SELECT b.tenant_id, b.conversation_id, item ->> 0 AS path, item ->> 1 AS key,
               max(b.version) AS version, max(b.timestamp) AS timestamp
          FROM batch b
         CROSS JOIN LATERAL jsonb_array_elements(b.content -> 'items') AS item
         WHERE b.event_type = 'langgraph.items_refreshed'
         GROUP BY 1, 2, 3, 4) AS r
 WHERE (i.tenant_id, i.conversation_id, i.path, i.key) = (r.tenant_id, r.conversation_id, r.path, r.key)
   AND i.version < r.version
   AND i.ttl IS NOT NULL;
