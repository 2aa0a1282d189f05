// The extension of the tutorial for the page of a local workspace: a pad to draw a digit on, and test
// digits to click. The page calls `suits` and `modes`; the page has no code for digits.

const SIDE = 28; // pixels of an image
const BOX = 20; // pixels that the longer side of a digit takes
const CENTRE = 14; // pixels from the edge to the centre of mass
// A stroke as MNIST's test digits have it on average: three pixels of ink, soft over 1.25 pixels.
const PEN = 2.9;
const EDGE = 1.25;
const STEP = 0.01; // of the pad's width, between two points of a stroke
const STRIP = 30; // digits shown at once, as in the tutorial

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("pad.css", import.meta.url).href;
document.head.append(style);

export function suits(service) {
  const models = service.deployments.flatMap((deployment) => deployment.models);
  return [service.name, ...models].some((name) => /mnist|digit/i.test(name));
}

export const modes = [
  { id: "draw", title: "Draw a digit", mount: mountPad },
  { id: "digits", title: "Test digits", mount: mountStrip },
];

// From strokes to an image

/** Smooth a stroke by cutting its corners twice (Chaikin), because pointer positions jitter. */
export function smooth(stroke) {
  for (let pass = 0; pass < 2; pass += 1) {
    const cut = stroke.slice(1).flatMap(([x, y], i) => {
      const [a, b] = stroke[i];
      return [[0.75 * a + 0.25 * x, 0.75 * b + 0.25 * y], [0.25 * a + 0.75 * x, 0.25 * b + 0.75 * y]];
    });
    stroke = [stroke[0], ...cut, stroke.at(-1)];
  }
  return stroke;
}

/** Turn strokes on the pad (points in [0, 1]) into 784 intensities in [0, 1], prepared as MNIST's
 *  were: the digit fits a box of 20 x 20, its centre of mass is the middle of 28 x 28. */
export function prepare(strokes) {
  if (!strokes.length) return null;
  const lines = strokes.map(smooth);
  const [xs, ys] = [0, 1].map((axis) => lines.flat().map((point) => point[axis]));
  const [left, right, top, bottom] = [
    Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys),
  ];
  // Strokes smaller than an eighth of the pad are not enlarged further, so that a dot remains a dot.
  const scale = (BOX - PEN - EDGE / 2) / Math.max(right - left, bottom - top, 1 / 8);
  const place = (dx, dy) =>
    lines.map((stroke) =>
      stroke.map(([x, y]) => [
        (x - (left + right) / 2) * scale + dx,
        (y - (top + bottom) / 2) * scale + dy,
      ]),
    );
  const [x, y] = centreOfMass(ink(place(CENTRE, CENTRE)));
  return ink(place(2 * CENTRE - x, 2 * CENTRE - y));
}

/** The intensity of each pixel: full in the middle of a stroke, lower towards its edge. */
function ink(lines) {
  const pixels = new Array(SIDE * SIDE).fill(0);
  const reach = (PEN + EDGE) / 2;
  const near = (p, q) => {
    const first = Math.max(0, Math.ceil(Math.min(p, q) - reach));
    const last = Math.min(SIDE - 1, Math.floor(Math.max(p, q) + reach));
    return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
  };
  for (const line of lines) {
    line.forEach((end, k) => {
      const start = line[Math.max(0, k - 1)];
      for (const y of near(start[1], end[1])) {
        for (const x of near(start[0], end[0])) {
          const value = (PEN / 2 - distance(x, y, start, end)) / EDGE + 0.5;
          pixels[y * SIDE + x] = Math.max(pixels[y * SIDE + x], Math.min(1, value));
        }
      }
    });
  }
  return pixels;
}

/** The distance of a point from the line between two others. */
function distance(x, y, [x1, y1], [x2, y2]) {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const length = dx * dx + dy * dy;
  const along = length && Math.min(1, Math.max(0, ((x - x1) * dx + (y - y1) * dy) / length));
  return Math.hypot(x - x1 - along * dx, y - y1 - along * dy);
}

