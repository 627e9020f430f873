// The public HTTP API, as the console uses it. What it can do, curl can do.

/** The server's answer to what it refused: RFC 9457, with the members that Kalam adds. */
export class Problem extends Error {
  constructor(body) {
    super(body.detail ?? body.title ?? "the server refused the request");
    Object.assign(this, { code: body.code, hint: body.hint, line: body.line, column: body.column });
    Object.assign(this, { status: body.status, statement: body.statement, row: body.row, stored: body.stored });
    this.retryAfter = body.retry_after;
    this.results = body.results ?? [];
  }
}

/** Nobody answers at all. */
export class ServerGone extends Error {}

const LOOK_MS = 5000;
const watchers = new Set();
let gone = false;
let polling = null;

/** Calls back with true when the server has gone and with false when it is there again. */
export function watchServer(callback) {
  watchers.add(callback);
  callback(gone);
  return () => watchers.delete(callback);
}

function tell(now) {
  if (gone === now) return;
  gone = now;
  for (const callback of watchers) callback(gone);
}

async function look() {
  try {
    const answer = await fetch("/livez", { cache: "no-store" });
    if (answer.ok) {
      polling = null;
      tell(false);
      return;
    }
  } catch {
    // still gone
  }
  polling = setTimeout(look, 1000);
}

/** A page that asks nothing by itself learns all the same that the server has gone. */
setInterval(() => {
  if (!document.hidden && !gone) fetch("/livez", { cache: "no-store" }).catch(noteGone);
}, LOOK_MS);

/** Says that a request found nobody; from then on the server is asked each second whether it is back. */
export function noteGone() {
  tell(true);
  polling ??= setTimeout(look, 1000);
}

// Who asks: undefined before the server was asked, null for a stranger, else what /v1/me answers.
let me;
const meWatchers = new Set();

/** Calls back with who asks, now and whenever that changes. */
export function watchMe(callback) {
  meWatchers.add(callback);
  callback(me);
  return () => meWatchers.delete(callback);
}

function tellMe(now) {
  me = now;
  for (const callback of meWatchers) callback(me);
}

/** The server does not know us, or no longer. */
export function noteStranger() {
  if (me !== null) tellMe(null);
}

export async function loadMe() {
  try {
    tellMe(await (await request("/v1/me", { cache: "no-store" })).json());
  } catch (error) {
    if (!(error instanceof ServerGone) && error.status !== 401) throw error;
  }
}

export async function logIn(user, password) {
  const body = JSON.stringify({ user, password });
  const answer = await request("/v1/login", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  known = null;
  tellMe(await answer.json());
}

export async function logOut() {
  try {
    await request("/v1/logout", { method: "POST" });
  } catch (error) {
    if (error.status !== 401) throw error; // it has ended already
  }
  known = null;
  noteStranger();
}

async function request(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    noteGone();
    throw new ServerGone("the server does not answer");
  }
  tell(false);
  if (answer.ok || answer.status === 304) return answer;
  let body;
  try {
    body = await answer.json();
  } catch {
    body = { detail: `the server answered ${answer.status}`, status: answer.status };
  }
  if (answer.status === 401 && path !== "/v1/login") noteStranger();
  throw new Problem(body);
}

const TEXT_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/g;
const LONG_INTEGER = /^-?\d{16,}$/;

/** JSON in which integers that a double cannot hold come as text: `9007199254740993` must not be shown as …992. */
export function parseExactly(text) {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  return JSON.parse(text.replace(TEXT_OR_NUMBER, (token) => (LONG_INTEGER.test(token) ? `"${token}"` : token)));
}

/** Runs statements; the answer of POST /v1/sql, named as people read it. `queryId` is the id by which `cancel` finds it. */
export async function sql(text, { params = [], namespace = null, queryId, signal } = {}) {
  const headers = { "Content-Type": "application/json" };
  if (queryId) headers["X-Kalam-Query-Id"] = queryId;
  const body = JSON.stringify({ sql: text, params, namespace, names: "postgresql" });
  const answer = await request("/v1/sql", { method: "POST", headers, body, signal });
  return parseExactly(await answer.text());
}

/** The rows of the last statement as objects. */
export async function rows(text, params = []) {
  const { results } = await sql(text, { params });
  const { columns, rows } = results[results.length - 1];
  return rows.map((row) => Object.fromEntries(columns.map((column, place) => [column.name, row[place]])));
}

/** The rows of one statement as a file: a Blob of one of the streamed formats. */
export async function download(text, accept, { params = [], namespace = null } = {}) {
  const headers = { "Content-Type": "application/json", Accept: accept };
  const answer = await request("/v1/sql", { method: "POST", headers, body: JSON.stringify({ sql: text, params, namespace }) });
  return answer.blob();
}

export async function cancel(queryId) {
  await request(`/v1/queries/${queryId}`, { method: "DELETE" });
}

/** Stores rows, or with `dryRun` only judges them. */
export async function insertRows(namespace, table, body, contentType, { dryRun = false } = {}) {
  const path = `/v1/tables/${namespace}/${table}/rows${dryRun ? "?dry_run=true" : ""}`;
  const answer = await request(path, { method: "POST", headers: { "Content-Type": contentType }, body });
  return answer.json();
}

let known = null;

/** What completion needs; asked anew each time, but sent only when it has changed. */
export async function catalogue() {
  const headers = known ? { "If-None-Match": known.etag } : {};
  const answer = await request("/v1/catalogue", { headers });
  if (answer.status !== 304) known = { etag: answer.headers.get("ETag"), body: await answer.json() };
  return known.body;
}

export async function overview() {
  return (await request("/v1/overview", { cache: "no-store" })).json();
}

export async function file(path) {
  return (await request(path)).text();
}

export function newQueryId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return "console-" + [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
