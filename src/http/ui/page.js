"use strict";
// Asks the server for its numbers again and again, and lets one talk to an agent. Whatever comes from
// the server or from agents is put in as text. The key stays in this tab and leaves it as one header.

const KEY_NAME = "semantic-key";
const POLL_MS = 2000;
const RETRY_MS_MAX = 30000;
const ANSWER_MS_MAX = 10000;
// While nothing seems to happen, the agents are looked at so often: each look is a line in the log.
const AGENTS_MS_MAX = 30000;
const AGENTS_STEP = 100;
const AGENTS_MAX = 1000;
const REPLY_TOKENS_MAX = 4096;
const STATES = {
  starting: "loading the model",
  serving: "serving",
  draining: "finishing, takes nothing new",
  failed: "failed; the log has the cause",
  stopped: "stopped",
  gone: "no answer",
  locked: "needs a key",
};
const TIERS = { hot: "in memory", warm: "on disk" };

const $ = (id) => document.getElementById(id);
const put = (id, text) => {
  if ($(id).textContent !== text) $(id).textContent = text;
};
const show = (id, is_shown) => { $(id).hidden = !is_shown; };
const make = (tag, text = "", name = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = name;
  return element;
};
const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);

// Numbers as people read them; a dash is what nobody knows.
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const count = (number) => whole.format(number);
const counted = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
function scaled(number, units, step) {
  let index = 0;
  while (Math.abs(number) >= step && index + 1 < units.length) {
    number /= step;
    index += 1;
  }
  return [(Math.abs(number) < 100 && index > 0 ? fine : whole).format(number), units[index]];
}
const bytes = (number) => scaled(number, ["B", "kB", "MB", "GB", "TB"], 1000).join(" ");
function seconds(number) {
  const size = Math.abs(number);
  if (size < 1) return [(size < 0.1 ? fine : whole).format(number * 1000), "ms"];
  if (size < 120) return [fine.format(number), "s"];
  return size < 7200 ? [fine.format(number / 60), "min"] : [fine.format(number / 3600), "h"];
}
function age(number) {
  if (number < 5) return "now";
  if (number < 60) return `${whole.format(number)} s`;
  if (number < 3600) return `${Math.floor(number / 60)} min`;
  return number < 86400 ? `${Math.floor(number / 3600)} h` : `${Math.floor(number / 86400)} d`;
}
function figure(id, parts, about) {
  const [number, unit] = parts ?? ["–", ""];
  if ($(id).textContent !== number + unit) {
    $(id).replaceChildren(number, ...(unit ? [make("span", unit, "unit")] : []));
  }
  put(`${id}-about`, about);
}

// Asking.

class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `the server answers ${status}`);
    this.status = status;
    this.code = error?.code;
  }
}

let key = stored();

function stored() {
  try {
    return sessionStorage.getItem(KEY_NAME) ?? "";
  } catch {
    return "";
  }
}
function store(value) {
  try {
    if (value) sessionStorage.setItem(KEY_NAME, value);
    else sessionStorage.removeItem(KEY_NAME);
  } catch {
    // A browser that keeps nothing: the key is in this page's memory only.
  }
}

async function ask(path, { method = "GET", body, signal } = {}) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers,
    body: body && JSON.stringify(body),
    signal: signal ?? AbortSignal.timeout(ANSWER_MS_MAX),
    cache: "no-store",
    redirect: "error",
  });
  if (response.ok) return response;
  const answer = await response.json().catch(() => undefined);
  throw new Refused(response.status, answer?.error);
}
const told = async (path, options) => (await ask(path, options)).json();
const path_of = (agent) => `v1/agents/${encodeURIComponent(agent)}`;

// The state of things.

let status;
let agents = [];
let agents_total = 0;
let agents_limit = AGENTS_STEP;
let agents_seen = "";
let agents_at = -Infinity;
let failures = 0;
let timer;
let polling = false;
let is_due = false;

async function poll() {
  clearTimeout(timer);
  if (polling) {
    is_due = true;
    return;
  }
  polling = true;
  is_due = false;
  const wait = await look();
  polling = false;
  if (is_due) poll();
  else if (wait && !document.hidden) timer = setTimeout(poll, wait);
}

// Returns when to look again; never, while it waits for a key.
async function look() {
  const used = key;
  try {
    const now = await told("v1/status");
    // Meanwhile somebody has said to forget the key.
    if (used !== key) return undefined;
    status = now;
    failures = 0;
    if (key) store(key);
    unlock();
    show_status();
    if (status.status === "serving") await look_at_agents();
    return POLL_MS;
  } catch (error) {
    // Too many wrong keys are a 429, and nothing else is, here.
    if (error.status === 401 || error.status === 429) {
      if (used === key) lock(error.status === 429 ? `The server says: ${error.message}.` : undefined);
      return undefined;
    }
    failures += 1;
    const wait = Math.min(POLL_MS * 2 ** (failures - 1), RETRY_MS_MAX);
    say_gone(error, wait);
    return wait;
  }
}

