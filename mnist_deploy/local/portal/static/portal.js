// The page of the local workspace. A view is a function that returns nodes for the latest state of
// the workspace; `morph` changes the document to match the view. Data of users (names, tags, logs,
// responses) is set as text, never as HTML.

import { drawCurve, short } from "./curves.js";
import {
  brokenCard, bytes, copyButton, errorCard, facts, h, href, joined, labels, milliseconds, modelLink,
  morph, nothing, plain, state, table, time, userLink,
} from "./nodes.js";
import {
  filterRuns, isActive, pollRun, pollRunLog, pollRuns, showRun, showRuns, turnPage,
} from "./runs.js";

const POLL = 3000; // milliseconds between two requests for the state
const POLL_BUSY = 1000; // ... while something is being deployed
const POLL_LOG = 1500;
const POLL_RUNS = 2000; // ... while a shown run is active
const POLL_ENDED_RUNS = 5000;
const TIMEOUT = 15_000; // ... of a request
const SCORING_TIMEOUT = 150_000;
const WAITING_SHOWN = 300; // milliseconds until a request is shown as waiting
const INLINE = 6000; // characters of a request's body that fit into its curl line

let token = sessionStorage.getItem("token");
let workspace = null; // the latest answer of /api/workspace
let lastText = ""; // the same as text, to detect changes
let modules = []; // extensions: ways to try a service
let filter = ""; // text that names must contain

const main = document.getElementById("main");
const notice = document.getElementById("notice");

// Requests to the control plane

class ErrorResponse extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function send(path, { query = {}, timeout = TIMEOUT, ...options } = {}) {
  const url = `${path}?${new URLSearchParams(query)}`;
  const headers = { ...(token && { Authorization: `Bearer ${token}` }), ...options.headers };
  const signal = AbortSignal.timeout(timeout);
  const answer = await fetch(url, { ...options, headers, signal });
  const text = await answer.text();
  if (answer.ok) return text;
  if (answer.status === 401 && path !== "/api/token") logOut();
  throw new ErrorResponse(answer.status, messageOf(text) ?? answer.statusText);
}

const post = (path, body) =>
  send(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
  });

function messageOf(text) {
  try {
    return JSON.parse(text).message;
  } catch {
    return undefined;
  }
}

// The current route: #/services, #/services/KIND/NAME/TAB, #/models, #/environments, #/runs,
// #/runs/ID

const TABS = [["", "Overview"], ["try", "Try it"], ["log", "Log"]];

function route() {
  const [place = "services", kind, name, tab = ""] = location.hash
    .replace(/^#\/?/, "")
    .split("/")
    .filter((part, i) => part || i > 0)
    .map(decoded);
  return { place, kind, name, tab };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // typed by hand
  }
}

/** A container whose content `morph` keeps while the same service is shown. */
const keptFor = ({ kind, name }) => ({ "data-kept": true, "data-key": `${kind}/${name}` });

const findService = ({ kind, name }) =>
  workspace.services.find((service) => service.kind === kind && service.name === name);

// Views

const KINDS = { service: "Web service · SDK v1", endpoint: "Online endpoint · SDK v2",
                local: "Local service · local=True or LocalWebservice" };

function showServices() {
  const { services } = workspace;
  if (!services.length) {
    return [
      h("h1", { tabindex: "-1" }, "Services"),
      nothing("Nothing is deployed", "A web service that is deployed to this workspace appears here."),
    ];
  }
  return [
    h("h1", { tabindex: "-1" }, "Services"),
    filterBox(services.length),
    h("div.cards", {}, matching(services).map(serviceCard)),
  ];
}

/** A field that filters a long list by name. */
const filterBox = (count) =>
  count > 6
    ? h("p.filter", { "data-kept": true, "data-key": "filter" },
        h("label", { for: "filter" }, "Filter by name "),
        h("input#filter", { type: "search", autocomplete: "off", value: filter }))
    : null;

const matching = (records) =>
  records.filter(({ name }) => name.toLowerCase().includes(filter.toLowerCase()));

