-- The positions of the log. CACHE 1 is required: the gate compares positions with last_value (docs/concepts/order.md).
CREATE SEQUENCE events_position AS bigint CACHE 1;

SELECT eventstore_set_owner('SEQUENCE events_position');
