// Streams that others made: what there is, what lies in one, and the table that may be made over it.

import { useEffect, useRef, useState } from "preact/hooks";
import { rows, sql } from "../api.js";
import { Copied, Dialog, Elapsed, Empty, Fault, Kind, Loading, StatementDialog, notify, useLoaded } from "../parts.jsx";
import { bytes, count, literal, plural, time } from "../text.js";

const LOOK_MS = 10_000;
const SEARCHED_FROM = 8; // so many streams are found by looking
const NEW_NAMESPACE = "lab";
const TILES = [["messages", count], ["distinct_subjects", count], ["bytes", bytes], ["oldest", time], ["newest", time], ["retention", String], ["storage", String], ["copy_of", String]];

export function StreamsPage({ known, me, reloadCatalogue, name }) {
  const streams = useLoaded(async () => (me.admin ? rows("SHOW STREAMS") : null), [me.admin], LOOK_MS);
  const [dialog, setDialog] = useState(null);
  if (!me.admin) return <section><h1>Streams</h1><p class="soft">Only administrators see the streams, for Kalam reads them with its own rights at the broker.</p></section>;
  if (!streams.value || !known) return streams.error ? <section><h1>Streams</h1><Fault error={streams.error} /></section> : <Loading what="Asking the broker" />;
  function done(results) {
    notify(results.at(-1).message ?? "Done");
    streams.reload();
    reloadCatalogue();
  }
  return (
    <section>
      {name === undefined
        ? <StreamList streams={streams.value} error={streams.error} adopt={(stream) => setDialog({ stream })} />
        : <StreamPage stream={streams.value.find((one) => streamName(one) === name)} name={name} known={known} adopt={(stream, proposal) => setDialog({ stream, proposal })} key={name} />}
      {dialog?.proposal && <StatementDialog title={`Adopt ${dialog.stream}`} statement={dialog.proposal.statement} onClose={() => setDialog(null)} onDone={done} />}
      {dialog && !dialog.proposal && <AdoptDialog name={dialog.stream} known={known} onClose={() => setDialog(null)} onDone={done} />}
    </section>
  );
}

/** What a line of SHOW STREAMS is called in the broker. */
function streamName({ name, kind }) {
  return kind === "bucket" ? `KV_${name}` : name;
}

