import { useMemo, useState } from "preact/hooks";
import { rows } from "../api.js";
import { Empty, Fault, Loading, StatementDialog, notify, useLoaded } from "../parts.jsx";
import { allowed } from "../describe.js";
import { bytes, count, tableName, time, valueText } from "../text.js";

const JOBS_MAX = 500;
const QUERY = `SELECT * FROM system.jobs ORDER BY created_at DESC LIMIT ${JOBS_MAX}`;
const AGAIN = { flush: "FLUSH TABLE", compaction: "COMPACT TABLE" };

export function JobsPage({ known, me }) {
  const jobs = useLoaded(() => rows(QUERY), [], 2000);
  const [wanted, setWanted] = useState({ type: "", table: "", status: "" });
  const [dialog, setDialog] = useState(null);
  const values = useMemo(() => choices(jobs.value ?? []), [jobs.value]);
  if (!jobs.value) return jobs.error ? <section><h1>Jobs</h1><Fault error={jobs.error} /></section> : <Loading />;
  const shown = jobs.value.filter((job) => (!wanted.type || job.job_type === wanted.type) && (!wanted.table || nameOf(job) === wanted.table) && (!wanted.status || job.status === wanted.status));
  const owns = (job) => me?.admin || allowed(known, job.namespace, job.table_name).owns;
  const filter = (label, name) => (
    <label>
      {label} <select value={wanted[name]} onChange={(event) => setWanted({ ...wanted, [name]: event.currentTarget.value })}>
        <option value="">all</option>
        {values[name].map((value) => <option value={value} key={value}>{value}</option>)}
      </select>
    </label>
  );
  return (
    <section>
      <div class="bar filters">
        <h1>Jobs</h1>
        <span class="space" />
        {filter("Type", "type")}
        {filter("Table", "table")}
        {filter("Status", "status")}
      </div>
      <Fault error={jobs.error} />
      {jobs.value.length === 0 && <Empty title="No job yet"><p class="soft">Flushes, compactions, evictions and clean-ups are listed here for seven days.</p></Empty>}
      {jobs.value.length > 0 && shown.length === 0 && <p class="soft">No job is like that.</p>}
      {shown.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label="Jobs">
          <table class="list">
            <thead><tr><th>Status</th><th>Type</th><th>Table</th><th>Started (UTC)</th><th class="number">Took</th><th>Result</th><th><span class="unseen">Actions</span></th></tr></thead>
            <tbody>
              {shown.map((job) => (
                <tr key={job.job_id}>
                  <td><span class={`status status-${job.status}`}>{job.status}</span></td>
                  <td>{job.job_type}</td>
                  <td class="break job-table">{job.table_name ? <a href={`#/tables/${job.namespace}/${job.table_name}`}>{nameOf(job)}</a> : ""}</td>
                  <td class="nowrap">{time(job.started_at ?? job.created_at)}</td>
                  <td class="number nowrap">{took(job)}</td>
                  <td class="break job-result">{job.error ? <span class="bad-text">{job.error}</span> : told(job.result)}</td>
                  <td class="nowrap">
                    {job.status === "running" && owns(job) && <button type="button" class="quiet" aria-label={`Kill job ${job.job_id}`} onClick={() => setDialog({ title: "Kill", statement: `KILL JOB '${job.job_id}'`, danger: true })}>Kill</button>}
                    {["failed", "cancelled"].includes(job.status) && AGAIN[job.job_type] && owns(job) && <button type="button" class="quiet" aria-label={`Retry job ${job.job_id}`} onClick={() => setDialog({ title: "Retry", statement: `${AGAIN[job.job_type]} ${tableName(nameOf(job))}` })}>Retry</button>}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {shown.length >= JOBS_MAX && <p class="soft">The newest {JOBS_MAX} jobs; the others are in system.jobs.</p>}
      {dialog && <StatementDialog {...dialog} onClose={() => setDialog(null)} onDone={(results) => { notify(results.at(-1).message ?? `${dialog.title}: done`); jobs.reload(); }} />}
    </section>
  );
}

/** What a job has done, in words; `result` is JSON text, or an object where a reader of JSON has read it. */
function told(result) {
  let members = result;
  try {
    if (typeof result === "string") members = JSON.parse(result);
  } catch {
    return result;
  }
  if (typeof members !== "object" || members === null) return String(result ?? "");
  if (members.message) return members.message;
  return Object.entries(members)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${typeof value !== "number" ? valueText(value) : /bytes$/.test(name) ? bytes(value) : count(value)}`)
    .join(" · ");
}

function nameOf(job) {
  return job.table_name ? `${job.namespace}.${job.table_name}` : "";
}

function choices(jobs) {
  const distinct = (pick) => [...new Set(jobs.map(pick).filter(Boolean))].sort();
  return { type: distinct((job) => job.job_type), table: distinct(nameOf), status: distinct((job) => job.status) };
}

function took(job) {
  if (!job.started_at) return "";
  const ms = Date.parse(job.finished_at ?? new Date().toISOString()) - Date.parse(job.started_at);
  return ms < 1000 ? `${Math.max(ms, 0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
