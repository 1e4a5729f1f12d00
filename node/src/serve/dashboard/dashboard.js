// The node's own page. It reads /v1/events (the status, once a second) and /v1/latencies, and draws them. What isn't
// known is shown as "no data" and never as zero.
"use strict";

const LATENCIES_EVERY_MS = 2000;
// Data older than this is not called live any more, seconds.
const STALE_AFTER = 10;
const NO_DATA = "no data";
const QUANTILES = ["p50", "p90", "p99", "p99.9", "max"];
// Control and candidate of each pair that is compared, with its words and its look; its colour is the scheme's.
const ARMS = [
  { name: "in-process", dash: [] },
  { name: "sandboxed", dash: [8, 4] },
  { name: "shadow-control", dash: [2, 3] },
  { name: "shadow-candidate", dash: [8, 3, 2, 3] },
];
const PAIRS = [["in-process", "sandboxed"], ["shadow-control", "shadow-candidate"]];

// What guards add to the percentiles and to their ratios.
const [LIMIT, LOWER, UPPER] = ["limit", "bounds, from", "bounds, to"];

const element = (id) => document.getElementById(id);
const shown = (value, text = String) => (value === null || value === undefined ? NO_DATA : text(value));
const whole = (value) => value.toLocaleString("en");

function latency(ns) {
  if (ns >= 1e9) return `${(ns / 1e9).toPrecision(3)} s`;
  if (ns >= 1e6) return `${(ns / 1e6).toPrecision(3)} ms`;
  if (ns >= 1e3) return `${(ns / 1e3).toPrecision(3)} µs`;
  return `${ns} ns`;
}

function size(bytes) {
  if (bytes >= 2 ** 30) return `${(bytes / 2 ** 30).toFixed(2)} GiB`;
  if (bytes >= 2 ** 20) return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  return `${Math.ceil(bytes / 1024)} KiB`;
}

function age(seconds) {
  return seconds < 90 ? `${seconds.toFixed(0)} s ago` : `${(seconds / 60).toFixed(0)} min ago`;
}

// A table row of texts; what comes from the node is text and never markup.
function row(cells) {
  const tr = document.createElement("tr");
  cells.forEach((cell, index) => {
    const td = document.createElement(index === 0 ? "th" : "td");
    if (index === 0) td.scope = "row";
    const { text, className } = typeof cell === "string" ? { text: cell, className: "" } : cell;
    td.textContent = text;
    td.className = text === NO_DATA ? `${className} quiet` : className;
    tr.append(td);
  });
  return tr;
}

const number = (value, text = whole) => ({ text: shown(value, text), className: "number" });
const alarming = (value) => ({ text: shown(value, whole), className: value > 0 ? "number bad" : "number" });

// What is known, and when it came.
const known = { rollout: null, history: [], events: [], status: null, latencies: null, connected: false };
// When each answer came last.
const cameAt = { status: null, latencies: null, rollouts: null, divergences: null, audit: null };
const charts = { percentiles: null, ratios: null, looks: null };

function drawStatus() {
  const status = known.status;
  const phase = element("phase");
  phase.textContent = status.phase;
  phase.className = `badge ${status.ready ? "good" : "bad"}`;
  const facts = [
    ["Version", status.version],
    ["Rounds", shown(status.rounds, whole)],
    ["Messages in the log", shown(status.messages.in_log, whole)],
    ["Taken in by this process", shown(status.messages.acknowledged, whole)],
    ["Refused by it", shown(status.messages.refused, whole)],
    ["Input log", shown(status.input_log_bytes, size)],
    ["State root, equal on all nodes", shown(status.state_root, (root) => root.slice(0, 16))],
    ["Nodes", whole(status.nodes.length)],
  ];
  element("subnet").replaceChildren(...facts.map(([term, value]) => {
    const div = document.createElement("div");
    const dt = document.createElement("dt");
    const dd = document.createElement("dd");
    dt.textContent = term;
    dd.textContent = value;
    div.append(dt, dd);
    return div;
  }));
  element("nodes").tBodies[0].replaceChildren(...status.nodes.map(nodeRow));
  element("notes").replaceChildren(...notes(status).map((text) => {
    const li = document.createElement("li");
    li.textContent = text;
    return li;
  }));
  drawRollout(status.rollouts);
  drawSwitches(status.nodes);
  offer(element("scope"), ["all nodes", ...status.nodes.map((node) => node.node)]);
}

