// The node's own page, in a browser, with what a real node under load says.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { PATIENCE, ROLLOUT, serve, until as untilWithin, wrongSandbox } from "./serving.mjs";

const installed = process.env.FACES_BROWSER;
const puppeteer = createRequire(join(installed, "package.json"))("puppeteer-core");

const NO_DATA = "no data";
// For what the page does by itself; most of it happens each two seconds, on a machine that isn't busy.
const SOON = 60_000;
const STROKES = { "in-process": "#0072b2", sandboxed: "#d55e00", bounds: "#009e73", limit: "#a40e26" };

const until = (what, condition, patience = SOON) => untilWithin(what, condition, patience);

let browser;
let idle;
let loaded;

before(async () => {
  const chromium = join(installed, "chromium");
  browser = await puppeteer.launch({
    executablePath: join(chromium, "chromium"),
    headless: "shell",
    timeout: PATIENCE,
    protocolTimeout: PATIENCE,
    // It shows this page alone, and root has no other way.
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
    // Of a machine without a locale it makes a language that isn't one.
    env: { ...process.env, LC_ALL: "en_US.UTF-8", LD_LIBRARY_PATH: join(chromium, "al2023", "lib"), FONTCONFIG_PATH: join(chromium, "fonts") },
  });
  [idle, loaded] = await Promise.all([
    serve(ROLLOUT),
    // With differences in its state directory that are none of this rollout.
    serve(ROLLOUT, { before: wrongSandbox }, "--nodes", "2", "--load", "steady", "--rate", "100"),
  ]);
});

after(async () => {
  await browser?.close();
  for (const node of [idle, loaded]) node?.end();
});

// A page of a node, and whatever of it must not be: messages, errors, requests elsewhere, breaches of its policy.
async function open(node, { media = [], width = 1280, answers = {} } = {}) {
  const page = await browser.newPage();
  const found = { console: [], requests: [], elsewhere: [] };
  page.on("console", (message) => found.console.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => found.console.push(`error: ${error}`));
  page.on("request", (request) => {
    found.requests.push(request.url());
    if (new URL(request.url()).origin !== node.url && !/^(data|blob):/.test(request.url())) found.elsewhere.push(request.url());
  });
  await page.evaluateOnNewDocument(() => {
    globalThis.breaches = [];
    addEventListener("securitypolicyviolation", (event) => breaches.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  await page.setViewport({ width, height: 800 });
  if (media.length > 0) await page.emulateMediaFeatures(media);
  if (Object.keys(answers).length > 0) {
    await page.setRequestInterception(true);
    page.on("request", (request) => {
      const answer = answers[new URL(request.url()).pathname];
      if (answer === undefined) request.continue();
      else if (answer === null) request.abort();
      else request.respond({ contentType: "application/json", body: JSON.stringify(answer) });
    });
  }
  const response = await page.goto(node.url, { waitUntil: "load", timeout: PATIENCE });
  return { page, found, headers: response.headers() };
}

const text = (page, selector) => page.$eval(selector, (element) => element.textContent.trim());
const texts = (page, selector) => page.$$eval(selector, (all) => all.map((element) => element.textContent.trim()));
const shown = (page, selector) => page.$eval(selector, (element) => element.getClientRects().length > 0);
const count = (page, selector) => page.$$eval(selector, (all) => all.length);
const badges = (page) => page.$$eval("[data-of]", (all) => Object.fromEntries(all.map((one) => [one.parentElement.textContent.replace(one.textContent, "").trim(), one.textContent])));
const live = (page) => until("everything on the page is live", async () => Object.values(await badges(page)).every((badge) => badge === "live"));
// Cells of the rows of a table, the row's head first.
const rows = (page, id) => page.$$eval(`#${id} tbody tr`, (all) => all.map((row) => [...row.cells].map((cell) => cell.textContent)));
// What a chart was given, by the words of its legend; null: nothing is drawn.
const plotted = (page, chart) => page.evaluate((chart) => {
  const drawn = charts[chart];
  return drawn && Object.fromEntries(drawn.plot.series.map((one, at) => [at === 0 ? "x" : one.label, [...drawn.plot.data[at]]]));
}, chart);
// How many pixels of a chart have about this colour; null: there is no picture.
const painted = (page, chart, colour) => page.evaluate((chart, colour) => {
  const drawn = document.querySelector(`#${chart} canvas`);
  if (!drawn) return null;
  // A copy, which is made to be read.
  const canvas = new OffscreenCanvas(drawn.width, drawn.height);
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(drawn, 0, 0);
  const want = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let found = 0;
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] > 128 && want.every((value, channel) => Math.abs(data[at + channel] - value) < 24)) found += 1;
  }
  return found;
}, chart, colour);

