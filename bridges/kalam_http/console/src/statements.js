// Where statements begin and end in a text: the console runs a selection, shows one tab a statement, and puts an error
// at the place that the server names. The server alone decides what is legal.

const TOKEN = /'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|\/\*[\s\S]*?\*\/|\$([A-Za-z_]\w*)?\$[\s\S]*?\$\1\$|\$(\d+)|;|[\s\S]/g;

/** The statements of a text: `{from, to, text}`, without those that are empty or only comments. */
export function statements(text) {
  const found = [];
  let from = 0;
  let filled = false;
  const end = (to) => {
    if (filled) found.push({ from, to, text: text.slice(from, to).trim() });
    from = to + 1;
    filled = false;
  };
  for (const token of text.matchAll(TOKEN)) {
    if (token[0] === ";") end(token.index);
    else if (!/^(\s|--|\/\*)/.test(token[0])) filled = true;
  }
  end(text.length);
  return found;
}

/** The highest number n of a parameter $n. */
export function parameterCount(text) {
  let highest = 0;
  for (const token of text.matchAll(TOKEN)) if (token[2]) highest = Math.max(highest, Number(token[2]));
  return Math.min(highest, 99);
}

export function isQuery(text) {
  return /^\s*(--[^\n]*\n\s*|\/\*[\s\S]*?\*\/\s*)*(\(|SELECT\b|WITH\b|VALUES\b)/i.test(text);
}

/** Where in a text an error is, from 0: by its line and column, else where the name that it speaks of stands. */
export function placeOf(problem, text) {
  const all = statements(text);
  const statement = all[(problem.statement ?? 1) - 1] ?? { from: 0, to: text.length };
  if (problem.line) {
    const lines = text.split("\n");
    let from = 0;
    for (let line = 0; line < Math.min(problem.line - 1, lines.length - 1); line += 1) from += lines[line].length + 1;
    const own = lines[Math.min(problem.line, lines.length) - 1];
    from += Math.min(Math.max((problem.column ?? 1) - 1, 0), own.length);
    return { from, to: endOfWord(text, from) };
  }
  for (const [, word] of problem.message.matchAll(/["'`]?([A-Za-z_]\w*(?:\.\w+)*)["'`]?/g)) {
    const place = text.slice(statement.from, statement.to).search(new RegExp(`(?<![\\w.])${word.replaceAll(".", "\\.")}(?!\\w)`, "i"));
    if (place >= 0 && !/^(there|is|no|a|the|of|in|and|or|not|has|to|it|table|column|error)$/i.test(word)) {
      return { from: statement.from + place, to: statement.from + place + word.length };
    }
  }
  const first = statement.from + (text.slice(statement.from, statement.to).match(/^\s*/)?.[0].length ?? 0);
  return { from: first, to: endOfWord(text, first) };
}

function endOfWord(text, from) {
  const word = /^(\w+|\S)/.exec(text.slice(from));
  return from + (word ? word[0].length : 0);
}