const seconds = (ms) => (ms < 90_000 ? `${Math.floor(ms / 1000)} s` : ms < 5_400_000 ? `${Math.floor(ms / 60_000)} min` : `${(ms / 3_600_000).toFixed(1)} h`);
const ratioText = (ratio) => `${ratio < 1000 ? ratio.toPrecision(3) : whole(Math.round(ratio))}x`;
const verdictClass = (verdict) => (verdict === "FAIL" ? "bad" : verdict === "PASS" ? "good-text" : "");

// The rollout that is furthest from its start: of one subnet there is one that does anything.
function drawRollout(board) {
  const state = element("rollout-state");
  const rollouts = (board && board.rollouts) || [];
  const rollout = rollouts.find((one) => !["planned", "finished", "draft"].includes(one.phase)) || rollouts[0];
  const why = element("rollout-why");
  if (!rollout) {
    state.textContent = board ? "The policy file has no rollout for this subnet." : NO_DATA;
    for (const id of ["verdicts", "ratio-box", "rollout-why"]) element(id).hidden = true;
    element("steps").replaceChildren();
    known.rollout = null;
    return;
  }
  known.rollout = rollout;
  const more = [
    rollout.latched ? (rollout.acknowledged ? "latched, acknowledged" : "latched: the control is in force until somebody acknowledges it") : "",
    rollout.frozen ? "frozen: its state can't be stored" : "",
    board.line.stopped ? `the line is stopped: ${board.line.stopped}` : "",
    board.kill.engaged ? "the kill switch is engaged" : "",
    rollout.incomplete ? `measurements are missing: ${rollout.incomplete}` : "",
  ].filter(Boolean);
  state.textContent = [`${rollout.id}: ${rollout.phase}, run ${rollout.run}`, `next: ${rollout.next}`, ...more].join(". ");
  state.className = rollout.latched || rollout.frozen ? "bad" : "";
  why.hidden = !rollout.why;
  why.textContent = rollout.why ? `Because ${rollout.why}` : "";
  element("steps").replaceChildren(...rollout.steps.map((step) => stepItem(rollout, step)));
  element("verdicts").hidden = rollout.verdicts.length === 0;
  element("verdicts").tBodies[0].replaceChildren(...rollout.verdicts.map((one) => row([
    one.guard, { text: one.verdict, className: verdictClass(one.verdict) }, ...(one.limit === null
      // It counts, and has no ratio.
      ? ["–", "–", "–", "–"].map((text) => ({ text, className: "number quiet" }))
      : [number(one.limit, ratioText), number(one.ratio, ratioText), number(one.lower, ratioText), number(one.upper, ratioText)]), number(one.samples.control), number(one.samples.candidate),
    number(one.blocks), one.on_fail, { text: one.reason, className: "wide" },
  ])));
}

function stepItem(rollout, step) {
  const li = document.createElement("li");
  const name = document.createElement("strong");
  const what = document.createElement("span");
  const index = rollout.step ? rollout.step.index + 1 : 0;
  const ended = ["completed", "finished"].includes(rollout.phase);
  name.textContent = `${step.number} ${step.name}`;
  const where = step.nodes_per_subnet ? `${step.mode} on ${step.nodes_per_subnet} node(s)` : step.design === "aa" ? "control against control" : `${step.mode}, ${step.percent} %`;
  what.textContent = `${step.design}: ${where}`;
  li.append(name, what);
  if (ended || step.number < index) li.className = "done";
  else if (step.number === index) {
    li.className = rollout.latched ? "back" : "now";
    li.setAttribute("aria-current", "step");
    const progress = document.createElement("progress");
    progress.max = step.bake_ms;
    progress.value = Math.min(rollout.baked_ms, step.bake_ms);
    progress.setAttribute("aria-label", `bake of ${step.name}`);
    const text = document.createElement("span");
    text.textContent = `${seconds(rollout.baked_ms)} of ${seconds(step.bake_ms)} with traffic`;
    li.append(progress, text);
  }
  return li;
}

