// The small parts that pages share.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { ServerGone, sql } from "./api.js";
import { parameterCount } from "./statements.js";

/** Calls `load` at once, when one of `needs` changes, and every `everyMs` if given; `{value, error, reload}`. */
export function useLoaded(load, needs, everyMs = 0) {
  const [state, setState] = useState({ value: null, error: null });
  const run = useRef(0);
  async function reload() {
    const own = ++run.current;
    try {
      const value = await load();
      if (own === run.current) setState({ value, error: null });
    } catch (error) {
      if (own !== run.current) return;
      setState((before) => ({ value: error instanceof ServerGone ? before.value : null, error }));
    }
  }
  useEffect(() => {
    reload();
    const timer = everyMs ? setInterval(() => document.hidden || reload(), everyMs) : null;
    return () => {
      run.current += 1;
      clearInterval(timer);
    };
  }, needs);
  return { ...state, reload };
}

/** What went wrong, in the server's words. */
export function Fault({ error }) {
  if (!error || error instanceof ServerGone) return null;
  return (
    <div class="fault" role="alert">
      <p>{error.message}</p>
      {error.hint && <p class="hint">{error.hint}</p>}
      {error.code && <p class="code">{error.code}{error.row ? ` · row ${error.row}` : ""}</p>}
    </div>
  );
}

export function Loading({ what = "Loading" }) {
  return <p class="soft loading" role="status">{what}…</p>;
}

/** How long something has been going on. */
export function Elapsed({ since, what }) {
  const [now, setNow] = useState(performance.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 100);
    return () => clearInterval(timer);
  }, []);
  return <span class="soft" role="timer">{what} {((now - since) / 1000).toFixed(1)} s</span>;
}

export function Empty({ title, children }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** A modal dialog; Escape and *Cancel* close it, and the focus is again where it was. */
export function Dialog({ title, onClose, children, wide = false }) {
  const element = useRef(null);
  useLayoutEffect(() => { // a key that comes right after it is shown is for it
    const dialog = element.current;
    const opener = document.activeElement;
    dialog.showModal();
    return () => {
      dialog.close(); // while it is open nothing else can have the focus
      opener?.focus?.();
    };
  }, []);
  // Browsers tell `close` some time after the dialog has gone: what is opened meanwhile would be closed by it.
  function leave(event) {
    if (event.target !== event.currentTarget) return; // a choice of files that was given up
    event.preventDefault();
    onClose();
  }
  return (
    <dialog ref={element} class={wide ? "wide" : ""} aria-label={title} onCancel={leave} onClose={(event) => event.target.isConnected && onClose()}>
      <header class="dialog-head">
        <h2>{title}</h2>
        <button type="button" class="quiet" aria-label="Close" onClick={onClose}>✕</button>
      </header>
      {children}
    </dialog>
  );
}

/** A dialog that shows the SQL first: what *Run* sends is what stands in *Statement*. */
export function StatementDialog({ title, statement, params = [], run = "Run", danger = false, intro = null, confirm = null, onClose, onDone }) {
  const [text, setText] = useState(statement);
  useEffect(() => setText(statement), [statement]);
  const [typed, setTyped] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const sure = confirm === null || typed === confirm;
  async function submit(event) {
    event.preventDefault();
    if (!sure || busy) return;
    setBusy(true);
    setError(null);
    try {
      const { results } = await sql(text, { params: params.slice(0, parameterCount(text)) });
      onDone(results);
      onClose();
    } catch (problem) {
      setError(problem);
    } finally {
      setBusy(false);
    }
  }
  return (
    <Dialog title={title} onClose={onClose} wide>
      <form onSubmit={submit}>
        {intro}
        <label class="stacked">
          Statement
          <textarea class="mono" rows={Math.min(18, Math.max(4, text.split("\n").length + 1))} spellcheck={false} value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        {confirm !== null && (
          <label class="stacked">
            Table name
            <input type="text" autocomplete="off" placeholder={confirm} value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
            <span class="soft">Type <code>{confirm}</code> to confirm: this cannot be undone.</span>
          </label>
        )}
        <Fault error={error} />
        <footer class="dialog-foot">
          <button type="button" onClick={onClose}>Cancel</button>
          <button type="submit" class={danger ? "danger" : "primary"} disabled={!sure || busy}>{busy ? "Running…" : run}</button>
        </footer>
      </form>
    </Dialog>
  );
}

/** A button with a list below it, which closes when something in it was chosen, at Escape, and at a click elsewhere. */
export function Menu({ title, children, asButton = false }) {
  const element = useRef(null);
  useEffect(() => {
    const elsewhere = (event) => {
      if (element.current?.open && !event.composedPath().includes(element.current)) element.current.open = false;
    };
    document.addEventListener("pointerdown", elsewhere);
    document.addEventListener("focusin", elsewhere);
    return () => {
      document.removeEventListener("pointerdown", elsewhere);
      document.removeEventListener("focusin", elsewhere);
    };
  }, []);
  function leave(event) {
    if (event.key !== "Escape" || !element.current.open) return;
    event.stopPropagation();
    element.current.open = false;
    element.current.querySelector("summary").focus();
  }
  return (
    <details class="menu" ref={element} onKeyDown={leave}>
      <summary role={asButton ? "button" : undefined}>{title}</summary>
      <div class="menu-body">{children}</div>
    </details>
  );
}

/** A line of text that can be copied. */
export function Copied({ label, text }) {
  const [done, setDone] = useState(false);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      setDone(true);
      setTimeout(() => setDone(false), 1500);
    } catch {
      // without the right to the clipboard the text can still be selected
    }
  }
  return (
    <div class="copied">
      <span class="copied-label">{label}</span>
      <pre tabIndex={0}>{text}</pre>
      <button type="button" class="quiet" aria-label={`Copy ${label}`} onClick={copy}>{done ? "Copied" : "Copy"}</button>
    </div>
  );
}

export function Kind({ kind }) {
  return <span class={`kind kind-${kind.toLowerCase()}`}>{kind}</span>;
}

let noticeId = 0;
const listeners = new Set();
let notices = [];

function show(next) {
  notices = next;
  for (const listener of listeners) listener(notices);
}

/** Says in a corner, and to a screen reader, what was done. */
export function notify(text) {
  const own = { id: ++noticeId, text };
  show([...notices.slice(-3), own]);
  setTimeout(() => show(notices.filter((notice) => notice !== own)), 6000);
}

export function Notices() {
  const [all, setAll] = useState(notices);
  useEffect(() => {
    listeners.add(setAll);
    return () => listeners.delete(setAll);
  }, []);
  return (
    <div class="notices" role="status" aria-live="polite">
      {all.map((notice) => <p key={notice.id}>{notice.text}</p>)}
    </div>
  );
}

/** Offers bytes as a file. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
