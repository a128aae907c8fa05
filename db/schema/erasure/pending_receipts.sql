-- The erasures of a transaction whose receipt must follow before it ends; empty outside of it. complete_erasure adds a row
-- for each conversation of a statement, and the trigger require_receipt removes it at the commit.
CREATE TABLE pending_receipts (
    id              uuid NOT NULL DEFAULT gen_random_uuid(),
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    versions        int4multirange NOT NULL,
    last_version    integer NOT NULL,
    CONSTRAINT pending_receipts_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE pending_receipts IS 'Erasures of transactions that have not ended, until their receipts are appended';
COMMENT ON COLUMN pending_receipts.versions IS 'The events that a receipt must name';
COMMENT ON COLUMN pending_receipts.last_version IS 'Of the conversation; the receipt comes after it';

ALTER TABLE pending_receipts ENABLE ROW LEVEL SECURITY;

SELECT eventstore_set_owner('TABLE pending_receipts');
