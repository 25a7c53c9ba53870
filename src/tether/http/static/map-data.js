// What maps show: coastlines and borders, and on them what the page has. In Web Mercator the world
// is a square from 0 to 1; x goes on beyond, around the earth.

const across = (longitude) => longitude / 360 + 0.5;

function down(latitude) {
  const sine = Math.sin((Math.min(85.0511, Math.max(-85.0511, latitude)) * Math.PI) / 180);
  return 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI);
}

// The world -------------------------------------------------------------------------------------

// The rings of all countries from TopoJSON: arcs that are shared, as differences in a grid.
function ringsOf(topology) {
  const { scale, translate } = topology.transform;
  const arcs = topology.arcs.map((arc) => {
    let x = 0;
    let y = 0;
    return arc.map(([dx, dy]) => [(x += dx) * scale[0] + translate[0], (y += dy) * scale[1] + translate[1]]);
  });
  const points = (number) => (number < 0 ? arcs[~number].toReversed() : arcs[number]);
  const polygons = topology.objects.countries.geometries.flatMap((one) => (one.type === "Polygon" ? [one.arcs] : (one.arcs ?? [])));
  return polygons.flat().map((ring) => unwrapped(ring.flatMap((number, place) => points(number).slice(place ? 1 : 0))));
}

// A ring as it goes on around the earth: where it crosses 180°, no line leads back across the map.
function unwrapped(points) {
  let turn = 0;
  let last = points[0][0];
  const ring = points.map(([longitude, latitude]) => {
    if (longitude + turn - last > 180) turn -= 360;
    else if (longitude + turn - last < -180) turn += 360;
    last = longitude + turn;
    return [across(last), down(latitude)];
  });
  const [first, end] = [ring[0][0], ring.at(-1)[0]];
  if (Math.abs(end - first) > 0.5) ring.push([end, 2], [first, 2]); // around the South Pole
  const xs = Float64Array.from(ring, (point) => point[0]);
  const ys = Float64Array.from(ring, (point) => point[1]);
  const box = [xs, ys].map((some) => [some.reduce((a, b) => Math.min(a, b)), some.reduce((a, b) => Math.max(a, b))]);
  return { xs, ys, box };
}

// A country's ring into the path, at each place around the earth at which it is seen.
function drawRing(context, { xs, ys, box: [[west, east], [north, south]] }, { left, top, right, bottom, size }) {
  if (south < top || north > bottom || Math.max(east - west, south - north) * size < 1.5) return;
  for (let turn = Math.ceil(left - east); turn <= Math.floor(right - west); turn++) {
    let px = Infinity;
    let py = 0;
    for (let place = 0; place < xs.length; place++) {
      const x = (xs[place] + turn - left) * size;
      const y = (ys[place] - top) * size;
      if (Math.abs(x - px) + Math.abs(y - py) < 1.2) continue; // nobody sees it
      if (px === Infinity) context.moveTo(x, y);
      else context.lineTo(x, y);
      px = x;
      py = y;
    }
    context.closePath();
  }
}