function serviceCard(service) {
  if (service.broken) return brokenCard(service);
  const counts = service.deployments.map((deployment) => deployment.usage);
  const total = (field) => counts.reduce((sum, each) => sum + each[field], 0);
  const only = service.deployments.length === 1 ? counts[0] : {};
  const models = [...new Set(service.deployments.flatMap((deployment) => deployment.models))];
  return h(
    "article.card.service",
    { "data-key": `${service.kind}/${service.name}` },
    h("header", {},
      h("h2", {}, h("a", { href: href("services", service.kind, service.name) }, service.name)),
      state(service.state)),
    h("p.quiet", {}, joined([KINDS[service.kind], models.join(", ") || "no model"], " · ")),
    address(service),
    traffic(service),
    figures([
      ["requests", total("requests").toLocaleString("en")],
      ["errors", total("failed").toLocaleString("en"), total("failed") > 0],
      ...(service.deployments.length === 1
        ? [["p50", milliseconds(only.p50)], ["p95", milliseconds(only.p95)]]
        : []),
    ]),
    curves(service),
    h("p.actions", {},
      h("a.button", { href: href("services", service.kind, service.name, "try") }, "Try it",
        h("span.visually-hidden", {}, `: ${service.name}`)),
      h("a.button.plain", { href: href("services", service.kind, service.name, "log") }, "Log",
        h("span.visually-hidden", {}, ` of ${service.name}`))),
  );
}

const address = (service) =>
  h("p.address", {}, h("code", {}, service.uri), copyButton(service.uri, "the scoring address"));

// Curves of requests and latency, from the states that this tab has received

const SAMPLES = 100; // of each service
const CURVE_SECONDS = 300;
const samples = new Map(); // of "kind/name": [{at, requests, p50}]

function recordSamples({ services }) {
  const at = Date.now() / 1000;
  for (const { kind, name, usage } of services.filter(({ broken }) => !broken)) {
    const list = samples.get(`${kind}/${name}`) ?? [];
    list.push({ at, ...usage });
    samples.set(`${kind}/${name}`, list.slice(-SAMPLES));
  }
}

/** Requests per second and the median latency over the last minutes, as two small curves. */
function curves({ kind, name }) {
  const list = samples.get(`${kind}/${name}`) ?? [];
  const pairs = list.slice(1).map((each, i) => [list[i], each]);
  const rates = pairs.map(([before, { at, requests }]) =>
    [at, Math.max(0, (requests - before.requests) / (at - before.at))]);
  const latencies = list.filter(({ p50 }) => p50 != null).map(({ at, p50 }) => [at, 1000 * p50]);
  return h("div.curves", { "data-curves": `${kind}/${name}` },
    curve("requests/s", rates), curve("p50, ms", latencies));
}

function curve(title, points) {
  const now = Date.now() / 1000;
  const recent = points.filter(([at]) => at > now - CURVE_SECONDS);
  const most = Math.max(...recent.map(([, value]) => value), 0);
  const label = `${title} over the last five minutes, at most ${short(most)}`;
  return h("figure", {}, h("figcaption", {}, `${title} `, h("b", {}, most ? `up to ${short(most)}` : "–")),
    drawCurve(label, recent, [now - CURVE_SECONDS, now], [0, most]));
}

/** Draw the curves again after a poll in which the state of the workspace has not changed. */
function refreshCurves() {
  for (const old of main.querySelectorAll("[data-curves]")) {
    const service = workspace.services.find(({ kind, name }) => `${kind}/${name}` === old.dataset.curves);
    if (service) old.replaceWith(curves(service));
  }
}

const figures = (list) =>
  h("dl.figures", {},
    list.map(([name, value, isBad]) =>
      h("div", {}, h("dt", {}, name), h(isBad ? "dd.bad" : "dd", {}, value))));

