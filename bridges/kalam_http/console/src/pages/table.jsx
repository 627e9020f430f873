import { useState } from "preact/hooks";
import { sql } from "../api.js";
import { allowed, describe, listeners } from "../describe.js";
import { Grid } from "../grid.jsx";
import { InsertDialog } from "../insert.jsx";
import { Copied, Fault, Kind, Loading, StatementDialog, notify, useLoaded } from "../parts.jsx";
import { ViewLine, useViews } from "../views.jsx";
import { bytes, count, literal, plural, quoted, tableName, time, valueText } from "../text.js";

const ROWS_SHOWN = 200;
const SYSTEM = /^_/;

export function TablePage({ namespace, table, known: catalogue, reloadCatalogue }) {
  const full = `${namespace}.${table}`;
  const name = tableName(full);
  const may = allowed(catalogue, namespace, table);
  const about = useLoaded(() => describe(full), [full], 5000);
  // In the order of the key, so that a row does not change its place under the pointer when another one was changed.
  const order = about.value?.key.length ? ` ORDER BY ${about.value.key.map(quoted).join(", ")}` : "";
  const first = useLoaded(async () => (about.value && catalogue && may.select ? sql(`SELECT * FROM ${name}${order} LIMIT ${ROWS_SHOWN}`) : null), [full, Boolean(about.value), order, Boolean(catalogue), may.select]);
  const views = useViews(Boolean(about.value?.view));
  const [dialog, setDialog] = useState(null);
  if (!about.value) return about.error ? <section><h1>{full}</h1><Fault error={about.error} /></section> : <Loading />;
  const known = about.value;
  const { stored } = known;
  const takes = may.insert && known.kind !== "FOREIGN" && !known.view && !known.select; // a stream of others is only read, a view is Kalam's
  const kind = known.view ? "MATERIALIZED VIEW" : known.select ? "VIEW" : "TABLE";
  const altering = known.view ? "SET (refresh = '1s')" : known.select ? `RENAME TO ${tableName(`${table}_2`)}` : known.kind !== "STREAM" ? "ADD COLUMN note TEXT" : "SET (max_buffer = 20000)";
  const drop = known.view || known.select ? "Drop view" : "Drop table";
  const view = views.get(full);
  const result = first.value?.results[0];

  function open(title, statement, more = {}) {
    setDialog({ title, statement, ...more });
  }
  function done(results) {
    const last = results.at(-1);
    notify(last.message ?? (last.row_count ? plural(last.row_count, "row") : `${dialog.title}: nothing to do`));
    if (dialog.leaves) {
      reloadCatalogue();
      location.hash = "#/tables";
      return;
    }
    about.reload();
    first.reload();
    reloadCatalogue();
  }
  const where = (row) => known.key.map((key) => {
    const place = result.columns.findIndex((column) => column.name === key);
    return `${quoted(key)} = ${literal(valueText(row[place]), result.columns[place]?.type ?? "TEXT")}`;
  }).join(" AND ");

  return (
    <section>
      <p class="crumbs"><a href="#/tables">Tables</a> / {namespace}</p>
      <div class="bar"><h1>{full} <Kind kind={known.kind} /></h1></div>
      <div class="buttons">
        {takes && <button type="button" class="primary" onClick={() => setDialog({ insert: true })}>Insert rows</button>}
        {may.select && <a class="button" href={`#/query?sql=${encodeURIComponent(`SELECT * FROM ${name} LIMIT 100`)}`}>Query it</a>}
        {may.select && !known.select && <a class="button" href={`#/live?sql=${encodeURIComponent(`SELECT * FROM ${name}`)}`}>Watch it</a>}
        {known.view && may.owns && <button type="button" onClick={() => open("Refresh", `REFRESH MATERIALIZED VIEW ${name}`)}>Refresh</button>}
        {stored && may.owns && <button type="button" onClick={() => open("Flush", `FLUSH TABLE ${name}`)}>Flush</button>}
        {stored && may.owns && <button type="button" onClick={() => open("Compact", `COMPACT TABLE ${name}`)}>Compact</button>}
        {may.owns && <button type="button" onClick={() => open("Alter", `ALTER ${kind} ${name} ${altering}`)}>Alter</button>}
        {may.owns && <button type="button" class="danger" onClick={() => open(drop, `DROP ${kind} ${name}`, { run: "Drop", danger: true, confirm: full, leaves: true })}>{drop}</button>}
      </div>
      <Fault error={about.error} />
      {view && <ViewLine view={view} />}
      <State state={known.state} />
      <h2>First rows</h2>
      {!may.select && <p class="soft">You may not read its rows.</p>}
      {result && result.rows.length === 0 && <p class="soft">It holds no row yet{takes && <>: <em>Insert rows</em> takes one, or a CSV or NDJSON file</>}.</p>}
      {result && result.rows.length > 0 && (
        <div class="grid-holder">
          <Grid columns={result.columns} rows={result.rows} label={`Rows of ${full}`}
            actions={stored && (may.update || may.delete) ? (row, tabIndex) => (
              <>
                {may.update && <button type="button" class="quiet" tabIndex={tabIndex} onClick={() => setDialog({ edit: row })}>Edit</button>}
                {may.delete && <button type="button" class="quiet" tabIndex={tabIndex} onClick={() => open("Delete", `DELETE FROM ${name} WHERE ${where(row)}`, { danger: true })}>Delete</button>}
              </>
            ) : null} />
        </div>
      )}
      <Fault error={first.error} />
      <div class="columns-2">
        <div>
          <h2>Columns</h2>
          <table class="list">
            <thead><tr><th>Name</th><th>Type</th><th>Null</th><th>Default</th></tr></thead>
            <tbody>
              {known.columns.map((column) => (
                <tr key={column.name}>
                  <td><code>{column.name}</code>{column.key && <span class="key"> key</span>}</td>
                  <td>{column.type}</td>
                  <td>{column.nullable ? "yes" : "no"}</td>
                  <td class="break">{column.default ?? ""}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
        <div>
          <h2>Options</h2>
          <table class="list">
            <thead><tr><th>Option</th><th>Value</th></tr></thead>
            <tbody>{known.options.map((option) => <tr key={option.name}><td><code>{option.name}</code></td><td class="break">{option.value}</td></tr>)}</tbody>
          </table>
        </div>
      </div>
      {known.subject && <h2>Listen to its {stored || known.view ? "changes" : "events"}</h2>}
      {known.subject && listeners(known.subject).map(([label, text]) => <Copied label={label} text={text} key={label} />)}
      <h2>Definition</h2>
      <Copied label="SQL" text={known.create} />
      {dialog?.insert && <InsertDialog namespace={namespace} table={table} columns={known.columns} onClose={() => setDialog(null)} onDone={() => { about.reload(); first.reload(); }} />}
      {dialog?.edit && <EditDialog full={full} name={name} row={dialog.edit} columns={result.columns} known={known} where={where(dialog.edit)} onClose={() => setDialog(null)} onDone={() => { notify("Row changed"); about.reload(); first.reload(); }} />}
      {dialog?.statement && <StatementDialog {...dialog} onClose={() => setDialog(null)} onDone={done} />}
    </section>
  );
}

const SIZES = /bytes$/;
const HIDDEN = new Set(["subject", "location", "jetstream_stream"]);
const LABELS = { damaged_segments: "damaged" }; // so that the tiles of a table stand in one line

function State({ state }) {
  return (
    <dl class="tiles">
      {state.filter((line) => !HIDDEN.has(line.name)).map((line) => (
        <div class="tile" key={line.name}>
          <dt>{LABELS[line.name] ?? line.name.replaceAll("_", " ")}</dt>
          <dd>{shown(line)}</dd>
        </div>
      ))}
    </dl>
  );
}

function shown({ name, value }) {
  if (/^\d+$/.test(value)) return SIZES.test(name) ? bytes(Number(value)) : count(Number(value));
  if (/^\d{4}-\d\d-\d\dT/.test(value)) return time(value);
  return value.split(" (")[0] || "–";
}

/** The fields of a row; what is changed in them is what the statement sets. */
function EditDialog({ full, name, row, columns, known, where, onClose, onDone }) {
  const own = columns.map((column, place) => ({ ...column, place })).filter((column) => !SYSTEM.test(column.name));
  const [values, setValues] = useState(() => own.map((column) => (row[column.place] === null ? "" : valueText(row[column.place]))));
  const changed = own.flatMap((column, place) => {
    const before = row[column.place] === null ? "" : valueText(row[column.place]);
    return values[place] === before ? [] : [`${quoted(column.name)} = ${literal(values[place], column.type)}`];
  });
  const statement = changed.length ? `UPDATE ${name} SET ${changed.join(", ")} WHERE ${where}` : `UPDATE ${name} SET … WHERE ${where}`;
  const intro = (
    <div class="fields">
      {own.map((column, place) => (
        <label class="stacked" key={column.name}>
          <span>{column.name} <span class="soft" aria-hidden="true">{column.type}</span></span>
          <input type="text" aria-label={column.name} value={values[place]} placeholder="NULL" readOnly={known.key.includes(column.name)}
            onInput={(event) => setValues(values.map((value, other) => (other === place ? event.currentTarget.value : value)))} />
        </label>
      ))}
    </div>
  );
  return <StatementDialog title={`Edit a row of ${full}`} statement={statement} intro={intro} onClose={onClose} onDone={onDone} />;
}
