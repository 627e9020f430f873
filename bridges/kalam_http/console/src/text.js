// How names and values are written: in SQL, and for people.

const PLAIN = /^[a-z_][a-z0-9_]*$/;

export function quoted(name) {
  return PLAIN.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}

/** A full table name from `ns.table`, as it stands in SQL. */
export function tableName(full) {
  return full.split(".").map(quoted).join(".");
}

const BARE = new Set(["BOOLEAN", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE"]);
const NUMBER = /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i;

export function isNumeric(type) {
  return /^(SMALLINT|INT|BIGINT|FLOAT|DOUBLE|DECIMAL)/.test(type);
}

/** What a person typed into a field of a column as a SQL literal; an empty field is NULL. */
export function literal(text, type) {
  if (text === "" || text === null || text === undefined) return "NULL";
  const value = String(text);
  const kind = type.split("(")[0];
  if (kind === "BOOLEAN" && /^(true|false)$/i.test(value)) return value.toUpperCase();
  if ((BARE.has(kind) || kind === "DECIMAL") && NUMBER.test(value)) return value;
  return `'${value.replaceAll("'", "''")}'`;
}

/** A value of a result as the text that a field or a literal has. */
export function valueText(value) {
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "");
}

const WHOLE = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export function count(number) {
  return number === null || number === undefined ? "–" : WHOLE.format(number);
}

export function short(number) {
  if (number === null || number === undefined) return "–";
  return Math.abs(number) >= 1000 ? WHOLE.format(Math.round(number)) : SHORT.format(number);
}

export function bytes(number) {
  if (number === null || number === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? number : number.toFixed(number < 10 ? 1 : 0)} ${units[unit]}`;
}

export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

export function milliseconds(number) {
  if (number === null || number === undefined) return "–";
  if (number >= 1000) return `${(number / 1000).toFixed(2)} s`;
  return `${number.toFixed(number < 10 ? 2 : 0)} ms`;
}

/** A TIMESTAMP of the API for people: seconds, in UTC. */
export function time(text) {
  return text ? text.slice(0, 19).replace("T", " ") : "";
}
