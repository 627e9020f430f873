// A live query over Server-Sent Events, read by fetch and not by EventSource, which hides what the server refuses.

import { Problem, noteGone, noteStranger } from "./api.js";

const AGAIN_MS = 1000;

/** Follows a live query until `stop()`. Calls `onMessage` with each message, `onState` with connecting, open, lost, ended. */
export function follow(text, { lastRows = null, onMessage, onState, onError }) {
  const abort = new AbortController();
  let lastId = null;
  let stopped = false;

  async function once() {
    const asked = new URLSearchParams({ sql: text });
    if (lastRows !== null) asked.set("last_rows", String(lastRows));
    const headers = { Accept: "text/event-stream" };
    if (lastId) headers["Last-Event-ID"] = lastId;
    const answer = await fetch(`/v1/live?${asked}`, { headers, signal: abort.signal, cache: "no-store" });
    if (answer.status === 401) noteStranger();
    if (!answer.ok) throw new Problem(await answer.json());
    onState("open", lastId);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        let data = "";
        for (const line of event.split("\n")) {
          if (line.startsWith("id: ")) lastId = line.slice(4);
          else if (line.startsWith("data: ")) data += line.slice(6);
        }
        if (data) onMessage(data);
        if (stopped) return;
      }
    }
  }

  (async () => {
    while (!stopped) {
      onState(lastId ? "resuming" : "connecting", lastId);
      try {
        await once();
        if (stopped) return;
      } catch (error) {
        if (stopped || error.name === "AbortError") return;
        if (error instanceof Problem && error.code !== "too_busy" && error.status !== 503) {
          stopped = true;
          onError(error);
          onState("ended", lastId);
          return;
        }
        if (!(error instanceof Problem)) noteGone();
      }
      if (stopped) return;
      onState("lost", lastId);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  })();

  return {
    stop() {
      stopped = true;
      abort.abort();
    },
  };
}
