// One table as DESCRIBE tells it, and the subjects on which it is heard.

import { rows, sql } from "./api.js";
import { tableName } from "./text.js";

/** `{kind, stored, columns, options, state, key, create, subject}` of a table. */
export async function describe(full) {
  const { results } = await sql(`DESCRIBE TABLE ${tableName(full)}; SHOW CREATE TABLE ${tableName(full)}`);
  const lines = results[0].rows.map(([section, name, value]) => ({ section, name, value }));
  const of = (section) => lines.filter((line) => line.section === section);
  const one = (section, name) => of(section).find((line) => line.name === name)?.value;
  const columns = of("column").map(({ name, value }) => columnOf(name, value));
  const [namespace, table] = full.split(".");
  const known = await rows(
    "SELECT column_name FROM system.columns WHERE namespace = $1 AND table_name = $2 AND is_primary_key ORDER BY key_ordinal",
    [namespace, table],
  );
  const keys = known.map((column) => column.column_name);
  const kind = one("table", "kind");
  const view = kind === "VIEW"; // its rows are Kalam's to change
  const select = kind === "QUERY"; // a SELECT under a name, which has no rows of its own
  const stored = kind === "SHARED" || kind === "USER"; // rows have keys and can be changed
  return {
    kind,
    stored,
    view,
    select,
    columns,
    options: of("option"),
    state: of("state").filter((line) => line.value !== null), // counts are told to whom they concern
    key: keys.length || !stored ? keys : ["_row_id"],
    create: results[1].rows[0][0],
    subject: one("state", "subject"),
    stream: one("state", "jetstream_stream"),
    bigKeys: stored && keys.length === 0,
  };
}

/** What who asks may do with a table, as the catalogue says: everything where it says nothing. */
export function allowed(known, namespace, table) {
  if (!known) return { select: false, insert: false, update: false, delete: false, owns: false }; // not known yet
  const found = known.namespaces.find((space) => space.name === namespace)?.tables.find((one) => one.name === table);
  const may = (what) => !found?.may || found.may.includes(what);
  return { select: may("SELECT"), insert: may("INSERT"), update: may("UPDATE"), delete: may("DELETE"), owns: found?.owns ?? true };
}

function columnOf(name, definition) {
  const type = /^[A-Z]+(\([^)]*\))?/.exec(definition)?.[0] ?? definition;
  return {
    name,
    type,
    definition,
    nullable: !/\bNOT NULL\b/.test(definition),
    default: /\bDEFAULT (.*?)( PRIMARY KEY( \(.*\))?)?$/.exec(definition)?.[1] ?? null,
    key: /\bPRIMARY KEY\b/.test(definition),
  };
}

/** How many rows a table holds now. */
export async function rowCount(full, kind) {
  if (kind !== "STREAM") return (await rows(`SELECT count(*) AS n FROM ${tableName(full)}`))[0].n;
  const stats = await rows(`SHOW STATS FOR TABLE ${tableName(full)}`);
  return Number(stats.find((line) => line.name === "buffered_rows")?.value ?? 0);
}

/** Lines with which a program listens to a subject; to that of a USER table for all users. */
export function listeners(told) {
  const subject = told.replace("<user>", "*");
  return [
    ["Subject", told],
    ["nats", `nats sub '${subject}'`],
    ["Python", `import asyncio, nats

async def main():
    client = await nats.connect()
    async for message in (await client.subscribe("${subject}")).messages:
        print(message.subject, message.data)

asyncio.run(main())`],
    ["JavaScript", `import { connect } from "@nats-io/transport-node";
const connection = await connect();
for await (const message of connection.subscribe("${subject}")) console.log(message.subject, message.json());`],
  ];
}
