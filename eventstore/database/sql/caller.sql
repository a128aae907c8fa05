-- Who asks, until the transaction ends. An empty tenant is nobody, an empty user the whole tenant.
SELECT set_config('eventstore.tenant', %(tenant)s, true),
       set_config('eventstore.user', %(user)s, true)