/** The traffic share of each of several deployments as a bar. */
function traffic(service) {
  if (service.deployments.length < 2) return null;
  const shares = service.deployments.map(({ name, traffic: share, mirror }) => [name, share, mirror]);
  return h("div.traffic", {},
    h("div.traffic-bar", { "aria-hidden": "true" },
      shares.map(([, share], i) => h(`span.share.share-${i % 4}`, { "data-share": share }))),
    h("ul", { "aria-label": "Traffic" },
      shares.map(([name, share, mirror], i) =>
        h("li", {}, h(`span.swatch.share-${i % 4}`, { "aria-hidden": "true" }),
          `${name} ${share} %`, mirror ? ` + copy of ${mirror} %` : ""))));
}

function showService(at) {
  const service = findService(at);
  const back = h("p.back", {}, h("a", { href: "#/services" }, "← Services"));
  if (!service) {
    return [
      back,
      h("h1", { tabindex: "-1" }, at.name),
      nothing("This service is not deployed", "It was deleted, or the workspace was restarted."),
    ];
  }
  const tabs = TABS.map(([tab, title]) =>
    h("a", { href: href("services", at.kind, at.name, ...(tab ? [tab] : [])),
             "aria-current": at.tab === tab ? "page" : null }, title));
  const content = { try: showTry, log: showLog }[at.tab] ?? showOverview;
  if (service.broken) return [back, h("h1", { tabindex: "-1" }, service.name), brokenCard(service)];
  return [
    back,
    h("div.title", {}, h("h1", { tabindex: "-1" }, service.name), state(service.state)),
    h("p.quiet", {}, KINDS[service.kind]),
    h("nav.tabs", { "aria-label": `Parts of ${service.name}` }, tabs),
    service.deployments.map(failure),
    content(service),
  ];
}

function failure({ name, state: now, error }) {
  const title = `${name} ${now === "Failed" ? "failed to start" : "is not running"}`;
  return error ? errorCard(`failure/${name}`, title, error) : null;
}

const AUTHENTICATION = {
  none: "none: open to every program on this machine",
  key: "a key that get_keys() returns",
  token: "a token that expires, which get_token() returns",
};

function showOverview(service) {
  const columns = ["Deployment", "State", "Traffic", "Models", "Size", "Deployed", "Requests",
                   "Errors", "p50", "p95"];
  const rows = service.deployments.map((each) => [
    each.name,
    state(each.state),
    `${each.traffic} %${each.mirror ? ` + copy of ${each.mirror} %` : ""}`,
    each.models.length
      ? joined(each.models.map(modelLink), ", ")
      : "–",
    `${each.replicas > 1 ? `${each.replicas} × ` : ""}${each.cpu} CPU, ${each.memory} GB`,
    time(each.updated),
    each.usage.requests.toLocaleString("en"),
    h(each.usage.failed ? "span.bad" : "span", {}, each.usage.failed.toLocaleString("en")),
    milliseconds(each.usage.p50),
    milliseconds(each.usage.p95),
  ]);
  return [
    h("section.card", {},
      h("h2", {}, "Address"),
      address(service),
      curves(service),
      facts([
        ["Description of the API", h("a", { href: service.uri.replace(/score$/, "swagger.json"), target: "_blank", rel: "noopener noreferrer" }, "swagger.json")],
        ["Authentication", AUTHENTICATION[service.authentication]],
        ["Description", service.description],
        ["Tags", labels(service.tags)],
        ["Properties", labels(service.properties)],
        ["Created", time(service.created)],
      ])),
    h("section.card", {},
      h("h2", {}, "Deployments"),
      traffic(service),
      rows.length ? table("Deployments", columns, rows) : h("p", {}, "No deployment exists yet."),
      service.deployments.flatMap(({ name, notes }) =>
        notes.map((note) => h("p.note", {}, `${name}: ${note}`)))),
  ];
}