function centreOfMass(pixels) {
  const mass = pixels.reduce((sum, value) => sum + value, 0);
  return [(i) => i % SIDE, (i) => Math.floor(i / SIDE)].map(
    (position) => pixels.reduce((sum, value, i) => sum + value * position(i), 0) / mass,
  );
}

// Requests to the service, and its answers

/** The tutorial's JSON; three decimals distinguish 256 grey levels. */
function requestOf(images) {
  const rows = images.map((image) => image.map((value) => Math.round(value * 1000) / 1000));
  return JSON.stringify({ data: rows });
}

/** Find a label, and ten scores if present, for each of `count` images in a response of any form. */
export function readAnswer(text, count) {
  let answer = JSON.parse(text);
  if (typeof answer === "string") answer = JSON.parse(answer); // scripts of 2019 encode twice
  const isList = (value) => Array.isArray(value) && value.length === count;
  const lists = [answer, ...Object.values(answer ?? {})].filter(isList);
  const scores = lists.find((list) => list.every((row) => row?.length === 10 && row.every(isNumber)));
  const labels = lists.find((list) => list.every((label) => isNumber(label) || isText(label)));
  if (!labels && !scores) throw new Error("no label for each image");
  return { labels: labels ?? scores.map((row) => row.indexOf(Math.max(...row))), scores };
}

const isNumber = (value) => typeof value === "number";
const isText = (value) => typeof value === "string";

/** Score images; null if the service returned an error, which the page shows. */
async function score(page, images) {
  const answer = await page.score(requestOf(images));
  if (!answer || answer.status !== 200) return null;
  try {
    return readAnswer(answer.body, images.length);
  } catch {
    page.note("This answer holds no label for each image: is it a service for digits?");
    return null;
  }
}

// Rendering

function element(tag, properties = {}, ...children) {
  const { aria = {}, ...others } = properties;
  const made = Object.assign(document.createElement(tag), others);
  for (const [name, value] of Object.entries(aria)) made.setAttribute(`aria-${name}`, value);
  made.append(...children);
  return made;
}

const button = (text, onclick) => element("button", { type: "button", onclick }, text);

