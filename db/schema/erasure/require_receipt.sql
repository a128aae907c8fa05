-- Refuse to commit an erasure that no receipt names, whichever statements have made it.
CREATE FUNCTION require_receipt() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM pending_receipts p WHERE p.id = NEW.id;
    IF NOT NEW.versions <@ (
           SELECT coalesce(range_agg(int4range((v ->> 0)::integer, (v ->> 1)::integer, '[]')), '{}')
             FROM events r
            CROSS JOIN LATERAL jsonb_array_elements(r.content -> 'versions') AS v
            WHERE r.tenant_id = NEW.tenant_id
              AND r.conversation_id = NEW.conversation_id
              AND r.version > NEW.last_version
              AND r.event_type IN ('conversation.erased', 'event.erased')
              AND r.salt IS NOT NULL
       ) THEN
        RAISE EXCEPTION 'no receipt names the versions % of conversation % that were erased', NEW.versions, NEW.conversation_id
            USING ERRCODE = 'restrict_violation',
                  HINT = 'The command line and the HTTP API append the receipt with the erasure: docs/guides/erasure.md.';
    END IF;
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION require_receipt');
REVOKE ALL ON FUNCTION require_receipt FROM PUBLIC;

CREATE CONSTRAINT TRIGGER require_receipt
    AFTER INSERT ON pending_receipts
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION require_receipt();

ALTER TABLE pending_receipts ENABLE ALWAYS TRIGGER require_receipt;

-- migrate:down
DROP TRIGGER require_receipt ON pending_receipts;
DROP FUNCTION require_receipt;
