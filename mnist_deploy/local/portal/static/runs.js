// Experiments and runs: the list, and one run with its lineage, metrics, log and files.

import { drawCurve, short } from "./curves.js";
import {
  brokenCard, bytes, duration, errorCard, facts, h, href, joined, labels, modelLink, nothing, plain,
  state, table, time, userLink,
} from "./nodes.js";

const MAX_LOG = 1 << 20; // characters of a log in the document
const MAX_COMMAND = 120; // characters of a command in the lineage
const MAX_LISTED_METRICS = 6; // in a row of the list

let search = { text: "", before: [null] }; // `before`: where each page up to the shown one begins
let list = null; // the latest answer of /api/runs
let shown = null; // the latest answer of /api/run, or {id, problem}

// Requests

export async function pollRuns(send) {
  const requested = search;
  const before = requested.before.at(-1);
  const query = { text: requested.text, ...(before === null ? {} : { before }) };
  const answer = JSON.parse(await send("/api/runs", { query }));
  if (requested === search) list = answer;
}

/** Search for runs with a text in their names; return whether the text has changed. */
export function filterRuns(text) {
  if (text === search.text) return false;
  search = { text, before: [null] };
  return true;
}

export function turnPage(direction) {
  const { text, before } = search;
  const pages = direction === "older" ? [...before, list.runs.at(-1).position] : [null];
  search = { text, before: pages };
}

export async function pollRun(send, id) {
  try {
    shown = JSON.parse(await send("/api/run", { query: { id } }));
  } catch (error) {
    if (error.status !== 404) throw error;
    shown = { id, problem: error.message };
  }
}

/** Append the lines that the log of the shown run has received since the last request. */
export async function pollRunLog(send, id) {
  const pre = document.getElementById("run-log");
  if (pre?.dataset.key !== id || pre.isComplete) return;
  const wasTerminal = shown?.is_terminal;
  const start = pre.logEnd ?? 0;
  const query = { id, start };
  const { text, start: begin, end } = JSON.parse(await send("/api/run-log", { query }));
  if (!pre.isConnected || (pre.logEnd ?? 0) !== start) return;
  const isCut = begin !== start;
  if (isCut) pre.replaceChildren();
  appendToLog(pre, overwritten(plain(text)), isCut);
  pre.logEnd = end;
  pre.isComplete = wasTerminal && end === start;
}

function appendToLog(pre, text, isCut) {
  if (text) pre.append(text);
  const all = pre.textContent;
  const isLong = all.length > MAX_LOG;
  if (isLong) pre.textContent = all.slice(all.indexOf("\n", all.length - MAX_LOG / 2) + 1);
  pre.isCut ||= isCut || isLong;
  document.getElementById("run-log-cut").hidden = !pre.isCut;
  if (text && document.getElementById("follow")?.checked) pre.scrollTop = pre.scrollHeight;
}

/** Lines as a terminal shows them: a progress bar returns to the beginning of its line. */
const overwritten = (text) => text.split("\n").map(lastWritten).join("\n");

function lastWritten(line) {
  let end = line.length;
  while (line[end - 1] === "\r") end -= 1;
  return line.slice(line.lastIndexOf("\r", end - 1) + 1, end);
}

/** Whether the shown run, or a run of the shown list, is active. */
export const isActive = (id) =>
  id ? shown?.is_terminal === false : list?.runs.some((run) => run.is_terminal === false);

// The list

export function showRuns(count) {
  const heading = h("h1", { tabindex: "-1" }, "Runs");
  if (!count) {
    return [heading, nothing("Nothing has run",
      "Runs of SDK v1, command jobs of SDK v2 and runs of MLflow appear here.")];
  }
  if (!list) return [heading, h("p.quiet", {}, "Reading the runs …")];
  const experiments = [...new Set(list.runs.map(({ experiment }) => experiment))];
  return [
    heading,
    h("p.filter", { "data-kept": true, "data-key": "run-filter" },
      h("label", { for: "run-filter" }, "Experiment, name or status "),
      h("input#run-filter", { type: "search", autocomplete: "off", maxlength: "200", value: search.text })),
    experiments.length ? null : nothing("Nothing was found", "No run has this text in its names."),
    experiments.map(experimentCard),
    pageButtons(count),
  ];
}

function experimentCard(experiment) {
  const runs = list.runs.filter((run) => run.experiment === experiment);
  const columns = ["Run", "Status", "Started", "Duration", "Last metrics", "Models"];
  const [broken, readable] = [runs.filter((run) => run.broken), runs.filter((run) => !run.broken)];
  return h("section.card", { "data-key": experiment },
    h("h2", {}, experiment),
    readable.length ? table(`Runs of ${experiment}`, columns, readable.map(runRow)) : null,
    broken.map(({ id, broken: reason }) => brokenCard({ name: id, broken: reason })));
}

