-- For the rest of the transaction the tables of a stage are found before the live ones, and temporary ones before both.
SELECT set_config('search_path',
                  format('pg_temp, %%I, %%I', stage_schema(%(stage)s), stage_schema('live')),
                  true)
