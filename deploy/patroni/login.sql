-- The login of the store, and its database. Patroni runs this as the superuser, once, when the first node is
-- initialised. The login migrates the database too, so it may create the store's roles (CREATEROLE). It is not a
-- superuser and has no BYPASSRLS, so row-level security holds for it.
--
-- The password comes from the environment: as an argument of psql it would show in the list of processes.
\getenv password EVENTSTORE_PASSWORD
CREATE ROLE agents LOGIN CREATEROLE NOSUPERUSER NOBYPASSRLS PASSWORD :'password';
CREATE DATABASE flowagents OWNER agents ENCODING 'UTF8' TEMPLATE template0;
