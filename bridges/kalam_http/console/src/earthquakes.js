// A week of real earthquakes, sent at a pace that can be watched: a STREAM table with what happens, and a SHARED one that
// keeps it. The rows go in over HTTP; their events go out on NATS.

import { file, insertRows, sql } from "./api.js";
import { notify } from "./parts.jsx";

const COLUMNS = `id TEXT NOT NULL, time TIMESTAMP, mag DOUBLE, mag_type TEXT, place TEXT, kind TEXT, status TEXT,
    tsunami BOOLEAN, sig INT, net TEXT, longitude DOUBLE, latitude DOUBLE, depth_km DOUBLE`;
const NAMES = COLUMNS.split(",").map((column) => column.trim().split(" ")[0]);
const CREATE = `CREATE NAMESPACE IF NOT EXISTS quakes;
CREATE STREAM TABLE IF NOT EXISTS quakes.events (${COLUMNS}) WITH (retention = '1h', max_buffer = 100000, subject_key = 'net');
CREATE SHARED TABLE IF NOT EXISTS quakes.latest (${COLUMNS}, PRIMARY KEY (id))`;
const BATCHES = 120;
const PAUSE_MS = 250;

/** Sends them; `tell` is called with `{done, total, created}`. */
export async function loadEarthquakes(tell) {
  const lines = (await file("/console/earthquakes.ndjson")).trim().split("\n");
  const quakes = lines.map((line) => {
    const quake = JSON.parse(line);
    return JSON.stringify(Object.fromEntries(NAMES.map((name) => [name, quake[name]])));
  });
  await sql(CREATE);
  await sql("DELETE FROM quakes.latest");
  tell({ done: 0, total: quakes.length, created: true });
  const size = Math.ceil(quakes.length / BATCHES);
  for (let from = 0; from < quakes.length; from += size) {
    const body = quakes.slice(from, from + size).join("\n");
    await Promise.all(["events", "latest"].map((table) => insertRows("quakes", table, body, "application/x-ndjson")));
    tell({ done: Math.min(from + size, quakes.length), total: quakes.length, created: false });
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  notify(`${quakes.length} earthquakes are in quakes.latest.`);
}