const nanoseconds = (shown) => {
  const [number, unit] = shown.split(" ");
  return Number(number) * { ns: 1, "µs": 1e3, ms: 1e6, s: 1e9 }[unit];
};
const close = (one, other, part = 0.006) => Math.abs(one - other) <= part * other;

// Whether a table of latencies says what an answer does, of all four series.
const agrees = (table, arms) => table.length === 4 && table.every(([arm, total, ...cells]) => {
  const own = arms[arm];
  return total === own.count.toLocaleString("en") && ["p50", "p90", "p99", "p99.9", "max"].every((q, at) => close(nanoseconds(cells[at]), own[q]));
});

// What the page has of the node, with the rows of a table and the charts that it made of that: all of one moment.
const moment = (page, table) => page.evaluate((table) => {
  const plotted = (drawn) => drawn && Object.fromEntries(drawn.plot.series.map((one, at) => [at === 0 ? "x" : one.label, [...drawn.plot.data[at]]]));
  return {
    ...Object.fromEntries(Object.entries(charts).map(([name, drawn]) => [name, plotted(drawn)])),
    merged: known.latencies.merged,
    history: known.history,
    events: [...document.querySelectorAll("#events li")].map((one) => one.textContent),
    rows: [...document.querySelectorAll(`#${table} tbody tr`)].map((row) => [...row.cells].map((cell) => cell.textContent)),
  };
}, table);

// Fractions of white that a colour is as bright as, and how far two are apart (WCAG 2).
const CONTRAST = `
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const brightness = (colour) => { const [r, g, b] = channels(colour); return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b); };
  const contrast = (one, other) => { const [a, b] = [brightness(one), brightness(other)]; return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((channels(colour)[3] ?? 1) > 0.5) return colour;
    }
    return "rgb(255, 255, 255)";
  };
`;

// Texts that are too near to their background.
const faint = (page) => page.evaluate(`(() => {
  ${CONTRAST}
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("script, noscript") || element.getClientRects().length === 0) continue;
    const apart = contrast(getComputedStyle(element).color, behind(element));
    if (apart < 4.5) found.push(walker.currentNode.data.trim().slice(0, 40) + " " + apart.toFixed(2));
  }
  return found;
})()`);

// Whatever else has to be seen and is too near to its background, of at least 3:1: lines and marks of charts by their
// legends, states of steps, borders of controls and of badges, bars. Lines of tables and grids part what can be told
// apart without them.
const pale = (page) => page.evaluate(`(() => {
  ${CONTRAST}
  const found = [];
  let looked = 0;
  const look = (name, colour, ground) => {
    looked += 1;
    const apart = contrast(colour, ground);
    if (apart < 3) found.push(name + " " + apart.toFixed(2));
  };
  const each = (selector, visit) => [...document.querySelectorAll(selector)].filter((one) => one.getClientRects().length > 0).forEach(visit);
  each(".u-legend .u-series", (one) => {
    const marker = one.querySelector(".u-marker");
    const chart = one.closest(".chart").id;
    // The first series is the axis, and has no colour.
    if (marker && getComputedStyle(marker).borderTopStyle !== "none") look(chart + " " + one.textContent.trim(), getComputedStyle(marker).borderTopColor, behind(one));
  });
  each("#steps li", (step) => {
    const before = step.className;
    for (const state of ["", "done", "now", "back"]) {
      step.className = state;
      look("step " + state, getComputedStyle(step).borderTopColor, behind(step));
      look("step " + state + " beside the page", getComputedStyle(step).borderTopColor, behind(step.parentElement));
    }
    step.className = before;
  });
  each("progress", (bar) => look("progress", getComputedStyle(bar).accentColor, behind(bar)));
  each(".badge", (badge) => look("badge " + badge.textContent, getComputedStyle(badge).borderTopColor, behind(badge)));
  each("select, button", (control) => look(control.id, getComputedStyle(control).borderTopColor, behind(control.parentElement)));
  const why = document.getElementById("rollout-why");
  look("why", getComputedStyle(why).borderLeftColor, behind(why));
  const alarm = document.getElementById("alarm");
  look("alarm", getComputedStyle(alarm).backgroundColor, behind(alarm.parentElement));
  return { found, looked };
})()`);

// What has the focus, and how that is seen.
const focused = (page) => page.evaluate(`(() => {
  ${CONTRAST}
  const one = document.activeElement;
  const style = getComputedStyle(one);
  const box = one.getBoundingClientRect();
  return {
    name: one.id || one.textContent.trim().slice(0, 30),
    // Not its place, which others change that come and go.
    number: (globalThis.numbered ??= new Map()).get(one) ?? numbered.set(one, numbered.size).size - 1,
    focus: one !== document.body && {
      outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
      apart: contrast(style.outlineColor, behind(one.parentElement)),
      inside: box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight,
    },
  };
})()`);