// What changes with agents; whoever talks elsewhere moves one of these.
function signs() {
  const { requests, agents: all, since_start: total } = status;
  return [requests.running, all.hot, all.warm, total.prompts, total.generation_tokens].join();
}

async function look_at_agents() {
  const now = performance.now();
  if (signs() === agents_seen && now - agents_at < AGENTS_MS_MAX) {
    show_agents();
    return;
  }
  await ask_for_agents();
}

async function ask_for_agents() {
  const used = key;
  const seen = signs();
  const page = await told(`v1/agents?limit=${agents_limit}`);
  if (used !== key) return;
  agents_seen = seen;
  agents_at = performance.now();
  agents = page.data;
  agents_total = page.total;
  show_agents();
}

function look_soon() {
  agents_seen = "";
  poll();
}

function show_state(state) {
  $("state").dataset.state = state;
  put("state-text", STATES[state] ?? state);
}

function say_gone(error, wait) {
  const reason = error instanceof Refused ? `The server says: ${error.message}.` : "The server does not answer.";
  const then = status ? " The numbers below are the last ones." : "";
  put("notice-text", `${reason}${then} The next try is in ${Math.round(wait / 1000)} s.`);
  show("notice", true);
  show("again", true);
  show_state("gone");
  $("main").classList.toggle("is-stale", true);
}

function unlock() {
  show("notice", status.status === "draining" || status.status === "failed");
  if (!$("notice").hidden) put("notice-text", `The server is ${STATES[status.status]}.`);
  show("again", false);
  const was_locked = !$("key-form").hidden;
  show("key-form", false);
  show("main", true);
  show("forget", key !== "");
  $("main").classList.remove("is-stale");
  if (was_locked) $("message").focus();
}

function lock(reason = "The server does not know this key.") {
  const had = key;
  key = "";
  store("");
  status = undefined;
  agents = [];
  agents_total = 0;
  agents_seen = "";
  agents_at = -Infinity;
  rows.clear();
  said.clear();
  running?.abort();
  for (const id of ["agents", "said", "names", "memory"]) $(id).replaceChildren();
  show("main", false);
  show("forget", false);
  show("notice", false);
  show_state("locked");
  show("key-form", true);
  put("key-error", had ? reason : "");
  $("key").setAttribute("aria-invalid", String(had !== ""));
  $("key").focus();
  $("key").select();
}

// The numbers.

function show_status() {
  const { requests, pool, agents: all, store: disk, since_start: total, recent } = status;
  show_state(status.status);
  put("model", status.model ?? "");
  put("version", `version ${status.version}`);
  put("uptime", `up ${age(Math.max(status.uptime_s, 5))}`);
  document.title = requests.running ? `${requests.running} running – semantic` : "semantic";

  show_recent(recent);
  figure("queue", [count(requests.running), "running"], `${count(requests.waiting)} waiting, ${count(requests.parked)} parked`);
  const share = total.prompt_tokens ? [fine.format((100 * total.reused_tokens) / total.prompt_tokens), "%"] : undefined;
  const found = total.prompts_hot + total.prompts_warm;
  figure("hits", share, `of prompt tokens; ${count(found)} of ${counted(total.prompts, "prompt")}`);
  figure("saved", total.prompts ? [count(total.reused_tokens), ""] : undefined, `${count(total.restored_tokens)} from the disk`);
  const measured = total.seconds_saved !== null;
  figure("seconds", measured ? seconds(total.seconds_saved) : undefined, measured ? "of computing, less restoring" : "no long prompt was read yet");
  put("seconds-sum", measured
    ? `Now: ${count(total.reused_tokens)} tokens × ${fine.format(total.seconds_per_prompt_token * 1e6)} µs, less ${seconds(total.restore_s).join(" ")}.`
    : "No such step was there yet.");

  const busy = pool.blocks_used - pool.blocks_evictable;
  const free = pool.blocks_total - pool.blocks_used;
  const sized = (blocks) => {
    const size = pool.block_bytes === null ? "" : `, ${bytes(blocks * pool.block_bytes)}`;
    return counted(blocks, "block") + size;
  };
  put("pool-about", `${counted(pool.blocks_total, "block")} of ${pool.block_tokens} tokens`);
  put("pool-busy", sized(busy));
  put("pool-idle", sized(pool.blocks_evictable));
  put("pool-free", sized(free));
  draw($("pool-chart"), [
    { x: 0, width: (300 * busy) / (pool.blocks_total || 1), height: 10, name: "busy" },
    { x: (300 * busy) / (pool.blocks_total || 1), width: (300 * pool.blocks_evictable) / (pool.blocks_total || 1), height: 10, name: "idle" },
  ], 10, `Pool of ${counted(pool.blocks_total, "block")}: ${count(busy)} at work, ${count(pool.blocks_evictable)} held by idle agents, ${count(free)} free`);
  put("all-hot", count(all.hot));
  put("all-warm", count(all.warm));
  put("store", disk ? `${bytes(disk.bytes)} of ${bytes(disk.budget_bytes)}` : "nothing is kept");
  put("resident", status.resident_bytes === null ? "–" : bytes(status.resident_bytes));
  show("evict", disk !== null);
}