function showLog(service) {
  return h("section.card", {},
    h("div.toolbar", {}, h("h2", {}, "Log"), deploymentChoice(service, false),
      h("label", {}, h("input#follow", { type: "checkbox", checked: true }), " Follow new lines"),
      h("button.small", { type: "button", "data-whole-log": service.name }, "Download the whole log")),
    h("p.hint#log-cut", { hidden: true, ...keptFor(service) },
      "Earlier lines are not shown here; the download has them."),
    h("pre#log", { role: "log", "aria-label": `Log of ${service.name}`, tabindex: "0",
                   ...keptFor(service) }));
}

/** A selection of the deployment; with `byTraffic`, the traffic shares may choose. */
function deploymentChoice(service, byTraffic) {
  if (service.deployments.length < 2) return null;
  const names = service.deployments.map(({ name }) => h("option", { value: name }, name));
  return h("label", {}, "Deployment ",
    h("select#deployment", {}, byTraffic ? h("option", { value: "" }, "by traffic") : null, names));
}

function showModels({ kind: wanted }) {
  return showRegistered("Models", "model", workspace.models, wanted, ["tags", "properties"],
    "Models registered with Model.register or ml_client.models.create_or_update appear here.");
}

function showEnvironments({ kind: wanted }) {
  return showRegistered("Environments", "environment", workspace.environments, wanted,
    ["tags", "variables"],
    "Environments registered with Environment.register or ml_client.environments.create_or_update appear here.");
}

function showRegistered(title, kind, records, wanted, extras, advice) {
  const names = [...new Set(records.map(({ name }) => name))];
  const heading = h("h1", { tabindex: "-1" }, title);
  if (!names.length) return [heading, nothing("Nothing is registered", advice)];
  return [
    heading,
    filterBox(names.length),
    matching(names.map((name) => ({ name }))).map(({ name }) => {
      const versions = records.filter((record) => record.name === name);
      return h("section.card.registered",
        { "data-key": name, "data-wanted": name === wanted, id: `${kind}-${name}` },
        h("h2", {}, name),
        versions.map((record) => version(kind, record, extras)));
    }),
  ];
}

function version(kind, record, extras) {
  if (record.broken) return brokenCard(record);
  const users = record.used_by.map(userLink);
  return h("article.version", { "data-key": record.version },
    h("header", {},
      h("h3", {}, `Version ${record.version}`, record.archived ? " (archived)" : ""),
      h("button.small", { type: "button", "data-download": kind, "data-name": record.name,
                          "data-version": record.version,
                          "aria-label": `Download ${record.name}, version ${record.version}` },
        "Download")),
    facts([
      ["Registered", time(record.created)],
      ["Size", record.size == null ? null
        : `${bytes(record.size)}${record.files > 1 ? ` in ${record.files} files` : ""}`],
      ["Image", record.image],
      ["Description", record.description],
      ...extras.map((field) => [field[0].toUpperCase() + field.slice(1), labels(record[field])]),
      ["Run", record.run ? h("a", { href: href("runs", record.run) }, record.run) : null],
      ["Used by", users.length ? joined(users, ", ") : "no service"],
    ]),
    record.conda
      ? h("details", {}, h("summary", {}, "Conda file"), h("pre", { tabindex: "0" }, record.conda))
      : null);
}

function showLinkNeeded() {
  return [
    h("h1", { tabindex: "-1" }, "Local workspace"),
    h("section.card.empty", {},
      h("h2", {}, linkProblem),
      h("p", {}, "This page requires a link that works once, within a minute. This command creates a link:"),
      h("p.address", {}, h("code", {}, "python -m mnist_deploy.local portal"),
        copyButton("python -m mnist_deploy.local portal", "the command"))),
  ];
}

// Scoring: the modules of extensions, and JSON for every service

let trying = null; // {key, stop} of the mounted form

