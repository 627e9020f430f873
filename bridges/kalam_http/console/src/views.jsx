// How materialized views stand: their state, how they are kept, and how far they are behind.

import { rows } from "./api.js";
import { useLoaded } from "./parts.jsx";
import { count, plural, short } from "./text.js";

const LOOK_MS = 2000;
const LOOKS = { running: "completed", filling: "running", waiting: "cancelled", asleep: "cancelled", stopped: "failed", failed: "failed" };

/** The views that one may see, by their full names; asked for only where there are some. */
export function useViews(wanted) {
  const views = useLoaded(async () => (wanted ? rows("SHOW VIEWS") : []), [wanted], wanted ? LOOK_MS : 0);
  return new Map((views.value ?? []).map((view) => [`${view.namespace}.${view.view_name}`, view]));
}

/** Whether the catalogue has a view. */
export function hasViews(known) {
  return Boolean(known?.namespaces.some((space) => space.tables.some((table) => table.kind === "VIEW")));
}

export function ViewState({ view }) {
  return <span class={`status status-${LOOKS[view.state] ?? "running"}`}>{view.state}</span>;
}

/** How far a view is behind its sources, in a few words; null for one that is not. */
export function lagText(view) {
  return view.state === "asleep" || !view.lag_rows ? null : `${plural(view.lag_rows, "change")} behind`;
}

function sinceText(view) {
  return view.lag_s >= 0.1 ? ` for ${short(view.lag_s)} s` : "";
}

/** What keeping it up has cost since the server started. */
function costText(view) {
  const cost = view.cost_ms >= 1000 ? `${short(view.cost_ms / 1000)} s` : `${count(view.cost_ms)} ms`;
  return view.refreshes ? `${plural(view.refreshes, "refresh").replace(/refreshs$/, "refreshes")}, ${cost} of work` : null;
}

/** The last change of each source that a view has: pairs of a table's full name and a number. */
function positions(view) {
  return view.position ? Object.entries(JSON.parse(view.position)) : [];
}

/** A view in one line. */
export function ViewLine({ view }) {
  const cost = costText(view);
  return (
    <p class="view-line">
      <ViewState view={view} />
      <span>{view.how}</span>
      {view.state === "asleep" && <span>kept in memory while somebody listens; until then a SELECT runs its query</span>}
      {view.state !== "asleep" && <span>{lagText(view) ? lagText(view) + sinceText(view) : view.state === "running" ? "up to date" : "nothing waits"}</span>}
      {positions(view).map(([source, seq]) => <span class="break" key={source}>has <code>{source}</code> up to <code>{count(seq)}</code></span>)}
      {cost && <span>{cost}</span>}
      {view.missed > 0 && <span>{plural(view.missed, "event")} missed</span>}
      {view.late > 0 && <span>{plural(view.late, "row")} late</span>}
      {view.failed > 0 && <span>{plural(view.failed, "row")} failed</span>}
      {view.reason && <span class={`break${view.state === "failed" || view.state === "stopped" ? " bad-text" : ""}`}>{view.reason}</span>}
    </p>
  );
}