// Rates of the intervals, of which the last is not over; means where there was something.
function show_recent({ interval_s, elapsed_s, tokens, first_tokens, first_token_s }) {
  const last = tokens.length - 1;
  const rates = tokens.map((number, at) => number / (at === last ? Math.max(elapsed_s, 1) : interval_s));
  const means = first_tokens.map((number, at) => (number ? first_token_s[at] / number : 0));
  const spans = Math.min(tokens.length, 3);
  const span_s = Math.max(1, (spans - 1) * interval_s + elapsed_s);
  const rate = sum(tokens.slice(-spans)) / span_s;
  figure("speed", [(rate < 100 ? fine : whole).format(rate), "/s"], `generated, last ${Math.round(span_s)} s`);
  const begun = sum(first_tokens);
  figure("ttft", begun ? seconds(sum(first_token_s) / begun) : undefined, begun ? `mean of ${counted(begun, "reply", "replies")} in 5 min` : "no reply in 5 min");
  const most = Math.max(...rates);
  const slowest = Math.max(...means);
  put("speed-most", most ? `up to ${fine.format(most)}` : "nothing yet");
  put("ttft-most", slowest ? `up to ${seconds(slowest).join(" ")}` : "nothing yet");
  draw($("speed-chart"), bars(rates, most), 60, `Tokens per second in the last five minutes: now ${fine.format(rate)}, at most ${fine.format(most)}`);
  draw($("ttft-chart"), bars(means, slowest), 60, `Mean time to the first token in the last five minutes: ${begun ? `at most ${seconds(slowest).join(" ")}` : "no reply began"}`);
}

// One for each of sixty intervals, the newest at the right.
function bars(values, most) {
  const start = 60 - values.length;
  return values.map((value, at) => ({ x: 5 * (start + at), width: 4, height: most ? (58 * value) / most : 0, name: "" }));
}

function draw(chart, shapes, height, label) {
  if (chart.getAttribute("aria-label") !== label) chart.setAttribute("aria-label", label);
  while (chart.childElementCount > shapes.length) chart.lastElementChild.remove();
  while (chart.childElementCount < shapes.length) chart.append(document.createElementNS(chart.namespaceURI, "rect"));
  shapes.forEach((shape, at) => {
    const bar = chart.children[at];
    const size = { x: shape.x, width: shape.width, height: shape.height, y: height - shape.height };
    for (const [name, value] of Object.entries(size)) bar.setAttribute(name, value.toFixed(2));
    bar.setAttribute("class", shape.name);
  });
}

// The agents of this key.

const rows = new Map();

function show_agents() {
  const total = agents_total;
  const hot = agents.filter((agent) => agent.tier === "hot").length;
  const warm = agents.filter((agent) => agent.tier === "warm").length;
  const part = agents.length < total ? `the first ${count(agents.length)} of ${count(total)} by name; ` : "";
  put("agents-about", total ? `${part}${count(hot)} in memory, ${count(warm)} on disk` : "");
  show("agents-none", total === 0);
  show("agents-box", total > 0);
  show("more", agents.length < total && agents_limit < AGENTS_MAX);
  const sorted = agents.toSorted((one, other) => (other.last_used ?? Infinity) - (one.last_used ?? Infinity) || (one.id < other.id ? -1 : 1));
  for (const [id, row] of rows) {
    if (agents.some((agent) => agent.id === id)) continue;
    row.remove();
    rows.delete(id);
  }
  const focused = document.activeElement;
  sorted.forEach((agent, at) => {
    const row = show_agent(agent);
    if ($("agents").children[at] !== row) $("agents").insertBefore(row, $("agents").children[at] ?? null);
  });
  // A row that moves loses the focus.
  if (focused !== document.activeElement && $("agents").contains(focused)) focused.focus();
  const names = sorted.map((agent) => agent.id);
  if ([...$("names").children].map((option) => option.value).join("\n") !== names.join("\n")) {
    $("names").replaceChildren(...names.map((name) => Object.assign(document.createElement("option"), { value: name })));
  }
  show_memory();
}

