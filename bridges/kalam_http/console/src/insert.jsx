// *Insert rows*: one row by a form, or many by a file, which the server judges before it stores anything.

import { useEffect, useRef, useState } from "preact/hooks";
import { insertRows, sql } from "./api.js";
import { Dialog, Fault, notify } from "./parts.jsx";
import { literal, plural, quoted, tableName } from "./text.js";

const PREVIEW_ROWS = 50;
const TYPED_MS = 400; // so long after the last key is what was typed judged
const TYPES = { csv: "text/csv", ndjson: "application/x-ndjson", json: "application/json" };

export function InsertDialog({ namespace, table, columns, onClose, onDone }) {
  const [way, setWay] = useState("form");
  return (
    <Dialog title={`Insert rows into ${namespace}.${table}`} onClose={onClose} wide>
      <div class="tabs" role="tablist" aria-label="How">
        {[["form", "One row"], ["file", "File or paste"]].map(([name, text]) => (
          <button type="button" role="tab" aria-selected={way === name} onClick={() => setWay(name)} key={name}>{text}</button>
        ))}
      </div>
      {way === "form"
        ? <RowForm namespace={namespace} table={table} columns={columns} onClose={onClose} onDone={onDone} />
        : <RowsFile namespace={namespace} table={table} columns={columns} onClose={onClose} onDone={onDone} />}
    </Dialog>
  );
}

function RowForm({ namespace, table, columns, onClose, onDone }) {
  const [values, setValues] = useState({});
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const given = columns.filter((column) => (values[column.name] ?? "") !== "");
  const names = given.map((column) => quoted(column.name)).join(", ");
  const statement = given.length
    ? `INSERT INTO ${tableName(`${namespace}.${table}`)} (${names})\nVALUES (${given.map((column) => literal(values[column.name], column.type)).join(", ")})`
    : "-- fill in a field";
  async function submit(event) {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await sql(statement);
      notify("1 row inserted");
      onDone();
      onClose();
    } catch (problem) {
      setError(problem);
    } finally {
      setBusy(false);
    }
  }
  return (
    <form onSubmit={submit}>
      <div class="fields">
        {columns.map((column) => (
          <label class="stacked" key={column.name}>
            <span>{column.name} <span class="soft" aria-hidden="true">{column.definition}</span></span>
            <input type="text" aria-label={column.name} placeholder={column.default ?? (column.nullable ? "NULL" : "")}
              value={values[column.name] ?? ""} onInput={(event) => setValues({ ...values, [column.name]: event.currentTarget.value })} />
          </label>
        ))}
      </div>
      <pre class="preview" tabIndex={0} aria-label="The statement">{statement}</pre>
      <Fault error={error} />
      <footer class="dialog-foot">
        <button type="button" onClick={onClose}>Cancel</button>
        <button type="submit" class="primary" disabled={busy || given.length === 0}>Insert</button>
      </footer>
    </form>
  );
}

/** The format of a text that was pasted or dropped. */
function formatOf(name, text) {
  const ending = /\.(csv|ndjson|jsonl|json)$/i.exec(name)?.[1].toLowerCase();
  if (ending) return ending === "jsonl" ? "ndjson" : ending;
  const start = text.trimStart()[0];
  return start === "[" ? "json" : start === "{" ? "ndjson" : "csv";
}

/** The first rows of a text as small bodies of the same format, each of one row. */
function firstRows(text, format) {
  if (format === "json") {
    return JSON.parse(text).slice(0, PREVIEW_ROWS).map((row) => ({ shown: JSON.stringify(row), body: JSON.stringify([row]) }));
  }
  if (format === "ndjson") {
    return text.split("\n").filter((line) => line.trim()).slice(0, PREVIEW_ROWS).map((line) => ({ shown: line, body: line }));
  }
  const records = csvRecords(text, PREVIEW_ROWS + 1);
  return records.slice(1).map((record) => ({ shown: record.trimEnd(), body: `${records[0]}${record}` }));
}

/** The first records of a CSV text, as they stand in it: a quoted field may hold line ends. */
function csvRecords(text, most) {
  const records = [];
  let from = 0;
  let inQuotes = false;
  for (let at = 0; at < text.length && records.length < most; at += 1) {
    if (text[at] === '"') inQuotes = !inQuotes;
    else if (text[at] === "\n" && !inQuotes) {
      records.push(text.slice(from, at + 1));
      from = at + 1;
    }
  }
  if (records.length < most && text.slice(from).trim()) records.push(`${text.slice(from)}\n`);
  return records.filter((record) => record.trim());
}