const overflow = (page) => page.evaluate(() => {
  const width = document.documentElement.clientWidth;
  const wide = [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > width + 0.5 && !one.closest(".scroll > *, .skip"));
  return { scrolls: document.documentElement.scrollWidth - width, wide: wide.map((one) => one.id || one.className || one.tagName) };
});

describe("before anything is measured", () => {
  test("the page says no data and draws no line, no bar and no zero", async () => {
    const { page, found } = await open(idle);
    await live(page);
    await until("the node serves", async () => (await text(page, "#phase")) === "serving");
    for (const id of ["latencies", "phases"]) {
      const cells = (await rows(page, id)).flatMap((row) => row.slice(id === "phases" ? 3 : 1));
      assert.ok(cells.length >= 12, `${id} has rows`);
      assert.deepEqual([...new Set(cells)], [NO_DATA], id);
    }
    for (const chart of ["percentiles", "ratios", "looks"]) {
      assert.equal(await plotted(page, chart), null, chart);
      assert.equal(await count(page, `#${chart} canvas`), 0, chart);
    }
    assert.match(await text(page, "#percentiles"), /no data/);
    assert.match(await text(page, "#ratios"), /no data/);
    assert.match(await text(page, "#divergences-note"), /^Nothing was compared[^.]*\.$/);
    assert.equal(await shown(page, "#divergences"), false);
    assert.equal(await shown(page, "#verdicts"), false);
    const [node] = await rows(page, "nodes");
    assert.equal(node[9], NO_DATA, "of comparisons");
    assert.deepEqual(found.console, []);
    await page.close();
  });

  test("what was never answered is no data, and the rest is live", async () => {
    const { page } = await open(idle, { answers: { "/v1/audit": null } });
    const audit = "What was done, by whom and why";
    await until("the rest is live", async () => Object.entries(await badges(page)).every(([part, badge]) => (badge === "live") === (part !== audit)));
    assert.equal((await badges(page))[audit], "no data yet");
    assert.match(await text(page, "#audit-note"), /no data/);
    await page.close();
  });

  test("a mode that has not run has no line and no number beside one that has", async () => {
    const { page, found } = await open(loaded);
    await until("something was measured", async () => {
      const { kinds } = (await loaded.json("/v1/latencies")).merged;
      return kinds.update?.["in-process"]?.count > 50;
    }, PATIENCE);
    await until("the page has it", async () => (await rows(page, "latencies"))[0]?.[1] !== NO_DATA && (await plotted(page, "percentiles")) !== null);
    const { merged, rows: table } = await moment(page, "latencies");
    assert.equal(merged.kinds.update.sandboxed, null);
    assert.equal(table[0][1], merged.kinds.update["in-process"].count.toLocaleString("en"));
    assert.deepEqual((await rows(page, "latencies"))[1], ["sandboxed", ...Array(6).fill(NO_DATA)]);
    assert.deepEqual(Object.keys(await plotted(page, "percentiles")), ["x", "in-process"]);
    await until("the line is painted", async () => (await painted(page, "percentiles", STROKES["in-process"])) > 50);
    assert.equal(await painted(page, "percentiles", STROKES.sandboxed), 0);
    assert.equal(await plotted(page, "ratios"), null);
    assert.equal(await text(page, "#ratios"), "no data: one mode alone was measured");
    const sandboxed = (await rows(page, "phases")).filter(([, mode]) => mode === "sandboxed");
    assert.deepEqual([...new Set(sandboxed.flatMap((row) => row.slice(3)))], [NO_DATA]);
    assert.deepEqual(found.console, []);
    await page.close();
  });
});

