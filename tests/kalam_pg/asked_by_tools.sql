-- grafana: the tables of the search path
SELECT quote_ident(table_name) FROM information_schema.tables WHERE table_schema IN (SELECT CASE WHEN trim(s[i]) =
'"$user"' THEN user ELSE trim(s[i]) END FROM
generate_series(array_lower(string_to_array(current_setting('search_path'),','),1),
array_upper(string_to_array(current_setting('search_path'),','),1)) as i,
string_to_array(current_setting('search_path'),',') s) ORDER BY quote_ident(table_name);

-- grafana: the columns of a table
SELECT quote_ident(column_name) AS "column", data_type AS "type" FROM information_schema.columns WHERE
quote_ident(table_name) = 'orders';

-- grafana: the version
SELECT current_setting('server_version_num')::int/100 as version;

-- jdbc: what a type is called
SELECT n.nspname = ANY(current_schemas(true)), n.nspname, t.typname FROM pg_catalog.pg_type t JOIN
pg_catalog.pg_namespace n ON t.typnamespace = n.oid WHERE t.oid = 1043;

-- jdbc: the type of a name, by the search path
SELECT typinput='array_in'::regproc as is_array, typtype, typname, pg_type.oid FROM pg_catalog.pg_type LEFT JOIN
(select ns.oid as nspoid, ns.nspname, r.r from pg_namespace as ns join ( select s.r, (current_schemas(false))[s.r] as
nspname from generate_series(1, array_upper(current_schemas(false), 1)) as s(r) ) as r using ( nspname )) as sp ON
sp.nspoid = typnamespace WHERE pg_type.typname = 'json' ORDER BY sp.r, pg_type.oid DESC;

-- jdbc: what separates the elements of an array
SELECT e.typdelim FROM pg_catalog.pg_type t, pg_catalog.pg_type e WHERE t.oid = 1009 and t.typelem = e.oid;

-- jdbc: schemas
SELECT nspname AS "TABLE_SCHEM", NULL AS "TABLE_CATALOG" FROM pg_catalog.pg_namespace WHERE nspname <> 'pg_toast' AND
(nspname !~ '^pg_temp_' OR nspname = (pg_catalog.current_schemas(true))[1]) AND (nspname !~ '^pg_toast_temp_' OR
nspname = replace((pg_catalog.current_schemas(true))[1], 'pg_temp_', 'pg_toast_temp_')) ORDER BY "TABLE_SCHEM";

-- jdbc: tables
SELECT NULL AS "TABLE_CAT", n.nspname AS "TABLE_SCHEM", c.relname AS "TABLE_NAME", CASE n.nspname ~ '^pg_' OR
n.nspname = 'information_schema' WHEN true THEN CASE WHEN n.nspname = 'pg_catalog' OR n.nspname = 'information_schema'
THEN CASE c.relkind WHEN 'r' THEN 'SYSTEM TABLE' WHEN 'v' THEN 'SYSTEM VIEW' WHEN 'i' THEN 'SYSTEM INDEX' ELSE NULL
END ELSE 'TEMPORARY TABLE' END WHEN false THEN CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'i' THEN 'INDEX' WHEN 'v'
THEN 'VIEW' ELSE NULL END ELSE NULL END AS "TABLE_TYPE", d.description AS "REMARKS" FROM pg_catalog.pg_namespace n,
pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_description d ON (c.oid = d.objoid AND d.objsubid = 0 and d.classoid =
'pg_class'::regclass) WHERE c.relnamespace = n.oid AND n.nspname LIKE 'public' AND (false OR ( c.relkind = 'r' AND
n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ) ) ORDER BY "TABLE_TYPE","TABLE_SCHEM","TABLE_NAME";

