import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { catalogue, loadMe, logOut, watchMe, watchServer } from "./api.js";
import { Loading, Notices } from "./parts.jsx";
import { JobsPage } from "./pages/jobs.jsx";
import { LivePage } from "./pages/live.jsx";
import { LoginPage } from "./pages/login.jsx";
import { ManualPage } from "./pages/manual.jsx";
import { OverviewPage } from "./pages/overview.jsx";
import { QueryPage } from "./pages/query.jsx";
import { StreamsPage } from "./pages/streams.jsx";
import { TablePage } from "./pages/table.jsx";
import { TablesPage } from "./pages/tables.jsx";
import { UsersPage } from "./pages/users.jsx";
import "./style.css";

const RAIL = ["Overview", "Query", "Tables", "Live", "Jobs", "Manual"];
const TITLES = [...RAIL, "Streams", "Users", "Log in"];

/** The links for who asks: a stranger reads the manual, an administrator sees the streams of others and the users. */
function railFor(me) {
  if (me === null) return ["Manual"];
  if (!me?.admin) return RAIL;
  const rail = RAIL.flatMap((name) => (name === "Tables" ? [name, "Streams"] : [name]));
  return me.authentication ? [...rail, "Users"] : rail;
}

function titleOf(at) {
  if (at.page === "tables" && at.rest.length >= 2) return `${at.rest[0]}.${at.rest[1]}`;
  if (at.page === "streams" && at.rest.length) return at.rest[0];
  return TITLES.find((name) => name.toLowerCase().replace(" ", "") === at.page) ?? "Not found";
}

/** The parts of `#/page/a/b`, and what stands behind `?`. */
function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page = "overview", ...rest] = path.split("/").map(decodeURIComponent);
  return { page: page || "overview", rest, query: new URLSearchParams(query) };
}

function storedTheme() {
  return localStorage.getItem("kalam.theme");
}

function applyTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

function switchTheme() {
  const dark = storedTheme() ? storedTheme() === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  localStorage.setItem("kalam.theme", dark ? "light" : "dark");
  applyTheme(storedTheme());
}

function Page({ at, known, reloadCatalogue, me }) {
  const shared = { known, reloadCatalogue, me };
  switch (at.page) {
    case "query":
      return <QueryPage {...shared} given={at.query.get("sql")} />;
    case "tables":
      if (at.rest.length >= 2) return <TablePage {...shared} namespace={at.rest[0]} table={at.rest[1]} key={at.rest.join(".")} />;
      return <TablesPage {...shared} create={at.query.has("create")} />;
    case "streams":
      return <StreamsPage {...shared} name={at.rest[0]} />;
    case "live":
      return <LivePage known={known} given={at.query.get("sql")} />;
    case "jobs":
      return <JobsPage {...shared} />;
    case "users":
      return <UsersPage {...shared} />;
    case "manual":
      return <ManualPage page={at.rest[0]} section={at.rest[1]} />;
    case "overview":
      return <OverviewPage {...shared} />;
    default:
      return <section><h1>Not found</h1><p class="soft">There is no page <code>{at.page}</code>. The pages are in the list of links.</p></section>;
  }
}

const KEPT = new Set(["query", "live"]); // pages that keep what was typed and what runs while another one is looked at

function App() {
  const [at, setAt] = useState(route);
  const [gone, setGone] = useState(false);
  const [known, setKnown] = useState(null);
  const [me, setMe] = useState(undefined);
  const [lastMe, setLastMe] = useState(null); // who comes back finds the pages as they were; another one does not
  const asked = me === undefined || (me === null && at.page !== "manual");
  async function reloadCatalogue() {
    try {
      setKnown(await catalogue());
    } catch {
      // completion goes on with what it has
    }
  }
  useEffect(() => {
    const moved = () => setAt(route());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => watchMe((now) => {
    setMe(now);
    if (now) setLastMe(now);
  }), []);
  useEffect(() => watchServer((now) => {
    setGone(now);
    if (!now) loadMe();
  }), []);
  useEffect(() => {
    const here = route().page; // which may be another one than the last that was drawn
    if (me === null && here !== "manual" && here !== "login") location.replace(`#/login?next=${encodeURIComponent(location.hash.slice(1))}`);
    if (me && here === "login") location.replace(`#${at.query.get("next") || "/overview"}`);
    if (me) reloadCatalogue();
    if (at.page !== "manual") document.title = `${titleOf(at)} – Kalam`;
  }, [at, me]);
  async function leave(event) {
    event.preventDefault();
    await logOut();
    setLastMe(null);
    setKnown(null);
    location.hash = "#/login";
  }
  const rail = railFor(me);
  const current = rail.find((name) => name.toLowerCase() === at.page);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the page</a>
      <nav class="rail" aria-label="Pages">
        <a class="brand" href="#/overview" aria-label="Kalam, to the start">
          <img src="/console/icon.svg" alt="" width="26" height="26" />
          <span>Kalam</span>
        </a>
        {rail.map((name) => (
          <a href={`#/${name.toLowerCase()}`} aria-current={current === name ? "page" : undefined} key={name}>{name}</a>
        ))}
        <span class="rail-space" />
        {me?.authentication && <span class="who" title={me.roles.length ? `Roles: ${me.roles.join(", ")}` : undefined}>{me.user}</span>}
        {me?.authentication && <a class="leave" href="#/login" onClick={leave}>Log out</a>}
        <button type="button" class="quiet" onClick={switchTheme}>Theme</button>
      </nav>
      <main id="main" tabIndex={0} class={`page page-${at.page}`}>
        {gone && <div class="banner" role="alert"><strong>Server gone.</strong> Kalam does not answer. Looking for it every second; what you typed stays.</div>}
        {lastMe && [...KEPT].map((page) => <Kept page={page} at={at} hidden={asked} known={known} reloadCatalogue={reloadCatalogue} me={lastMe} key={`${page} ${lastMe.user}`} />)}
        {me === undefined && at.page !== "manual" && !gone && <Loading />}
        {me === null && at.page === "login" && <LoginPage />}
        {(me || at.page === "manual") && !KEPT.has(at.page) && at.page !== "login" && <Page at={at} known={known} reloadCatalogue={reloadCatalogue} me={me} />}
      </main>
      <Notices />
    </>
  );
}

/** A page that stays in the document once it was opened, hidden while another one is looked at. */
function Kept({ page, at, hidden, ...shared }) {
  const open = at.page === page && !hidden;
  const [last, setLast] = useState(open ? at : null);
  useEffect(() => {
    if (open) setLast(at);
  }, [at]);
  const own = open ? at : last;
  if (!own) return null;
  return <div class="kept" hidden={!open}><Page at={own} {...shared} /></div>;
}

applyTheme(storedTheme());
render(<App />, document.body);
