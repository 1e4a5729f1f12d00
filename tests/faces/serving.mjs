// A node in a folder of its own, for tests that need a browser. It ends with the test, however that ends.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";

const PROGRAM = process.env.BULKHEAD;
// Longer than anything takes that goes well, on a slow and busy machine too, milliseconds.
export const PATIENCE = 180_000;

// The policy with a rollout through which all four series are measured.
export const ROLLOUT = readFileSync(new URL("rollout.toml", import.meta.url), "utf8");

// The first true answer of `condition`, asked again until there is one.
export async function until(what, condition, patience = PATIENCE) {
  const deadline = Date.now() + patience;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${patience / 1000} s: ${what}`);
    // Between two questions; what is waited for is the condition.
    await pause(50);
  }
}

const running = new Set();
process.on("exit", () => running.forEach((node) => node.end()));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

class Serving {
  constructor(folder, process, url) {
    Object.assign(this, { folder, process, url });
  }

  async json(path) {
    const answer = await fetch(this.url + path, { signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  async rollout() {
    const { rollouts } = await this.json("/v1/rollouts");
    return (rollouts ?? []).find((one) => one.id === "faces");
  }

  told(...words) {
    const more = ["--admin", "state/admin.sock", "--reason", "a test of the faces"];
    return execFileSync(PROGRAM, [...words, ...more], { cwd: this.folder, timeout: PATIENCE, encoding: "utf8" });
  }

  signal(name) {
    this.process.kill(name);
  }

  end() {
    this.process.kill("SIGKILL");
    running.delete(this);
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

// Leaves in a state directory what a node leaves there whose sandbox is wrong.
export function wrongSandbox(state) {
  execFileSync(process.env.WRONG_SANDBOX, [state], { timeout: PATIENCE, encoding: "utf8" });
}

// A node with `policy`. `before` is done to its state directory before it starts.
export async function serve(policy, { before } = {}, ...words) {
  const folder = mkdtempSync(join(tmpdir(), "faces-"));
  before?.(join(folder, "state"));
  writeFileSync(join(folder, "p.toml"), `schema = 1\n[code_cache]\ndirectory = "${folder}/code"\n${policy}`);
  const where = ["--config", "p.toml", "--state", "state", "--http", "127.0.0.1:0"];
  const process = spawn(PROGRAM, ["serve", ...where, ...words], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  const node = new Serving(folder, process);
  running.add(node);
  let said = "";
  process.stderr.on("data", (text) => (said = (said + text).slice(-10_000)));
  for await (const line of createInterface({ input: process.stdout })) {
    if (line.startsWith("http://")) {
      node.url = line.trim().replace(/\/$/, "");
      // What it says later is nobody's, and must not fill the pipe.
      process.stdout.resume();
      return node;
    }
    said += `${line}\n`;
  }
  node.end();
  throw new Error(`the node ended: ${said}`);
}
