import { marked } from "marked";
import { useEffect, useMemo, useState } from "preact/hooks";
import { file } from "../api.js";
import { Fault, Loading, useLoaded } from "../parts.jsx";

let pages = null;

async function load() {
  pages ??= JSON.parse(await file("/console/manual.json"));
  return pages;
}

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}

/** Long names in code may break behind what parts them, so that a table's column is no wider than its longest part. */
const breakable = (text) => escaped(text).replace(/([_./|,:]+)(?=\w{3})/g, "$1<wbr>");

const slug = (text) => text.toLowerCase().replace(/<[^>]*>|`/g, "").replace(/[^\w]+/g, "-").replace(/^-|-$/g, "");

marked.use({
  renderer: {
    heading({ tokens, depth, text }) {
      return `<h${depth} id="${slug(text)}">${this.parser.parseInline(tokens)}</h${depth}>`;
    },
    code({ text }) {
      return `<pre tabindex="0"><code>${escaped(text)}</code></pre>`;
    },
    codespan({ text }) {
      return /^-[\w-]*$/.test(text) ? `<code class="nowrap">${escaped(text)}</code>` : `<code>${breakable(text)}</code>`;
    },
    table(token) {
      const cells = (row, tag) => row.map((one) => `<${tag}>${this.parser.parseInline(one.tokens)}</${tag}>`).join("");
      const rows = token.rows.map((row) => `<tr>${cells(row, "td")}</tr>`).join("");
      return `<div class="scroll" tabindex="0" role="group" aria-label="Table"><table><thead><tr>${cells(token.header, "th")}</tr></thead><tbody>${rows}</tbody></table></div>`;
    },
    html({ text }) {
      return /^<!--/.test(text.trim()) ? "" : escaped(text);
    },
    link({ href, tokens }) {
      const page = /^([\w-]+)\.md(?:#(.*))?$/.exec(href);
      const target = page ? `#/manual/${page[1]}${page[2] ? `/${page[2]}` : ""}` : href;
      const outside = /^https?:/.test(target) ? ' target="_blank" rel="noreferrer"' : "";
      return `<a href="${escaped(target)}"${outside}>${this.parser.parseInline(tokens)}</a>`;
    },
  },
});

const NARROW = matchMedia("(max-width: 760px)");

/** Whether the window is so narrow that the list of pages would stand above the page. */
function useNarrow() {
  const [narrow, setNarrow] = useState(NARROW.matches);
  useEffect(() => {
    const changed = () => setNarrow(NARROW.matches);
    NARROW.addEventListener("change", changed);
    return () => NARROW.removeEventListener("change", changed);
  }, []);
  return narrow;
}

/** The page called `page`, or the first one; `section` is the slug of a heading in it. */
export function ManualPage({ page, section }) {
  const loaded = useLoaded(load, []);
  const [search, setSearch] = useState("");
  const narrow = useNarrow();
  const all = loaded.value;
  const current = page ? all?.find((one) => one.name === page) : all?.[0];
  const html = useMemo(() => (current ? marked.parse(current.text) : ""), [current]);
  useEffect(() => {
    document.title = `${current?.title ?? "Manual"} – Kalam`;
    const heading = section && document.getElementById(section);
    if (heading) heading.scrollIntoView();
    else document.getElementById("main").scrollTop = 0;
  }, [current, section]);
  if (!all) return loaded.error ? <Fault error={loaded.error} /> : <Loading />;
  const found = search.trim().length > 1 ? hits(all, search.trim().toLowerCase()) : null;
  return (
    <section class="manual">
      <aside aria-label="Manual">
        <label class="stacked">
          Search the manual
          <input type="search" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
        </label>
        {found ? (
          <div role="status">
            <p class="soft">{found.length === 0 ? "Nothing found." : `${found.length}${found.length === 50 ? "+" : ""} places`}</p>
            <ul class="hits">
              {found.map(({ one, heading, line }, place) => (
                <li key={place}><a href={`#/manual/${one.name}/${slug(heading)}`}><strong>{one.title}</strong>{heading !== one.title && ` · ${heading}`}<br /><span class="soft">{line}</span></a></li>
              ))}
            </ul>
          </div>
        ) : (
          <details class="pages" open={!narrow} key={narrow ? page : "wide"}>
            <summary>Pages</summary>
            <ul class="contents">
              {all.map((one) => <li key={one.name}><a href={`#/manual/${one.name}`} aria-current={one === current ? "page" : undefined}>{one.title}</a></li>)}
            </ul>
          </details>
        )}
      </aside>
      {current ? <article dangerouslySetInnerHTML={{ __html: html }} /> : <article><h1>Manual</h1><p>There is no page <code>{page}</code> in the manual.</p></article>}
    </section>
  );
}

/** A line of Markdown without its marks. */
function plain(line) {
  return line.replace(/^[#|\s*-]+|[\s|]+$/g, "").replace(/\s*\|\s*/g, " · ").replace(/[`*]|\[([^\]]*)\]\([^)]*\)/g, "$1");
}

function hits(all, wanted) {
  const found = [];
  for (const one of all) {
    let heading = one.title;
    for (const line of one.text.split("\n")) {
      const head = /^#+ (.*)/.exec(line);
      if (head) heading = head[1].replaceAll("`", "");
      if (line.toLowerCase().includes(wanted)) found.push({ one, heading, line: plain(line).slice(0, 120) });
      if (found.length === 50) return found;
    }
  }
  return found;
}
