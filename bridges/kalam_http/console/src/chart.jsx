// Charts, drawn by uPlot.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export const COLOURS = ["--chart-1", "--chart-2", "--chart-3", "--chart-4", "--chart-5", "--chart-6"];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Lines over time or bars over categories. `xs` are seconds or, with `names`, places in `names`. */
export function Chart({ label, xs, series, names = null, height = 160, format = (value) => value, legend = false }) {
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
          padding: [null, names === null ? 40 : null, null, null], // half a label: the last one is not cut
          cursor: { y: false, points: { size: 6 } },
          scales: { x: { time: names === null, range: names === null ? undefined : [-0.5, names.length - 0.5] }, y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.1 : low < 0 ? 0 : 1] } },
          axes: [
            names === null ? { ...axis, size: 28, gap: 4, space: (_, __, from, to) => (to - from > 86_400 ? 100 : 64), values: (_, times) => clock(times) } : { ...axis, size: 28, gap: 4, values: (_, places) => places.map((place) => (Number.isInteger(place) ? clipped(names[place]) : "")), space: 60 },
            { ...axis, size: 56, values: (_, values) => values.map((value) => format(value)) },
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
              paths: names === null ? undefined : uPlot.paths.bars({ size: [0.7, 60] }),
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

/** Times of an axis: the hour and minute in UTC, with the day where more than a day is shown. */
function clock(times) {
  const long = times.at(-1) - times[0] > 86_400;
  const fine = times.length > 1 && times[1] - times[0] < 60;
  return times.map((at) => {
    const text = new Date(at * 1000).toISOString();
    return long ? text.slice(5, 16).replace("T", " ") : text.slice(11, fine ? 19 : 16);
  });
}

function clipped(name) {
  const text = String(name ?? "");
  return text.length > 14 ? `${text.slice(0, 13)}…` : text;
}
