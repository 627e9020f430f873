import { useEffect, useRef, useState } from "preact/hooks";
import { parseExactly } from "../api.js";
import { Fault } from "../parts.jsx";
import { follow } from "../sse.js";
import { count, tableName, valueText } from "../text.js";
import { ViewLine, useViews } from "../views.jsx";

const KEPT_MAX = 1000;
const DRAWN_MAX = 60;
const DRAW_MS = 200;
const FIRST_ROWS = 50;

/** A SELECT, or the name of a table. */
function asQuery(text) {
  const trimmed = text.trim().replace(/;$/, "");
  return /^[\w"]+\.[\w"]+$/.test(trimmed) ? `SELECT * FROM ${tableName(trimmed.replaceAll('"', ""))}` : trimmed;
}

/** The table that a query is about, as far as its text tells. */
function tableOf(text) {
  return /(?:\bfrom\s+|^\s*)("?\w+"?\."?\w+"?)/i.exec(text)?.[1].replaceAll('"', "") ?? "";
}

function isView(known, full) {
  return Boolean(known?.namespaces.some((space) => space.tables.some((table) => table.kind === "VIEW" && `${space.name}.${table.name}` === full)));
}

export function LivePage({ given, known }) {
  const [text, setText] = useState(given ?? "");
  const [error, setError] = useState(null);
  const [state, setState] = useState("idle");
  const [paused, setPaused] = useState(false);
  const [view, setView] = useState({ lines: [], total: 0, rate: 0, seq: null, rows: 0 });
  const full = tableOf(text);
  const stands = useViews(state !== "idle" && isView(known, full)).get(full);
  const query = useRef(null);
  const kept = useRef({ lines: [], total: 0, seq: null, rows: 0, next: 1, marks: [] });
  const pause = useRef(false);
  pause.current = paused;

  useEffect(() => {
    if (given) {
      setText(given);
      start(given);
    }
  }, [given]);
  useEffect(() => () => query.current?.stop(), []);

  // What comes is kept as it comes and drawn a few times a second: the page stays quick at any rate.
  useEffect(() => {
    if (state === "idle") return undefined;
    const timer = setInterval(() => {
      const own = kept.current;
      const now = performance.now();
      own.marks.push([now, own.total]);
      while (own.marks.length > 2 && now - own.marks[0][0] > 3000) own.marks.shift();
      const [at, then] = own.marks[0];
      const rate = now > at ? ((own.total - then) / (now - at)) * 1000 : 0;
      if (pause.current) setView((before) => ({ ...before, total: own.total, rate, seq: own.seq }));
      else setView({ lines: own.lines.slice(0, DRAWN_MAX), total: own.total, rate, seq: own.seq, rows: own.rows });
    }, DRAW_MS);
    return () => clearInterval(timer);
  }, [state]);

  function add(line) {
    const own = kept.current;
    own.lines.unshift({ id: own.next++, ...line });
    if (own.lines.length > KEPT_MAX) own.lines.length = KEPT_MAX;
  }

  function onMessage(data) {
    const own = kept.current;
    const message = parseExactly(data);
    switch (message.type) {
      case "snapshot":
        own.rows += message.rows.length;
        for (const row of message.rows) add({ op: "snapshot", row });
        break;
      case "ready":
        own.seq = message.seq;
        add({ op: "ready", note: `${count(own.rows)} rows were there; changes follow after seq ${message.seq}` });
        break;
      case "changes":
        own.total += message.changes.length;
        for (const change of message.changes.slice(-KEPT_MAX)) add(change);
        own.seq = message.changes.at(-1)?.seq ?? own.seq;
        break;
      case "resync":
        own.seq = message.seq;
        add({ op: "resync", note: `changes up to seq ${message.seq} were not told: this page fell behind` });
        break;
      case "closed":
        add({ op: "closed", note: message.reason });
        stop();
        break;
      default:
        own.seq = message.seq ?? own.seq;
    }
  }

  function start(asked = text) {
    query.current?.stop();
    setError(null);
    setPaused(false);
    clear();
    if (!asked.trim()) {
      setError(new Error("Name a table, or write a SELECT."));
      return;
    }
    let lost = false;
    query.current = follow(asQuery(asked), {
      lastRows: FIRST_ROWS,
      onMessage,
      onError: setError,
      onState(now, lastId) {
        if (now === "lost" && !lost) {
          lost = true;
          add({ op: "lost", note: "the connection is lost; the query goes on where it was" });
        }
        if (now === "open" && lost) {
          lost = false;
          add({ op: "resumed", note: `behind seq ${lastId?.split("-")[1] ?? "?"}` });
        }
        setState(now === "ended" ? "idle" : now);
      },
    });
    setState("connecting");
  }

  function stop() {
    query.current?.stop();
    query.current = null;
    setState("idle");
    setView((before) => ({ ...before, lines: kept.current.lines.slice(0, DRAWN_MAX), rate: 0 }));
  }

  function clear() {
    Object.assign(kept.current, { lines: [], total: 0, rows: 0, marks: [] });
    setView({ lines: [], total: 0, rate: 0, seq: null, rows: 0 });
  }

  const runs = state !== "idle";
  const names = columnsOf(view.lines);
  const numbers = new Set(names.filter((name) => holdsNumbers(view.lines, name)));
  return (
    <section class="live">
      <h1>Live</h1>
      <form class="bar" onSubmit={(event) => { event.preventDefault(); start(); }}>
        <input class="grow mono" type="text" aria-label="Live query" spellcheck={false} autocomplete="off" placeholder="ns.table, or SELECT … FROM ns.table WHERE …" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        <button type="submit" class="primary">Start</button>
        <button type="button" disabled={!runs} onClick={stop}>Stop</button>
        <button type="button" aria-pressed={paused} disabled={!runs} onClick={() => setPaused(!paused)}>Pause</button>
        <button type="button" onClick={clear}>Clear</button>
      </form>
      <Fault error={error} />
      <p class="live-state" role="status">
        <span class={`dot dot-${state}`} aria-hidden="true" />
        {WORDS[state]}
        {paused && " · paused"}
        {runs && <> · <strong>{count(Math.round(view.rate))}</strong>/s · {count(view.total)} changes · seq {view.seq ?? "–"}</>}
        {view.total > view.lines.length && <span class="soft"> · the last {count(view.lines.length)} are shown</span>}
      </p>
      {stands && <ViewLine view={stands} />}
      {!runs && view.lines.length === 0 && !error && (
        <div class="empty"><h2>Watch a table change</h2><p class="soft">Type the name of a table, or a SELECT, and press Start: first come the rows that match, or its groups, then every change of them.</p></div>
      )}
      {view.lines.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label="Changes">
          <table class="list changes">
            <thead><tr><th>Change</th><th class="number">Seq</th>{names.map((name) => <th class={numbers.has(name) ? "number" : undefined} key={name}>{name}</th>)}</tr></thead>
            <tbody>{view.lines.map((line) => <Line line={line} names={names} numbers={numbers} key={line.id} />)}</tbody>
          </table>
        </div>
      )}
    </section>
  );
}

