-- The flag of waiting sessions: 1 from when one begins to wait until an append finds that none waits any more. A
-- sequence, because a changed value is visible at once.
CREATE SEQUENCE waiter_flag AS integer MINVALUE 0 MAXVALUE 1 START 0 CACHE 1;
SELECT setval('waiter_flag', 1);

SELECT eventstore_set_owner('SEQUENCE waiter_flag');
