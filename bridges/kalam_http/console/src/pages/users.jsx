// Users, roles, what they may do and see, and by what they log in: SQL, which the dialogs show first.

import { Fragment } from "preact";
import { useState } from "preact/hooks";
import { sql } from "../api.js";
import { Copied, Dialog, Fault, Loading, StatementDialog, notify, useLoaded } from "../parts.jsx";
import { literal, quoted, tableName, time, valueText } from "../text.js";

const WHEN = /_(at|until)$/;
const PASSWORD_MIN = 8;

/** The lists of the page: their statement, and what can be done with a row. */
const LISTS = [
  { title: "Users", statement: "SHOW USERS", none: "No user.", actions: (row) => [
    ["Password", { title: "Password", statement: `ALTER USER ${quoted(row.user)} PASSWORD $1`, password: true }],
    row.locked ? ["Unlock", { title: "Unlock", statement: `ALTER USER ${quoted(row.user)} UNLOCK` }] : ["Lock", { title: "Lock", statement: `ALTER USER ${quoted(row.user)} LOCK`, danger: true }],
    ["Drop", { title: "Drop user", statement: `DROP USER ${quoted(row.user)}`, danger: true }],
  ] },
  { title: "Roles", statement: "SHOW ROLES", none: "No role yet: a role holds grants for its members.", actions: (row) => [
    ["Drop", { title: "Drop role", statement: `DROP ROLE ${quoted(row.role)}`, danger: true }],
  ] },
  { title: "Grants", statement: "SHOW GRANTS", none: "Nothing is granted yet: only owners and administrators may do something.", actions: (row) => [
    ["Revoke", { title: "Revoke", statement: revoked(row), danger: true }],
  ] },
  { title: "Tokens", statement: "SHOW TOKENS", none: "No token yet: a program logs in with one.", actions: (row) => [
    ["Drop", { title: "Drop token", statement: `DROP TOKEN ${literal(row.name, "TEXT")} FOR ${quoted(row.user)}`, danger: true }],
  ] },
  { title: "Sessions", statement: "SHOW SESSIONS", none: "Nobody is logged in by a browser.", actions: (row) => [
    ["End", { title: "End session", statement: `KILL SESSION ${literal(row.session_id, "TEXT")}`, danger: true }],
  ] },
];

const POLICIES = "SHOW POLICIES";
const OF_TABLE = new Set(["namespace", "table_name", "enabled"]); // what is said once for all policies of a table
const EXPRESSIONS = new Set(["using", "with_check"]);
const SHORT = 24; // characters of a value that stays in one line

function revoked(row) {
  const on = row.table_name ? `TABLE ${tableName(`${row.namespace}.${row.table_name}`)}` : `NAMESPACE ${quoted(row.namespace)}`;
  return `REVOKE ${row.privilege} ON ${on} FROM ${row.grantee === "public" ? "PUBLIC" : quoted(row.grantee)}`;
}

export function UsersPage({ known, reloadCatalogue, me }) {
  const lists = useLoaded(async () => (await sql([...LISTS.map((list) => list.statement), POLICIES].join("; "))).results, []);
  const [dialog, setDialog] = useState(null);
  const [made, setMade] = useState(null); // a token, which is shown once
  if (!me.admin) return <section><h1>Users</h1><p class="soft">Only administrators see the users.</p></section>;
  if (!lists.value) return lists.error ? <section><h1>Users</h1><Fault error={lists.error} /></section> : <Loading />;
  const space = known?.namespaces.find((one) => one.tables.length);
  const table = space ? tableName(`${space.name}.${space.tables[0].name}`) : "lab.readings";
  function done(results) {
    const last = results.at(-1);
    const [title] = [dialog.title];
    if (title === "Create token" && last.rows.length) setMade(secretOf(last));
    else notify(last.message ?? `${title}: done`);
    lists.reload();
    reloadCatalogue();
  }
  const opens = [
    ["Create user", { password: true, statement: "CREATE USER ada WITH PASSWORD $1" }],
    ["Create role", { statement: "CREATE ROLE analyst" }],
    ["Grant", { statement: `GRANT SELECT, INSERT ON TABLE ${table} TO ada` }],
    ["Create policy", { statement: newPolicy(table) }],
    ["Create token", { statement: `CREATE TOKEN 'ci' FOR ${quoted(me.user)} EXPIRES '90d'` }],
  ];
  return (
    <section>
      <div class="bar"><h1>Users</h1></div>
      <div class="buttons">
        {opens.map(([title, more], place) => (
          <button type="button" class={place ? "" : "primary"} onClick={() => setDialog({ title, ...more })} key={title}>{title}</button>
        ))}
      </div>
      <Fault error={lists.error} />
      {LISTS.map((list, place) => (
        <Fragment key={list.title}>
          <List {...list} result={lists.value[place]} open={setDialog} />
          {list.title === "Grants" && <Policies tables={withPolicies(lists.value[LISTS.length], known)} open={setDialog} />}
        </Fragment>
      ))}
      {dialog && <AccessDialog {...dialog} onClose={() => setDialog(null)} onDone={done} />}
      {made && (
        <Dialog title="The token" onClose={() => setMade(null)} wide>
          <p>It is shown this once: copy it now.</p>
          <Copied label="Token" text={made} />
        </Dialog>
      )}
    </section>
  );
}