const WORDS = { idle: "Not running", connecting: "Connecting…", open: "Listening", lost: "Connection lost", resuming: "Resuming…" };

function columnsOf(lines) {
  const line = lines.find((one) => one.row);
  return line ? Object.keys(line.row) : [];
}

function holdsNumbers(lines, name) {
  return lines.some((line) => typeof line.row?.[name] === "number");
}

function Line({ line, names, numbers }) {
  if (line.note !== undefined) {
    return <tr class={`note op-${line.op}`}><td><span class="op">{line.op}</span></td><td class="number" /><td colSpan={Math.max(names.length, 1)}>{line.note}</td></tr>;
  }
  return (
    <tr class={`op-${line.op}`}>
      <td><span class="op">{line.op}</span></td>
      <td class="number">{line.seq ?? ""}</td>
      {names.map((name) => {
        const changed = line.old && name in line.old && !name.startsWith("_");
        const value = line.row[name];
        return (
          <td class={`${changed ? "changed " : ""}${numbers.has(name) ? "number" : ""}`} title={changed ? `was ${valueText(line.old[name]) || "NULL"}` : undefined} key={name}>
            {value === null || value === undefined ? <span class="null">NULL</span> : valueText(value).slice(0, 120)}
          </td>
        );
      })}
    </tr>
  );
}