function showTry(service) {
  const modes = [...modules.flatMap((module) => module.modes), jsonMode];
  return [
    h("div.try", {},
      h("section.card", { "aria-labelledby": "try-title" },
        h("div.toolbar", {},
          h("h2", { id: "try-title" }, "Request"),
          deploymentChoice(service, true)),
        modes.length > 1
          ? h("fieldset.choice", {}, h("legend.visually-hidden", {}, "Input"),
              modes.map(({ id, title }) =>
                h("label", {}, h("input", { type: "radio", name: "mode", value: id }), title)))
          : null,
        h("div#try-panel", keptFor(service))),
      h("section.card", { "aria-labelledby": "answer-title" },
        h("h2", { id: "answer-title" }, "Answer"),
        h("div#answer", keptFor(service)),
        h("div#same-request", keptFor(service)))),
  ];
}

/** Mount the chosen form for requests to a service in its panel, once. */
function mountTry(service) {
  const modes = [...modules.flatMap((module) => module.modes), jsonMode];
  const suiting = modules.find((module) => module.suits(service))?.modes[0] ?? jsonMode;
  const radios = [...main.querySelectorAll("input[name=mode]")];
  let chosen = radios.find((radio) => radio.checked)?.value;
  if (!chosen || !trying?.key.startsWith(`${service.kind}/${service.name}/`)) chosen = suiting.id;
  radios.forEach((radio) => { radio.checked = radio.value === chosen; });
  const key = `${service.kind}/${service.name}/${chosen}`;
  if (trying?.key === key) return;
  unmountTry();
  const panel = document.getElementById("try-panel");
  panel.replaceChildren();
  document.getElementById("answer").replaceChildren(
    h("p.quiet", {}, "The answer of the service appears here."));
  document.getElementById("same-request").replaceChildren();
  const mode = modes.find(({ id }) => id === chosen);
  const page = { score: (body) => score(service, body), note: noteAnswer, service };
  trying = { key, stop: null };
  Promise.resolve(mode.mount(panel, page)).then(
    (stop) => { trying.stop = stop; },
    (error) => panel.replaceChildren(h("p.bad", {}, `The form could not be shown: ${error.message}`)),
  );
}

function unmountTry() {
  trying?.stop?.();
  trying = null;
}

const jsonMode = {
  id: "json",
  title: "JSON",
  async mount(panel, page) {
    const { kind, name } = page.service;
    const box = h("textarea#json", { rows: "12", spellcheck: "false", autocomplete: "off" });
    const button = h("button.primary", { type: "button" }, "Send");
    button.onclick = async () => {
      button.disabled = true;
      await page.score(box.value).finally(() => { button.disabled = false; });
    };
    box.onkeydown = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) button.click();
    };
    panel.append(
      h("label.above", { for: "json" }, "JSON body"),
      box,
      h("p.buttons", {}, button),
      h("p.hint", {}, "Ctrl-Enter sends it as well. The box is filled with the sample of the " +
        "service's swagger.json, if its script declares one."),
    );
    const { sample } = JSON.parse(await send("/api/sample", { query: { kind, name } }));
    if (!box.value) box.value = sample ?? '{"data": [[0, 0, 0, 0]]}';
  },
};

/** Send a body to a service through the portal's proxy; null if it could not be sent. */
async function score(service, body) {
  const deployment = document.getElementById("deployment")?.value ?? "";
  const { kind, name } = service;
  showRequest(service, body, deployment);
  const waiting = setTimeout(() => document.getElementById("answer")?.replaceChildren(
    h("p.waiting", { role: "status" }, "Waiting for the service …")), WAITING_SHOWN);
  let answer;
  try {
    const query = { kind, name, deployment };
    answer = JSON.parse(await send("/api/score", { method: "POST", body, query, timeout: SCORING_TIMEOUT }));
  } catch (error) {
    document.getElementById("answer")?.replaceChildren();
    noteAnswer(`The request could not be sent: ${error.message}`);
    return null;
  } finally {
    clearTimeout(waiting);
  }
  const text = pretty(answer.body);
  const isGood = answer.status < 400;
  document.getElementById("answer")?.replaceChildren(
    h("p", {}, h(isGood ? "span.status" : "span.status.bad", {}, `${answer.status} ${answer.reason}`),
      h("span.quiet", {}, ` in ${milliseconds(answer.seconds)}`)),
    h("pre", { tabindex: "0", "aria-label": "The service's answer", role: "region" }, text || "(nothing)"),
    answer.cut ? h("p.hint", {}, "The answer is longer; only its beginning is shown.") : "",
  );
  return answer;
}

