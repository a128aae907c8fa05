-- Who asks, until the transaction ends. An empty tenant is nobody, an empty user the whole tenant. The role is said too: a
-- pooler may give this transaction a session in which somebody else has taken another one. The conversation is the one
-- that the query is about, where it is about one: it opens nothing, and makes the wall cheaper to pass.
SELECT set_config('role', %(role)s, true),
       set_config('eventstore.tenant', %(tenant)s, true),
       set_config('eventstore.user', %(user)s, true),
       set_config('eventstore.about', %(about)s, true)
