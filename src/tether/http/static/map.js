// Maps: what map-data.js knows, drawn on a canvas in clusters.

const TILE = 256; // pixels of the world at zoom 0
const CLOSEST = 16;
const CELL = 56; // pixels of a cluster's cell
const LISTED = 8;
const LISTED_OF_ONE_PLACE = 50;
const MOST_TILES = 256; // that are kept
const LONGEST_MS = 10_000; // without asking
const PART_OF_TIME = 10; // of which at most one is spent on asking for what has changed

// A map -----------------------------------------------------------------------------------------

class MapOfOurs {
  constructor(element, shown) {
    this.element = element;
    this.shown = shown;
    this.canvas = element.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    this.near = element.querySelector(".near");
    this.rings = [];
    this.clusters = [];
    this.tiles = new Map();
    this.pointers = new Map();
    this.showAll();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    // At once: on paper there is no next frame.
    for (const query of ["print", "(prefers-color-scheme: dark)"]) matchMedia(query).addEventListener("change", () => this.paint());
    ringsOnce(element.dataset.world).then((rings) => {
      this.rings = rings;
      this.draw();
    });
  }

  get width() { return this.canvas.clientWidth || 1; }
  get height() { return this.canvas.clientHeight || 1; }
  get size() { return TILE * 2 ** this.zoom; }
  get left() { return this.x - this.width / this.size / 2; }
  get top() { return this.y - this.height / this.size / 2; }

  // Where the map is ---

  lookAt(x, y, zoom) {
    this.zoom = Math.min(CLOSEST, Math.max(Math.log2(this.height / TILE), zoom));
    const half = this.height / this.size / 2;
    this.x = x - Math.floor(x);
    this.y = Math.min(1 - half, Math.max(half, y));
    this.draw();
  }

  // Shows all of these, or everything there is: west of the widest gap between them.
  showAll(numbers = this.shown.xs.map((_, number) => number)) {
    if (!numbers.length) return this.lookAt(0.5, 0.4, 1);
    const xs = Float64Array.from(numbers, (number) => this.shown.xs[number] % 1).sort();
    const ys = Float64Array.from(numbers, (number) => this.shown.ys[number]).sort();
    let west = xs[0];
    let width = xs.at(-1) - west;
    for (let place = 1; place < xs.length; place++) {
      const around = 1 - (xs[place] - xs[place - 1]);
      if (around < width) [west, width] = [xs[place], around];
    }
    const height = ys.at(-1) - ys[0];
    const side = Math.max((1.5 * this.shown.side) / 360, 1e-9); // areas are seen whole
    const room = Math.min((this.width - 150) / (width + side), (this.height - 70) / (height + side));
    this.lookAt(west + width / 2, (ys[0] + ys.at(-1)) / 2, Math.min(12, Math.log2(Math.max(room, 1) / TILE)));
  }

  zoomBy(steps, px = this.width / 2, py = this.height / 2) {
    const [x, y] = [this.left + px / this.size, this.top + py / this.size];
    const zoom = Math.min(CLOSEST, Math.max(Math.log2(this.height / TILE), this.zoom + steps));
    const size = TILE * 2 ** zoom;
    this.lookAt(x + (this.width / 2 - px) / size, y + (this.height / 2 - py) / size, zoom);
  }

  moveBy(px, py) {
    this.lookAt(this.x + px / this.size, this.y + py / this.size, this.zoom);
  }

  // What people do ---

