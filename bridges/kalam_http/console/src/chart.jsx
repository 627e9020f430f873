// Charts, drawn by uPlot.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export const COLOURS = ["--chart-1", "--chart-2", "--chart-3", "--chart-4", "--chart-5", "--chart-6"];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export const BINARY_STEPS = Array.from({ length: 50 }, (_, power) => 2 ** power);
export const WHOLE_STEPS = Array.from({ length: 45 }, (_, place) => [1, 2, 5][place % 3] * 10 ** Math.floor(place / 3));
const LETTERS_MAX = 14;
const GROUP = 0.8; // of the room of a category, what its bars take

/** Lines over time or bars over categories. `xs` are seconds or, with `names`, places in `names`. `span` is how many seconds
 *  before the last one are drawn, if not from the first; `steps` is BINARY_STEPS for bytes and WHOLE_STEPS for counts. */
export function Chart({ label, xs, series, names = null, height = 160, format = (value) => value, legend = false, steps = null, span = null }) {
  const host = useRef(null);
  const plot = useRef(null);
  const shape = JSON.stringify([series.map((one) => one.label), names?.length ?? 0, height, legend]);

  useEffect(() => {
    const element = host.current;
    function draw() {
      plot.current?.destroy();
      const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
      plot.current = new uPlot(
        {
          width: Math.max(element.clientWidth, 120),
          height,
          legend: { show: legend, live: false },
          padding: [8, names === null ? 36 : 12, 0, 0], // half a label: the last one is not cut
          cursor: { y: false, points: { size: 6 } },
          scales: { x: { time: names === null, range: names !== null ? [-0.5, names.length - 0.5] : span ? (_, __, last) => [last - span, last] : undefined }, y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.1 : low < 0 ? 0 : 1] } },
          axes: [
            names === null
              ? { ...axis, size: 24, gap: 4, space: (_, __, from, to) => (to - from > 86_400 ? 100 : 64), values: (_, times) => clock(times) }
              : { ...axis, size: 24, gap: 4, grid: { show: false }, incrs: WHOLE_STEPS, values: (_, places) => places.map((place) => (place in names ? clipped(names[place]) : "")), space: room(names) },
            { ...axis, size: 64, space: height > 200 ? 36 : 24, ...(steps ? { incrs: steps } : {}), values: (_, values) => values.map((value) => format(value)) },
          ],
          series: [
            {},
            ...series.map((one, place) => ({
              label: one.label,
              stroke: colour(COLOURS[place % COLOURS.length]),
              fill: names === null ? undefined : `${colour(COLOURS[place % COLOURS.length])}66`,
              width: 1.75,
              spanGaps: false,
              points: { show: false },
              paths: names === null ? undefined : bars(place, series.length),
            })),
          ],
        },
        [xs, ...series.map((one) => one.values)],
        element,
      );
    }
    draw();
    const watch = new ResizeObserver(() => plot.current?.setSize({ width: Math.max(element.clientWidth, 120), height }));
    watch.observe(element);
    const themed = new MutationObserver(draw);
    themed.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => {
      watch.disconnect();
      themed.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape]);

  useEffect(() => {
    plot.current?.setData([xs, ...series.map((one) => one.values)]);
  }, [xs, series]);

  return <div class="chart" role="img" aria-label={label} ref={host} />;
}

/** The bars of one of several series stand beside those of the others. */
function bars(place, all) {
  const own = GROUP / all;
  const left = (x) => x - GROUP / 2 + place * own;
  return uPlot.paths.bars({
    disp: { x0: { unit: 1, values: (plot) => plot.data[0].map(left) }, size: { unit: 1, values: () => [own * 0.94] } },
  });
}

/** Times of an axis, in UTC: hour and minute, with the day where more than a day is shown, or the day alone. */
function clock(times) {
  const texts = times.map((at) => new Date(at * 1000).toISOString());
  const [first, last] = [times[0], times.at(-1)];
  if (last - first <= 86_400) {
    const fine = times.length > 1 && times[1] - first < 60;
    return texts.map((text) => text.slice(11, fine ? 19 : 16));
  }
  if (times.every((at) => at % 86_400 === 0)) return texts.map((text) => text.slice(0, 10));
  return texts.map((text) => text.slice(5, 16).replace("T", " "));
}

function clipped(name) {
  if (name === null || name === undefined) return "NULL";
  const letters = [...String(name)];
  return letters.length > LETTERS_MAX ? `${letters.slice(0, LETTERS_MAX - 1).join("")}…` : letters.join("");
}

/** How far apart the names of an axis are at least, in pixels: as far as the longest is wide. */
function room(names) {
  const longest = Math.max(...names.map((name) => clipped(name).length), 1);
  return 14 + 8 * longest;
}
