// Completion from the catalogue: after a dot what belongs to the name before it, elsewhere the columns of the tables that
// the text mentions, then tables, namespaces, functions and keywords. A word is looked up in sorted lists, so that 5,000
// tables cost no more than ten.

import { quoted } from "./text.js";

const OPTIONS_MAX = 100;
const WORD = /[\w$]*$/;
const OWNER = /([A-Za-z_]\w*)\.$/;
const MENTION = /\b(?:FROM|JOIN|INTO|UPDATE|TABLE)\s+([a-z_]\w*)\.([a-z_]\w*)(?:\s+(?:AS\s+)?([a-z_]\w*))?/gi;
const NO_ALIAS = /^(where|join|on|group|order|limit|set|values|left|right|inner|full|cross|using|union|select|returning)$/i;

/** The catalogue as lists that can be searched, made once for each catalogue. */
function indexed(catalogue) {
  const namespaces = new Map();
  const tables = [];
  for (const { name, tables: own } of catalogue.namespaces) {
    const entries = own.map((table) => ({
      label: quoted(table.name),
      full: `${quoted(name)}.${quoted(table.name)}`,
      key: table.name.toLowerCase(),
      kind: table.kind,
      columns: table.columns.map((column) => ({
        label: quoted(column.name),
        key: column.name.toLowerCase(),
        type: "property",
        detail: column.key ? `${column.type} key` : column.type,
      })),
    }));
    namespaces.set(name, entries);
    tables.push(...entries);
  }
  const option = (type) => (label) => ({ label, key: label.toLowerCase(), type });
  const sorted = (list) => list.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
  return {
    namespaces,
    tables: sorted(
      tables.flatMap((table) => [table.key, table.full.toLowerCase()].map((key) => ({ label: table.full, key, type: "class", detail: table.kind }))),
    ),
    spaces: sorted([...namespaces.keys()].map(option("namespace"))),
    functions: sorted(catalogue.functions.map(option("function"))),
    keywords: sorted(catalogue.keywords.map(option("keyword"))),
  };
}

/** Those of a sorted list whose key begins with `word`, up to a bound. */
export function beginning(list, word, most = OPTIONS_MAX) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle].key < word) low = middle + 1;
    else high = middle;
  }
  const found = [];
  while (low < list.length && found.length < most && list[low].key.startsWith(word)) found.push(list[low++]);
  return found;
}

/** The tables that a text mentions, under their names and aliases. */
function mentioned(text, index) {
  const found = new Map();
  for (const [, space, name, alias] of text.matchAll(MENTION)) {
    const table = index.namespaces.get(space.toLowerCase())?.find((one) => one.key === name.toLowerCase());
    if (!table) continue;
    found.set(table.key, table);
    if (alias && !NO_ALIAS.test(alias)) found.set(alias.toLowerCase(), table);
  }
  return found;
}

/** The options at a place of a text, best first. */
export function complete(text, place, index) {
  const before = text.slice(Math.max(0, place - 200), place);
  const word = WORD.exec(before)[0].toLowerCase();
  const owner = OWNER.exec(before.slice(0, before.length - word.length));
  const tables = mentioned(text, index);
  const matching = (list) => list.filter((option) => option.key.startsWith(word)).slice(0, OPTIONS_MAX);
  if (owner) {
    const name = owner[1].toLowerCase();
    const space = index.namespaces.get(name);
    const own = tables.get(name);
    return {
      word,
      options: [
        ...(own ? matching(own.columns) : []),
        ...(space ? matching(space.map((table) => ({ label: table.label, key: table.key, type: "class", detail: table.kind }))) : []),
      ],
    };
  }
  const columns = matching([...new Set(tables.values())].flatMap((table) => table.columns));
  const options = [...columns];
  for (const list of [index.tables, index.spaces, index.functions, index.keywords]) {
    options.push(...beginning(list, word, OPTIONS_MAX));
  }
  const seen = new Set();
  return { word, options: options.filter((option) => !seen.has(option.label) && seen.add(option.label)) };
}

export function completionSource(getCatalogue) {
  let made = null;
  let from = null;
  return (context) => {
    const catalogue = getCatalogue();
    if (!catalogue) return null;
    if (from !== catalogue) [made, from] = [indexed(catalogue), catalogue];
    const text = context.state.doc.toString();
    const { word, options } = complete(text, context.pos, made);
    const dotted = text[context.pos - word.length - 1] === ".";
    if (!context.explicit && !word && !dotted) return null;
    if (!context.explicit && options.length === 1 && options[0].label.toLowerCase() === word) return null; // it stands there
    const shown = options.map(({ label, type, detail }) => ({ label, type, detail }));
    return { from: context.pos - word.length, options: shown, filter: false }; // they are in order already
  };
}

export { indexed };