// What changed what is measured; the states in between say no more.
const eventful = (entry) => known.rollout && entry.subject === known.rollout.id && !["planned", "waiting", "warmup", "baking"].includes(entry.action);

// What was done from a little before the first look on, oldest first.
function eventsSince(first, last) {
  const from = first - Math.max(30, last - first);
  const found = known.events.filter(eventful).map((entry) => ({ ...entry, at: Date.parse(entry.time) / 1000 }));
  return found.filter((entry) => entry.at >= from).sort((a, b) => a.at - b.at);
}

// Lines where something was done, each with its number in the list below.
function drawEvents(plot, events) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = getComputedStyle(document.body).color;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.textBaseline = "top";
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  events.forEach((event, index) => {
    const x = Math.round(plot.valToPos(event.at, "x", true));
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillText(String(index + 1), x + 3 * devicePixelRatio, bbox.top + (index % 3) * 12 * devicePixelRatio);
  });
  ctx.restore();
}

// Ratios of the looks so far, each with its bounds, and what was done meanwhile.
function drawLooks(history) {
  const guards = [...new Set(history.flatMap((look) => look.guards.filter((one) => one.ratio !== null).map((one) => one.guard)))];
  element("ratio-box").hidden = guards.length === 0;
  if (guards.length === 0) return;
  offer(element("guard"), guards);
  const found = history.flatMap((look) => look.guards.filter((one) => one.guard === element("guard").value && one.ratio !== null).map((one) => ({ ...one, time: look.time_ms / 1000 })));
  const events = found.length > 0 ? eventsSince(found[0].time, found[found.length - 1].time) : [];
  // Events have a place in time, and no ratio.
  const points = [...found, ...events.map((event) => ({ time: event.at }))].sort((a, b) => a.time - b.time);
  const of = (key) => points.map((one) => one[key] ?? null);
  const series = [
    { label: "ratio", stroke: color("--sandboxed"), points: { show: true, size: 6 } },
    { label: "from", stroke: color("--bounds"), dash: [2, 3] },
    { label: "to", stroke: color("--bounds"), dash: [2, 3] },
    { label: "limit", stroke: color("--bad"), dash: [8, 4] },
  ].map((one) => ({ spanGaps: true, ...one }));
  known.shownEvents = events;
  draw("looks", "Ratio at each look", [of("time"), of("ratio"), of("lower"), of("upper"), of("limit")], series, ratioText, RATIOS, true);
  element("events").replaceChildren(...events.map((event) => {
    const li = document.createElement("li");
    li.textContent = [event.time.slice(11, 19), event.action, ...(event.details || []), event.reason || ""].filter(Boolean).join(", ");
    return li;
  }));
}

async function readRollouts() {
  try {
    const response = await fetch("/v1/rollouts", { signal: AbortSignal.timeout(5000) });
    if (response.ok) {
      const { rollouts } = await response.json();
      cameAt.rollouts = Date.now();
      const shownNow = known.rollout && rollouts.find((one) => one.id === known.rollout.id);
      known.history = shownNow ? shownNow.history : [];
      drawLooks(known.history);
    }
  } catch {
    // The age of what is shown says it.
  }
  setTimeout(readRollouts, LATENCIES_EVERY_MS);
}