function noteAnswer(text) {
  document.getElementById("answer")?.append(h("p.note", {}, text));
}

function pretty(text) {
  try {
    const value = JSON.parse(text);
    const short = JSON.stringify(value);
    return short.length < 400 ? short.replace(/,(?=\S)/g, ", ") : JSON.stringify(value, null, 1);
  } catch {
    return text;
  }
}

/** The same request as a curl command and as a Python program, without the key. */
function showRequest(service, body, deployment) {
  const place = document.getElementById("same-request");
  if (!place) return;
  if (!place.firstChild) {
    place.append(
      h("h3", {}, "The same request"),
      h("fieldset.choice", {}, h("legend.visually-hidden", {}, "Language"),
        ["curl", "Python"].map((language, i) =>
          h("label", {}, h("input", { type: "radio", name: "language", value: language, checked: i === 0 }),
            language))),
      h("pre#request", { tabindex: "0" }),
      h("p.buttons#request-buttons", {}),
      secretOf(service)
        ? h("p.hint", {}, `The ${service.authentication} is not shown: assign it to `,
            h("code", {}, secretOf(service)), ".")
        : "");
    place.onchange = () => place.notify();
  }
  place.notify = () => {
    const language = place.querySelector("input[name=language]:checked").value;
    const isShort = body.length <= INLINE;
    const code = (language === "curl" ? asCurl : asPython)(service, isShort ? body : null, deployment);
    place.querySelector("#request").textContent = code;
    place.querySelector("#request-buttons").replaceChildren(
      copyButton(code, `the request as ${language}`),
      ...(isShort ? [] : [h("button.small", { type: "button", "data-save": body }, "Save request.json")]));
  };
  place.notify();
}

const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The environment variable that holds the key or token of a service. */
const secretOf = ({ authentication }) => ({ key: "KEY", token: "TOKEN" })[authentication];

function headersOf(service, deployment) {
  const secret = secretOf(service);
  return [
    ["Content-Type", "application/json"],
    ...(secret ? [["Authorization", `Bearer $${secret}`]] : []),
    ...(deployment ? [["azureml-model-deployment", deployment]] : []),
  ];
}

