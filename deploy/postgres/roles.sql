-- Two roles: tether_owner migrates and owns the tables, tether_server is what the nodes log in as.
-- It reads and writes rows, and can neither create, change nor drop a table.
--
--   createdb --encoding UTF8 --template template0 tether
--   psql -v ON_ERROR_STOP=1 -d tether -f roles.sql
--
-- as a superuser, before the first `tether migrate` or later, as often as you like. tether_owner becomes
-- the owner of tables that another role made. Then give the roles passwords, with \password in psql.

SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY['tether_owner', 'tether_server']) AS name
WHERE name NOT IN (SELECT rolname FROM pg_roles)
\gexec

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO tether_owner, tether_server;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO tether_owner;
GRANT USAGE ON SCHEMA public TO tether_server;

-- Existing objects of any owner (except those of extensions),
SELECT format('ALTER TABLE %s OWNER TO tether_owner', oid::regclass)
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
AND relowner <> 'tether_owner'::regrole
AND oid NOT IN (SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e')
\gexec

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO tether_server;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO tether_server;

-- and objects that later migrations add, if tether_owner or the role that runs this script migrates.
ALTER DEFAULT PRIVILEGES FOR ROLE tether_owner, CURRENT_USER IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO tether_server;
ALTER DEFAULT PRIVILEGES FOR ROLE tether_owner, CURRENT_USER IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO tether_server;
