-- Who asks, until the transaction ends. An empty tenant is nobody, an empty user the whole tenant. The conversation is the
-- one that the query is about, where it is about one: it opens nothing, and makes the wall cheaper to pass.
SELECT set_config('eventstore.tenant', %(tenant)s, true),
       set_config('eventstore.user', %(user)s, true),
       set_config('eventstore.about', %(about)s, true)