-- jdbc: columns
SELECT * FROM (SELECT n.nspname,c.relname,a.attname,a.atttypid,a.attnotnull OR (t.typtype = 'd' AND t.typnotnull) AS
attnotnull,a.atttypmod,a.attlen,t.typtypmod,row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum) AS attnum,
nullif(a.attidentity, '') as attidentity,nullif(a.attgenerated, '') as attgenerated,pg_catalog.pg_get_expr(def.adbin,
def.adrelid) AS adsrc,dsc.description,t.typbasetype,t.typtype FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class
c ON (c.relnamespace = n.oid) JOIN pg_catalog.pg_attribute a ON (a.attrelid=c.oid) JOIN pg_catalog.pg_type t ON
(a.atttypid = t.oid) LEFT JOIN pg_catalog.pg_attrdef def ON (a.attrelid=def.adrelid AND a.attnum = def.adnum) LEFT
JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid) LEFT JOIN pg_catalog.pg_class dc
ON (dc.oid=dsc.classoid AND dc.relname='pg_class') LEFT JOIN pg_catalog.pg_namespace dn ON (dc.relnamespace=dn.oid AND
dn.nspname='pg_catalog') WHERE c.relkind in ('r','p','v','f','m') and a.attnum > 0 AND NOT a.attisdropped AND
n.nspname LIKE 'public' AND c.relname LIKE 'parts') c WHERE true ORDER BY nspname,c.relname,attnum;

-- jdbc: the primary key
SELECT result.TABLE_CAT, result.TABLE_SCHEM, result.TABLE_NAME, result.COLUMN_NAME, result.KEY_SEQ, result.PK_NAME
FROM (SELECT NULL AS TABLE_CAT, n.nspname AS TABLE_SCHEM, ct.relname AS TABLE_NAME, a.attname AS COLUMN_NAME,
(information_schema._pg_expandarray(i.indkey)).n AS KEY_SEQ, ci.relname AS PK_NAME,
information_schema._pg_expandarray(i.indkey) AS KEYS, a.attnum AS A_ATTNUM FROM pg_catalog.pg_class ct JOIN
pg_catalog.pg_attribute a ON (ct.oid = a.attrelid) JOIN pg_catalog.pg_namespace n ON (ct.relnamespace = n.oid) JOIN
pg_catalog.pg_index i ON ( a.attrelid = i.indrelid) JOIN pg_catalog.pg_class ci ON (ci.oid = i.indexrelid) WHERE true
AND n.nspname = 'public' AND ct.relname = 'parts' AND i.indisprimary) result where result.A_ATTNUM = (result.KEYS).x
ORDER BY result.table_name, result.pk_name, result.key_seq;

-- jdbc: indexes
SELECT NULL AS TABLE_CAT, n.nspname AS TABLE_SCHEM, ct.relname AS TABLE_NAME, NOT i.indisunique AS NON_UNIQUE, NULL AS
INDEX_QUALIFIER, ci.relname AS INDEX_NAME, CASE i.indisclustered WHEN true THEN 1 ELSE CASE am.amname WHEN 'hash' THEN
2 ELSE 3 END END AS TYPE, (information_schema._pg_expandarray(i.indkey)).n AS ORDINAL_POSITION, ci.reltuples AS
CARDINALITY, ci.relpages AS PAGES, pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS FILTER_CONDITION, ci.oid AS
CI_OID, i.indoption AS I_INDOPTION, am.amname AS AM_NAME FROM pg_catalog.pg_class ct JOIN pg_catalog.pg_namespace n ON
(ct.relnamespace = n.oid) JOIN pg_catalog.pg_index i ON (ct.oid = i.indrelid) JOIN pg_catalog.pg_class ci ON (ci.oid =
i.indexrelid) JOIN pg_catalog.pg_am am ON (ci.relam = am.oid) WHERE true AND n.nspname = 'public' AND ct.relname =
'parts';