  listen() {
    const { canvas } = this;
    const KEYS = {
      ArrowLeft: () => this.moveBy(-80, 0), ArrowRight: () => this.moveBy(80, 0),
      ArrowUp: () => this.moveBy(0, -80), ArrowDown: () => this.moveBy(0, 80),
      "+": () => this.zoomBy(1), "=": () => this.zoomBy(1), "-": () => this.zoomBy(-1), 0: () => this.showAll(),
      Enter: () => this.near.querySelector("a")?.click(),
    };
    canvas.addEventListener("keydown", (event) => {
      if (!KEYS[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      KEYS[event.key]();
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const [x, y] = this.placeOf(event);
      const pixels = event.deltaY * (event.deltaMode ? 30 : 1);
      this.zoomBy(Math.max(-1, Math.min(1, -pixels / (event.ctrlKey ? 60 : 240))), x, y);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, this.placeOf(event));
      this.moved = this.pointers.size > 1 ? Infinity : 0;
    });
    canvas.addEventListener("pointermove", (event) => this.pointed(event));
    canvas.addEventListener("pointerup", (event) => {
      const found = this.moved < 6 && this.clusterAt(...this.placeOf(event));
      this.pointers.delete(event.pointerId);
      if (found) this.open(found);
    });
    canvas.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    for (const button of this.element.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => (button.dataset.zoom === "all" ? this.showAll() : this.zoomBy(Number(button.dataset.zoom))));
    }
  }

