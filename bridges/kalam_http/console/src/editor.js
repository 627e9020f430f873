// The SQL editor: CodeMirror in a shadow root of its own, where its styles are constructed style sheets and no <style>
// element, which the Content-Security-Policy forbids.

import { autocompletion, closeBrackets, closeBracketsKeymap, closeCompletion, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { PostgreSQL, sql } from "@codemirror/lang-sql";
import { HighlightStyle, bracketMatching, syntaxHighlighting } from "@codemirror/language";
import { Compartment, EditorState, Prec, StateEffect, StateField } from "@codemirror/state";
import { Decoration, EditorView, drawSelection, highlightActiveLine, keymap, lineNumbers, placeholder } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { completionSource } from "./completion.js";

const theme = EditorView.theme({
  "&": { height: "100%", color: "var(--text)", backgroundColor: "var(--field)", fontSize: "14px" },
  "&.cm-focused": { outline: "none" }, // the host has it, for the gutter would hide a part of it
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.55" },
  ".cm-content": { caretColor: "var(--text)", padding: "10px 0" },
  ".cm-gutters": { backgroundColor: "var(--field)", color: "var(--faint)", border: "none", paddingLeft: "6px" },
  ".cm-activeLine": { backgroundColor: "var(--hover)" },
  ".cm-activeLineGutter": { backgroundColor: "transparent", color: "var(--text)" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "var(--selection)",
  },
  ".cm-fault": { textDecoration: "underline wavy var(--bad)", textUnderlineOffset: "4px", backgroundColor: "var(--bad-soft)" },
  ".cm-placeholder": { color: "var(--soft)" },
  ".cm-matchingBracket": { backgroundColor: "var(--selection)", outline: "none" },
  ".cm-tooltip": { backgroundColor: "var(--surface)", color: "var(--text)", border: "1px solid var(--line)", borderRadius: "6px", overflow: "hidden" },
  ".cm-tooltip-autocomplete > ul": { fontFamily: "var(--mono)" },
  ".cm-tooltip-autocomplete > ul > li": { padding: "3px 8px" },
  ".cm-tooltip-autocomplete > ul > li[aria-selected]": { backgroundColor: "var(--accent)", color: "var(--on-accent)" },
  ".cm-completionDetail": { color: "inherit", opacity: "0.75", fontStyle: "normal" },
});

const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword], color: "var(--code-keyword)" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--code-string)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--code-number)" },
  { tag: tags.comment, color: "var(--soft)", fontStyle: "italic" },
  { tag: [tags.typeName, tags.standard(tags.name)], color: "var(--code-type)" },
]);

const setFault = StateEffect.define();
const fault = StateField.define({
  create: () => Decoration.none,
  update(marks, transaction) {
    for (const effect of transaction.effects) {
      if (!effect.is(setFault)) continue;
      const place = effect.value;
      return place && place.to > place.from
        ? Decoration.set([Decoration.mark({ class: "cm-fault" }).range(place.from, place.to)])
        : Decoration.none;
    }
    return transaction.docChanged ? Decoration.none : marks;
  },
  provide: (field) => EditorView.decorations.from(field),
});

/** Text typed over a selection is put in by the editor and not by the browser, which would keep the colours of what it
 *  replaces in a style attribute; the policy forbids those. */
function replaceSelected(event, view) {
  const selection = (view.root.getSelection ? view.root : document).getSelection();
  if (event.inputType !== "insertText" || event.isComposing || !event.data || !selection?.anchorNode || selection.isCollapsed) return false;
  if (!view.contentDOM.contains(selection.anchorNode) || !view.contentDOM.contains(selection.focusNode)) return false;
  const ends = [view.posAtDOM(selection.anchorNode, selection.anchorOffset), view.posAtDOM(selection.focusNode, selection.focusOffset)];
  const [from, to] = [Math.min(...ends), Math.max(...ends)];
  const insert = () => view.state.update({ changes: { from, to, insert: event.data }, selection: { anchor: from + event.data.length }, userEvent: "input.type", scrollIntoView: true });
  event.preventDefault();
  const taken = view.state.facet(EditorView.inputHandler).some((handler) => handler(view, from, to, event.data, insert));
  if (!taken) view.dispatch(insert());
  return true;
}

/** An editor in `host`. Calls `onRun` for Ctrl/Cmd+Enter and `onChange` with the text after each change. */
export function createEditor(host, { text, label, getCatalogue, onRun, onChange }) {
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  root.replaceChildren();
  const attributes = new Compartment();
  const named = (invalid) => EditorView.contentAttributes.of({ "aria-label": label, "aria-invalid": String(invalid) });
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      doc: text,
      extensions: [
        Prec.highest(keymap.of([{ key: "Mod-Enter", run: () => (onRun(), true) }])),
        lineNumbers(),
        history(),
        drawSelection(),
        bracketMatching(),
        closeBrackets(),
        highlightActiveLine(),
        EditorView.domEventHandlers({ beforeinput: replaceSelected }),
        EditorView.lineWrapping,
        sql({ dialect: PostgreSQL }),
        autocompletion({ override: [completionSource(getCatalogue)], maxRenderedOptions: 60, icons: false }),
        syntaxHighlighting(colours),
        keymap.of([...closeBracketsKeymap, ...completionKeymap, ...defaultKeymap, ...historyKeymap]),
        placeholder("SELECT * FROM …"),
        attributes.of(named(false)),
        fault,
        theme,
        EditorView.updateListener.of((update) => {
          if (!update.docChanged) return;
          onChange(update.state.doc.toString());
          if (update.startState.field(fault) !== Decoration.none) queueMicrotask(() => mark(null));
        }),
      ],
    }),
  });

  function mark(place) {
    view.dispatch({ effects: [setFault.of(place), attributes.reconfigure(named(place !== null))] });
  }

  return {
    view,
    mark,
    text: () => view.state.doc.toString(),
    selection() {
      const { from, to } = view.state.selection.main;
      return { from, to, text: view.state.sliceDoc(from, to) };
    },
    replace(text) {
      view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text } });
      view.focus();
    },
    focus: () => view.focus(),
    closeCompletion: () => closeCompletion(view),
    destroy: () => view.destroy(),
  };
}
