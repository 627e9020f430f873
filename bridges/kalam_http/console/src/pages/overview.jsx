import { overview } from "../api.js";
import { BINARY_STEPS, Chart, WHOLE_STEPS } from "../chart.jsx";
import { Fault, Loading, useLoaded } from "../parts.jsx";
import { bytes, count, milliseconds, short } from "../text.js";
import { FirstTable } from "./tables.jsx";

const TILES = [
  ["Rows accepted", ["rows_accepted_per_s"], (value) => `${short(value)}/s`],
  ["Events published", ["events_published_per_s"], (value) => `${short(value)}/s`],
  ["Insert latency", ["insert_p50_ms", "insert_p99_ms"], milliseconds],
  ["SQL latency", ["sql_p50_ms", "sql_p99_ms"], milliseconds],
  ["Live queries", ["live_queries"], count],
  ["Hot rows", ["hot_rows"], count],
  ["Hot bytes", ["hot_bytes"], bytes],
  ["Flush backlog", ["flush_backlog_rows"], (value) => `${count(value)} rows`],
  ["Unpublished changes", ["unpublished_bytes"], bytes],
  ["Write-ahead log", ["wal_bytes"], bytes],
  ["Free disk", ["disk_free_bytes"], bytes],
];
const NAMES = { insert_p50_ms: "p50", insert_p99_ms: "p99", sql_p50_ms: "p50", sql_p99_ms: "p99" };
const WHOLE = new Set(["Live queries", "Hot rows", "Flush backlog"]);
const UNIT = /\/s$| rows$/;
const TABLE = "table_rows_per_s:";

export function OverviewPage({ known, me, reloadCatalogue }) {
  const loaded = useLoaded(overview, [], 5000);
  if (!loaded.value) return loaded.error ? <section><h1>Overview</h1><Fault error={loaded.error} /></section> : <Loading />;
  const { at, series } = loaded.value;
  const last = (name) => series[name]?.at(-1) ?? null;
  const connected = loaded.error ? null : last("broker_connected"); // what was true before the server went is not told
  const empty = known && known.namespaces.every((space) => space.tables.length === 0);
  const busiest = Object.keys(series)
    .filter((name) => name.startsWith(TABLE))
    .map((name) => ({ name: name.slice(TABLE.length), now: last(name), mean: mean(series[name]) }))
    .sort((a, b) => b.mean - a.mean);
  return (
    <section>
      <div class="bar">
        <h1>Overview</h1>
        <span class="space" />
        {connected !== null && <span class={`status ${connected ? "status-completed" : "status-failed"}`}>{connected ? "broker connected" : "broker not connected"}</span>}
      </div>
      <Fault error={loaded.error} />
      {empty && <FirstTable known={known} me={me} onCreate={() => { location.hash = "#/tables?create"; }} reloadCatalogue={reloadCatalogue} />}
      <div class="charts">
        {TILES.filter(([, names]) => names.some((name) => name in series)).map(([title, names, format]) => (
          <figure class="tile" key={title}>
            <figcaption>
              <span>{title}</span>
              <span class="now">
                {names.map((name, place) => (
                  <span key={name}>
                    {names.length > 1 && <><i class={`swatch swatch-${place + 1}`} aria-hidden="true" />{NAMES[name]} </>}
                    <strong>{format(last(name))}</strong>
                  </span>
                ))}
              </span>
            </figcaption>
            <Chart label={`${title}, the last 15 minutes`} xs={at} height={120} span={15 * 60} steps={format === bytes ? BINARY_STEPS : WHOLE.has(title) ? WHOLE_STEPS : null} format={(value) => (value === 0 ? "0" : format(value).replace(UNIT, ""))}
              series={names.map((name) => ({ label: NAMES[name] ?? title, values: series[name] ?? [] }))} />
          </figure>
        ))}
      </div>
      {!me?.admin && busiest.length === 0 && !empty && <p class="soft">No row came into a table that you may see in the last 15 minutes.</p>}
      {busiest.length > 0 && (
        <>
          <h2>Busiest tables</h2>
          <table class="list even">
            <colgroup><col /><col class="col-rows" /><col class="col-rows" /></colgroup>
            <thead><tr><th>Table</th><th class="number">Rows/s now</th><th class="number">15-minute mean</th></tr></thead>
            <tbody>
              {busiest.slice(0, 5).map((table) => (
                <tr key={table.name}>
                  <td><a href={`#/tables/${table.name.replace(".", "/")}`}>{table.name}</a></td>
                  <td class="number">{short(table.now)}</td>
                  <td class="number">{short(table.mean)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </>
      )}
    </section>
  );
}

function mean(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : 0;
}
