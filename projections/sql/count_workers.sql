SELECT count(*)
  FROM pg_locks l
 WHERE l.locktype = 'advisory'
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND l.classid = 'checkpoints'::regclass::oid
   AND l.objid = 16
   AND l.objsubid = 2
   AND l.granted