async function readAudit() {
  try {
    const response = await fetch("/v1/audit?limit=100", { signal: AbortSignal.timeout(5000) });
    if (response.ok) {
      const { entries } = await response.json();
      cameAt.audit = Date.now();
      known.events = entries;
      element("audit-note").hidden = entries.length > 0;
      element("audit").tBodies[0].replaceChildren(...entries.slice(-30).reverse().map((one) => row([
        { text: String(one.seq), className: "number" }, one.time, one.actor, one.action, one.subject || "", one.from || "",
        { text: [one.reason || "", ...(one.details || [])].filter(Boolean).join("; "), className: "wide" },
      ])));
    }
  } catch {
    // As above.
  }
  setTimeout(readAudit, LATENCIES_EVERY_MS);
}

function nodeRow(node) {
  const { resolution, sandbox, shadow } = node;
  const at = resolution.at ? `${resolution.at.file.split("/").pop()}:${resolution.at.line}` : "built in";
  const compared = shadow.offered > 0;
  return row([
    node.node,
    node.mode,
    resolution.reason,
    at,
    number(node.generation),
    number(sandbox && sandbox.workers.length),
    number(sandbox && sandbox.memory_bytes, size),
    alarming(sandbox && sandbox.deaths),
    alarming(sandbox && sandbox.violations),
    {
      text: compared ? `${whole(shadow.equal)} / ${whole(shadow.diverged)}` : NO_DATA,
      className: shadow.diverged > 0 ? "number bad" : "number",
    },
    sandbox ? shown(sandbox.confinement) : NO_DATA,
  ]);
}

function notes(status) {
  const found = [];
  for (const node of status.nodes) {
    if (node.policy_refused) found.push(`${node.node}: the policy file was refused, the last good one is in force. ${node.policy_refused}`);
    if (node.restart_for.length > 0) found.push(`${node.node}: another start is needed for ${node.restart_for.join(", ")}`);
    if (node.sandbox && node.sandbox.launch_error) found.push(`${node.node}: workers don't start: ${node.sandbox.launch_error}`);
  }
  return found;
}

// Puts words into a choice. What somebody chose stays; else the first is shown.
function offer(select, words) {
  const before = Array.from(select.options, (option) => option.value);
  if (before.join() === words.join()) return;
  select.replaceChildren(...words.map((word) => new Option(word, word)));
  const { chosen } = select.dataset;
  if (words.includes(chosen)) select.value = chosen;
}

// What was measured of the chosen nodes.
function scoped() {
  const latencies = known.latencies;
  return latencies.nodes.find((node) => node.node === element("scope").value) || latencies.merged;
}

// What was measured of the chosen nodes and kind: arm -> series or null.
function chosen() {
  const kinds = scoped().kinds;
  const names = Object.keys(kinds);
  names.sort((a, b) => (b === "update") - (a === "update") || a.localeCompare(b));
  offer(element("kind"), names);
  return kinds[element("kind").value] || {};
}

// The value of a percentile curve at a quantile: of the first step that reaches it.
function at(series, quantile) {
  const step = series.curve.find(([reached]) => reached >= quantile);
  return step ? step[1] : series.curve[series.curve.length - 1][1];
}

// 1/(1-q) for each q that is drawn: 2 at the median, 100 at the 99th percentile; those of the guards' marks among them.
function places(series, marks) {
  const most = Math.max(...series.map((one) => one.count));
  const found = new Set(marks.map((mark) => mark.place));
  for (let place = 2; place <= most; place *= 1.15) found.add(place);
  return [...found].sort((a, b) => a - b);
}

function drawLatencies() {
  const arms = chosen();
  const measured = ARMS.filter((arm) => arms[arm.name]);
  element("latencies").tBodies[0].replaceChildren(...ARMS.slice(0, measured.length > 0 && measured.some((arm) => arm.name.startsWith("shadow")) ? 4 : 2).map((arm) => {
    const series = arms[arm.name];
    return row([arm.name, number(series && series.count), ...QUANTILES.map((q) => number(series && series[q], latency))]);
  }));
  element("latency-note").textContent =
    measured.length === 0
      ? "Nothing was measured yet of this kind."
      : "Since the start of this process, merged from histograms. Modes that ran at different times met different load: a difference is a hint, no verdict.";
  drawPercentiles(arms, measured);
  drawRatios(arms);
  drawPhases();
}

