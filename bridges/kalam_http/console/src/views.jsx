// How materialized views stand: their state, how they are kept, and how far they are behind.

import { rows } from "./api.js";
import { useLoaded } from "./parts.jsx";
import { plural } from "./text.js";

const LOOK_MS = 2000;
const LOOKS = { running: "completed", filling: "running", waiting: "cancelled", stopped: "failed", failed: "failed" };

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

/** A view in one line. */
export function ViewLine({ view }) {
  return (
    <p class="view-line">
      <ViewState view={view} />
      <span>{view.how}</span>
      <span>{view.lag_rows ? `${plural(view.lag_rows, "change")} behind for ${view.lag_s.toFixed(1)} s` : "up to date"}</span>
      {view.position && view.position !== "{}" && <span class="break">position <code>{view.position}</code></span>}
      {view.missed > 0 && <span>{plural(view.missed, "event")} missed</span>}
      {view.failed > 0 && <span>{plural(view.failed, "row")} failed</span>}
      {view.reason && <span class="break">{view.reason}</span>}
    </p>
  );
}