function secretOf({ columns, rows }) {
  const place = columns.findIndex((column) => column.name === "token");
  return String(rows[0][place < 0 ? 0 : place]);
}

function List({ title, result, none, actions, open }) {
  return (
    <>
      <h2>{title}</h2>
      {result.rows.length === 0 && <p class="soft">{none}</p>}
      {result.rows.length > 0 && <Rows title={title} result={result} actions={actions} open={open} />}
    </>
  );
}

/** A table of an answer's rows, without the columns that are `left` out, and with what can be done with each. */
function Rows({ title, result: { columns, rows }, left = new Set(), actions, open }) {
  const places = columns.flatMap((column, place) => (left.has(column.name) ? [] : [place]));
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={title}>
      <table class="list">
        <thead><tr>{places.map((place) => <th key={place}>{headed(columns[place].name)}</th>)}<th><span class="unseen">Actions</span></th></tr></thead>
        <tbody>
          {rows.map((values) => {
            const row = rowOf(columns, values);
            return (
              <tr key={JSON.stringify(values)}>
                {places.map((place) => <td class={classOf(columns[place].name, values[place])} key={place}>{shown(columns[place].name, values[place])}</td>)}
                <td class="acts">
                  {actions(row).map(([label, dialog]) => (
                    <button type="button" class="quiet" aria-label={`${label} ${valueText(values[0])}`} onClick={() => open(dialog)} key={label}>{label}</button>
                  ))}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

/** The name of a column as a heading: `has_password` is "Has password". */
function headed(name) {
  const words = name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

function classOf(name, value) {
  if (EXPRESSIONS.has(name)) return "expression";
  return WHEN.test(name) || String(value ?? "").length <= SHORT ? "nowrap" : "words";
}

function rowOf(columns, values) {
  return Object.fromEntries(columns.map((column, place) => [column.name, values[place]]));
}

/** The tables with policies, and those whose rows are hidden without one: name, whether policies decide, and these. */
function withPolicies({ columns, rows }, known) {
  const tables = new Map();
  for (const values of rows) {
    const { namespace, table_name: table, enabled } = rowOf(columns, values);
    const name = `${namespace}.${table}`;
    tables.set(name, { name, enabled, result: { columns, rows: [...(tables.get(name)?.result.rows ?? []), values] } });
  }
  for (const space of known?.namespaces ?? []) {
    for (const table of space.tables) {
      const name = `${space.name}.${table.name}`;
      if (table.row_security && !tables.has(name)) tables.set(name, { name, enabled: true, result: { columns, rows: [] } });
    }
  }
  return [...tables.values()].sort((one, other) => one.name.localeCompare(other.name));
}

/** Which rows of a table who may see and write. */
function Policies({ tables, open }) {
  return (
    <>
      <h2>Policies</h2>
      {tables.length === 0 && <p class="soft">No policy yet: who may read a table sees all of its rows.</p>}
      {tables.map(({ name, enabled, result }) => (
        <div key={name}>
          <div class="bar policies">
            <h3>{name}</h3>
            <span class="soft">{stateOf(enabled, result.rows.length)}</span>
            <button type="button" class="quiet" aria-label={`Create policy on ${name}`} onClick={() => open({ title: "Create policy", statement: newPolicy(tableName(name)) })}>Create policy</button>
            <button type="button" class="quiet" aria-label={`${enabled ? "Disable" : "Enable"} row level security of ${name}`} onClick={() => open(switched(name, enabled))}>{enabled ? "Disable" : "Enable"}</button>
          </div>
          {result.rows.length > 0 && (
            <Rows title={`Policies on ${name}`} result={result} left={OF_TABLE} open={open} actions={(row) => [
              ["Drop", { title: "Drop policy", statement: `DROP POLICY ${quoted(row.policy)} ON ${tableName(name)}`, danger: true }],
            ]} />
          )}
        </div>
      ))}
    </>
  );
}

function stateOf(enabled, policies) {
  if (!enabled) return "Row level security is off: nobody asks its policies.";
  return policies ? "Row level security is on." : "Row level security is on, and without a policy nobody sees a row.";
}

function switched(name, enabled) {
  const word = enabled ? "Disable" : "Enable";
  return { title: `${word} row level security`, statement: `ALTER TABLE ${tableName(name)} ${word.toUpperCase()} ROW LEVEL SECURITY`, danger: enabled };
}

function newPolicy(table) {
  return `CREATE POLICY own ON ${table} TO PUBLIC USING (owner = CURRENT_USER())`;
}

function shown(name, value) {
  if (value === null) return "–";
  if (EXPRESSIONS.has(name)) return <code>{value}</code>;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.join(", ");
  return WHEN.test(name) ? time(String(value)) : valueText(value);
}

/** A statement; a password goes beside it, as the value of $1, so that nobody reads it over a shoulder. */
function AccessDialog({ password = false, ...rest }) {
  const [typed, setTyped] = useState("");
  const intro = password ? (
    <label class="stacked">
      Password
      <input type="password" autocomplete="new-password" minLength={PASSWORD_MIN} value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
      <span class="soft">The value of <code>$1</code>, of at least {PASSWORD_MIN} characters.</span>
    </label>
  ) : null;
  return <StatementDialog {...rest} intro={intro} params={[typed]} />;
}