  placeOf(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  pointed(event) {
    const place = this.placeOf(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      const found = this.clusterAt(...place);
      this.canvas.classList.toggle("on", Boolean(found));
      this.canvas.title = !found ? "" : found.numbers.length > 1 ? `${found.numbers.length} here` : this.shown.title(found.numbers[0]);
      return;
    }
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, other]) => other);
    this.pointers.set(event.pointerId, place);
    this.moved += Math.hypot(place[0] - before[0], place[1] - before[1]);
    if (!others.length) {
      if (this.moved >= 6) this.moveBy(before[0] - place[0], before[1] - place[1]);
      return;
    }
    const [other] = others; // two fingers: what was between them stays between them
    const apart = (one) => Math.max(20, Math.hypot(one[0] - other[0], one[1] - other[1]));
    this.moveBy((before[0] - place[0]) / 2, (before[1] - place[1]) / 2);
    this.zoomBy(Math.log2(apart(place) / apart(before)), (place[0] + other[0]) / 2, (place[1] + other[1]) / 2);
  }

  clusterAt(px, py) {
    return this.clusters.findLast((one) => Math.hypot(one.x - px, one.y - py) <= one.radius + 3);
  }

  // One leads to its page; of many the map shows where each is, as far as they are apart.
  open({ numbers }) {
    const { xs, ys, link } = this.shown;
    if (numbers.length === 1) return void (location.href = link(numbers[0]));
    const spread = numbers.some((number) => Math.hypot(xs[number] - xs[numbers[0]], ys[number] - ys[numbers[0]]) * TILE * 2 ** CLOSEST > CELL);
    if (spread && this.zoom < CLOSEST - 0.01) {
      const zoom = this.zoom + 1;
      this.showAll(numbers);
      if (this.zoom < zoom) this.lookAt(this.x, this.y, zoom);
    } else {
      this.list(numbers.slice(0, LISTED_OF_ONE_PLACE), `${numbers.length.toLocaleString("en")} here:`);
    }
  }

  // Links, which keyboards and screen readers reach, too.
  list(numbers, title) {
    const { link, title: said, hint } = this.shown;
    const links = numbers.map((number) => {
      const one = document.createElement("a");
      [one.href, one.textContent] = [link(number), said(number)];
      return one;
    });
    this.near.replaceChildren(title, ...links.flatMap((one) => [" ", one]), hint ? ` (${hint})` : "");
  }

  listNearest() {
    const { xs, ys } = this.shown;
    const far = (number) => {
      const x = xs[number] - this.x;
      return Math.hypot(x - Math.round(x), ys[number] - this.y);
    };
    const seen = this.clusters.flatMap((one) => one.numbers);
    const nearest = [...new Set(seen)].sort((a, b) => far(a) - far(b)).slice(0, LISTED);
    this.list(nearest, nearest.length ? "In the middle of the map:" : "There is nothing here.");
  }

  // Drawing ---

  draw() {
    this.asked ??= requestAnimationFrame(() => {
      this.asked = undefined;
      const began = performance.now();
      this.paint();
      this.canvas.dataset.drawn = (performance.now() - began).toFixed(1);
      clearTimeout(this.listing);
      this.listing = setTimeout(() => this.listNearest(), 250);
    });
  }

  paint() {
    const { canvas, context, width, height } = this;
    const ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.look = {}; // asked for once in each drawing
    this.paintLand();
    if (this.element.dataset.tiles) this.paintTiles();
    this.gather();
    this.paintAreas();
    for (const one of this.clusters) drawCluster(context, one, this.shown, (name) => this.colour(name));
  }

  colour(name) {
    return (this.look[name] ??= colour(name));
  }

  // The land is drawn beyond the edges and kept: while the map moves, that is what is seen of it.
  paintLand() {
    const { context, size, left, top, width, height } = this;
    const sea = this.colour("--sea");
    if (!this.land || this.land.sea !== sea) this.keepLand();
    const { land } = this;
    const scale = size / land.size;
    context.fillStyle = sea;
    context.fillRect(0, 0, width, height);
    context.drawImage(land.canvas, (land.left - left) * size, (land.top - top) * size, land.width * scale, land.height * scale);
    const reaches = land.left <= left && left + width / size <= land.left + land.width / land.size && land.top <= Math.max(0, top) && Math.min(1, top + height / size) <= land.top + land.height / land.size;
    clearTimeout(this.keeping);
    if (scale === 1 && reaches && land.rings === this.rings) return;
    this.keeping = setTimeout(() => {
      this.land = undefined;
      this.draw();
    }, 60);
  }

  keepLand() {
    const ratio = devicePixelRatio || 1;
    const { size, rings } = this;
    const [width, height] = [Math.ceil(this.width * 1.5), Math.ceil(this.height * 1.5)];
    const [left, top] = [this.x - width / size / 2, this.y - height / size / 2];
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.fillStyle = this.colour("--sea");
    context.fillRect(0, 0, width, height);
    context.beginPath();
    for (const ring of rings) drawRing(context, ring, { left, top, size, right: left + width / size, bottom: top + height / size });
    context.fillStyle = this.colour("--land");
    context.fill();
    context.strokeStyle = this.colour("--border");
    context.lineWidth = 0.8;
    context.lineJoin = "round";
    context.stroke();
    this.land = { canvas, left, top, size, width, height, rings, sea: this.colour("--sea") };
  }

  // From the server that the operator named, for whoever wants streets.
  paintTiles() {
    const level = Math.min(19, Math.max(0, Math.round(this.zoom)));
    const many = 2 ** level;
    const side = this.size / many;
    const { left, top } = this;
    for (let row = Math.max(0, Math.floor(top * many)); row < Math.min(many, (top + this.height / this.size) * many); row++) {
      for (let column = Math.floor(left * many); column < (left + this.width / this.size) * many; column++) {
        const tile = this.tile(level, ((column % many) + many) % many, row);
        if (tile.complete && tile.naturalWidth) {
          this.context.drawImage(tile, (column / many - left) * this.size, (row / many - top) * this.size, side + 0.5, side + 0.5);
        }
      }
    }
  }

  tile(level, column, row) {
    const url = this.element.dataset.tiles.replace("{z}", level).replace("{x}", column).replace("{y}", row);
    let tile = this.tiles.get(url);
    if (!tile) {
      tile = new Image();
      tile.referrerPolicy = "origin"; // some servers want to know who asks
      tile.addEventListener("load", () => this.draw());
      tile.src = url;
    }
    this.tiles.delete(url); // so that the oldest are first
    this.tiles.set(url, tile);
    if (this.tiles.size > MOST_TILES) this.tiles.delete(this.tiles.keys().next().value);
    return tile;
  }

  // What is seen, by the cells of a grid that lies still on the earth.
  gather() {
    const { xs, ys, parts, colours, radius } = this.shown;
    const { size, left, top, width, height } = this;
    const cells = (TILE * 2 ** Math.round(this.zoom)) / CELL;
    const margin = CELL / size;
    const [right, bottom] = [left + width / size + margin, top + height / size + margin];
    const found = new Map();
    for (let turn = Math.floor(left - margin); turn <= Math.floor(right); turn++) {
      for (let number = 0; number < xs.length; number++) {
        const [x, y] = [xs[number] + turn, ys[number]];
        if (x < left - margin || x > right || y < top - margin || y > bottom) continue;
        const key = Math.floor(x * cells) * 0x4000000 + Math.floor(y * cells);
        let one = found.get(key);
        if (!one) found.set(key, (one = { px: 0, py: 0, sums: new Float64Array(colours.length), numbers: [] }));
        one.px += (x - left) * size;
        one.py += (y - top) * size;
        for (let part = 0; part < colours.length; part++) one.sums[part] += parts[number * colours.length + part];
        one.numbers.push(number);
      }
    }
    const place = (one) => {
      one.radius = radius(one.sums, one.numbers.length);
      [one.x, one.y] = [one.px / one.numbers.length, one.py / one.numbers.length];
    };
    this.clusters = [];
    for (const one of [...found.values()].sort((a, b) => b.numbers.length - a.numbers.length)) {
      place(one);
      const other = this.clusters.find((big) => Math.hypot(big.x - one.x, big.y - one.y) < (big.radius + one.radius) * 0.8);
      if (!other) {
        this.clusters.push(one);
        continue;
      }
      one.sums.forEach((sum, part) => (other.sums[part] += sum));
      other.numbers = other.numbers.concat(one.numbers);
      [other.px, other.py] = [other.px + one.px, other.py + one.py];
      place(other);
    }
  }

  paintAreas() {
    const { side, xs, ys } = this.shown;
    const width = (side / 360) * this.size;
    if (width < 24) return;
    this.context.strokeStyle = this.colour("--good");
    this.context.lineWidth = 1;
    for (const { numbers } of this.clusters) {
      for (const number of numbers) {
        const latitude = (Math.atan(Math.sinh(Math.PI * (1 - 2 * ys[number]))) * 180) / Math.PI;
        const [north, south] = [down(latitude + side / 2), down(latitude - side / 2)];
        const x = xs[number] + Math.round(this.x - xs[number]);
        this.context.strokeRect((x - this.left) * this.size - width / 2, (north - this.top) * this.size, width, (south - north) * this.size);
      }
    }
  }
}

// Begins the maps of the page, and lets them follow ----------------------------------------------

const maps = new WeakMap();

async function beginMaps() {
  for (const element of document.querySelectorAll(".map[hidden]")) {
    element.hidden = false;
    try {
      const shown = element.dataset.areas ? areasOf(element) : await chargersOf(element);
      if (shown.xs.length) maps.set(element, new MapOfOurs(element, shown));
      else if (shown.hint) element.replaceChildren("No charger has a position, so there is no map.");
      else element.remove();
    } catch {
      element.remove(); // the table has the same
    }
  }
}

let following = false;
let missed = false; // something has changed meanwhile

async function followStates() {
  const map = maps.get(document.querySelector(".map"));
  if (!map?.shown.next || document.hidden) return;
  missed = following;
  if (following) return;
  following = true;
  const began = performance.now();
  map.shown = await map.shown.next().catch(() => map.shown); // the next change asks again
  map.draw();
  setTimeout(() => {
    following = false;
    if (missed) followStates();
  }, Math.min((performance.now() - began) * PART_OF_TIME, LONGEST_MS));
}

document.addEventListener("DOMContentLoaded", beginMaps);
document.addEventListener("htmx:afterSettle", beginMaps);
document.addEventListener("sse:changed", followStates);
