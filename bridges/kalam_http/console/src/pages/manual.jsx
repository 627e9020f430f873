import { marked } from "marked";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
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

const slug = (text) => text.toLowerCase().replace(/<[^>]*>|`/g, "").replace(/[^\w]+/g, "-").replace(/^-|-$/g, "");

marked.use({
  renderer: {
    heading({ tokens, depth, text }) {
      return `<h${depth} id="${slug(text)}">${this.parser.parseInline(tokens)}</h${depth}>`;
    },
    code({ text }) {
      return `<pre tabindex="0"><code>${escaped(text)}</code></pre>`;
    },
    html({ text }) {
      return /^<!--/.test(text.trim()) ? "" : escaped(text);
    },
    link({ href, tokens }) {
      const page = /^([\w-]+)\.md(?:#(.*))?$/.exec(href);
      const target = page ? `#/manual/${page[1]}` : href;
      const outside = /^https?:/.test(target) ? ' target="_blank" rel="noreferrer"' : "";
      return `<a href="${escaped(target)}"${outside}>${this.parser.parseInline(tokens)}</a>`;
    },
  },
});

export function ManualPage({ page }) {
  const loaded = useLoaded(load, []);
  const [search, setSearch] = useState("");
  const article = useRef(null);
  const all = loaded.value;
  const current = all?.find((one) => one.name === page) ?? all?.[0];
  const html = useMemo(() => (current ? marked.parse(current.text) : ""), [current]);
  useEffect(() => {
    if (current) document.title = `${current.title} – Kalam`;
    document.getElementById("main").scrollTop = 0;
  }, [current]);
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
                <li key={place}><a href={`#/manual/${one.name}`} onClick={() => setTimeout(() => document.getElementById(slug(heading))?.scrollIntoView(), 100)}><strong>{one.title}</strong>{heading !== one.title && ` · ${heading}`}<br /><span class="soft">{line}</span></a></li>
              ))}
            </ul>
          </div>
        ) : (
          <ul class="contents">
            {all.map((one) => <li key={one.name}><a href={`#/manual/${one.name}`} aria-current={one === current ? "page" : undefined}>{one.title}</a></li>)}
          </ul>
        )}
      </aside>
      <article ref={article} dangerouslySetInnerHTML={{ __html: html }} />
    </section>
  );
}

function hits(all, wanted) {
  const found = [];
  for (const one of all) {
    let heading = one.title;
    for (const line of one.text.split("\n")) {
      const head = /^#+ (.*)/.exec(line);
      if (head) heading = head[1].replaceAll("`", "");
      if (line.toLowerCase().includes(wanted)) found.push({ one, heading, line: line.replace(/^[#|\s]+/, "").slice(0, 120) });
      if (found.length === 50) return found;
    }
  }
  return found;
}