function drawPhases() {
  const { phases } = scoped();
  const line = (name, mode, start, series) => row([name, mode, start, number(series && series.count), ...QUANTILES.map((q) => number(series && series[q], latency))]);
  const measured = (modes) => Object.values(modes).some((series) => series);
  const rows = Object.entries(phases.modes).filter(([mode, of]) => !mode.startsWith("shadow") || measured(of)).flatMap(([mode, of]) => [
    line("queue", mode, "any", of.queue),
    line("backend", mode, "any", of.backend),
    ...(mode !== "sandboxed" ? [] : ["warm", "cold"].flatMap((start) => ["prepare", "worker", "pages"].map((phase) => line(`· ${phase}`, mode, start, phases[start][phase])))),
    ...(mode !== "sandboxed" ? [] : [line("(bare round trip)", mode, "warm", phases.round_trip)]),
    line("check", mode, "any", of.check),
    line("commit", mode, "any", of.commit),
  ]);
  element("phases").tBodies[0].replaceChildren(...rows);
  element("sampled").textContent = `one message in ${phases.sampled_one_in}`;
}

// How long switches took, node by node, and what is still under way of before.
function drawSwitches(nodes) {
  const names = { to_sandbox: "into the sandbox", from_sandbox: "out of the sandbox" };
  const phases = { prewarm: "until workers were launched ahead", cutover: "until in force", drain: "until nothing of before ran", first_execution: "until the first execution had finished" };
  element("switches").tBodies[0].replaceChildren(...nodes.flatMap((node) => Object.entries(names).flatMap(([direction, where]) => Object.entries(phases).map(([phase, what]) => {
    const series = node.switches[direction][phase];
    return row([node.node, where, what, number(series && series.count), ...["p50", "p99", "max"].map((q) => number(series && series[q], latency))]);
  }))));
  const sum = (generation) => nodes.reduce((total, node) => total + Object.values(node.under_way[generation]).reduce((a, b) => a + b, 0), 0);
  element("under-way").textContent = `Under way now: ${whole(sum("current"))} under the policy in force, ${whole(sum("old"))} under earlier ones.`;
}

const percentText = (place) => `${Number((100 * (1 - 1 / place)).toPrecision(place > 50 ? 6 : 3))} %`;
// Only round percentiles have a line and a word.
const roundPlaces = (_, places) => places.map((place) => (place === 2 || Number.isInteger(Math.log10(place)) ? place : null));

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Tenfold steps, and twofold ones: there twice as fast is as far from equal as twice as slow.
const [LATENCIES, RATIOS] = [{ distr: 3, log: 10 }, { distr: 3, log: 2 }];

function options(series, valueText, y, inTime) {
  const ink = getComputedStyle(document.body).color;
  const line = color("--line");
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  if (inTime) {
    return {
      width: 300, height: 280, padding: [12, 32, 0, 0],
      scales: { y },
      hooks: { draw: [(plot) => drawEvents(plot, known.shownEvents)] },
      axes: [axis, { ...axis, size: 70, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : valueText(tick))) }],
      series: [{}, ...series.map((one) => ({ width: 2, points: { show: false }, value: (_, y) => shown(y, valueText), ...one }))],
    };
  }
  return {
    width: 300, height: 280, padding: [12, 32, 0, 0],
    scales: { x: { time: false, distr: 3, log: 10 }, y },
    axes: [
      { ...axis, filter: roundPlaces, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : percentText(tick))), grid: { ...axis.grid, filter: roundPlaces }, ticks: { ...axis.ticks, filter: roundPlaces } },
      { ...axis, size: 70, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : valueText(tick))) },
    ],
    hooks: { draw: [drawGuards] },
    series: [
      { label: "Percentile", value: (_, place) => (place === null || place === undefined ? "" : percentText(place)) },
      ...series.map((one) => ({ points: { show: false }, ...one, width: 2, value: (plot, y) => (plot.cursor.idx === null || plot.cursor.idx === undefined ? "" : shown(y, valueText)) })),
    ],
  };
}

