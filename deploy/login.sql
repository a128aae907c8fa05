-- The roles of the store, its two logins, and its database. The image of PostgreSQL runs this with psql as its superuser,
-- once, when the data folder is made; so can you, on a server of your own. docs/concepts/roles.md says what each role may.
--
-- agents           the service and its workers: they take the roles of one tenant's readers and writers, the projector's and,
--                  to erase on request, the eraser's
-- agents_migrator  migrates and rebuilds: it owns the database, and takes the role that owns the tables
--
-- Neither is a superuser, creates roles, or has BYPASSRLS, so row-level security holds for both.

-- The passwords come from files: as an argument of psql they would show in the list of processes.
\set service_password `cat "$EVENTSTORE_SERVICE_PASSWORD_FILE"`
\set migrator_password `cat "$EVENTSTORE_MIGRATOR_PASSWORD_FILE"`
SELECT '' IN (:'service_password', :'migrator_password') AS is_missing \gset
\if :is_missing
    DO $$ BEGIN RAISE EXCEPTION 'EVENTSTORE_SERVICE_PASSWORD_FILE and EVENTSTORE_MIGRATOR_PASSWORD_FILE must name readable files with a password'; END $$;
\endif

CREATE ROLE eventstore_owner NOLOGIN;
CREATE ROLE eventstore_migrator NOLOGIN;
CREATE ROLE eventstore_app NOLOGIN NOINHERIT;
CREATE ROLE eventstore_writer NOLOGIN;
CREATE ROLE eventstore_reader NOLOGIN;
CREATE ROLE eventstore_auditor NOLOGIN;
CREATE ROLE eventstore_projector NOLOGIN;
CREATE ROLE eventstore_search NOLOGIN;
CREATE ROLE eventstore_eraser NOLOGIN;
GRANT eventstore_owner TO eventstore_migrator;
GRANT eventstore_writer, eventstore_reader, eventstore_auditor TO eventstore_app;

CREATE ROLE agents LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOBYPASSRLS PASSWORD :'service_password';
GRANT eventstore_app, eventstore_projector, eventstore_eraser TO agents;

CREATE ROLE agents_migrator LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOBYPASSRLS PASSWORD :'migrator_password';
GRANT eventstore_migrator, eventstore_search, eventstore_app, eventstore_projector, eventstore_eraser
   TO agents_migrator;

CREATE DATABASE flowagents OWNER agents_migrator ENCODING 'UTF8' TEMPLATE template0;
-- By default every login of the server may connect. Another one that shall: GRANT CONNECT ON DATABASE flowagents TO it.
REVOKE ALL ON DATABASE flowagents FROM PUBLIC;
GRANT CONNECT ON DATABASE flowagents TO agents;
GRANT TEMPORARY ON DATABASE flowagents TO eventstore_owner;  -- for restoring a backup
