// Users, roles, what they may do, and by what they log in: SQL, which the dialogs show first.

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

function revoked(row) {
  const on = row.table_name ? `TABLE ${tableName(`${row.namespace}.${row.table_name}`)}` : `NAMESPACE ${quoted(row.namespace)}`;
  return `REVOKE ${row.privilege} ON ${on} FROM ${row.grantee === "public" ? "PUBLIC" : quoted(row.grantee)}`;
}

export function UsersPage({ known, me }) {
  const lists = useLoaded(async () => (await sql(LISTS.map((list) => list.statement).join("; "))).results, []);
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
  }
  const opens = [
    ["Create user", { password: true, statement: "CREATE USER ada WITH PASSWORD $1" }],
    ["Create role", { statement: "CREATE ROLE analyst" }],
    ["Grant", { statement: `GRANT SELECT, INSERT ON TABLE ${table} TO ada` }],
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
      {LISTS.map((list, place) => <List {...list} result={lists.value[place]} open={setDialog} key={list.title} />)}
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
  const { columns, rows } = result;
  return (
    <>
      <h2>{title}</h2>
      {rows.length === 0 && <p class="soft">{none}</p>}
      {rows.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label={title}>
          <table class="list">
            <thead><tr>{columns.map((column) => <th key={column.name}>{column.name.replaceAll("_", " ")}</th>)}<th><span class="unseen">Actions</span></th></tr></thead>
            <tbody>
              {rows.map((values) => {
                const row = Object.fromEntries(columns.map((column, place) => [column.name, values[place]]));
                return (
                  <tr key={JSON.stringify(values)}>
                    {columns.map((column, place) => <td class="break" key={column.name}>{shown(column.name, values[place])}</td>)}
                    <td class="nowrap">
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
      )}
    </>
  );
}

function shown(name, value) {
  if (value === null) return "–";
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