function draw(name, caption, data, series, valueText, y, inTime = false) {
  const place = element(name);
  const key = JSON.stringify(series.map((one) => one.label));
  if (charts[name] && charts[name].key === key) {
    charts[name].plot.setData(data);
    return;
  }
  if (charts[name]) charts[name].plot.destroy();
  charts[name] = null;
  if (series.length === 0) {
    const none = document.createElement("p");
    none.className = "none";
    none.textContent = caption;
    place.replaceChildren(none);
    return;
  }
  place.replaceChildren();
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `${caption}; the table below has the figures`);
  const plot = new uPlot(options(series, valueText, y, inTime), data, place);
  charts[name] = { plot, key };
  fit(name);
}

// What guards said last of the kind that is shown, of those whose control and candidate were measured, by percentile.
function guardMarks(arms) {
  const verdicts = (known.rollout && known.rollout.verdicts) || [];
  return verdicts
    .filter(({ of, limit }) => of && limit !== null && of.kind === element("kind").value && arms[of.control] && arms[of.candidate])
    .map(({ of, limit, lower, upper }) => ({ place: 1 / (1 - of.quantile), of, limit, lower, upper }));
}

// The series of these marks and their values at each place, as `value` makes them of a ratio.
function guardSeries(marks, x, value) {
  if (marks.length === 0) return { series: [], lines: [] };
  const only = { paths: () => null, points: { show: true, size: 5 } };
  const series = [[LIMIT, "--bad"], [LOWER, "--bounds"], [UPPER, "--bounds"]].map(([label, name]) => ({ label, stroke: color(name), ...only }));
  const lines = ["limit", "lower", "upper"].map((key) => x.map((place) => {
    const mark = marks.find((one) => one.place === place);
    return mark && mark[key] !== null ? value(mark, mark[key]) : null;
  }));
  return { series, lines };
}

// A bar between the bounds, and a short line at the limit.
function drawGuards(plot) {
  const of = (label) => plot.data[plot.series.findIndex((one) => one.label === label)];
  const [limits, lowers, uppers] = [of(LIMIT), of(LOWER), of(UPPER)];
  if (!limits) return;
  const { ctx } = plot;
  ctx.save();
  plot.data[0].forEach((place, index) => {
    if (limits[index] === null) return;
    const x = plot.valToPos(place, "x", true);
    const y = (value) => plot.valToPos(value, "y", true);
    ctx.lineWidth = 3 * devicePixelRatio;
    ctx.strokeStyle = color("--bad");
    ctx.beginPath();
    ctx.moveTo(x - 14 * devicePixelRatio, y(limits[index]));
    ctx.lineTo(x + 14 * devicePixelRatio, y(limits[index]));
    ctx.stroke();
    if (lowers[index] === null || uppers[index] === null) return;
    ctx.lineWidth = 5 * devicePixelRatio;
    ctx.strokeStyle = color("--bounds");
    ctx.beginPath();
    ctx.moveTo(x, y(lowers[index]));
    ctx.lineTo(x, y(uppers[index]));
    ctx.stroke();
  });
  ctx.restore();
}

