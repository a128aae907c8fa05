-- The login of the service, and its database. The image of PostgreSQL runs this as its superuser, once, when the data
-- folder is made. The login may create the store's roles (CREATEROLE); it is not a superuser and has no BYPASSRLS, so
-- row-level security holds for it. For a login that does not even migrate, see docs/concepts/roles.md.
--
-- The password comes from the environment: as an argument of psql it would show in the list of processes.
\getenv password EVENTSTORE_PASSWORD
CREATE ROLE agents LOGIN CREATEROLE NOSUPERUSER NOBYPASSRLS PASSWORD :'password';
CREATE DATABASE flowagents OWNER agents ENCODING 'UTF8' TEMPLATE template0;