-- npgsql: types
SELECT ns.nspname, t.oid, t.typname, t.typtype, t.typnotnull, t.elemtypoid FROM ( SELECT typ.oid, typ.typnamespace,
typ.typname, typ.typtype, typ.typrelid, typ.typnotnull, typ.relkind, elemtyp.oid AS elemtypoid, elemtyp.typname AS
elemtypname, elemcls.relkind AS elemrelkind, CASE WHEN elemproc.proname='array_recv' THEN 'a' ELSE elemtyp.typtype END
AS elemtyptype FROM ( SELECT typ.oid, typnamespace, typname, typrelid, typnotnull, relkind, typelem AS elemoid, CASE
WHEN proc.proname='array_recv' THEN 'a' ELSE typ.typtype END AS typtype, CASE WHEN proc.proname='array_recv' THEN
typ.typelem WHEN typ.typtype='r' THEN rngsubtype WHEN typ.typtype='d' THEN typ.typbasetype END AS elemtypoid FROM
pg_type AS typ LEFT JOIN pg_class AS cls ON (cls.oid = typ.typrelid) LEFT JOIN pg_proc AS proc ON proc.oid =
typ.typreceive LEFT JOIN pg_range ON (pg_range.rngtypid = typ.oid) ) AS typ LEFT JOIN pg_type AS elemtyp ON
elemtyp.oid = elemtypoid LEFT JOIN pg_class AS elemcls ON (elemcls.oid = elemtyp.typrelid) LEFT JOIN pg_proc AS
elemproc ON elemproc.oid = elemtyp.typreceive ) AS t JOIN pg_namespace AS ns ON (ns.oid = typnamespace) WHERE typtype
IN ('b', 'r', 'm', 'e', 'd') OR (typtype = 'c' AND relkind='c') OR (typtype = 'p' AND typname IN ('record', 'void',
'unknown')) OR (typtype = 'a' AND (elemtyptype IN ('b', 'r', 'm', 'e', 'd') OR (elemtyptype = 'p' AND elemtypname IN
('record', 'void')) OR (elemtyptype = 'c' AND elemrelkind='c'))) ORDER BY CASE WHEN typtype IN ('b', 'e', 'p') THEN 0
WHEN typtype = 'c' THEN 1 WHEN typtype = 'r' THEN 2 END;

-- npgsql: composite types
SELECT typ.oid, att.attname, att.atttypid FROM pg_type AS typ JOIN pg_namespace AS ns ON (ns.oid = typ.typnamespace)
JOIN pg_class AS cls ON (cls.oid = typ.typrelid) JOIN pg_attribute AS att ON (att.attrelid = typ.typrelid) WHERE
(typ.typtype = 'c' AND cls.relkind='c') AND attnum > 0 AND NOT attisdropped ORDER BY typ.oid, att.attnum;

-- npgsql: enums
SELECT pg_type.oid, enumlabel FROM pg_enum JOIN pg_type ON pg_type.oid=enumtypid ORDER BY oid, enumsortorder;

-- dbt: relations of a schema
select table_catalog as database, table_name as name, table_schema as schema, case when table_type = 'BASE TABLE' then
'table' else 'view' end as type from information_schema.tables where table_schema ilike 'public';

-- dbt: relations by kind
select 'kalam' as database, tablename as name, schemaname as schema, 'table' as type from pg_tables where schemaname
ilike 'public' union all select 'kalam' as database, viewname as name, schemaname as schema, 'view' as type from
pg_views where schemaname ilike 'public' union all select 'kalam' as database, matviewname as name, schemaname as
schema, 'materialized_view' as type from pg_matviews where schemaname ilike 'public';

-- dbt: columns
select column_name, data_type, character_maximum_length, numeric_precision, numeric_scale from
information_schema."columns" where table_name = 'orders' and table_schema = 'public' order by ordinal_position;

-- dbt: schemas
select distinct nspname from pg_namespace;

-- dbt: whether a schema exists
select count(*) from pg_catalog.pg_namespace where nspname = 'public';

-- dbt: what depends on what
with relation as (select pg_rewrite.ev_class as class, pg_rewrite.oid as id from pg_rewrite), class as (select oid as
id, relname as name, relnamespace as schema, relkind as kind from pg_class), dependency as (select distinct
pg_depend.objid as id, pg_depend.refobjid as ref from pg_depend), schema as (select pg_namespace.oid as id,
pg_namespace.nspname as name from pg_namespace where nspname != 'information_schema' and nspname not like 'pg\_%'),
referenced as (select relation.id AS id, referenced_class.name, referenced_class.schema, referenced_class.kind from
relation join class as referenced_class on relation.class=referenced_class.id where referenced_class.kind in ('r',
'v', 'm')), relationships as (select referenced.name as referenced_name, referenced.schema as referenced_schema_id,
dependent_class.name as dependent_name, dependent_class.schema as dependent_schema_id, referenced.kind as kind from
referenced join dependency on referenced.id=dependency.id join class as dependent_class on
dependency.ref=dependent_class.id where (referenced.name != dependent_class.name or referenced.schema !=
dependent_class.schema)) select referenced_schema.name as referenced_schema, relationships.referenced_name as
referenced_name, dependent_schema.name as dependent_schema, relationships.dependent_name as dependent_name from
relationships join schema as dependent_schema on relationships.dependent_schema_id=dependent_schema.id join schema as
referenced_schema on relationships.referenced_schema_id=referenced_schema.id group by referenced_schema,
referenced_name, dependent_schema, dependent_name order by referenced_schema, referenced_name, dependent_schema,
dependent_name;

