import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { rowCount } from "../describe.js";
import { loadEarthquakes } from "../earthquakes.js";
import { Empty, Fault, Kind, Loading, StatementDialog, notify } from "../parts.jsx";
import { count } from "../text.js";
import { ViewState, hasViews, lagText, useViews } from "../views.jsx";

const SHOWN_MAX = 500;
const NEW_TABLE = `CREATE SHARED TABLE lab.readings (
    id     BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID(),
    sensor TEXT NOT NULL,
    value  DOUBLE,
    at     TIMESTAMP DEFAULT NOW()
)`;

/** The statement that *Create table* begins with: one that works, whatever namespaces there are. */
function newTable(known) {
  const spaces = known?.namespaces.filter((one) => one.may_create !== false).map((one) => one.name) ?? [];
  if (spaces.length === 0) return `CREATE NAMESPACE lab;\n${NEW_TABLE}`;
  return NEW_TABLE.replace("lab.", `${spaces.includes("lab") ? "lab" : spaces[0]}.`);
}

/** Whether who asks may make a table somewhere: in a namespace of theirs, and administrators everywhere. */
export function mayCreate(known, me) {
  return Boolean(me?.admin || known?.namespaces.some((space) => space.may_create));
}

export function TablesPage({ known, me, reloadCatalogue, create = false }) {
  const [creating, setCreating] = useState(create);
  const [search, setSearch] = useState("");
  const wanted = search.trim().toLowerCase();
  const views = useViews(hasViews(known));
  const spaces = useMemo(() => {
    if (!known) return null;
    return known.namespaces
      .map((space) => ({ ...space, shown: space.tables.filter((table) => `${space.name}.${table.name}`.includes(wanted)) }))
      .filter((space) => space.shown.length || !wanted);
  }, [known, wanted]);
  if (!spaces) return <Loading />;
  const total = known.namespaces.reduce((sum, space) => sum + space.tables.length, 0);
  return (
    <section>
      <div class="bar">
        <h1>Tables</h1>
        <span class="space" />
        {total > 0 && <label class="search"><span>Search</span> <input type="search" value={search} onInput={(event) => setSearch(event.currentTarget.value)} placeholder="namespace.table" /></label>}
        {mayCreate(known, me) && <button type="button" class="primary" onClick={() => setCreating(true)}>Create table</button>}
      </div>
      {total === 0 && <FirstTable known={known} me={me} onCreate={() => setCreating(true)} reloadCatalogue={reloadCatalogue} />}
      {spaces.map((space) => <Space space={space} views={views} open={Boolean(wanted) || total <= 200 || spaces.length === 1} key={space.name} />)}
      {wanted && spaces.length === 0 && <p class="soft">No table is called like <code>{search}</code>.</p>}
      {creating && mayCreate(known, me) && (
        <StatementDialog title="Create table" statement={newTable(known)} onClose={() => setCreating(false)}
          onDone={(results) => { notify(results.at(-1).message ?? "Done"); reloadCatalogue(); }} />
      )}
    </section>
  );
}

function Space({ space, views, open }) {
  const [opened, setOpened] = useState(open);
  useEffect(() => setOpened(open), [open]);
  return (
    <details class="tree" open={opened} onToggle={(event) => setOpened(event.currentTarget.open)}>
      <summary><strong>{space.name}</strong> <span class="soft">{count(space.tables.length)} {space.tables.length === 1 ? "table" : "tables"}</span></summary>
      {opened && space.tables.length === 0 && <p class="soft none">No table in it yet{space.may_create !== false && <>: <em>Create table</em> makes one</>}.</p>}
      {opened && space.tables.length > 0 && (
        <table class="list even">
          <colgroup><col /><col class="col-kind" /><col class="col-rows" /><col class="col-columns" /></colgroup>
          <thead><tr><th>Table</th><th>Kind</th><th class="number">Rows</th><th class="number">Columns</th></tr></thead>
          <tbody>
            {space.shown.slice(0, SHOWN_MAX).map((table) => (
              <tr key={table.name}>
                <td><a href={`#/tables/${space.name}/${table.name}`}>{table.name}</a></td>
                <td><Kind kind={table.kind} /><Standing view={views.get(`${space.name}.${table.name}`)} /></td>
                <td class="number">{table.may && !table.may.includes("SELECT") ? "–" : <Rows full={`${space.name}.${table.name}`} kind={table.kind} />}</td>
                <td class="number">{table.columns.length}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {opened && space.shown.length > SHOWN_MAX && <p class="soft">The first {count(SHOWN_MAX)} of {count(space.shown.length)} tables: search for the others.</p>}
    </details>
  );
}

/** How a view stands, beside its kind: its state, and how far it is behind. */
function Standing({ view }) {
  if (!view) return null;
  const lag = lagText(view);
  return <> <span title={view.reason ?? undefined}><ViewState view={view} /></span>{lag && <span class="soft lag">{lag}</span>}</>;
}

/** The number of rows, asked for only when its line is looked at. */
function Rows({ full, kind }) {
  const element = useRef(null);
  const [number, setNumber] = useState(undefined);
  useEffect(() => {
    let left = false;
    const watch = new IntersectionObserver(async ([entry]) => {
      if (!entry.isIntersecting) return;
      watch.disconnect();
      try {
        const found = await rowCount(full, kind);
        if (!left) setNumber(found);
      } catch {
        if (!left) setNumber(null);
      }
    });
    watch.observe(element.current);
    return () => {
      left = true;
      watch.disconnect();
    };
  }, [full]);
  return <span ref={element}>{number === undefined ? "…" : count(number)}</span>;
}

/** What a stranger sees first. */
export function FirstTable({ known, me, onCreate, reloadCatalogue }) {
  const [progress, setProgress] = useState(null);
  const [error, setError] = useState(null);
  const here = useRef(true); // who has gone to another page meanwhile is not taken away from it
  useEffect(() => () => { here.current = false; }, []);
  async function load() {
    setError(null);
    setProgress({ done: 0, total: 0 });
    try {
      await loadEarthquakes((state) => {
        setProgress(state);
        if (state.created) {
          reloadCatalogue();
          if (here.current) location.hash = "#/live?sql=" + encodeURIComponent("SELECT time, mag, place, net FROM quakes.events");
        }
      });
    } catch (problem) {
      setError(problem);
    }
    setProgress(null);
    reloadCatalogue();
  }
  if (!mayCreate(known, me)) {
    return (
      <Empty title="No table yet">
        <p>There is no table that you may see. An administrator, or a table's owner, grants it to you.</p>
      </Empty>
    );
  }
  return (
    <Empty title="No table yet">
      <p>A table takes rows from NATS, tells every change of them on its subject, and answers SQL.</p>
      <p class="buttons">
        {me?.admin && <button type="button" class="primary" disabled={progress !== null} onClick={load}>Load the earthquakes</button>}
        <button type="button" onClick={onCreate}>Create a table of my own</button>
      </p>
      {me?.admin && <p class="soft">A week of real earthquakes (USGS, public domain) flows into <code>quakes.events</code> and <code>quakes.latest</code>, and you watch it live.</p>}
      <Fault error={error} />
    </Empty>
  );
}
