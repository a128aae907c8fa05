-- Apply a batch of the log to the table messages: a row for each message added, under the id of its event.
--
-- The column content is never null: it has the text that was sent, otherwise the text of the parts. So that the message
-- can be returned as it was sent (eventstore/message_format.py), extra has a text that was sent empty or beside parts, and
-- member_order has the order of its members (eventstore/member_order.py).
INSERT INTO messages (id, conversation_id, tenant_id, version, role, content, parts, created_at, actor, given_id,
                      extra, metadata, member_order)
SELECT b.id, b.conversation_id, b.tenant_id, b.version,
       b.content ->> 'role',
       coalesce(b.content ->> 'content',
                text_of_parts(b.content -> 'parts'),
                text_of_parts(b.content #> '{extra,content}'),
                ''),
       b.content -> 'parts',
       occurred_at(b.metadata, b.timestamp),
       b.actor,
       b.content ->> 'given_id',
       nullif(coalesce(b.content -> 'extra', '{}')
              || CASE WHEN b.content ->> 'content' = '' OR b.content ?& '{content,parts}'
                      THEN jsonb_build_object('content', b.content -> 'content')
                      ELSE '{}'
                 END,
              '{}'),
       b.content -> 'metadata',
       nullif(coalesce(b.metadata #> '{eventstore.member_order,content}', '{}')
              || CASE WHEN b.content ? 'sent_order'
                      THEN jsonb_build_object('sent', b.content -> 'sent_order')
                      ELSE '{}'
                 END,
              '{}')
  FROM batch b
 WHERE b.event_type = 'message.added'
 ORDER BY b.position;