-- dbeaver: databases
SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datallowconn AND NOT datistemplate AND
db.datname=current_database() ORDER BY db.datname;

-- dbeaver: a schema
SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n LEFT OUTER JOIN pg_catalog.pg_description d ON
d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass WHERE nspname='lab' ORDER BY nspname;

-- dbeaver: relations of a schema
SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr,
pg_catalog.pg_get_partkeydef(c.oid) as partition_key FROM pg_catalog.pg_class c LEFT OUTER JOIN
pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass WHERE
c.relnamespace=2200 AND c.relkind not in ('i','I','c');

-- dbeaver: columns
SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description,dep.objid FROM
pg_catalog.pg_attribute a INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid) LEFT OUTER JOIN pg_catalog.pg_attrdef
ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum) LEFT OUTER JOIN pg_catalog.pg_description dsc ON
(c.oid=dsc.objoid AND a.attnum = dsc.objsubid) LEFT OUTER JOIN pg_depend dep on dep.refobjid = a.attrelid AND
dep.deptype = 'i' and dep.refobjsubid = a.attnum and dep.classid = dep.refclassid WHERE NOT a.attisdropped AND
c.oid='orders'::regclass ORDER BY a.attnum;

-- dbeaver: constraints
SELECT c.oid,c.*,t.relname as tabrelname,rt.relnamespace as refnamespace,d.description, case when c.contype='c' then
"substring"(pg_get_constraintdef(c.oid), 7) else null end consrc_copy FROM pg_catalog.pg_constraint c INNER JOIN
pg_catalog.pg_class t ON t.oid=c.conrelid LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid=c.confrelid LEFT OUTER JOIN
pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_constraint'::regclass WHERE
c.conrelid='parts'::regclass ORDER BY c.oid;

-- dbeaver: indexes
SELECT i.*,i.indkey as keys,c.relname,c.relnamespace,c.relam,c.reltablespace,tc.relname as
tabrelname,dsc.description,pg_catalog.pg_get_expr(i.indpred, i.indrelid) as
pred_expr,pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true) as expr,pg_catalog.pg_relation_size(i.indexrelid) as
index_rel_size,pg_catalog.pg_stat_get_numscans(i.indexrelid) as index_num_scans FROM pg_catalog.pg_index i INNER JOIN
pg_catalog.pg_class c ON c.oid=i.indexrelid INNER JOIN pg_catalog.pg_class tc ON tc.oid=i.indrelid LEFT OUTER JOIN
pg_catalog.pg_description dsc ON i.indexrelid=dsc.objoid WHERE i.indrelid='parts'::regclass ORDER BY tabrelname,
c.relname;

-- dbeaver: a setting
select * from pg_catalog.pg_settings where name='standard_conforming_strings';

-- dbeaver: keywords
select string_agg(word, ',') from pg_catalog.pg_get_keywords() where word <> ALL ('{a,abs,absolute}'::text[]);

-- dbeaver: a type
SELECT t.oid,t.*,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description FROM
pg_catalog.pg_type t LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid=t.typelem LEFT OUTER JOIN pg_catalog.pg_class c
ON c.oid=t.typrelid LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid=d.objoid WHERE t.typname IS NOT NULL AND
(c.relkind IS NULL OR c.relkind = 'c') AND (et.typcategory IS NULL OR et.typcategory <> 'C') and t.oid=25;