/** Paint 784 intensities, dark on light or inverted. */
function paint(canvas, image, inverted = false) {
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(SIDE, SIDE);
  image.forEach((value, i) => {
    const grey = Math.round(255 * (inverted ? value : 1 - value));
    pixels.data.set([grey, grey, grey, 255], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
}

const blank = () => new Array(SIDE * SIDE).fill(0);
const imageCanvas = (properties) =>
  element("canvas", { width: SIDE, height: SIDE, className: "image", ...properties });

/** The label in large type, and a bar for each digit if there are scores. */
function verdict() {
  const label = element("output", { className: "label" }, "–");
  const bars = element("dl", { className: "bars", hidden: true });
  const show = (text, scores) => {
    label.textContent = text;
    bars.hidden = !scores;
    if (!scores) return;
    const [low, high] = [Math.min(...scores), Math.max(...scores)];
    const areShares = low >= 0 && high <= 1;
    bars.replaceChildren(
      ...scores.flatMap((value, digit) => {
        const share = areShares ? value : (value - low) / (high - low || 1);
        const bar = element("span", { className: "bar" });
        bar.style.width = `${100 * share}%`;
        const words = areShares ? `${(100 * value).toFixed(1)} %` : value.toFixed(2);
        return [
          element("dt", {}, String(digit)),
          element("dd", { className: value === high ? "best" : "" },
            element("span", { className: "track" }, bar), element("span", {}, words)),
        ];
      }),
    );
  };
  return { root: element("div", { className: "verdict" }, label, bars), show };
}

// The pad

function mountPad(panel, page) {
  const strokes = [];
  let current = null; // the stroke that is being drawn
  let cursor = null; // position of the keyboard's pen: [column, row]
  let waiting = false; // for an answer

  const canvas = element("canvas", { className: "pad", tabIndex: 0, role: "application" });
  canvas.setAttribute("aria-label", "Drawing pad");
  canvas.setAttribute("aria-describedby", "pad-keys");
  const statusText = element("p", { className: "visually-hidden", role: "status" });
  const seen = imageCanvas({ role: "img", ariaLabel: "The image of 28 by 28 that is sent" });
  const result = verdict();
  const undo = button("Undo", () => { strokes.pop(); changed(); });
  const clear = button("Clear", () => { strokes.length = 0; changed(); });

  panel.replaceChildren(
    element("div", { className: "pad-row" },
      element("div", { className: "pad-side" }, canvas, element("div", { className: "buttons" }, undo, clear)),
      element("div", { className: "pad-result" },
        element("h3", {}, "Label"), result.root,
        element("h3", {}, "What is sent"), seen)),
    element("p", { id: "pad-keys", className: "hint" },
      "Draw with mouse, finger or pen. By keyboard: arrow keys move, Space puts the pen down or " +
      "lifts it, Z takes the last stroke back, Delete clears."),
    element("details", { className: "hint" },
      element("summary", {}, "How a drawing becomes an image like MNIST's"),
      element("p", {},
        "The corners of each stroke are cut twice, which smooths it. The digit is scaled so that its " +
        "longer side fills a box of 20 × 20 pixels and drawn with a pen as wide as MNIST's strokes " +
        "are on average (2.9 pixels); a pixel at the edge of a stroke gets as much grey as ink " +
        "reaches into it (anti-aliasing). It is then moved until its centre of mass is the middle " +
        "of 28 × 28. Intensities go from 0, paper, to 1, ink.")),
    statusText,
  );

  const size = new ResizeObserver(() => draw());
  size.observe(canvas);
  changed();

  function draw() {
    const width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    if (canvas.width !== width) canvas.width = canvas.height = width;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, width);
    const colours = getComputedStyle(canvas);
    context.strokeStyle = context.fillStyle = colours.color;
    Object.assign(context, { lineWidth: width / 11, lineCap: "round", lineJoin: "round" });
    for (const stroke of strokes.map(smooth)) {
      context.beginPath();
      stroke.forEach(([x, y]) => context.lineTo(x * width, y * width));
      context.stroke();
    }
    if (cursor && document.activeElement === canvas) {
      const cell = width / SIDE;
      context.strokeStyle = colours.outlineColor;
      context.lineWidth = Math.max(2, width / 140);
      context.strokeRect(cursor[0] * cell, cursor[1] * cell, cell, cell);
    }
  }

  /** Show and score the drawing; during a request, only the latest drawing is queued. */
  async function changed() {
    draw();
    const image = prepare(strokes);
    paint(seen, image ?? blank());
    undo.disabled = clear.disabled = !image;
    if (!image) result.show("–");
    if (!image || waiting) return;
    waiting = true;
    const requested = JSON.stringify(strokes);
    const answer = await score(page, [image]).finally(() => { waiting = false; });
    if (!strokes.length) return;
    result.show(answer ? answer.labels[0] : "–", answer?.scores?.[0]);
    if (answer && JSON.stringify(strokes) !== requested) changed();
  }

  function pointOf(event) {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    cursor = null;
    current = [pointOf(event)];
    strokes.push(current);
    changed();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!current || cursor) return;
    const [x, y] = pointOf(event);
    const [a, b] = current.at(-1);
    if (Math.hypot(x - a, y - b) < STEP) return;
    current.push([x, y]);
    changed();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => { if (!cursor) current = null; });
  }
  for (const event of ["focus", "blur"]) canvas.addEventListener(event, draw);

  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (!cursor) current = null;
    cursor ??= [SIDE / 2, SIDE / 2];
    const point = () => cursor.map((cell) => (cell + 0.5) / SIDE);
    if (event.key in moves) {
      cursor = cursor.map((cell, axis) => Math.min(SIDE - 1, Math.max(0, cell + moves[event.key][axis])));
      if (current) current.push(point());
    } else if (event.key === " ") {
      current = current ? null : [point()];
      if (current) strokes.push(current);
    } else if (event.key.toLowerCase() === "z" || event.key === "Backspace") {
      current = null;
      strokes.pop();
    } else if (event.key === "Delete") {
      current = null;
      strokes.length = 0;
    } else return;
    event.preventDefault();
    statusText.textContent = `pen ${current ? "down" : "up"}, column ${cursor[0] + 1}, row ${cursor[1] + 1}`;
    if (current || !(event.key in moves)) changed();
    else draw();
  });
  return () => size.disconnect();
}

