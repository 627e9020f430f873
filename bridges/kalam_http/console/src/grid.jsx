// The grid of a result: only the rows that can be seen are in the document, so 100,000 rows scroll like ten.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { isNumeric, valueText } from "./text.js";

const ROW_PX = 28;
const SPARE_ROWS = 12;
const TEXT_SHOWN = 200;

/** How wide the columns are, in characters, from their names, types and the first rows. */
function widths(columns, rows) {
  return columns.map((column, place) => {
    let longest = column.name.length * 1.15 + column.type.length * 1.1 + 2;
    for (const row of rows.slice(0, 60)) longest = Math.max(longest, Math.min(valueText(row[place]).length, 48));
    return Math.ceil(Math.max(6, longest)) + 3;
  });
}

function compare(a, b) {
  if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
  if (typeof a === "number" && typeof b === "number") return a - b;
  const [x, y] = [valueText(a), valueText(b)];
  if (x.length < 40 && y.length < 40 && x !== "" && y !== "" && !Number.isNaN(Number(x)) && !Number.isNaN(Number(y))) {
    return Number(x) - Number(y);
  }
  return x < y ? -1 : x > y ? 1 : 0;
}

export function cell(value) {
  if (value === null || value === undefined) return <span class="null">NULL</span>;
  const text = valueText(value);
  return text.length > TEXT_SHOWN ? `${text.slice(0, TEXT_SHOWN)}…` : text;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

export function Grid({ columns, rows, label = "Results", actions = null }) {
  const scroller = useRef(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(400);
  const [order, setOrder] = useState(null); // {place, down}
  const [place, setPlace] = useState({ row: 0, column: 0 });
  const [open, setOpen] = useState(null); // the whole text of a folded value
  const wide = useMemo(() => widths(columns, rows), [columns, rows]);
  const shown = useMemo(() => {
    if (!order) return rows;
    const sign = order.down ? -1 : 1;
    return [...rows].sort((a, b) => sign * compare(a[order.place], b[order.place]));
  }, [rows, order]);
  const at = { row: Math.max(0, Math.min(place.row, shown.length - 1)), column: Math.min(place.column, columns.length - 1) };
  useEffect(() => setOrder(null), [columns]);
  useLayoutEffect(() => {
    const element = scroller.current;
    const watch = new ResizeObserver(() => setHeight(element.clientHeight));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);

  const first = Math.max(0, Math.min(Math.floor(top / ROW_PX) - SPARE_ROWS, Math.max(shown.length - 1, 0)));
  const last = Math.min(shown.length, Math.ceil((top + height) / ROW_PX) + SPARE_ROWS);
  const numbers = `calc(${Math.max(2, String(rows.length).length)}ch + 20px)`;
  const template = [numbers, ...(actions ? ["8rem"] : []), ...wide.map((width) => `min(${width}ch, 70vw)`), "1fr"].join(" ");

  function sort(place) {
    setOrder(order?.place === place ? (order.down ? null : { place, down: true }) : { place, down: false });
  }

  function move(event) {
    const step = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], PageDown: [20, 0], PageUp: [-20, 0] }[event.key];
    const focused = event.target.closest("[data-row]");
    if (event.target.closest("button")) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "c" && focused && !String(getSelection())) {
      event.preventDefault();
      copy(valueText(shown[at.row]?.[at.column]));
      return;
    }
    if (event.key === "Enter" && focused) {
      setOpen(valueText(shown[at.row]?.[at.column]));
      return;
    }
    let next = null;
    if (step) next = { row: at.row + step[0], column: at.column + step[1] };
    else if (event.key === "Home") next = event.ctrlKey ? { row: 0, column: 0 } : { row: at.row, column: 0 };
    else if (event.key === "End") next = event.ctrlKey ? { row: shown.length - 1, column: at.column } : { row: at.row, column: columns.length - 1 };
    if (!next) return;
    event.preventDefault();
    const row = Math.max(0, Math.min(shown.length - 1, next.row));
    const column = Math.max(0, Math.min(columns.length - 1, next.column));
    setPlace({ row, column });
    const element = scroller.current;
    const y = (row + 1) * ROW_PX;
    if (y < element.scrollTop + 2 * ROW_PX) element.scrollTop = y - 2 * ROW_PX;
    else if (y > element.scrollTop + height - 2 * ROW_PX) element.scrollTop = y - height + 2 * ROW_PX;
    if (!focusCell(row, column)) requestAnimationFrame(() => focusCell(row, column)); // it is drawn only then
  }
  /** Whether the cell was there to take the focus. */
  function focusCell(row, column) {
    const found = scroller.current?.querySelector(`[data-row="${row}"][data-column="${column}"]`);
    found?.focus({ preventScroll: row !== at.row });
    return Boolean(found);
  }
  function close() {
    setOpen(null);
    focusCell(at.row, at.column);
  }

  const line = (number) => {
    const row = shown[number];
    return (
      <div role="row" aria-rowindex={number + 2} class="grid-row" key={number} style={{ top: `${(number + 1) * ROW_PX}px`, gridTemplateColumns: template }}>
        <div role="rowheader" class="row-number">{number + 1}</div>
        {actions && <div role="gridcell" class="row-actions">{actions(row, number === at.row ? 0 : -1)}</div>}
        {columns.map((column, own) => (
          <div
            role="gridcell"
            class={isNumeric(column.type) ? "number" : ""}
            data-row={number}
            data-column={own}
            tabIndex={number === at.row && own === at.column ? 0 : -1}
            onFocus={() => setPlace({ row: number, column: own })}
            onDblClick={() => setOpen(valueText(row[own]))}
            key={own}
          >
            {cell(row[own])}
          </div>
        ))}
        <div role="presentation" />
      </div>
    );
  };
  const body = [];
  for (let number = first; number < last; number += 1) body.push(line(number));
  // Where the focus is stays in the document, however far away it was scrolled.
  if (shown.length && (at.row < first || at.row >= last)) body.push(line(at.row));

  const anchor = shown[at.row];
  return (
    <div class="grid-box">
      <div
        class="grid"
        role="grid"
        aria-label={label}
        aria-rowcount={rows.length + 1}
        aria-colcount={columns.length + 1 + (actions ? 1 : 0)}
        ref={scroller}
        tabIndex={rows.length ? -1 : 0}
        onScroll={(event) => setTop(event.currentTarget.scrollTop)}
        onKeyDown={move}
      >
        <div class="grid-space" role="presentation" style={{ height: `${(shown.length + 1) * ROW_PX}px` }}>
          <div role="row" aria-rowindex={1} class="grid-row grid-head" style={{ gridTemplateColumns: template }}>
            <div role="columnheader" class="row-number" aria-label="Row">#</div>
            {actions && <div role="columnheader" class="row-actions"><span class="unseen">Actions</span></div>}
            {columns.map((column, place) => (
              <div role="columnheader" class={isNumeric(column.type) ? "number" : ""} aria-sort={order?.place === place ? (order.down ? "descending" : "ascending") : "none"} key={place}>
                <button type="button" class="head" onClick={() => sort(place)} title={`${column.name} ${column.type}: sort`}>
                  <span class="head-name">{column.name}</span> <span class="head-type">{column.type}</span>
                  {order?.place === place && <span aria-hidden="true">{order.down ? " ↓" : " ↑"}</span>}
                </button>
              </div>
            ))}
            <div role="presentation" />
          </div>
          {body}
        </div>
      </div>
      {anchor && (
        <div class="grid-foot" role="toolbar" aria-label="Cell">
          <button type="button" class="quiet" onClick={() => setOpen(valueText(anchor[at.column]))}>Show cell</button>
          <button type="button" class="quiet" onClick={() => copy(valueText(anchor[at.column]))}>Copy cell</button>
          <button type="button" class="quiet" onClick={() => copy(JSON.stringify(Object.fromEntries(columns.map((column, place) => [column.name, anchor[place]]))))}>Copy row</button>
          <button type="button" class="quiet" onClick={() => copy(shown.map((row) => valueText(row[at.column])).join("\n"))}>Copy column</button>
          <span class="soft">row {at.row + 1}, {columns[at.column]?.name}</span>
        </div>
      )}
      {open !== null && <WholeValue text={prettyJson(open)} onClose={close} key={open} />}
    </div>
  );
}

/** All of a value that a cell has no room for; Escape closes it. */
function WholeValue({ text, onClose }) {
  const element = useRef(null);
  useLayoutEffect(() => { // a key that comes right after it is shown is for it
    element.current.focus({ preventScroll: true });
    element.current.parentElement.scrollIntoView({ block: "nearest" });
  }, []);
  return (
    <div class="whole-value" role="region" aria-label="Whole value" onKeyDown={(event) => event.key === "Escape" && onClose()}>
      <pre ref={element} tabIndex={0}>{text || <span class="null">{"''"}</span>}</pre>
      <button type="button" class="quiet" onClick={onClose}>Close</button>
    </div>
  );
}

function prettyJson(text) {
  if (!/^[[{]/.test(text)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
