import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { cancel, download, newQueryId, sql } from "../api.js";
import { Chart } from "../chart.jsx";
import { createEditor } from "../editor.js";
import { Grid } from "../grid.jsx";
import { Elapsed, Fault, Menu, notify, save } from "../parts.jsx";
import { isQuery, parameterCount, placeOf, statements } from "../statements.js";
import { isNumeric, milliseconds, plural, short } from "../text.js";

const HISTORY_MAX = 100;
const BARS_MAX = 60;
const FORMATS = [
  ["CSV", "text/csv", "csv"],
  ["NDJSON", "application/x-ndjson", "ndjson"],
  ["Arrow", "application/vnd.apache.arrow.stream", "arrow"],
  ["Parquet", "application/vnd.apache.parquet", "parquet"],
];

const SECRET = /\bPASSWORD\b/i; // what may have a password in it is kept nowhere

function kept(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function keep(name, value) {
  if (SECRET.test(JSON.stringify(value))) return;
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch {
    // a full or forbidden storage costs the history, nothing else
  }
}

export function QueryPage({ known, reloadCatalogue, me, given }) {
  const own = me?.authentication ? `kalam.${me.user}.` : "kalam."; // who shares a browser shares no history
  const host = useRef(null);
  const editor = useRef(null);
  const catalogue = useRef(known);
  catalogue.current = known;
  const run = useRef(() => {});
  const [text, setText] = useState(() => given ?? kept(`${own}text`, ""));
  const [parameters, setParameters] = useState([]);
  const [running, setRunning] = useState(null); // {id, since}
  const [answer, setAnswer] = useState(null); // {results, texts, params, took}
  const [error, setError] = useState(null);
  const [tab, setTab] = useState(0);
  const [past, setPast] = useState(() => kept(`${own}history`, []));
  const [saved, setSaved] = useState(() => kept(`${own}saved`, []));

  useLayoutEffect(() => {
    editor.current = createEditor(host.current, {
      text,
      label: "SQL",
      getCatalogue: () => catalogue.current,
      onRun: () => run.current(),
      onChange: (now) => {
        setText(now);
        keep(`${own}text`, now);
      },
    });
    return () => editor.current.destroy();
  }, []);
  useEffect(() => {
    if (given !== null && given !== undefined && given !== editor.current.text()) editor.current.replace(given);
  }, [given]);

  const wanted = parameterCount(text);

  run.current = async (explain = false) => {
    if (running) return;
    const selection = editor.current.selection();
    const part = selection.text.trim() ? selection : { from: 0, text: editor.current.text() };
    const all = statements(part.text);
    if (!all.length) {
      setError(new Error("There is nothing to run: write a statement first."));
      return;
    }
    const sent = explain ? all.map((one) => `EXPLAIN ${one.text}`).join(";\n") : part.text;
    const params = parameters.slice(0, parameterCount(part.text)).map(parameterValue);
    const id = newQueryId();
    setRunning({ id, since: performance.now() });
    editor.current.closeCompletion();
    setError(null);
    setAnswer(null);
    editor.current.mark(null);
    remember(part.text.trim());
    const started = performance.now();
    try {
      const { results } = await sql(sent, { params, queryId: id });
      setAnswer({ results, texts: all.map((one) => (explain ? `EXPLAIN ${one.text}` : one.text)), params, took: performance.now() - started });
      setTab(results.length - 1);
    } catch (problem) {
      setError(problem);
      if (problem.results?.length) {
        setAnswer({ results: problem.results, texts: all.map((one) => one.text), params, took: performance.now() - started });
        setTab(problem.results.length - 1);
      }
      if (problem.code && problem.code !== "cancelled") {
        const place = explain ? { from: 0, to: part.text.length } : placeOf(problem, part.text);
        editor.current.mark({ from: part.from + place.from, to: part.from + place.to });
      }
    } finally {
      setRunning(null);
      reloadCatalogue();
    }
  };

  function remember(entry) {
    if (SECRET.test(entry)) return;
    const next = [entry, ...past.filter((one) => one !== entry)].slice(0, HISTORY_MAX);
    setPast(next);
    keep(`${own}history`, next);
  }

  async function stop() {
    try {
      await cancel(running.id);
    } catch (problem) {
      if (problem.code !== "not_found") setError(problem);
    }
  }

  function saveQuery(event) {
    event.preventDefault();
    const name = new FormData(event.currentTarget).get("name").trim();
    if (!name) return;
    const next = [{ name, text }, ...saved.filter((one) => one.name !== name)];
    setSaved(next);
    keep(`${own}saved`, next);
    event.currentTarget.reset();
    notify(`Saved as ${name} in this browser.`);
  }

  function forget(name) {
    const next = saved.filter((one) => one.name !== name);
    setSaved(next);
    keep(`${own}saved`, next);
  }

  return (
    <section class="query">
      <h1>Query</h1>
      <div class="editor-host" ref={host} />
      <div class="bar">
        <button type="button" class="primary" disabled={running !== null} title="Ctrl+Enter or ⌘+Enter; a selection runs alone" onClick={() => run.current()}>Run</button>
        <button type="button" disabled={running === null} onClick={stop}>Cancel</button>
        <button type="button" disabled={running !== null} onClick={() => run.current(true)}>Explain</button>
        <span class="space" />
        <Menu title="History">
          {past.length === 0 && <p class="soft">What you run is listed here, in this browser only.</p>}
          {past.map((entry) => <button type="button" class="entry mono" onClick={(event) => choose(event, entry)} key={entry}>{entry.slice(0, 160)}</button>)}
        </Menu>
        <Menu title="Saved">
          <form class="inline" onSubmit={saveQuery}>
            <label>Name <input name="name" type="text" maxlength={60} autocomplete="off" /></label>
            <button type="submit">Save</button>
          </form>
          {saved.map((one) => (
            <div class="inline" key={one.name}>
              <button type="button" class="entry" onClick={(event) => choose(event, one.text)}>{one.name}</button>
              <button type="button" class="quiet" aria-label={`Forget ${one.name}`} onClick={() => forget(one.name)}>✕</button>
            </div>
          ))}
        </Menu>
      </div>
      {wanted > 0 && (
        <fieldset class="parameters">
          <legend>Parameters</legend>
          {Array.from({ length: wanted }, (_, place) => (
            <label key={place}>
              ${place + 1}
              <input type="text" value={parameters[place] ?? ""} placeholder="NULL" onInput={(event) => {
                const next = [...parameters];
                next[place] = event.currentTarget.value;
                setParameters(next);
              }} />
            </label>
          ))}
          <p class="soft">A number, <code>true</code>, <code>false</code> or JSON is taken as such; anything else is text; empty is NULL.</p>
        </fieldset>
      )}
      <Fault error={error} />
      {running && <div class="answer"><div class="bar"><Elapsed since={running.since} what="Running for" /></div></div>}
      {answer && <Answer answer={answer} tab={tab} setTab={setTab} />}
      {!answer && !error && !running && <p class="soft hint-line">Ctrl+Enter runs the text, or what is selected in it. Statements are separated by semicolons.</p>}
    </section>
  );

  function choose(event, entry) {
    event.currentTarget.closest("details").open = false;
    editor.current.replace(entry);
  }
}

function parameterValue(text = "") {
  if (text === "") return null;
  if (/^-?\d{16,}$/.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function Answer({ answer, tab, setTab }) {
  const result = answer.results[tab] ?? answer.results[0];
  const [charted, setCharted] = useState(false);
  const chart = useMemo(() => (result ? chartOf(result) : null), [result]);
  if (!result) return null;
  const text = answer.texts[tab] ?? "";
  return (
    <section class="answer">
      <div class="bar">
        {answer.results.length > 1 && (
          <div role="tablist" aria-label="Statements" class="tabs">
            {answer.results.map((_, place) => (
              <button type="button" role="tab" aria-selected={place === tab} title={answer.texts[place]} tabIndex={place === tab ? 0 : -1} key={place}
                onClick={() => setTab(place)}
                onKeyDown={(event) => {
                  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
                  if (!step) return;
                  const next = (tab + step + answer.results.length) % answer.results.length;
                  setTab(next);
                  event.currentTarget.parentElement.children[next].focus();
                }}>{place + 1}</button>
            ))}
          </div>
        )}
        <span role="status">
          {result.columns.length ? plural(result.row_count, "row") : result.message ?? "Done"}
          <span class="soft"> · {milliseconds(answer.took)}</span>
        </span>
        <span class="space" />
        {chart && <button type="button" aria-pressed={charted} onClick={() => setCharted(!charted)}>Chart</button>}
        {result.columns.length > 0 && <Download result={result} text={text} params={answer.params} />}
      </div>
      {charted && chart && (
        <div class="charted">
          <Chart {...chart} height={260} legend format={short} label={`Chart of ${chart.series.map((one) => one.label).join(", ")}`} />
          {chart.names && chart.names.length < result.rows.length && <p class="soft">The first {chart.names.length} of {plural(result.rows.length, "row")}.</p>}
        </div>
      )}
      {result.columns.length > 0 && <Grid columns={result.columns} rows={result.rows} key={tab} />}
      {isPlan(result) && result.rows.map(([kind, plan]) => <pre class="preview plan" tabIndex={0} aria-label={kind} key={kind}>{plan.trimEnd()}</pre>)}
    </section>
  );
}

/** Whether a result is that of an EXPLAIN, whose texts are read whole. */
function isPlan({ columns }) {
  return columns.length === 2 && columns[0].name === "plan_type" && columns[1].name === "plan";
}

/** A result as a chart: its first time or category column, and its numbers. Null where it has no such columns. */
export function chartOf({ columns, rows }) {
  const numbers = columns.map((column, place) => ({ column, place })).filter(({ column }) => isNumeric(column.type) && !column.name.startsWith("_"));
  const times = columns.findIndex((column) => /^(TIMESTAMP|DATE)/.test(column.type) && !column.name.startsWith("_"));
  const names = columns.findIndex((column) => /^(TEXT|UUID|BOOLEAN|VARCHAR)/.test(column.type));
  if (!numbers.length || !rows.length || (times < 0 && names < 0)) return null;
  const value = (row, place) => (row[place] === null ? null : Number(row[place]));
  if (times >= 0) {
    const timed = rows.filter((row) => row[times] !== null).map((row) => [Date.parse(row[times]) / 1000, row]).sort((a, b) => a[0] - b[0]);
    if (!timed.length) return null;
    const series = numbers.slice(0, 6).map(({ column, place }) => ({ label: column.name, values: timed.map(([, row]) => value(row, place)) }));
    return { xs: timed.map(([at]) => at), series };
  }
  const own = rows.slice(0, BARS_MAX);
  const series = numbers.slice(0, 6).map(({ column, place }) => ({ label: column.name, values: own.map((row) => value(row, place)) }));
  return { xs: own.map((_, place) => place), names: own.map((row) => row[names]), series };
}

function Download({ result, text, params }) {
  const [error, setError] = useState(null);
  async function take(event, [, accept, ending]) {
    event.currentTarget.closest("details").open = false;
    setError(null);
    try {
      save(isQuery(text) ? await download(text, accept, { params }) : asText(result, ending), `result.${ending}`);
    } catch (problem) {
      setError(problem);
    }
  }
  const formats = isQuery(text) ? FORMATS : FORMATS.slice(0, 2);
  return (
    <>
      <Fault error={error} />
      <Menu title="Download" asButton>
        {formats.map((format) => <button type="button" class="entry" onClick={(event) => take(event, format)} key={format[2]}>{format[0]}</button>)}
      </Menu>
    </>
  );
}

/** What is no query (SHOW, DESCRIBE, RETURNING) is not run again: its rows are here. */
function asText({ columns, rows }, ending) {
  if (ending === "ndjson") {
    return new Blob(rows.map((row) => `${JSON.stringify(Object.fromEntries(columns.map((column, place) => [column.name, row[place]])))}\n`));
  }
  const field = (value) => {
    if (value === null) return "";
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    return text === "" || /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return new Blob([columns.map((column) => field(column.name)), ...rows.map((row) => row.map(field))].map((line) => `${line.join(",")}\n`));
}