// The strip of test digits

let digits = null; // {images, labels}, read once

/** The numbers of an IDX file that gzip has packed. */
async function readIdx(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  const unpacked = answer.body.pipeThrough(new DecompressionStream("gzip"));
  const bytes = await new Response(unpacked).arrayBuffer();
  return new Uint8Array(bytes, 4 + 4 * new DataView(bytes).getUint8(3));
}

async function readDigits() {
  const [pixels, labels] = await Promise.all(
    ["digits-images-idx3-ubyte.gz", "digits-labels-idx1-ubyte.gz"].map(readIdx),
  );
  const images = Array.from(labels, (_, i) =>
    Array.from(pixels.subarray(i * SIDE * SIDE, (i + 1) * SIDE * SIDE), (value) => value / 255),
  );
  return { images, labels };
}

async function mountStrip(panel, page) {
  digits ??= await readDigits();
  const { images, labels } = digits;
  const strip = element("ul", { className: "strip" });
  const summary = element("p", { className: "hint", role: "status" });
  const result = verdict();
  let cells = [];

  function choose() {
    const drawn = images.map((_, row) => [Math.random(), row]).sort().slice(0, STRIP);
    cells = drawn.map(([, row]) => {
      const canvas = imageCanvas({ ariaHidden: "true" });
      const caption = element("span", { className: "caption", ariaHidden: "true" }, "?");
      const cell = element("button", { type: "button", className: "digit" }, canvas, caption);
      cell.setAttribute("aria-label", `A ${labels[row]}, not scored yet`);
      cell.onclick = () => ask([cell]);
      return Object.assign(cell, { row, canvas, caption });
    });
    cells.forEach(({ canvas, row }) => paint(canvas, images[row]));
    strip.replaceChildren(...cells.map((cell) => element("li", {}, cell)));
    summary.textContent = "Click a digit to have it scored, or score them all in one request.";
    result.root.hidden = true;
  }

  async function ask(requested) {
    const answer = await score(page, requested.map(({ row }) => images[row]));
    if (!answer) return;
    requested.forEach((cell, i) => showLabel(cell, answer.labels[i]));
    result.root.hidden = requested.length > 1;
    if (requested.length === 1) result.show(answer.labels[0], answer.scores?.[0]);
    const scored = cells.filter(({ classList }) => classList.contains("scored"));
    const wrong = scored.filter(({ classList }) => classList.contains("wrong"));
    summary.textContent = `${scored.length} scored, ${wrong.length} wrong.`;
  }

  function showLabel(cell, label) {
    const truth = labels[cell.row];
    const isWrong = Number(label) !== truth;
    cell.classList.add("scored");
    cell.classList.toggle("wrong", isWrong);
    paint(cell.canvas, images[cell.row], isWrong);
    cell.caption.textContent = isWrong ? `${label} ≠ ${truth}` : label;
    cell.setAttribute("aria-label", `A ${truth}, taken for ${label}: ${isWrong ? "wrong" : "right"}`);
  }

  panel.replaceChildren(
    element("div", { className: "buttons" },
      Object.assign(button("Score all thirty", () => ask(cells)), { className: "primary" }),
      button("Another thirty", choose)),
    element("div", { className: "strip-row" }, strip), summary, result.root,
    element("p", { className: "hint" },
      `Drawn from ${images.length} of MNIST's 10,000 test digits. A wrong one is red and inverted; ` +
      "under it stands what it was taken for, and what it is."),
  );
  choose();
}