-- metabase: columns of what may be read
SELECT "t"."schemaname" as schema, "t"."tablename" as name, col.column_name FROM pg_tables t join
information_schema.columns col on col.table_schema = t.schemaname and col.table_name = t.tablename WHERE t.schemaname
!~ '^pg_' AND t.schemaname <> 'information_schema' AND has_table_privilege(format('%I.%I', t.schemaname, t.tablename),
'SELECT') order by 1, 2, col.ordinal_position;

-- metabase: privileges
with table_privileges as ( select NULL as role, t.schemaname as schema, t.objectname as "table",
pg_catalog.has_any_column_privilege(current_user, '"' || replace(t.schemaname, '"', '""') || '"' || '.' || '"' ||
replace(t.objectname, '"', '""') || '"', 'update') as "update", pg_catalog.has_table_privilege(current_user, '"' ||
t.schemaname || '"."' || t.objectname || '"', 'SELECT') as "select" from ( select schemaname, tablename as objectname
from pg_catalog.pg_tables union select schemaname, viewname as objectname from pg_views union select schemaname,
matviewname as objectname from pg_matviews ) t where t.schemaname !~ '^pg_' and t.schemaname <> 'information_schema'
and pg_catalog.has_schema_privilege(current_user, t.schemaname, 'usage')) select t.* from table_privileges t order by
2, 3;

-- metabase: fields
SELECT c.column_name AS name, c.udt_name AS "database-type", c.ordinal_position - 1 AS "database-position",
c.table_schema AS "table-schema", c.table_name AS "table-name", pk.column_name IS NOT NULL AS "pk?",
COL_DESCRIPTION(CAST(CAST(FORMAT('%I.%I', CAST(c.table_schema AS TEXT), CAST(c.table_name AS TEXT)) AS REGCLASS) AS
OID), c.ordinal_position) AS "field-comment", ((column_default IS NULL) OR (LOWER(column_default) = 'null')) AND
(is_nullable = 'NO') AND NOT ((column_default IS NOT NULL AND column_default LIKE '%nextval(%') OR (is_identity <>
'NO')) AS "database-required" FROM information_schema.columns AS c LEFT JOIN (SELECT tc.table_schema, tc.table_name,
kc.column_name FROM information_schema.table_constraints AS tc INNER JOIN information_schema.key_column_usage AS kc ON
tc.constraint_name = kc.constraint_name AND tc.table_schema = kc.table_schema AND tc.table_name = kc.table_name WHERE
tc.constraint_type = 'PRIMARY KEY') AS pk ON c.table_schema = pk.table_schema AND c.table_name = pk.table_name AND
c.column_name = pk.column_name WHERE c.table_schema !~ '^information_schema|catalog_history|pg_' AND c.table_schema IN
('public') ORDER BY "table-schema", "table-name", "database-position";

-- metabase: keys
SELECT n.nspname AS "fk-table-schema", t.relname, a.attname FROM pg_constraint c JOIN pg_class t ON c.conrelid = t.oid
JOIN pg_namespace n ON t.relnamespace = n.oid JOIN pg_attribute a ON t.oid = a.attrelid AND a.attnum = ANY(c.conkey)
WHERE c.contype = 'p' AND n.nspname !~ '^information_schema|catalog_history|pg_' ORDER BY 1, 2, 3;

-- metabase: enums
SELECT nspname, typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid IN (SELECT DISTINCT
e.enumtypid FROM pg_enum e);

-- metabase: tables
SELECT ns.nspname, c.relname, d.description FROM pg_class c JOIN pg_namespace ns ON c.relnamespace = ns.oid LEFT JOIN
pg_description d ON c.oid = d.objoid AND d.objsubid = 0 LEFT JOIN pg_stat_user_tables stat ON ns.nspname =
stat.schemaname AND c.relname = stat.relname WHERE c.relkind IN ('r', 'p', 'v', 'f', 'm') AND ns.nspname = 'public'
GROUP BY 1, 2, 3;

-- postgres.js: arrays
SELECT b.oid, b.typarray FROM pg_catalog.pg_type a LEFT JOIN pg_catalog.pg_type b ON b.oid = a.typelem WHERE
a.typcategory = 'A' GROUP BY b.oid, b.typarray ORDER BY b.oid LIMIT 20;

