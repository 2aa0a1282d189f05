// Nodes of the document, and texts in them. Data of users (names, tags, logs, responses) is set as
// text, never as HTML.

/** h("a.quiet#here", {href: "#"}, "text", node, [more], null): an element with attributes. */
export function h(kind, attributes = {}, ...children) {
  const [tag] = kind.split(/[.#]/, 1);
  const element = document.createElement(tag);
  for (const [, sign, word] of kind.matchAll(/([.#])([\w-]+)/g)) {
    if (sign === "#") element.id = word;
    else element.classList.add(word);
  }
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  const shown = children.flat(3).filter((child) => child != null && child !== false);
  element.append(...shown.map((child) => (typeof child === "string" ? visible(child) : child)));
  return element;
}

/** Text in which characters that change the direction or the order of others are spelled out. */
export const visible = (text) =>
  text.replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (each) =>
    `\u27e8U+${each.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`);

/** A log without the escape sequences of terminals (colours, cursor, titles). */
export const plain = (text) =>
  // eslint-disable-next-line no-control-regex
  visible(text.replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])/g, ""));

/** Change `old` to equal `fresh`, only where they differ: focus, selection and scroll are kept. */
export function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeName !== fresh.nodeName || old.dataset?.key !== fresh.dataset?.key) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) old.setAttribute(name, value);
  if (fresh.hasAttribute("data-kept")) return; // another component updates its content
  const [present, wanted] = [[...old.childNodes], [...fresh.childNodes]];
  wanted.forEach((child, i) => (i < present.length ? morph(present[i], child) : old.append(child)));
  present.slice(wanted.length).forEach((child) => child.remove());
}

export const joined = (nodes, between) =>
  nodes.flatMap((node, i) => (i ? [between, node] : [node]));

export function time(iso) {
  const when = new Date(iso);
  if (Number.isNaN(when.getTime())) return String(iso);
  const words = when.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  return h("time", { datetime: iso }, words);
}

export function bytes(count) {
  const units = [count === 1 ? "byte" : "bytes", "kB", "MB", "GB"];
  let power = 0;
  while (count >= 1000 && power < units.length - 1) [count, power] = [count / 1000, power + 1];
  return `${power && count < 10 ? count.toFixed(1) : Math.round(count)} ${units[power]}`;
}

export const milliseconds = (seconds) =>
  seconds == null ? "–" : `${(1000 * seconds).toLocaleString("en", { maximumSignificantDigits: 2 })} ms`;

export const state = (name) =>
  h("span.state", { "data-state": name }, h("span.dot", { "aria-hidden": "true" }), name);

export const copyButton = (text, what) =>
  h("button.small", { type: "button", "data-copy": text, "aria-label": `Copy ${what}` }, "Copy");

/** A list of names and values, without empty values. */
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value != null && value !== "" && value?.length !== 0);
  return h("dl.facts", {}, shown.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

export const labels = (record) =>
  Object.entries(record ?? {}).map(([name, value]) =>
    h("span.tag", {}, h("span.tag-name", {}, name), h("span", {}, String(value))),
  );

/** A table whose rows become cards on narrow screens. */
export function table(caption, columns, rows) {
  const head = columns.map((column) => h("th", { scope: "col" }, column));
  const cells = (row) =>
    row.map((cell, i) =>
      i === 0
        ? h("th", { scope: "row" }, cell)
        : h("td", { "data-label": columns[i] }, h("span", {}, cell)),
    );
  return h(
    "table",
    {},
    h("caption.visually-hidden", {}, caption),
    h("thead", {}, h("tr", {}, head)),
    h("tbody", {}, rows.map((row) => h("tr", {}, cells(row)))),
  );
}

export const nothing = (title, ...text) => h("section.card.empty", {}, h("h2", {}, title), h("p", {}, text));

export const href = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

/** A length of time in hours, minutes or seconds. */
export function duration(seconds) {
  if (!(seconds >= 0)) return "–";
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60
    ? `${minutes} min ${Math.floor(seconds % 60)} s`
    : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** The first line of an error, and the others below it. */
export function errorCard(key, title, error) {
  const [first, ...rest] = error.split("\n");
  return h("section.card.failure", { role: "alert", "data-key": key },
    h("h2", {}, title),
    h("p", {}, first),
    rest.length ? h("pre", { tabindex: "0" }, rest.join("\n")) : null);
}

/** A record that the control plane cannot list, with the reason. */
export const brokenCard = ({ name, broken }) =>
  h("section.card.failure", { "data-key": `broken/${name}` },
    h("h2", {}, name), h("p", {}, `This record cannot be listed: ${broken}`));

export const modelLink = (id) => h("a", { href: href("models", id.split(":")[0]) }, id);

/** A link to a service or an endpoint; batch endpoints have no view. */
export const userLink = ({ kind, name }) =>
  kind === "batch" ? `${name} (batch endpoint)` : h("a", { href: href("services", kind, name) }, name);