function RowsFile({ namespace, table, columns, onClose, onDone }) {
  const [source, setSource] = useState(null); // {name, text, format}
  const [verdicts, setVerdicts] = useState([]);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const [over, setOver] = useState(false);
  const latest = useRef(0); // a verdict on what was replaced meanwhile is not shown
  const typing = useRef(null);
  useEffect(() => () => clearTimeout(typing.current), []);

  function typed(text) {
    clearTimeout(typing.current);
    typing.current = setTimeout(() => (text.trim() ? take("", text) : forget()), TYPED_MS);
  }
  function forget() {
    latest.current += 1;
    setSource(null);
    setVerdicts([]);
    setError(null);
  }
  async function take(name, text) {
    const own = ++latest.current;
    const format = formatOf(name, text);
    setSource({ name, text, format });
    setError(null);
    setVerdicts([]);
    try {
      const found = firstRows(text, format);
      const judged = await Promise.all(found.map(async ({ shown, body }) => {
        try {
          await insertRows(namespace, table, body, TYPES[format], { dryRun: true });
          return { shown, problem: null };
        } catch (problem) {
          return { shown, problem };
        }
      }));
      if (own !== latest.current) return;
      setVerdicts(judged);
      if (judged.every(({ problem }) => !problem)) await insertRows(namespace, table, text, TYPES[format], { dryRun: true });
    } catch (problem) {
      if (own === latest.current) setError(problem);
    }
  }
  async function drop(event) {
    event.preventDefault();
    setOver(false);
    const file = (event.dataTransfer ?? event.currentTarget).files?.[0];
    if (file) await take(file.name, await file.text());
    else if (event.dataTransfer?.getData("text")) await take("", event.dataTransfer.getData("text"));
  }
  async function insert() {
    setBusy(true);
    setError(null);
    try {
      const answer = await insertRows(namespace, table, source.text, TYPES[source.format]);
      notify(`${plural(answer.rows, "row")} inserted`);
      onDone();
      onClose();
    } catch (problem) {
      setError(problem);
    } finally {
      setBusy(false);
    }
  }
  const bad = verdicts.filter(({ problem }) => problem).length;
  return (
    <div>
      <div class={`drop ${over ? "over" : ""}`} onDragOver={(event) => { event.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)} onDrop={drop}>
        <label>CSV, NDJSON or JSON file <input type="file" accept=".csv,.ndjson,.jsonl,.json,text/csv,application/json" onChange={drop} /></label>
        <span class="soft">or drop one here. A CSV names its columns in the first line: {columns.map((column) => column.name).join(", ")}</span>
      </div>
      <label class="stacked">
        Or paste rows
        <textarea class="mono" rows={5} spellcheck={false} placeholder={`${columns.map((column) => column.name).join(",")}\n…`}
          onInput={(event) => typed(event.currentTarget.value)} />
      </label>
      {verdicts.length > 0 && (
        <>
          <p role="status">{bad ? `${plural(bad, "row")} of the first ${verdicts.length} would be refused` : verdicts.length === 1 ? "The row would be taken" : `The first ${plural(verdicts.length, "row")} would be taken`} <span class="soft">({source.format})</span></p>
          <div class="verdicts" tabIndex={0} role="region" aria-label="Preview">
            <table class="list">
              <thead><tr><th class="number">Row</th><th>Verdict</th><th>Content</th></tr></thead>
              <tbody>
                {verdicts.map(({ shown, problem }, place) => (
                  <tr key={place} class={problem ? "bad" : ""}>
                    <td class="number">{place + 1}</td>
                    <td class="verdict">{problem ? problem.message : "ok"}</td>
                    <td class="mono clip">{shown.slice(0, 200)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
      <Fault error={error} />
      <footer class="dialog-foot">
        <button type="button" onClick={onClose}>Cancel</button>
        <button type="button" class="primary" disabled={!source || busy} onClick={insert}>{busy ? "Inserting…" : "Insert"}</button>
      </footer>
    </div>
  );
}