-- a pipeline: columns
SELECT a.attname, a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull FROM pg_attribute a JOIN pg_class c ON
a.attrelid = c.oid JOIN pg_namespace n ON c.relnamespace = n.oid WHERE c.relname = 'parts' AND n.nspname = 'public'
AND a.attnum > 0;

-- duckdb: what kind of server it is
SELECT version(), pg_is_in_recovery(), (SELECT count(*) FROM pg_stat_wal_receiver);

-- duckdb: namespaces
SELECT oid, nspname FROM pg_namespace WHERE nspname NOT IN ('pg_toast') ORDER BY oid LIMIT 1;

-- adbc: columns and their types
SELECT attname, typname, attrelid FROM pg_attribute JOIN pg_type ON atttypid = pg_type.oid WHERE attrelid =
'orders'::regclass AND attnum > 0 ORDER BY attnum LIMIT 3;

-- django: tables
SELECT c.relname, CASE WHEN c.relispartition THEN 'p' WHEN c.relkind IN ('m', 'v') THEN 'v' ELSE 't' END,
obj_description(c.oid, 'pg_class') FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid =
c.relnamespace WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v') AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND
pg_catalog.pg_table_is_visible(c.oid);

-- django: columns
SELECT a.attname AS column_name, NOT (a.attnotnull OR (t.typtype = 'd' AND t.typnotnull)) AS is_nullable,
pg_get_expr(ad.adbin, ad.adrelid) AS column_default, CASE WHEN collname = 'default' THEN NULL ELSE collname END AS
collation, a.attidentity != '' AS is_autofield, col_description(a.attrelid, a.attnum) AS column_comment FROM
pg_attribute a LEFT JOIN pg_attrdef ad ON a.attrelid = ad.adrelid AND a.attnum = ad.adnum LEFT JOIN pg_collation co ON
a.attcollation = co.oid JOIN pg_type t ON a.atttypid = t.oid JOIN pg_class c ON a.attrelid = c.oid JOIN pg_namespace n
ON c.relnamespace = n.oid WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v') AND c.relname = 'parts' AND n.nspname NOT IN
('pg_catalog', 'pg_toast') AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY a.attnum LIMIT 3;

-- django: constraints
SELECT c.conname, array( SELECT attname FROM unnest(c.conkey) WITH ORDINALITY cols(colid, arridx) JOIN pg_attribute AS
ca ON cols.colid = ca.attnum WHERE ca.attrelid = c.conrelid ORDER BY cols.arridx ), c.contype, (SELECT fkc.relname ||
'.' || fka.attname FROM pg_attribute AS fka JOIN pg_class AS fkc ON fka.attrelid = fkc.oid WHERE fka.attrelid =
c.confrelid AND fka.attnum = c.confkey[1]), cl.reloptions FROM pg_constraint AS c JOIN pg_class AS cl ON c.conrelid =
cl.oid WHERE cl.relname = 'parts' AND pg_catalog.pg_table_is_visible(cl.oid);

-- django: indexes
SELECT indexname, array_agg(attname ORDER BY arridx), indisunique, indisprimary, array_agg(ordering ORDER BY arridx),
amname, exprdef, s2.attoptions FROM ( SELECT c2.relname as indexname, idx.*, attr.attname, am.amname, CASE WHEN
idx.indexprs IS NOT NULL THEN pg_get_indexdef(idx.indexrelid) END AS exprdef, CASE am.amname WHEN 'btree' THEN CASE
(option & 1) WHEN 1 THEN 'DESC' ELSE 'ASC' END END as ordering, c2.reloptions as attoptions FROM ( SELECT * FROM
pg_index i, unnest(i.indkey, i.indoption) WITH ORDINALITY koi(key, option, arridx) ) idx LEFT JOIN pg_class c ON
idx.indrelid = c.oid LEFT JOIN pg_class c2 ON idx.indexrelid = c2.oid LEFT JOIN pg_am am ON c2.relam = am.oid LEFT
JOIN pg_attribute attr ON attr.attrelid = c.oid AND attr.attnum = idx.key WHERE c.relname = 'parts' AND
pg_catalog.pg_table_is_visible(c.oid) ) s2 GROUP BY indexname, indisunique, indisprimary, amname, exprdef, attoptions;

