-- How many appends hold the gate of this schema's log at this moment.
SELECT count(*)
  FROM pg_locks l
 WHERE l.locktype = 'advisory'
   AND l.classid = 'events_position'::regclass::oid
   AND l.objsubid = 2
