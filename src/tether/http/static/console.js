// What pages of the console do beyond showing their data: ages that grow, and copying.

function inWords(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400).toLocaleString("en")} d`;
}

// The server says how old a value was; since then time went on. Its clock alone counts.
let arrived = new WeakMap();

function letAgesGrow() {
  const now = performance.now();
  for (const element of document.querySelectorAll("[data-age]")) {
    if (!arrived.has(element)) arrived.set(element, now);
    const seconds = Number(element.dataset.age) + Math.floor((now - arrived.get(element)) / 1000);
    const words = inWords(seconds);
    if (element.textContent !== words) element.textContent = words;
  }
}

letAgesGrow();
setInterval(letAgesGrow, 1000);
document.addEventListener("htmx:afterSwap", () => {
  arrived = new WeakMap(); // what stayed has new ages, too
  letAgesGrow();
});

// A page that gets no answer says so, unless it is only a moment.
const SILENT_MS = 4000;
const silent = document.getElementById("silent");
let silence;

function hear(heard) {
  if (heard) {
    clearTimeout(silence);
    silence = undefined;
    silent.hidden = true;
  } else {
    silence ??= setTimeout(() => (silent.hidden = false), SILENT_MS);
  }
}

for (const name of ["sseError", "sendError", "timeout", "responseError"]) document.addEventListener(`htmx:${name}`, () => hear(false));
for (const name of ["sseOpen", "afterSwap"]) document.addEventListener(`htmx:${name}`, () => hear(true));

// Without HTTP/2 a browser keeps six connections to a server, for all tabs together: a page that
// nobody sees leaves its own to others, and asks again when it is seen.
document.addEventListener("visibilitychange", () => {
  for (const element of document.querySelectorAll("[sse-connect]")) {
    if (document.hidden) {
      element["htmx-internal-data"]?.sseEventSource?.close();
    } else {
      const again = element.cloneNode(true);
      element.replaceWith(again);
      htmx.process(again);
    }
  }
});

// A form that is sent twice in a moment is sent once: of two new keys, one would be seen by nobody.
const TWICE_MS = 2000;
const sent = new WeakMap();

document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  const now = performance.now();
  if (now - sent.get(event.target) < TWICE_MS) event.preventDefault();
  else sent.set(event.target, now);
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source); // without the right to copy it is only marked
    button.textContent = "Press Ctrl-C";
  }
});

// Charts: each is drawn from the table that stands beside it.

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const WIDE = 80; // pixels of a name below a chart
const numbers = new Intl.NumberFormat("en"); // as on the page, whatever the browser's language is

function number(chart, value) {
  return value == null ? "" : numbers.format(value);
}

function axes(below, ...others) {
  const look = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const values = (chart, ticks) => ticks.map((tick) => numbers.format(tick));
  return [{ ...look, space: WIDE, ...below }, ...others.map((one) => ({ ...look, size: asWideAsNumbers, values, ...one }))];
}

function asWideAsNumbers(chart, texts) {
  return 15 + 8 * Math.max(5, ...(texts ?? []).map((text) => text.length));
}

// Zero is always seen, also above what is negative: vehicles give power back.
function withZero(chart, low, high) {
  const [from, to] = [1.1 * Math.min(0, low ?? 0), 1.1 * Math.max(0, high ?? 0)];
  return from === to ? [0, 1] : [from, to];
}

// In UTC, as all times of the console: days, or the time of day with the day where that changes.
function instants(chart, ticks, axis, space, step) {
  let day = "";
  return ticks.map((tick) => {
    const text = new Date(tick * 1e3).toISOString();
    if (step >= 86400) return text.slice(0, 10);
    const time = text.slice(11, step < 60 ? 19 : 16);
    const label = text.slice(0, 10) === day ? time : `${time}\n${text.slice(0, 10)}`;
    day = text.slice(0, 10);
    return label;
  });
}

const drawn = new WeakMap(); // how to take a chart away

// `around` is what is shown before and after the instants; of a single one uPlot would show years.
function draw(element, { scales, around = 0, ...options }, data) {
  drawn.get(element)?.();
  const height = 260;
  const margin = around || (data[0].length === 1 ? 1800 : 0);
  const x = { range: (u, low, high) => [low - margin, (data[0].length === 1 ? low : high) + margin] };
  const chart = new uPlot({ width: element.clientWidth, height, tzDate: (s) => uPlot.tzDate(new Date(s * 1e3), "Etc/UTC"), scales: { x, ...scales }, ...options }, data, element);
  const observer = new ResizeObserver(() => chart.setSize({ width: element.clientWidth, height }));
  observer.observe(element);
  drawn.set(element, () => {
    observer.disconnect();
    chart.destroy();
  });
}

function numbered(text) {
  return text === "" ? null : Number(text);
}

function drawBars(element) {
  const rows = [...document.querySelectorAll(`#${element.dataset.bars} tbody tr`)];
  const [xs, ys] = [rows.map((row) => Number(row.dataset.x)), rows.map((row) => Number(row.dataset.y))];
  const names = new Map(rows.map((row, place) => [xs[place], row.cells[0].textContent])); // in the chosen time zone
  const named = (chart, axis, low, high) => {
    const apart = (WIDE * (high - low)) / (chart.width - 2 * WIDE);
    return xs.reduce((found, x) => (x - (found.at(-1) ?? -Infinity) < apart ? found : [...found, x]), []);
  };
  const bars = uPlot.paths.bars({ size: [0.8, 60] });
  const fill = colour("--accent");
  const half = { hour: 1800, day: 43200, month: 1296000 }[element.dataset.unit];
  draw(element, {
    cursor: { drag: { x: false, y: false } },
    axes: axes({ splits: named, values: (chart, places) => places.map((x) => names.get(x).replace(" ", "\n")) }, {}),
    around: half,
    scales: { y: { range: withZero } },
    series: [
      { label: "From", value: (chart, x) => names.get(x) ?? "" },
      { label: "Energy (kWh)", value: number, paths: bars, fill, stroke: fill, points: { show: false } },
    ],
  }, [xs, ys]);
}