function drawPercentiles(arms, measured) {
  const marks = measured.length > 0 ? guardMarks(arms) : [];
  const x = measured.length > 0 ? places(measured.map((arm) => arms[arm.name]), marks) : [];
  // A curve ends where its messages do: beyond 1 in n there is nothing to say.
  const lines = measured.map((arm) => x.map((place) => (place <= arms[arm.name].count ? at(arms[arm.name], 1 - 1 / place) : null)));
  // As latencies, from the control's curve.
  const guards = guardSeries(marks, x, ({ of }, ratio) => at(arms[of.control], of.quantile) * ratio);
  const series = [...measured.map(({ name, dash }) => ({ label: name, stroke: color(`--${name}`), dash })), ...guards.series];
  draw("percentiles", measured.length > 0 ? "Latency by percentile" : NO_DATA, [x, ...lines, ...guards.lines], series, latency, LATENCIES);
}

function drawRatios(arms) {
  const pairs = PAIRS.filter(([control, candidate]) => arms[control] && arms[candidate]);
  const marks = pairs.length > 0 ? guardMarks(arms) : [];
  const x = pairs.length > 0 ? places(pairs.map((pair) => arms[pair[0]]), marks) : [];
  const lines = pairs.map(([control, candidate]) => x.map((place) => {
    if (place > Math.min(arms[control].count, arms[candidate].count)) return null;
    return at(arms[candidate], 1 - 1 / place) / at(arms[control], 1 - 1 / place);
  }));
  const looks = pairs.map(([control, candidate]) => {
    const { dash } = ARMS.find((one) => one.name === candidate);
    return { label: `${candidate} / ${control}`, stroke: color(`--${candidate}`), dash };
  });
  const guards = guardSeries(marks, x, (_, ratio) => ratio);
  const series = pairs.length > 0 ? [...looks, { label: "equal", stroke: color("--quiet"), dash: [2, 4] }, ...guards.series] : [];
  if (pairs.length > 0) lines.push(x.map(() => 1), ...guards.lines);
  draw("ratios", pairs.length > 0 ? "Ratio by percentile" : "no data: one mode alone was measured", [x, ...lines], series, ratioText, RATIOS);
}

function fit(name) {
  const place = element(name);
  if (charts[name]) charts[name].plot.setSize({ width: Math.max(200, place.clientWidth), height: 280 });
}

// Age of the oldest of these answers, seconds; null: one of them never came.
function ageOf(names) {
  const times = names.map((name) => cameAt[name]);
  return times.includes(null) ? null : (Date.now() - Math.min(...times)) / 1000;
}

function drawBadge(badge, seconds) {
  const stale = seconds !== null && (!known.connected || seconds > STALE_AFTER);
  badge.textContent = seconds === null ? `${NO_DATA} yet` : stale ? `as of ${age(seconds)}` : "live";
  badge.className = `badge ${seconds === null ? "quiet" : stale ? "bad" : "good"}`;
  return stale;
}

function drawAge() {
  const alarm = element("alarm");
  // Rounds that don't go on are old, whatever is answered.
  const rounds = known.status && known.status.phase === "serving" ? known.status.data_age_seconds ?? 0 : 0;
  const old = (names) => {
    const seconds = ageOf(names);
    return seconds === null ? null : seconds + (names.includes("status") || names.includes("latencies") ? rounds : 0);
  };
  for (const badge of document.querySelectorAll("[data-of]")) drawBadge(badge, old(badge.dataset.of.split(" ")));
  // Of all that is shown, the oldest of the two that most of it is from.
  const seconds = old(cameAt.latencies === null ? ["status"] : ["status", "latencies"]);
  const stale = drawBadge(element("age"), seconds);
  if (seconds === null) return;
  const why = known.status.why_not_ready;
  const text = stale
    ? `The node does not answer, or does not go on. What is shown is ${age(seconds).replace(" ago", "")} old.`
    : known.status.phase === "halted" || known.status.phase === "held" || known.status.phase === "full" ? why : "";
  alarm.hidden = !text;
  alarm.textContent = text || "";
}

async function readLatencies() {
  try {
    const response = await fetch("/v1/latencies", { signal: AbortSignal.timeout(5000) });
    if (response.ok) {
      known.latencies = await response.json();
      cameAt.latencies = Date.now();
    }
  } catch {
    // The age of what is shown says it.
  }
  setTimeout(readLatencies, LATENCIES_EVERY_MS);
  if (known.latencies) drawLatencies();
}