describe("a rollout with both modes measured", () => {
  let page;
  let found;
  let headers;

  before(async () => {
    await until("the rollout is planned", async () => (await loaded.rollout())?.phase === "planned", PATIENCE);
    loaded.told("start", "faces");
    ({ page, found, headers } = await open(loaded));
    await until("a guard has a ratio at two looks", async () => {
      const rollout = await loaded.rollout();
      assert.ok(!["paused", "rolled-back"].includes(rollout.phase), rollout.why);
      return rollout.history.filter((look) => look.guards.some((one) => one.ratio !== null)).length >= 2;
    }, PATIENCE);
    await live(page);
  });

  test("the table of latencies is the node's answer", async () => {
    const own = async () => (await loaded.json("/v1/latencies")).merged.kinds.update;
    const before = await own();
    const { merged, rows: table } = await until("the page has an answer since", async () => {
      const now = await moment(page, "latencies");
      return ["in-process", "sandboxed"].every((mode) => now.merged.kinds.update[mode]?.count >= before[mode].count) && now;
    });
    const after = await own();
    assert.ok(agrees(table, merged.kinds.update), JSON.stringify(table));
    // Counts and maxima only grow: what the page has lies between what the node says before and after.
    for (const [arm] of table) {
      for (const key of ["count", "max"]) {
        const has = merged.kinds.update[arm][key];
        assert.ok(before[arm][key] <= has && has <= after[arm][key], `${arm} ${key}: ${before[arm][key]} ${has} ${after[arm][key]}`);
      }
    }
  });

  test("the percentiles of both modes are drawn, with the guard's limit and its bounds", async () => {
    const [guard] = (await loaded.rollout()).verdicts.filter((one) => one.limit !== null);
    assert.deepEqual(guard.of, { quantile: 0.5, kind: "update", control: "in-process", candidate: "sandboxed" });
    const { percentiles: plot, merged } = await until("the chart has the guard", async () => {
      const now = await moment(page, "latencies");
      const has = (label) => now.percentiles?.[label]?.some((value) => value !== null);
      const counts = ["in-process", "sandboxed"].map((mode) => now.merged.kinds.update[mode]?.count ?? 0);
      return has("limit") && has("bounds, from") && has("bounds, to") && Math.min(...counts) >= 40 && now;
    }, PATIENCE);
    const arms = merged.kinds.update;
    for (const mode of ["in-process", "sandboxed"]) {
      // Of the very answer that is drawn. A place is drawn with the next step of the curve, which has few.
      const { p50, p90, p99 } = arms[mode];
      const at = (found) => plot[mode][found];
      const drawn = { at2: at(plot.x.indexOf(2)), before10: at(plot.x.findLastIndex((x) => x < 8.5)), after10: at(plot.x.findIndex((x) => x >= 10)) };
      const ascending = [[p50, drawn.at2], [drawn.at2, p90], [drawn.before10, p90], [p90, drawn.after10], [drawn.after10, p99]];
      assert.ok(ascending.every(([low, high]) => low <= 1.002 * high), `${mode}: ${JSON.stringify({ p50, p90, p99, ...drawn })}`);
      await until(`${mode} is painted`, async () => (await painted(page, "percentiles", STROKES[mode])) > 50);
    }
    const median = plot.x.indexOf(2);
    assert.equal(plot.limit.filter((value) => value !== null).length, 1);
    assert.ok(close(plot.limit[median], 500 * plot["in-process"][median], 1e-9));
    assert.ok(plot["bounds, from"][median] <= plot["bounds, to"][median]);
    await until("the limit is painted", async () => (await painted(page, "percentiles", STROKES.limit)) > 20);
    await until("the bounds are painted", async () => (await painted(page, "percentiles", STROKES.bounds)) > 5);
  });

  test("the ratio at each percentile is drawn beside the line of equal", async () => {
    const { ratios: plot, percentiles } = await moment(page, "latencies");
    const guard = ["limit", "bounds, from", "bounds, to"];
    assert.deepEqual(Object.keys(plot).slice(0, 4), ["x", "sandboxed / in-process", "shadow-candidate / shadow-control", "equal"]);
    assert.ok(Object.keys(plot).slice(4).every((label) => guard.includes(label)), Object.keys(plot).join());
    const ratio = plot["sandboxed / in-process"];
    assert.ok(close(ratio[0], percentiles.sandboxed[0] / percentiles["in-process"][0], 1e-9), `${ratio[0]}`);
    assert.ok(plot.equal.every((one) => one === 1));
    await until("the ratio is painted", async () => (await painted(page, "ratios", STROKES.sandboxed)) > 50);
  });

  test("the guard's limit and its bounds are drawn on the curve of ratios, where it judges", async () => {
    const plot = await until("the curve has the guard", async () => {
      const { ratios } = await moment(page, "latencies");
      return ["limit", "bounds, from", "bounds, to"].every((label) => ratios?.[label]?.some((value) => value !== null)) && ratios;
    }, PATIENCE);
    const median = plot.x.indexOf(2);
    assert.deepEqual(plot.limit.map((value, at) => [value, at]).filter(([value]) => value !== null), [[500, median]]);
    assert.ok(plot["bounds, from"][median] <= plot["bounds, to"][median]);
    await until("the limit is painted", async () => (await painted(page, "ratios", STROKES.limit)) > 20);
    await until("the bounds are painted", async () => (await painted(page, "ratios", STROKES.bounds)) > 5);
  });

  test("the ratio over the looks is drawn with bounds, limit and what was done meanwhile", async () => {
    const { history } = await loaded.rollout();
    const { looks: plot, events } = await until("the chart has two looks, bounds and the step", async () => {
      const now = await moment(page, "latencies");
      return now.looks?.ratio.filter((one) => one !== null).length >= 2 && now.looks.from.some((one) => one !== null) &&
        now.events.some((event) => event.includes("switching, step one-node")) && now;
    }, PATIENCE);
    const looks = history.flatMap((look) => look.guards.filter((one) => one.guard === "p50 update" && one.ratio !== null));
    const drawn = plot.ratio.filter((one) => one !== null);
    assert.deepEqual(drawn.slice(0, 2), looks.slice(0, 2).map((look) => look.ratio));
    assert.equal(plot.limit.find((one) => one !== null), 500);
    assert.ok(plot.from.some((from, at) => from !== null && from <= plot.ratio[at] && plot.ratio[at] <= plot.to[at]));
    assert.equal(plot.x.length - drawn.length, events.length, "each event has its place in time");
    await until("the looks are painted", async () => (await painted(page, "looks", STROKES.sandboxed)) > 20);
  });

  test("the nodes, each with its mode and why", async () => {
    const { nodes } = await loaded.json("/v1/status");
    assert.deepEqual(nodes.map((node) => node.mode).sort(), ["in-process", "sandboxed"]);
    const want = JSON.stringify(nodes.map((node) => [node.node, node.mode, node.resolution.reason]));
    await until(`the page has ${want}`, async () => JSON.stringify((await rows(page, "nodes")).map((row) => row.slice(0, 3))) === want);
    assert.ok((await texts(page, "#subnet dt")).includes("State root, equal on all nodes"));
  });

  test("where a message's time goes in both modes, as the node says it", async () => {
    const series = (phases, phase, mode, start) =>
      phase === "(bare round trip)" ? phases.round_trip : start === "any" ? phases.modes[mode][phase] : phases[start][phase.slice(2)];
    const words = ["in-process", "sandboxed"].flatMap((mode) => ["queue", "backend", "check", "commit"].map((phase) => [phase, mode]));
    const { merged: { phases }, rows: table } = await until("one message in so many was looked into, in both modes", async () => {
      const now = await moment(page, "phases");
      return words.every(([phase, mode]) => now.merged.phases.modes[mode][phase]) && now;
    }, PATIENCE);
    for (const [phase, mode, start, total] of table) {
      const said = series(phases, phase, mode, start);
      assert.equal(total, said === null ? NO_DATA : said.count.toLocaleString("en"), `${mode} ${phase} ${start}`);
    }
    const shown = table.map(([phase, mode, start]) => `${mode} ${phase} ${start}`);
    for (const [phase, mode] of words) assert.ok(shown.includes(`${mode} ${phase} any`), `${mode} ${phase}: ${shown}`);
    for (const phase of ["prepare", "worker", "pages"]) assert.ok(shown.includes(`sandboxed · ${phase} warm`), shown.join());
  });

  test("steps, verdicts, comparisons and the audit log", async () => {
    assert.deepEqual(await texts(page, "#steps strong"), ["1 shadow", "2 one-node"]);
    assert.match(await text(page, "#steps [aria-current=step]"), /one-node/);
    await until("some of the bake is over", async () => (await page.$eval("#steps progress", (bar) => bar.value / bar.max)) > 0.02, PATIENCE);
    assert.equal(await page.$eval("#steps li", (step) => step.className), "done");
    await until("the rollout bakes", async () => /^faces: baking, run 1/.test(await text(page, "#rollout-state")), PATIENCE);
    await until("the guard passes, with its limit", async () => (await rows(page, "verdicts")).some((row) => row.slice(0, 3).join() === "p50 update,PASS,500x"), PATIENCE);
    const { compared } = await loaded.json("/v1/divergences");
    assert.ok(compared > 20);
    await until("the page has the comparisons", async () => (await text(page, "#divergences-note")).startsWith(`No difference in ${compared.toLocaleString("en")} comparisons`));
    await until("the page has the newest entry", async () => {
      const { entries } = await loaded.json("/v1/audit?limit=30");
      const table = await rows(page, "audit");
      return table.length > 0 && table.length === entries.length && table[0][0] === String(entries.at(-1).seq);
    });
    assert.ok((await rows(page, "audit")).some((row) => row[3] === "start" && row[6].includes("a test of the faces")));
    assert.equal(await shown(page, "#audit-note"), false);
  });

  test("differences that were found before the node started are rows, each with its bundle, and blow no fuse", async () => {
    const { divergences, found_before: before } = await loaded.json("/v1/divergences");
    assert.ok(before.kinds > 0);
    assert.deepEqual([divergences.length, before.unread], [before.kinds, []]);
    await until("the rows are there", async () => (await count(page, "#divergences tbody tr")) === before.kinds);
    const table = await rows(page, "divergences");
    for (const [at, [kind, node, canister, message, field, control, candidate, found, times, last, bundle]] of table.entries()) {
      const one = divergences[at];
      assert.deepEqual([kind, node, field, control, candidate, bundle], ["confirmed", one.node, "instructions", one.control, one.candidate, one.bundle]);
      assert.deepEqual([canister, message], [one.canister, one.method === null ? one.kind : `${one.kind} ${one.method}`]);
      assert.equal(Number(candidate), Number(control) + 1, "an instruction too many");
      assert.deepEqual([found, times, last], [`before this start, first ${new Date(one.found_before.time * 1000).toISOString()}`, "0", "not since this start"]);
      assert.ok(existsSync(join(loaded.folder, bundle)) || existsSync(bundle), bundle);
    }
    assert.ok(table.some((row) => row[3] === "update inc"), JSON.stringify(table));
    assert.equal(await shown(page, "#divergences"), true);
    assert.match(await text(page, "#divergences-note"), new RegExp(`^No difference in .* Found before this start, by what was kept: ${before.kinds}, `));
    // A fuse of the rollout is for confirmed differences.
    assert.deepEqual((await rows(page, "verdicts")).filter((row) => row[0].startsWith("same")).map((row) => row[1]).filter((verdict) => verdict === "FAIL"), []);
    assert.ok(!["paused", "rolled-back"].includes((await loaded.rollout()).phase));
  });

  test("a difference between the modes is a row of text, whatever is in it", async () => {
    const one = {
      class: "confirmed", node: "n1", canister: "rwlgt-iiaaa-aaaaa-aaaaa-cai", kind: "update", method: "<img src=x onerror=alert(1)>",
      field: "reply", control: "00", candidate: "01", count: 3, last_time: 1.8e9, first_time: 1.8e9,
      found_before: { node: "n1", time: 1.7e9, invocation: 5, bundle: "/state/divergences/0.bundle" },
    };
    const answer = { compared: 1000, classes: { confirmed: 3 }, not_shown: 0, found_before: { kinds: 1, unread: [one.method] }, divergences: [one] };
    const other = await open(loaded, { answers: { "/v1/divergences": answer } });
    await until("the row is there", async () => (await count(other.page, "#divergences tbody tr")) === 1);
    const [row] = await rows(other.page, "divergences");
    assert.deepEqual(row.slice(0, 9), ["confirmed", "n1", one.canister, `update ${one.method}`, "reply", "00", "01", "again since, first 2023-11-14T22:13:20.000Z", "3"]);
    assert.deepEqual(await texts(other.page, "#divergences-unread li"), [`Not listed: ${one.method}`]);
    assert.equal(await count(other.page, "#divergences img, #divergences-unread img"), 0);
    assert.match(await text(other.page, "#divergences-note"), /In 1,000 comparisons.*confirmed 3/);
    assert.deepEqual(other.found.console, []);
    await other.page.close();
  });

  test("updates are shown from their first on, and then what somebody chose", async () => {
    const measured = await loaded.json("/v1/latencies");
    const { update } = measured.merged.kinds;
    const answers = {};
    const measure = (kinds) => { answers["/v1/latencies"] = { ...measured, nodes: [], merged: { ...measured.merged, kinds } }; };
    measure({ heartbeat: update });
    const other = await open(loaded, { answers });
    const shows = (kind, of) => until(`it is ${kind} of ${of}`, async () => (await other.page.$eval("#kind", (select) => `${select.value} of ${select.options.length}`)) === `${kind} of ${of}`);
    await shows("heartbeat", 1);
    measure({ heartbeat: update, update });
    await shows("update", 2);
    await other.page.select("#kind", "heartbeat");
    measure({ heartbeat: update, query: update, update });
    await shows("heartbeat", 3);
    assert.deepEqual(other.found.console, []);
    await other.page.close();
  });

  test("one message more or a slower quantile in a table is noticed", async () => {
    const answer = await loaded.json("/v1/latencies");
    const arms = structuredClone(answer.merged.kinds.update);
    for (const [key, more] of [["count", 1], ["p99", arms.sandboxed.p99]]) {
      answer.merged.kinds.update = structuredClone(arms);
      answer.merged.kinds.update.sandboxed[key] += more;
      const other = await open(loaded, { answers: { "/v1/latencies": answer } });
      await live(other.page);
      assert.equal(agrees(await rows(other.page, "latencies"), answer.merged.kinds.update), true);
      assert.equal(agrees(await rows(other.page, "latencies"), arms), false, key);
      await other.page.close();
    }
  });

  test("every control is reached by Tab, in order, and is seen to have the focus", async () => {
    const controls = await page.$$eval('a[href], button, select, [tabindex="0"]', (all) => all.filter((one) => one.getClientRects().length > 0).length);
    assert.ok(controls >= 15, `${controls}`);
    await page.evaluate(() => { document.activeElement.blur(); getSelection().removeAllRanges(); scrollTo(0, 0); });
    const reached = [];
    for (let at = 0; at < controls; at += 1) {
      await page.keyboard.press("Tab");
      reached.push(await focused(page));
    }
    assert.deepEqual(reached.filter(({ focus }) => !focus || focus.outline < 2 || focus.apart < 3 || !focus.inside), []);
    assert.equal(new Set(reached.map((one) => one.number)).size, controls, "each once");
    assert.match(reached[0].name, /^Skip/);
    await page.$eval("#csv", (button) => { button.style.outline = "none"; button.focus(); });
    assert.equal((await focused(page)).focus.outline, 0, "a focus that isn't shown is noticed");
    await page.$eval("#csv", (button) => button.removeAttribute("style"));
  });

  test("the choice of kind works from the keyboard, and the chart follows it", async () => {
    const before = await plotted(page, "percentiles");
    await page.focus("#kind");
    await page.keyboard.press("ArrowDown");
    const kind = await page.$eval("#kind", (select) => select.value);
    assert.notEqual(kind, "update");
    await until("the chart follows", async () => JSON.stringify((await plotted(page, "percentiles"))?.["in-process"]) !== JSON.stringify(before["in-process"]));
    await page.keyboard.press("Home");
    assert.equal(await page.$eval("#kind", (select) => select.value), "update");
  });

  test("the CSV has the curves that are drawn", async () => {
    const folder = mkdtempSync(join(tmpdir(), "faces-csv-"));
    try {
      const session = await page.createCDPSession();
      await session.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: folder });
      await page.focus("#csv");
      await page.keyboard.press("Enter");
      const file = join(folder, "bulkhead-all-nodes-update.csv");
      await until("the file is there", () => existsSync(file));
      const [head, ...lines] = readFileSync(file, "utf8").trim().split("\n");
      assert.equal(head, "mode,quantile,latency_ns");
      assert.deepEqual([...new Set(lines.map((line) => line.split(",")[0]))].sort(), ["in-process", "sandboxed", "shadow-candidate", "shadow-control"]);
      assert.ok(lines.every((line) => /^[a-z-]+,[\d.e-]+,\d+$/.test(line)), lines[0]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test("360 and 320 pixels are wide enough", async () => {
    for (const width of [360, 320]) {
      const narrow = await open(loaded, { width });
      await live(narrow.page);
      await until("there are charts", async () => (await count(narrow.page, ".chart canvas")) === 3);
      assert.deepEqual(await overflow(narrow.page), { scrolls: 0, wide: [] }, `${width}`);
      await narrow.page.evaluate(() => { document.querySelector("h1").style.minWidth = "500px"; });
      assert.ok((await overflow(narrow.page)).scrolls > 0, "a heading that is too wide is noticed");
      await narrow.page.close();
    }
  });

  test("text can be read in both colour schemes, and charts follow a change of them", async () => {
    const scheme = (value) => [{ name: "prefers-color-scheme", value }];
    const other = await open(loaded, { media: scheme("light") });
    await live(other.page);
    await until("there are charts", async () => (await count(other.page, ".chart canvas")) === 3);
    assert.deepEqual(await faint(other.page), []);
    const ink = { light: "#1b1f24", dark: "#e6edf3" };
    assert.ok((await painted(other.page, "percentiles", ink.light)) > 20);
    const paper = () => other.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await paper();
    await other.page.emulateMediaFeatures(scheme("dark"));
    assert.notEqual(await paper(), light);
    assert.deepEqual(await faint(other.page), []);
    await until("the charts follow", async () => (await painted(other.page, "percentiles", ink.dark)) > 20);
    assert.ok((await painted(other.page, "percentiles", ink.light)) < 20);
    await other.page.evaluate(() => document.documentElement.style.setProperty("--quiet", "#333"));
    assert.ok((await faint(other.page)).length > 10, "text that is too faint is noticed");
    assert.deepEqual(other.found.console, []);
    await other.page.close();
  });

  test("lines, marks and borders can be told from what is behind them in both colour schemes", async () => {
    const scheme = (value) => [{ name: "prefers-color-scheme", value }];
    const other = await open(loaded, { media: scheme("light") });
    await live(other.page);
    const drawn = async () => {
      const labels = await texts(other.page, ".u-legend .u-label");
      return ["sandboxed", "shadow-control", "shadow-candidate", "equal", "limit", "bounds, from", "ratio", "to"].every((label) => labels.includes(label));
    };
    for (const value of ["light", "dark"]) {
      await other.page.emulateMediaFeatures(scheme(value));
      // The charts of the scheme before have every line too, until the page has followed.
      await until(`every line is drawn in the ${value} scheme, and can be told from what is behind it`, async () => (await drawn()) && (await pale(other.page)).found.length === 0, PATIENCE);
      const { found, looked } = await pale(other.page);
      assert.deepEqual(found, [], value);
      // 17 series, two steps in four states each, and more.
      assert.ok(looked > 40, `${value}: ${looked}`);
    }
    // Both of what is drawn anew and of what is styled.
    await other.page.evaluate(() => {
      document.documentElement.style.setProperty("--bounds", "#303030");
      document.documentElement.style.setProperty("--good", "#303030");
      for (const name of Object.keys(charts)) { charts[name]?.plot.destroy(); charts[name] = null; }
      drawLatencies();
    });
    const { found } = await pale(other.page);
    assert.ok(found.some((one) => one.startsWith("ratios bounds, from")), found.join());
    assert.ok(found.some((one) => one.startsWith("step done")), found.join());
    assert.deepEqual(other.found.console, []);
    await other.page.close();
  });

  test("nothing moves for those who want no motion", async () => {
    const moving = (page) => page.evaluate(() => {
      const slow = [...document.querySelectorAll("*")].filter((one) => {
        const { animationName, transitionDuration, scrollBehavior } = getComputedStyle(one);
        return animationName !== "none" || transitionDuration.split(", ").some((time) => parseFloat(time) > 0) || scrollBehavior === "smooth";
      });
      return [...slow.map((one) => one.id || one.tagName), ...document.getAnimations().map(String)];
    });
    const other = await open(loaded, { media: [{ name: "prefers-reduced-motion", value: "reduce" }] });
    await live(other.page);
    assert.deepEqual(await moving(other.page), []);
    await other.page.evaluate(() => { document.body.style.transition = "color 1s"; });
    assert.deepEqual(await moving(other.page), ["BODY"], "a transition is noticed");
    await other.page.close();
  });

  test("nothing is asked of anybody else, nothing is said in the console, and the policy against both is kept", async () => {
    assert.deepEqual(found.elsewhere, []);
    assert.ok(found.requests.length > 10);
    assert.deepEqual(found.console, []);
    assert.deepEqual(await page.evaluate(() => breaches), []);
    const policy = Object.fromEntries(headers["content-security-policy"].split("; ").map((rule) => [rule.split(" ")[0], rule.split(" ").slice(1).join(" ")]));
    assert.equal(policy["default-src"], "'none'");
    assert.equal(policy["script-src"], "'self'");
    assert.equal(policy["connect-src"], "'self'");
    // And it is in force: neither another origin nor a script in the page is let through.
    const refused = await page.evaluate(async (url) => {
      const script = document.createElement("script");
      script.textContent = "globalThis.ran = true";
      document.body.append(script);
      const answer = await fetch(url).then(() => "answered", () => "refused");
      return { answer, ran: globalThis.ran ?? false };
    }, idle.url);
    assert.deepEqual(refused, { answer: "refused", ran: false });
    await until("both are told", async () => (await page.evaluate(() => breaches.length)) === 2);
    await page.close();
  });
});

describe("when the node stops", () => {
  test("everything is called old within seconds, and live again when it goes on", async () => {
    const { page } = await open(loaded);
    await live(page);
    await until("there is no alarm", async () => !(await shown(page, "#alarm")));
    loaded.signal("SIGSTOP");
    const old = async () => Object.values(await badges(page)).every((badge) => /^as of \d+ s ago$/.test(badge));
    await until("all badges are stale", old);
    assert.match(await text(page, "#age"), /^as of \d+ s ago$/);
    assert.match(await text(page, "#alarm"), /does not answer.*\d+ s old/);
    assert.equal(await shown(page, "#alarm"), true);
    assert.ok((await rows(page, "latencies")).length > 0, "what is known stays");
    loaded.signal("SIGCONT");
    await live(page);
    await until("the alarm is over", async () => !(await shown(page, "#alarm")));
    loaded.signal("SIGKILL");
    await until("all badges are stale", old);
    await page.close();
  });
});