function asCurl(service, body, deployment) {
  // Double quotes only for texts in which the shell must expand a variable.
  const quoted = (text) => (text.includes("$") ? `"${text}"` : shellQuoted(text));
  return [
    `curl ${shellQuoted(service.uri)}`,
    ...headersOf(service, deployment).map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`),
    `--data ${body === null ? "@request.json" : shellQuoted(body)}`,
  ].join(" \\\n  ");
}

function asPython(service, body, deployment) {
  const headers = headersOf(service, deployment).map(([name, value]) => {
    const text = value.startsWith("Bearer $")
      ? `f"Bearer {os.environ['${value.slice("Bearer $".length)}']}"`
      : JSON.stringify(value);
    return `    ${JSON.stringify(name)}: ${text},`;
  });
  const needsOs = secretOf(service);
  return [
    ...(needsOs ? ["import os", ""] : []),
    "import requests",
    "",
    body === null ? 'body = open("request.json", "rb").read()' : `body = ${JSON.stringify(body)}.encode()`,
    "headers = {",
    ...headers,
    "}",
    `answer = requests.post(${JSON.stringify(service.uri)}, data=body, headers=headers)`,
    "print(answer.status_code, answer.text)",
  ].join("\n");
}

// The log as it grows

/** Append new lines of a log; remove lines that the log has dropped at its beginning. */
function updateLog(pre, text) {
  const before = pre.textContent;
  if (text === before) return;
  const follows = document.getElementById("follow")?.checked;
  if (before && text.startsWith(before)) pre.append(text.slice(before.length));
  else pre.textContent = text;
  if (follows) pre.scrollTop = pre.scrollHeight;
}

async function pollLog() {
  const pre = document.getElementById("log");
  const service = pre && findService(route());
  const { kind, name } = service ?? {};
  const deployment = document.getElementById("deployment")?.value ?? service?.deployments[0]?.name;
  if (!deployment) return;
  const query = { kind, name, deployment };
  const { log, cut } = JSON.parse(await send("/api/log", { query }));
  if (!pre.isConnected) return;
  updateLog(pre, plain(log) || "Nothing was printed yet.");
  document.getElementById("log-cut").hidden = !cut;
}

// Rendering

const PLACES = [["services", "Services"], ["models", "Models"], ["environments", "Environments"],
                ["runs", "Runs"]];
let linkProblem = "This page needs a link";

function render() {
  const at = route();
  const isIn = token && workspace;
  let content;
  if (!token) content = showLinkNeeded();
  else if (!workspace) content = h("p.quiet", {}, "Reading the workspace …");
  else if (at.place === "models") content = showModels(at);
  else if (at.place === "environments") content = showEnvironments(at);
  else if (at.place === "runs") content = at.kind ? showRun(at.kind) : showRuns(workspace.run_count);
  else content = at.name ? showService(at) : showServices();
  morph(main, h("main#main", { tabindex: "-1" }, content));
  for (const bar of main.querySelectorAll("[data-share]")) bar.style.flexGrow = bar.dataset.share;

  const title = main.querySelector("h1")?.textContent;
  document.title = isIn && title ? `${title} · Local workspace` : "Local workspace";
  const places = h("nav#places", { "aria-label": "Workspace", hidden: !isIn },
    PLACES.map(([place, name]) =>
      h("a", { href: href(place), "aria-current": at.place === place ? "page" : null }, name,
        h("span.count", {}, String(count(place))))));
  morph(document.getElementById("places"), places);

  const service = isIn && at.tab === "try" && findService(at);
  if (service) mountTry(service);
  else unmountTry();
}

function count(place) {
  if (place === "runs") return workspace?.run_count ?? 0;
  return new Set(workspace?.[place].map(({ kind, name }) => `${kind}/${name}`)).size;
}

/** Show another route, and move the focus to its heading for screen readers. */
function go() {
  render();
  const at = route();
  const wanted = main.querySelector("[data-wanted]");
  if (wanted) wanted.scrollIntoView();
  else scrollTo(0, 0);
  main.querySelector("h1")?.focus({ preventScroll: true });
  if (at.tab === "log") update(pollLog);
  if (at.place === "runs") update(pollPlace);
}

// Polling, while the tab is visible

async function pollWorkspace() {
  const text = await send("/api/workspace");
  recordSamples(JSON.parse(text));
  if (text === lastText) return refreshCurves();
  workspace = JSON.parse(text);
  const imports = await Promise.allSettled(workspace.modules.map((url) => import(url)));
  modules = imports.filter(({ status }) => status === "fulfilled").map(({ value }) => value);
  render();
  lastText = text;
}

/** Request the list of runs, or the shown run and its log. */
async function pollPlace() {
  const { place, kind: id } = route();
  if (place !== "runs" || !workspace) return;
  if (id) await pollRun(send, id);
  else await pollRuns(send);
  render();
  if (id) await pollRunLog(send, id);
}

/** Request the state, and show the result of the request in the page header. */
async function update(poll) {
  const connection = document.getElementById("connection");
  try {
    await poll();
    connection.textContent = "";
  } catch (error) {
    if (!token) return;
    connection.textContent = error instanceof ErrorResponse
      ? error.message
      : "The local workspace does not answer: it has ended, or is very busy.";
  }
}

function every(interval, poll) {
  const next = async () => {
    if (token && !document.hidden) await update(poll);
    setTimeout(next, interval());
  };
  document.addEventListener("visibilitychange", () => {
    if (token && !document.hidden) update(poll);
  });
  return next();
}

const isBusy = () => workspace?.services.some(({ state: now }) => now === "Transitioning");

// Authentication and the end of a session

/** Exchange the link's code, which works once, for a token that this tab keeps. */
async function logIn() {
  const link = new URLSearchParams(location.hash.slice(1));
  const code = link.get("code");
  if (!code) return;
  history.replaceState(null, "", link.get("place") ?? "#/services");
  try {
    ({ token } = JSON.parse(await post("/api/token", { code })));
    sessionStorage.setItem("token", token);
  } catch (error) {
    if (token) return; // the tab is authenticated already
    linkProblem = error instanceof ErrorResponse ? error.message : "The local workspace does not answer";
  }
}

function logOut() {
  if (token) linkProblem = "The workspace that this page belongs to has ended";
  token = workspace = null;
  lastText = "";
  sessionStorage.removeItem("token");
  render();
}

function save(name, url) {
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

const actions = {
  async copy({ copy }) {
    await navigator.clipboard.writeText(copy);
    return "Copied.";
  },
  async download({ download: kind, name, version: wanted }) {
    const { url } = JSON.parse(await post("/api/download", { kind, name, version: wanted }));
    save("", url);
    return `Downloading ${name}, version ${wanted}.`;
  },
  async wholeLog() {
    const { kind, name } = route();
    const service = findService({ kind, name });
    const deployment = document.getElementById("deployment")?.value ?? service.deployments[0]?.name ?? "";
    const { url } = JSON.parse(await post("/api/log-download", { kind, name, deployment }));
    save("", url);
    return `Downloading the log of ${name}.`;
  },
  async runFile({ run: id, runFile: name }) {
    const { url } = JSON.parse(await post("/api/run-download", { id, name }));
    save("", url);
    return name ? `Downloading ${name}.` : `Downloading all files of ${id}.`;
  },
  async runPage({ runPage: direction }) {
    turnPage(direction);
    await pollPlace();
    main.querySelector("h1")?.focus();
    return "";
  },
  save({ save: body }) {
    const url = URL.createObjectURL(new Blob([body], { type: "application/json" }));
    save("request.json", url);
    setTimeout(() => URL.revokeObjectURL(url), 1000);
    return "Saved request.json.";
  },
};

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  const name = Object.keys(actions).find((action) => button && action in button.dataset);
  if (!name) return;
  try {
    notice.textContent = await actions[name](button.dataset);
  } catch (error) {
    notice.textContent = `The request failed: ${error.message}`;
  }
  setTimeout(() => { notice.textContent = ""; }, 4000);
});

/** Open a route of this page in a new tab, which gets a separate token. */
async function openTab(place) {
  const { code } = JSON.parse(await post("/api/code", {}));
  open(`/#${new URLSearchParams({ code, place })}`, "_blank", "noopener");
}

for (const kind of ["click", "auxclick"]) {
  document.addEventListener(kind, (event) => {
    const place = event.target.closest("a[href^='#/']")?.getAttribute("href");
    const inNewTab = event.ctrlKey || event.metaKey || event.shiftKey || event.button === 1;
    if (!place || !inNewTab || event.button === 2) return;
    event.preventDefault();
    openTab(place);
  });
}

main.addEventListener("input", ({ target }) => {
  if (target.id === "run-filter" && filterRuns(target.value)) update(pollPlace);
  if (target.id !== "filter") return;
  filter = target.value;
  render();
});

main.addEventListener("change", ({ target }) => {
  if (target.name === "mode") render();
  if (target.id === "deployment" || target.id === "follow") update(pollLog);
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

addEventListener("hashchange", async () => {
  await logIn();
  if (token && !workspace) await update(pollWorkspace);
  go();
});

await logIn();
render();
every(() => (isBusy() ? POLL_BUSY : POLL), pollWorkspace);
every(() => POLL_LOG, pollLog);
every(() => (isActive(route().kind) ? POLL_RUNS : POLL_ENDED_RUNS), pollPlace);