-- rails: the primary key
SELECT a.attname FROM (SELECT indrelid, indkey, generate_subscripts(indkey, 1) idx FROM pg_index WHERE indrelid =
'"parts"'::regclass AND indisprimary) i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[i.idx]
ORDER BY i.idx;

-- rails: columns
SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.atttypid,
a.atttypmod, c.collname, col_description(a.attrelid, a.attnum) AS comment, attidentity AS identity, attgenerated as
attgenerated FROM pg_attribute a LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum LEFT JOIN
pg_type t ON a.atttypid = t.oid LEFT JOIN pg_collation c ON a.attcollation = c.oid AND a.attcollation <>
t.typcollation WHERE a.attrelid = '"parts"'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum LIMIT
3;

-- pgcli: where one is
SELECT current_database() AS a, current_schema() AS b, current_user AS c, session_user, inet_server_port() IS NULL AS
d, current_setting('search_path');

-- a tool: rights
SELECT has_table_privilege('public.orders', 'SELECT'), has_table_privilege(current_user, 'public.orders', 'INSERT,
UPDATE'), has_schema_privilege('public', 'USAGE'), has_database_privilege(current_database(), 'CONNECT'),
pg_has_role(current_user, 'USAGE');

-- a tool: arrays and texts
SELECT array_position(ARRAY['a','b'], 'b'), cardinality(ARRAY[1,2,3]), array_to_string(ARRAY[1,NULL,3], ',', '*'),
(ARRAY['x','y'])[2], array_length(current_schemas(true), 1) > 1, regexp_replace(version(), '^PostgreSQL ([0-9]+).*$',
'\1'), split_part('a.b', '.', 2), quote_literal('it''s'), quote_ident('Odd'), parse_ident('a."B".c');

-- a tool: types by name
SELECT t.typname, 25::regtype, 'text[]'::regtype, '_int4'::regtype::oid, 'character varying'::regtype FROM pg_type t
WHERE t.oid = 'timestamptz'::regtype;

-- a tool: a function by name
SELECT proname, oid FROM pg_proc WHERE oid = 'textin'::regproc;

-- a tool: a table by its text
SELECT relname FROM pg_class WHERE oid::regclass::text = 'orders';

-- a tool: truths
SELECT c.relname, c.relkind = 'r' OR c.relkind = 'v' AS ok, CASE WHEN c.relkind IN ('r') THEN 1 END, NOT c.relhasindex
AS no FROM pg_class c WHERE c.oid = 'public.parts'::regclass AND c.relhasindex = 't' AND c.relispartition IS FALSE;

-- superset: databases
SELECT datname FROM pg_database WHERE datistemplate = false AND datname = current_database();

-- superset: schemas
SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('system',
'information_schema') ORDER BY nspname;

-- superset: tables of a schema
SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname =
'public' AND c.relkind = ANY (ARRAY['r', 'p']) ORDER BY c.relname;

-- superset: views of a schema
SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname =
'public' AND c.relkind IN ('v') AND c.relpersistence != 't';

-- superset: columns
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, (SELECT pg_catalog.pg_get_expr(d.adbin,
d.adrelid) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef) IS NOT
NULL AS has_default, a.attnotnull, pgd.description, a.attgenerated, (SELECT json_build_object('always', a.attidentity
= 'a', 'start', s.seqstart) FROM pg_catalog.pg_sequence s WHERE s.seqrelid = a.attrelid AND a.attidentity != '') AS
identity FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_description pgd ON (pgd.objoid = a.attrelid AND
pgd.objsubid = a.attnum) WHERE a.attrelid = 'public.orders'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY
a.attnum LIMIT 6;

-- superset: a table's comment
SELECT pgd.description AS table_comment FROM pg_catalog.pg_description pgd WHERE pgd.objsubid = 0 AND pgd.objoid =
'public.parts'::regclass::oid;

-- superset: unique and foreign keys
SELECT r.conname, pg_catalog.pg_get_constraintdef(r.oid, true) AS condef, n.nspname FROM pg_catalog.pg_constraint r,
pg_namespace n, pg_class c WHERE r.conrelid = 'public.parts'::regclass AND r.contype IN ('f', 'u') AND c.oid =
confrelid AND n.oid = c.relnamespace ORDER BY 1;

-- pgadmin: the database
SELECT db.datname, db.datallowconn, pg_catalog.pg_encoding_to_char(db.encoding) AS serverencoding,
pg_catalog.has_database_privilege(db.oid, 'CONNECT') AS canconnect, datistemplate, datconnlimit FROM
pg_catalog.pg_database db WHERE db.datname = current_database();

-- pgadmin: who one is
SELECT roles.rolname AS name, roles.rolsuper AS is_superuser, CASE WHEN roles.rolsuper THEN true ELSE
roles.rolcreaterole END AS can_create_role, rolcanlogin FROM pg_catalog.pg_roles AS roles WHERE rolname =
current_user;

-- pgadmin: what kind of server it is
SELECT CASE WHEN usesuper THEN pg_catalog.pg_is_in_recovery() ELSE FALSE END AS inrecovery, EXISTS (SELECT 1 FROM
pg_catalog.pg_extension WHERE extname = 'bdr') AS bdr, (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS slots
FROM pg_catalog.pg_user WHERE usename = current_user;

-- pgadmin: schemas
SELECT nsp.nspname AS name, pg_catalog.has_schema_privilege(nsp.oid, 'USAGE') AS has_usage FROM
pg_catalog.pg_namespace nsp WHERE nspname NOT LIKE 'pg\_%' AND NOT (nsp.nspname = 'information_schema' AND EXISTS
(SELECT 1 FROM pg_catalog.pg_class WHERE relname = 'tables' AND relnamespace = nsp.oid LIMIT 1)) AND nsp.nspname <>
'system' ORDER BY nspname;

-- pgadmin: tables with their triggers and parts
SELECT rel.relname AS name, (SELECT count(*) FROM pg_catalog.pg_trigger WHERE tgrelid = rel.oid AND tgisinternal =
FALSE) AS triggercount, (SELECT count(*) FROM pg_catalog.pg_inherits WHERE inhrelid = rel.oid LIMIT 1) AS parents,
rel.relkind FROM pg_catalog.pg_class rel WHERE rel.relkind IN ('r', 's', 't', 'p') AND rel.relnamespace = 'lab'
::regnamespace AND NOT rel.relispartition ORDER BY rel.relname;

-- pgadmin: what depends on a table
SELECT DISTINCT dep.deptype, dep.refobjsubid, COALESCE(co.conname, at.attname) AS name, co.contype FROM pg_depend dep
LEFT JOIN pg_constraint co ON dep.classid = 'pg_constraint'::regclass AND dep.objid = co.oid
LEFT JOIN pg_attrdef ad ON dep.classid = 'pg_attrdef'::regclass AND dep.objid = ad.oid
LEFT JOIN pg_attribute at ON at.attrelid = ad.adrelid AND at.attnum = ad.adnum
WHERE dep.refclassid = 'pg_class'::regclass AND dep.refobjid = 'public.parts'::regclass
AND (co.oid IS NOT NULL OR ad.oid IS NOT NULL) ORDER BY 1, 2, 3;

-- pgadmin: what a table depends on
SELECT dep.deptype, dep.refclassid::regclass, ns.nspname FROM pg_depend dep JOIN pg_namespace ns ON dep.refobjid = ns.oid
WHERE dep.classid = 'pg_class'::regclass AND dep.objid = 'lab.readings'::regclass;

-- pgadmin: whether an index is a constraint's
SELECT ci.relname, dep.deptype, con.conname, con.contype FROM pg_index i JOIN pg_class ci ON ci.oid = i.indexrelid
LEFT JOIN pg_depend dep ON dep.classid = ci.tableoid AND dep.objid = ci.oid AND dep.refobjsubid = 0 AND dep.refclassid =
(SELECT oid FROM pg_class WHERE relname = 'pg_constraint') AND dep.deptype = 'i' LEFT JOIN pg_constraint con ON
con.tableoid = dep.refclassid AND con.oid = dep.refobjid WHERE i.indrelid = 'public.orders'::regclass;