function StreamList({ streams, error, adopt }) {
  const [search, setSearch] = useState("");
  const wanted = search.trim().toLowerCase();
  const shown = streams.filter((stream) => `${stream.name} ${stream.subjects}`.toLowerCase().includes(wanted));
  return (
    <>
      <div class="bar">
        <h1>Streams</h1>
        <span class="space" />
        {streams.length >= SEARCHED_FROM && <label class="search"><span>Search</span> <input type="search" value={search} onInput={(event) => setSearch(event.currentTarget.value)} placeholder="name or subject" /></label>}
      </div>
      <Fault error={error} />
      {streams.length === 0 && (
        <Empty title="No stream of others yet">
          <p>What other programs keep in JetStream, as a stream or a bucket of keys, is listed here; <em>Adopt</em> makes it a table that answers SQL, and changes nothing of it.</p>
          <p class="soft">Kalam's own streams are its tables'. A NATS that you run already is named with <code>--nats-url</code>: <a href="#/manual/adopt">Streams that exist</a>.</p>
        </Empty>
      )}
      {wanted && shown.length === 0 && <p class="soft">No stream is called like <code>{search}</code>.</p>}
      {shown.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label="Streams">
          <table class="list">
            <thead><tr><th>Stream</th><th class="aside">Subjects</th><th class="number">Messages</th><th class="number aside">Size</th><th class="aside">Newest (UTC)</th><th class="aside">Retention</th><th>Read by</th><th><span class="unseen">Actions</span></th></tr></thead>
            <tbody>
              {shown.map((stream) => (
                <tr key={streamName(stream)}>
                  <td class="stream-name"><a href={`#/streams/${encodeURIComponent(streamName(stream))}`}>{stream.name}</a>{stream.kind === "bucket" && <> <Kind kind="BUCKET" /></>}{stream.copy_of && <span class="soft"> copy of {stream.copy_of}</span>}</td>
                  <td class="break stream-subjects aside"><code>{stream.subjects}</code></td>
                  <td class="number">{count(stream.messages)}</td>
                  <td class="number nowrap aside">{bytes(stream.bytes)}</td>
                  <td class="nowrap aside">{time(stream.newest) || "–"}</td>
                  <td class="nowrap aside">{stream.retention}</td>
                  <td class="break"><Readers stream={stream} /></td>
                  <td class="acts"><button type="button" class="quiet" aria-label={`Adopt ${stream.name}`} onClick={() => adopt(streamName(stream))}>Adopt</button></td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

/** The tables that read a stream. */
function Readers({ stream }) {
  const tables = stream.tables ? stream.tables.split(", ") : [];
  if (tables.length === 0) return "–";
  return tables.map((table, place) => <span key={table}>{place > 0 && ", "}<a href={`#/tables/${table.split(".").map(encodeURIComponent).join("/")}`}>{table}</a></span>);
}

function StreamPage({ stream, name, known, adopt }) {
  const described = useDescribed(name, known);
  return (
    <>
      <p class="crumbs"><a href="#/streams">Streams</a> /</p>
      <div class="bar"><h1>{stream?.name ?? name} <Kind kind={stream?.kind === "bucket" ? "BUCKET" : "STREAM"} /></h1></div>
      <Fault error={described.error} />
      {!described.value && !described.error && <Elapsed since={described.since} what="Looking at its messages for" />}
      {described.value && <Described name={name} stream={stream} {...described.value} adopt={adopt} />}
    </>
  );
}

function Described({ name, stream, state, looked, proposals, others, adopt }) {
  return (
    <>
      <dl class="tiles">
        {TILES.filter(([tile]) => state[tile]).map(([tile, format]) => (
          <div class="tile" key={tile}>
            <dt>{tile.replaceAll("_", " ")}</dt>
            <dd>{format(/^\d+$/.test(state[tile]) ? Number(state[tile]) : state[tile])}</dd>
          </div>
        ))}
      </dl>
      {state.subjects && <p class="break">Its subjects: <code>{state.subjects}</code></p>}
      <p>{stream?.tables ? <>Read by <Readers stream={stream} /></> : "No table reads it yet."}</p>
      <h2>What lies in it</h2>
      {proposals.length === 0 && <p class="soft">It holds no message: what a table over it may be is proposed when there are some.</p>}
      {proposals.length > 0 && <p class="soft">{plural(looked, "message")} looked at, the oldest and the newest.</p>}
      {proposals.map((proposal) => (
        <section class="proposal" key={proposal.subject} aria-label={proposal.subject}>
          <div class="bar policies">
            <h3><code>{proposal.subject}</code></h3>
            <span class="soft">{plural(proposal.messages, "message")} · {proposal.encodings}</span>
            <span class="space" />
            <button type="button" class="primary" aria-label={`Adopt ${proposal.subject}`} onClick={() => adopt(name, proposal)}>Adopt</button>
          </div>
          <div class="scroll" tabIndex={0} role="region" aria-label={`Columns of ${proposal.subject}`}>
            <table class="list">
              <thead><tr><th>Column</th><th>Type, and where it stands</th><th>Seen</th></tr></thead>
              <tbody>
                {proposal.columns.map((column) => <tr key={column.name}><td><code>{column.name}</code></td><td><code>{column.definition}</code></td><td>{column.seen}</td></tr>)}
              </tbody>
            </table>
          </div>
          <Copied label="Statement" text={proposal.statement} />
        </section>
      ))}
      {others.length > 0 && <p class="break">Other subjects: {others.map((one, place) => <span key={one.subject}>{place > 0 && ", "}<code>{one.subject}</code> ({count(one.messages)})</span>)}</p>}
    </>
  );
}

/** Looks into a stream, and then shows the statement that is proposed for it, or for one kind of its messages. */
function AdoptDialog({ name, known, onClose, onDone }) {
  const described = useDescribed(name, known);
  const [chosen, setChosen] = useState(0);
  const proposals = described.value?.proposals ?? [];
  if (proposals.length === 0) {
    return (
      <Dialog title={`Adopt ${name}`} onClose={onClose} wide>
        <Fault error={described.error} />
        {!described.value && !described.error && <Elapsed since={described.since} what="Looking at its messages for" />}
        {described.value && <p>It holds no message: what a table over it may be is proposed when there are some.</p>}
        <footer class="dialog-foot"><button type="button" onClick={onClose}>Cancel</button></footer>
      </Dialog>
    );
  }
  const intro = proposals.length === 1 ? <p class="soft">{plural(proposals[0].messages, "message")} of <code>{proposals[0].subject}</code> looked at: {proposals[0].encodings}.</p> : (
    <label class="stacked">
      Messages
      <select value={chosen} onChange={(event) => setChosen(Number(event.currentTarget.value))}>
        {proposals.map((proposal, place) => <option value={place} key={proposal.subject}>{proposal.subject} ({plural(proposal.messages, "message")}, {proposal.encodings})</option>)}
      </select>
    </label>
  );
  return <StatementDialog title={`Adopt ${name}`} intro={intro} statement={proposals[chosen].statement} onClose={onClose} onDone={onDone} />;
}

/** What DESCRIBE STREAM tells; who goes elsewhere meanwhile ends it. */
function useDescribed(name, known) {
  const since = useRef(performance.now());
  const leaving = useRef(null);
  const described = useLoaded(() => {
    leaving.current?.abort();
    leaving.current = new AbortController();
    return describeStream(name, known, leaving.current.signal);
  }, [name]);
  useEffect(() => () => leaving.current?.abort(), []);
  return { ...described, since: since.current };
}

async function describeStream(name, known, signal) {
  const spaces = known.namespaces.filter((one) => one.may_create !== false).map((one) => one.name);
  const namespace = spaces[0] ?? NEW_NAMESPACE;
  const { results } = await sql(`DESCRIBE STREAM ${literal(name, "TEXT")}`, { namespace, signal });
  const told = { state: {}, looked: 0, proposals: [], others: [] };
  for (const [section, item, value, description] of results[0].rows) {
    const last = told.others.at(-1);
    if (section === "stream") told.state[item] = value;
    else if (section === "sample") told.looked = Number(value);
    else if (section === "subject") told.others.push({ subject: item, messages: Number(value), columns: [] });
    else if (section === "encoding") last.encodings = value;
    else if (section === "column") last.columns.push({ name: item, definition: value, seen: description });
    else if (section === "statement") told.proposals.push({ ...told.others.pop(), statement: spaces.length ? value : `CREATE NAMESPACE ${namespace};\n${value}` });
  }
  return told;
}
