-- This moment, as a transaction id; and who is in a transaction at it.
SELECT pg_current_xact_id()::xid::text,
       (SELECT coalesce(array_agg(l.pid || ' ' || l.virtualtransaction), '{}')
          FROM pg_locks l
         WHERE l.locktype = 'virtualxid'
           AND l.pid <> pg_backend_pid())
