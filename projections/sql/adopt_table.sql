SELECT eventstore_own(format('TABLE %%I', %(table)s::text)),
       eventstore_grant(format('SELECT ON TABLE %%I', %(table)s::text), 'eventstore_reader'),
       eventstore_grant(format('SELECT, INSERT, UPDATE, DELETE ON TABLE %%I', %(table)s::text), 'eventstore_projector'),
       raise_wall(format('%%I', %(table)s::text)::regclass)