// What takes power: nothing once a charge has stopped, or the vehicle is gone.
const ENDS = ["VEHICLE_CHARGE_STOPPED", "VEHICLE_DISCONNECTED"];

function drawCourse(element) {
  const events = [...document.querySelectorAll(`#${element.dataset.course} tbody tr`)];
  const periods = [...document.querySelectorAll(`#${element.dataset.periods} tbody tr[data-from]`)];
  const last = events.length ? Date.parse(events.at(-1).dataset.at) / 1e3 : 0;
  const bands = periods.map((row) => [Date.parse(row.dataset.from) / 1e3, row.dataset.to ? Date.parse(row.dataset.to) / 1e3 : last]);
  const shade = (u) => {
    u.ctx.save();
    u.ctx.fillStyle = colour("--good-panel");
    for (const [from, to] of bands) {
      const left = u.valToPos(from, "x", true);
      u.ctx.fillRect(left, u.bbox.top, Math.max(u.valToPos(to, "x", true) - left, 2), u.bbox.height);
    }
    u.ctx.restore();
  };
  draw(element, {
    hooks: { drawClear: [shade] },
    scales: { kW: { range: withZero }, "%": { range: [0, 100] } },
    axes: axes({ values: instants },
      { scale: "kW", values: (u, ticks) => ticks.map((tick) => `${tick} kW`) },
      { scale: "%", side: 1, values: (u, ticks) => ticks.map((tick) => `${tick} %`), grid: { show: false } }),
    series: [
      { value: (u, at) => (at === null ? "" : new Date(at * 1e3).toISOString().slice(0, 19).replace("T", " ")), label: "Time" },
      { label: "Power (kW)", scale: "kW", value: number, stroke: colour("--busy"), width: 2, paths: uPlot.paths.stepped({ align: 1 }), spanGaps: true },
      { label: "State of charge (%)", scale: "%", value: number, stroke: colour("--good"), width: 2, spanGaps: true },
    ],
  }, [
    events.map((row) => Date.parse(row.dataset.at) / 1e3),
    events.map((row) => (ENDS.includes(row.dataset.type) ? 0 : numbered(row.dataset.power))),
    events.map((row) => numbered(row.dataset.soc)),
  ]);
}

function drawLines(element) {
  const table = document.getElementById(element.dataset.lines);
  const lines = [...table.querySelectorAll("th[data-line]")];
  const rows = [...table.querySelectorAll("tbody tr")];
  draw(element, {
    scales: { y: { range: withZero } },
    axes: axes({ values: instants }, {}),
    series: [
      { label: "At", value: (u, at) => (at === null ? "" : new Date(at * 1e3).toISOString().slice(0, 16).replace("T", " ")) },
      ...lines.map((line) => ({ label: line.textContent, value: number, stroke: colour(line.dataset.line), width: 2 })),
    ],
  }, [
    rows.map((row) => Number(row.dataset.x)),
    ...lines.map((line, place) => rows.map((row) => Number(row.querySelectorAll("[data-y]")[place].dataset.y))),
  ]);
}

function drawCharts() {
  if (!window.uPlot) return;
  for (const element of document.querySelectorAll(".chart:not([data-drawn])")) {
    element.dataset.drawn = "yes";
    if (element.dataset.bars) drawBars(element);
    else if (element.dataset.lines) drawLines(element);
    else drawCourse(element);
  }
}

// Canvases keep the colours with which they were drawn.
for (const query of ["print", "(prefers-color-scheme: dark)"]) {
  matchMedia(query).addEventListener("change", () => {
    for (const element of document.querySelectorAll(".chart")) delete element.dataset.drawn;
    drawCharts();
  });
}

document.addEventListener("DOMContentLoaded", drawCharts);
document.addEventListener("htmx:afterSettle", drawCharts);
