SELECT position, tenant, conversation, version, id, intact
  FROM log
 WHERE position > :after
   AND (:tenant IS NULL OR tenant = :tenant)
 ORDER BY position