function show_agent(agent) {
  let row = rows.get(agent.id);
  if (!row) {
    row = make("tr");
    const head = make("th");
    head.scope = "row";
    const button = make("button", agent.id);
    button.type = "button";
    button.addEventListener("click", () => talk_to(agent.id));
    head.append(button);
    row.append(head, ...["tier", "", "", ""].map((name) => make("td", "", name)));
    rows.set(agent.id, row);
  }
  const tier = agent.tier ?? "none";
  const changed = row.dataset.tier !== undefined && row.dataset.tier !== tier;
  row.dataset.tier = tier;
  if (changed) {
    row.classList.add("is-new");
    setTimeout(() => row.classList.remove("is-new"), 1500);
  }
  const [head, ...cells] = row.children;
  if (agent.id === talking()) head.firstChild.setAttribute("aria-current", "true");
  else head.firstChild.removeAttribute("aria-current");
  const used = agent.last_used === null ? "–" : age(status.time - agent.last_used);
  const values = [place(agent), count(agent.tokens), agent.bytes ? bytes(agent.bytes) : "–", agent.busy ? "at work" : used];
  values.forEach((text, at) => {
    if (cells[at].textContent !== text) cells[at].textContent = text;
  });
  cells[0].className = `tier ${tier}`;
  return row;
}

function place(agent) {
  if (!agent.usable) return "other model";
  return TIERS[agent.tier] ?? "–";
}

// Talking.

// By agent, what was said here; the page remembers it, the server remembers the tokens.
const said = new Map();
let running;

// The agent whose row was chosen: a field shows some names otherwise than they are.
let chosen;

const talking = () => chosen ?? $("agent").value.trim();
const known = () => agents.find((agent) => agent.id === talking());

function talk_to(agent) {
  chosen = agent;
  $("agent").value = agent;
  show_talk();
  $("message").focus();
}

function show_talk() {
  const turns = said.get(talking()) ?? [];
  $("said").replaceChildren(...turns);
  $("said").scrollTop = $("said").scrollHeight;
  show_agents();
}

function describe(agent) {
  if (!agent || (!agent.tier && !agent.tokens)) return "nothing remembered yet";
  const saved = agent.generation === null ? "not saved yet" : `save ${agent.generation}`;
  return `${place(agent)}, ${counted(agent.tokens, "token")}, ${agent.dirty ? "being saved" : saved}`;
}

function show_memory() {
  const agent = known();
  put("memory", talking() ? `Its memory: ${describe(agent)}.` : "Give it a name.");
  $("evict").disabled = !(agent?.tier === "hot" && !agent.busy && !running);
}

async function state_of(agent) {
  await ask_for_agents();
  const found = agents.find((one) => one.id === agent);
  if (found || agents.length === agents_total) return found;
  try {
    return await told(path_of(agent));
  } catch (error) {
    if (error.status === 404) return undefined;
    throw error;
  }
}

// After a turn that was stopped the engine takes a moment to notice.
async function settled(agent) {
  for (let tries = 0; tries < 25; tries += 1) {
    const state = await state_of(agent);
    if (!state?.busy) return state;
    await new Promise((done) => setTimeout(done, 200));
  }
  return state_of(agent);
}

// What was said, by whom; without a text it is told of in notes.
function add_turn(agent, who, name, text) {
  const turn = make("li", "", name);
  turn.append(make("p", who, "who"));
  if (text !== undefined) turn.append(make("p", text, "text"));
  if (!said.has(agent)) said.set(agent, []);
  said.get(agent).push(turn);
  if (agent === talking()) $("said").append(turn);
  return turn;
}

// Parts of a note, of which some are said louder.
function note(turn, ...parts) {
  const line = make("p", "", "notes");
  line.append(...parts.map(([text, is_loud]) => (is_loud ? make("b", text) : text)));
  turn.append(line);
  $("said").scrollTop = $("said").scrollHeight;
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const whole_ones = rest.split("\n\n");
    rest = whole_ones.pop();
    for (const event of whole_ones) {
      if (event.startsWith("data: ") && event !== "data: [DONE]") yield JSON.parse(event.slice(6));
    }
  }
}