// A disc; around it how much of it is what.
function drawCluster(context, { x: px, y: py, sums, numbers, radius }, shown, look) {
  const all = sums.reduce((a, b) => a + b, 0);
  let from = -Math.PI / 2;
  sums.forEach((sum, part) => {
    if (!sum) return;
    const to = from + (2 * Math.PI * sum) / all;
    context.beginPath();
    context.moveTo(px, py);
    context.arc(px, py, radius, from, to);
    context.fillStyle = look(shown.colours[part]);
    context.fill();
    from = to;
  });
  const label = shown.label(sums, numbers.length);
  const isFree = shown.colours.length === 3 && !label && sums[2]; // hollow, not told by colour alone
  if (label || isFree || !all) {
    context.beginPath();
    context.arc(px, py, radius - (isFree ? 2 : 4), 0, 2 * Math.PI);
    context.fillStyle = look("--page");
    context.fill();
  }
  context.beginPath();
  context.arc(px, py, radius, 0, 2 * Math.PI);
  context.strokeStyle = look(all ? "--page" : "--muted");
  context.lineWidth = 1;
  context.stroke();
  if (!label) return;
  context.fillStyle = look("--text");
  context.font = `600 ${label.length > 5 ? 10 : 12}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(label, px, py);
}

let world;

function ringsOnce(url) {
  world ??= fetch(url).then((answer) => answer.json()).then(ringsOf);
  return world;
}

// What is shown ---------------------------------------------------------------------------------

// Chargers, of which each is in one of three states.
const STATES = ["charging", "plugged in", "free"];
const PLACES_MS = 60_000; // after which chargers may be new, moved or gone

// `unplaced`: chargers that are known to be on no map.
async function chargersOf(element, unplaced = new Set()) {
  const loaded = performance.now();
  const { places, without, more } = await (await fetch(element.dataset.places)).json();
  const numbers = new Map(places.map(([id], number) => [id, number]));
  const parts = new Float64Array(places.length * 3);
  const name = (number) => places[number][0];
  const state = (number) => STATES[parts.subarray(number * 3, number * 3 + 3).indexOf(1)];
  const ask = async () => {
    const states = await (await fetch(element.dataset.states)).json();
    places.forEach((_, number) => parts.set([0, 0, 1], number * 3));
    for (const id of states.plugged) if (numbers.has(id)) parts.set([0, 1, 0], numbers.get(id) * 3);
    for (const id of states.charging) if (numbers.has(id)) parts.set([1, 0, 0], numbers.get(id) * 3);
    const others = [...states.plugged, ...states.charging].filter((id) => !numbers.has(id) && !unplaced.has(id));
    for (const id of others) unplaced.add(id);
    return others.length > 0 && !more;
  };
  await ask();
  const hints = [without && `${without.toLocaleString("en")} without a position`, more && "there are more chargers than the map shows"];
  const shown = {
    xs: Float64Array.from(places, ([, longitude]) => across(longitude)),
    ys: Float64Array.from(places, ([, , latitude]) => down(latitude)),
    parts,
    colours: ["--good", "--busy", "--muted"],
    side: 0,
    label: (sums, count) => (count > 1 ? count.toLocaleString("en") : ""),
    radius: (sums, count) => (count > 1 ? 11 + 2.2 * Math.log2(count) : 7),
    name,
    title: (number) => `${name(number)}, ${state(number)}`,
    link: (number) => element.dataset.charger + encodeURIComponent(name(number)),
    hint: hints.filter(Boolean).join("; "),
    next: async () => ((await ask()) || performance.now() - loaded > PLACES_MS ? chargersOf(element, unplaced) : shown),
  };
  return shown;
}

// Areas, of which each has what could be taken and given: the rows of a table.
function areasOf(element) {
  const rows = [...document.querySelectorAll(`#${element.dataset.areas} tr[data-west]`)];
  const side = Number(element.dataset.side);
  const kw = (value) => `${value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 })} kW`;
  return {
    xs: Float64Array.from(rows, (row) => across(Number(row.dataset.west) + side / 2)),
    ys: Float64Array.from(rows, (row) => down(Number(row.dataset.south) + side / 2)),
    parts: Float64Array.from(rows.flatMap((row) => [Number(row.dataset.take), Number(row.dataset.give)])),
    colours: ["--good", "--warn"],
    side,
    label: (sums) => kw(sums[0] + sums[1]),
    radius: (sums) => 22 + 2 * Math.log2(1 + sums[0] + sums[1]),
    name: (number) => rows[number].cells[0].textContent.trim(),
    title: (number) => `${rows[number].cells[0].textContent.trim()}: ${kw(Number(rows[number].dataset.take))} could be taken, ${kw(Number(rows[number].dataset.give))} given`,
    link: (number) => `#${rows[number].id}`,
    hint: "",
  };
}