const runRow = (run) => [
  [runLink(run), run.name && run.name !== run.id ? h("span.second", {}, run.id) : null],
  state(run.status),
  run.started ? time(run.started) : "–",
  h("span.numbers", {}, duration(secondsOf(run))),
  listedMetrics(run.metrics),
  run.models.length ? joined(run.models.map(modelLink), ", ") : "–",
];

const runLink = ({ id, name }) => h("a", { href: href("runs", id) }, name || id);

function listedMetrics(metrics) {
  const all = Object.entries(metrics).map(([name, value]) => `${name} ${short(value, 4)}`);
  if (!all.length) return "–";
  const more = all.length - MAX_LISTED_METRICS;
  return `${all.slice(0, MAX_LISTED_METRICS).join(", ")}${more > 0 ? `, and ${more} more` : ""}`;
}

function secondsOf({ started, ended }) {
  return started ? ((ended ? new Date(ended) : new Date()) - new Date(started)) / 1000 : NaN;
}

function pageButtons(count) {
  const page = search.before.length;
  if (page === 1 && !list.has_more) return null;
  return h("p.buttons", {},
    page > 1 ? h("button", { type: "button", "data-run-page": "newest" }, "Newest runs") : null,
    list.has_more ? h("button", { type: "button", "data-run-page": "older" }, "Older runs") : null,
    h("span.quiet", {}, `Page ${page}${search.text ? "" : `; ${count.toLocaleString("en")} runs in all`}`));
}

// One run

export function showRun(id) {
  const back = h("p.back", {}, h("a", { href: "#/runs" }, "← Runs"));
  const run = shown?.id === id ? shown : null;
  if (!run) return [back, h("h1", { tabindex: "-1" }, id), h("p.quiet", {}, "Reading the run …")];
  if (run.problem) return [back, h("h1", { tabindex: "-1" }, id), nothing("There is no such run", run.problem)];
  return [
    back,
    h("div.title", {}, h("h1", { tabindex: "-1" }, run.name || run.id), state(run.status)),
    h("p.quiet", {}, joined([run.kind, `experiment ${run.experiment}`, `number ${run.number}`,
                             ...(run.started ? [duration(secondsOf(run))] : [])], " · ")),
    run.error ? failure(run.error) : null,
    run.warnings.map((text) => h("p.note", {}, text)),
    lineage(run),
    metrics(run),
    run.has_log ? logCard(run) : null,
    files(run),
    children(run),
    details(run),
  ];
}

/** The reason that a run reports; the last line of a traceback is shown first. */
function failure(error) {
  const lines = error.trimEnd().split("\n");
  const order = lines.length > 1 ? [lines.at(-1), ...lines] : lines;
  return errorCard("failure", "The run failed", order.join("\n"));
}

/** The inputs of the run, the run, the models registered from it, and the services that use them. */
function lineage(run) {
  const services = run.models.flatMap(({ id, used_by: users }) =>
    users.map((user) => [userLink(user), h("span.second", {}, `uses ${id}`)]));
  const stages = [
    ["Data", run.inputs.map(({ input, kind, name }) =>
      [kind === "model" ? modelLink(name) : name, h("span.second", {}, input ? `${kind}, input ${input}` : kind)])],
    ["Run", [[run.id, h("span.second", {}, beginning(run.command))]]],
    ["Models", [
      ...run.models.map(({ id, created }) => [modelLink(id), h("span.second", {}, "registered ", time(created))]),
      ...run.logged_models.map((name) => [name, h("span.second", {}, "logged by MLflow, a folder of the run")]),
    ]],
    ["Services", services],
  ];
  return h("section.card", { "aria-labelledby": "lineage" },
    h("h2#lineage", {}, "Lineage"),
    h("ol.lineage", {}, stages.map(([title, items]) =>
      h("li", {}, h("h3", {}, title),
        items.length
          ? h("ul", {}, items.map((item) => h("li", {}, item)))
          : h("p.quiet", {}, "none")))));
}

const beginning = (text) => (text.length > MAX_COMMAND ? `${text.slice(0, MAX_COMMAND)} …` : text);

function metrics(run) {
  const title = h("h2#metrics", {}, "Metrics");
  if (!run.metrics.length) {
    return h("section.card", {}, title, h("p.quiet", {}, "Nothing was logged."));
  }
  const series = run.metrics.filter(({ kind }) => kind === "series");
  const others = run.metrics.filter(({ kind }) => kind !== "series");
  const left = run.metric_count - run.metrics.length;
  return h("section.card", { "aria-labelledby": "metrics" },
    title,
    h("ul.series", { "aria-label": "Numbers" }, series.map(seriesItem)),
    others.map((metric) => otherMetric(run, metric)),
    left ? h("p.hint", {}, `${left} more metrics are not shown here; get_metrics() has them.`) : null);
}