async function readDivergences() {
  try {
    const response = await fetch("/v1/divergences", { signal: AbortSignal.timeout(5000) });
    if (response.ok) {
      drawDivergences(await response.json());
      cameAt.divergences = Date.now();
    }
  } catch {
    // As above.
  }
  setTimeout(readDivergences, LATENCIES_EVERY_MS);
}

// What was found since this start, and with what was kept before it: in this order, as only the first are in the counts.
function drawDivergences(found) {
  const { compared, divergences, found_before: before } = found;
  const since = divergences.filter((one) => one.count > 0);
  const told =
    compared === 0
      ? "Nothing was compared: no node has run a message in shadow since its start."
      : since.length === 0
        ? `No difference in ${whole(compared)} comparisons: fewer than ${(3 / compared).toExponential(1)} of messages differ, at 95 % confidence.`
        : `In ${whole(compared)} comparisons, by what both gave when they were run again on the same state: ${Object.entries(found.classes).filter(([, count]) => count > 0).map(([name, count]) => `${name} ${whole(count)}`).join(", ")}.`;
  const kept = before.kinds > 0 ? ` Found before this start, by what was kept: ${whole(before.kinds)}, which no count and no guard has.` : "";
  element("divergences-note").textContent = told + kept;
  element("divergences-unread").replaceChildren(...before.unread.map((text) => {
    const li = document.createElement("li");
    li.textContent = `Not listed: ${text}`;
    return li;
  }));
  const time = (seconds) => new Date(seconds * 1000).toISOString();
  const when = ({ count, found_before: one }) => (one === null ? "since this start" : `${count > 0 ? "again since" : "before this start"}, first ${time(one.time)}`);
  element("divergences").hidden = divergences.length === 0;
  element("divergences").tBodies[0].replaceChildren(...divergences.slice(0, 100).map((one) =>
    row([
      one.class, one.node, one.canister, one.method === null ? one.kind : `${one.kind} ${one.method}`, one.field, one.control, one.candidate,
      when(one), number(one.count), one.last_time === null ? "not since this start" : time(one.last_time),
      one.bundle ?? one.found_before?.bundle ?? one.no_bundle ?? NO_DATA,
    ])));
}

function saveCsv() {
  if (!known.latencies) return;
  const arms = chosen();
  const lines = ["mode,quantile,latency_ns"];
  for (const [arm, series] of Object.entries(arms)) {
    if (series) for (const [quantile, value] of series.curve) lines.push(`${arm},${quantile},${value}`);
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  link.download = `bulkhead-${element("scope").value.replace(" ", "-")}-${element("kind").value}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}

const events = new EventSource("/v1/events");
events.addEventListener("open", () => { known.connected = true; drawAge(); });
events.addEventListener("error", () => { known.connected = false; drawAge(); });
events.addEventListener("status", (event) => {
  known.status = JSON.parse(event.data);
  cameAt.status = Date.now();
  drawStatus();
  drawAge();
});
for (const id of ["scope", "kind", "guard"]) {
  const select = element(id);
  select.addEventListener("change", () => { select.dataset.chosen = select.value; });
}
for (const id of ["scope", "kind"]) element(id).addEventListener("change", () => known.latencies && drawLatencies());
element("guard").addEventListener("change", () => drawLooks(known.history));
element("csv").addEventListener("click", saveCsv);
// Charts are drawn in the colours of the scheme.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const name of Object.keys(charts)) {
    if (charts[name]) charts[name].plot.destroy();
    charts[name] = null;
  }
  if (known.latencies) drawLatencies();
  drawLooks(known.history);
});
addEventListener("resize", () => Object.keys(charts).forEach(fit));
setInterval(drawAge, 1000);
readLatencies();
readDivergences();
readRollouts();
readAudit();