async function send() {
  const agent = talking();
  const prompt = $("message").value;
  if (running || !agent || !prompt.trim()) {
    if (!agent) $("agent").focus();
    return;
  }
  const stop = new AbortController();
  set_running(stop);
  $("message").value = "";
  add_turn(agent, "You", "prompt", prompt);
  const turn = add_turn(agent, agent, "reply", "");
  const text = turn.querySelector(".text");
  // Told once it is whole, not word by word.
  text.setAttribute("aria-live", "polite");
  text.setAttribute("aria-busy", "true");
  turn.classList.add("is-busy");
  $("said").scrollTop = $("said").scrollHeight;
  try {
    await converse(agent, prompt, stop.signal, turn, text);
  } catch (error) {
    await explain(error, agent, turn, stop.signal);
  }
  turn.classList.remove("is-busy");
  text.setAttribute("aria-busy", "false");
  const had_focus = document.activeElement === $("stop");
  set_running(undefined);
  if (had_focus) $("message").focus();
  look_soon();
}

async function converse(agent, prompt, signal, turn, text) {
  const before = await state_of(agent);
  const most = Math.min(Math.max(Math.trunc(Number($("most").value)) || 200, 1), REPLY_TOKENS_MAX);
  $("most").value = most;
  const started = performance.now();
  const response = await ask(`${path_of(agent)}/generate`, {
    method: "POST",
    body: { prompt, max_tokens: most, stream: true },
    signal,
  });
  let first_ms;
  let memory;
  for await (const event of events(response.body)) {
    if (event.error) throw new Refused(response.status, event.error);
    const more = event.choices?.[0]?.delta?.content ?? "";
    if (more) {
      if (first_ms === undefined) {
        first_ms = performance.now() - started;
        look_soon();
      }
      text.append(more);
      $("said").scrollTop = $("said").scrollHeight;
    }
    memory = event.semantic ?? memory;
  }
  if (!memory) throw new Error("the answer ended before its end");
  const after = await state_of(agent);
  const from = {
    hot: "It was in memory",
    warm: `${counted(memory.restored_tokens, "token")} restored from disk in ${fine.format(memory.restore_ms)} ms`,
    cold: "Nothing to restore: it was computed",
  }[memory.source];
  const kept = memory.durable ? `on disk as save ${memory.generation}` : "not on disk yet";
  const first = first_ms === undefined ? [] : [[`. First text after ${seconds(first_ms / 1000).join(" ")}`]];
  note(turn, [memory.source, true], [` · ${from}`], ...first, [". "], [memory.durable ? "Durable" : "Not durable", true], [`: ${kept}.`]);
  note(turn, [`Before: ${describe(before)} → after: `], [describe(after), true]);
}

async function explain(error, agent, turn, signal) {
  if (!signal.aborted) {
    note(turn, [`It failed: ${error.message}.`]);
    return;
  }
  try {
    note(turn, ["Stopped", true], [". Now: "], [describe(await settled(agent)), true]);
  } catch {
    note(turn, ["Stopped", true], ["."]);
  }
}

function set_running(stop) {
  running = stop;
  show("stop", stop !== undefined);
  $("send").disabled = stop !== undefined;
  $("agent").readOnly = stop !== undefined;
  show_memory();
}

async function evict() {
  const agent = talking();
  $("evict").disabled = true;
  try {
    const { saved, forgotten } = await told(`${path_of(agent)}?evict_only=true`, { method: "DELETE", signal: AbortSignal.timeout(6 * ANSWER_MS_MAX) });
    const turn = add_turn(agent, "Memory", "event");
    note(turn, [`${counted(saved + forgotten, "conversation")} left the memory; `], [`${count(saved)} on disk`, true], [". The next turn brings it back."]);
  } catch (error) {
    note(add_turn(agent, "Memory", "event"), [`It stays in memory: ${error.message}.`]);
  }
  $("message").focus();
  look_soon();
}

// Hands on the page.

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  $("key").value = "";
  // A header takes nothing else.
  if (/^[!-~]+$/.test(key)) poll();
  else {
    put("key-error", key ? "A key has letters, digits and signs of ASCII only." : "Type a key.");
    key = "";
    $("key").focus();
  }
});
$("forget").addEventListener("click", () => {
  clearTimeout(timer);
  key = "";
  lock();
});
$("again").addEventListener("click", poll);
$("more").addEventListener("click", () => {
  agents_limit = Math.min(agents_limit + AGENTS_STEP, AGENTS_MAX);
  look_soon();
});
$("agent").addEventListener("input", () => {
  chosen = undefined;
  show_talk();
});
$("evict").addEventListener("click", evict);
$("stop").addEventListener("click", () => running?.abort());
$("talk").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) poll();
});
poll();