/** A number, or a curve of numbers with its description. */
function seriesItem({ name, count, last, least, greatest, skipped, axis, points }) {
  const value = h("b", { title: String(last) }, short(last, 4));
  if (points.length < 2) return h("li", { "data-key": name }, h("span.metric", {}, name), value);
  const range = `${short(least, 3)} to ${short(greatest, 3)}`;
  const odd = skipped ? `, ${skipped} not finite` : "";
  const from = `${axis} ${short(points[0][0], 6)} to ${short(points.at(-1)[0], 6)}`;
  const label = `${name}: ${count} values${odd}, ${axis === "step" ? `${from}, ` : ""}from ${
    short(points[0][1], 4)} to ${short(last, 4)}, lowest ${short(least, 4)}, highest ${short(greatest, 4)}`;
  return h("li", { "data-key": name },
    h("span.metric", {}, name), value,
    drawCurve(label, points, [points[0][0], points.at(-1)[0]], [least, greatest]),
    h("span.second", {}, `${range}, ${count.toLocaleString("en")} values${odd}${axis === "step" ? `, ${from}` : ""}`));
}

function otherMetric(run, { name, count, kind, texts, file, columns, rows }) {
  if (kind === "texts") return facts([[name, texts.join(", ")]]);
  if (kind === "file") return facts([[name, [`${file} `, downloadButton(run, file, "Download", `Download ${file}`)]]]);
  const more = count - rows.length;
  return h("div.rows", { "data-key": name },
    h("h3", {}, name),
    table(name, columns, rows),
    more > 0 ? h("p.hint", {}, `${more} more rows are not shown here; get_metrics() has them.`) : null);
}

function logCard(run) {
  const pre = document.getElementById("run-log");
  const isCut = pre?.dataset.key === run.id && pre.isCut;
  return h("section.card", {},
    h("div.toolbar", {}, h("h2", {}, "Log"),
      h("label", {}, h("input#follow", { type: "checkbox", checked: true }), " Follow new lines")),
    h("p.hint#run-log-cut", { hidden: !isCut },
      "Earlier lines are not shown here; the file user_logs/std_log.txt has them."),
    h("pre#run-log", { role: "log", "aria-label": `Log of ${run.name || run.id}`, tabindex: "0",
                       "data-empty": run.is_terminal ? "Nothing was printed." : "Nothing was printed yet.",
                       "data-kept": true, "data-key": run.id }));
}

const downloadButton = (run, name, title, label) =>
  h("button.small", { type: "button", "data-run": run.id, "data-run-file": name, "aria-label": label }, title);

function files(run) {
  const title = h("h2", {}, "Files");
  if (!run.file_count) return h("section.card", {}, title, h("p.quiet", {}, "The run has no files yet."));
  const rows = run.files.map(({ name, size }) =>
    [name, size === null ? "missing" : bytes(size), downloadButton(run, name, "Download", `Download ${name}`)]);
  const left = run.file_count - run.files.length;
  return h("section.card", {},
    h("div.toolbar", {}, title,
      downloadButton(run, "", "Download all", `Download all ${run.file_count} files as an archive`)),
    table("Files of the run", ["File", "Size", "Download"], rows),
    left ? h("p.hint", {}, `${left} more files are not shown here; the archive has them.`) : null);
}

function children(run) {
  if (!run.child_count) return null;
  const rows = run.children.map((child) => [runLink(child), state(child.status)]);
  const left = run.child_count - rows.length;
  return h("section.card", {},
    h("h2", {}, "Child runs"),
    table("Child runs", ["Run", "Status"], rows),
    left ? h("p.hint", {}, `${left} more child runs are not shown here.`) : null);
}

const details = (run) =>
  h("section.card", {},
    h("h2", {}, "Details"),
    facts([
      ["Id", run.id],
      ["Created", time(run.created)],
      ["Started", run.started ? time(run.started) : null],
      ["Ended", run.ended ? time(run.ended) : null],
      ["Duration", run.started ? duration(secondsOf(run)) : null],
      ["Parent run", run.parent ? h("a", { href: href("runs", run.parent) }, run.parent) : null],
      ["Compute target", run.target],
      ["Command", run.command ? h("code", {}, run.command) : null],
      ["Description", run.description],
      ["Parameters", labels(run.parameters)],
      ["Tags", labels(run.tags)],
      ["Properties", labels(run.properties)],
    ]));
