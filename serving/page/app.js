// The explorer. What comes from the service is written as text alone, never as HTML.
import { drawMap } from "./map.js";
import { call, Refused, setKey, hasKey } from "./api.js";

const $ = (id) => document.getElementById(id);
const TONES = ["#2f7ed8", "#e07b39", "#2a9d6f", "#a45bd1", "#c94f7c", "#8a7a2b", "#3aa6b9", "#7c6f64"];
const WAIT = 280; // ms without typing before a search
const K = 6;
const state = { mode: "write", models: null, map: null, running: null, timer: 0 };

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const services = () => state.models?.index.services ?? [];
const known = () => [...new Set([...services(), ...(state.models?.data[0].services ?? [])])];
const reads = () => state.models?.data[0].reads ?? "text";
const tone = (service) => TONES[Math.max(0, known().indexOf(service)) % TONES.length];

function toned(node, service) {
  node.style.setProperty("--tone", tone(service));
  return node;
}
const dot = (service) => toned(el("span", { class: "dot", "aria-hidden": "true" }), service);

// ------------------------------------------------------------------ what the user did

function addEvent(service = null, text = "", after = null) {
  const list = $("events");
  const select = el("select", { "aria-label": "Service", onchange: soon });
  for (const name of known()) select.append(el("option", { value: name }, name));
  const previous = after ?? list.lastElementChild;
  select.value = service ?? previous?.querySelector("select").value ?? known()[0] ?? "";
  const input = el("input", {
    "aria-label": "What they did", spellcheck: "false", autocomplete: "off", maxlength: "500",
    placeholder: reads() === "text" ? "in words" : "an item id", oninput: soon, onkeydown: onEventKey,
  });
  input.value = text;
  const remove = el("button", { type: "button", class: "remove quiet", "aria-label": "Remove this behaviour", onclick: () => removeEvent(item) }, "×");
  const item = el("li", {}, select, input, remove);
  if (after) after.after(item); else list.append(item);
  return input;
}

function removeEvent(item) {
  const next = item.nextElementSibling ?? item.previousElementSibling;
  item.remove();
  if (!$("events").children.length) addEvent();
  (next?.isConnected ? next : $("events").lastElementChild).querySelector("input").focus();
  soon();
}

function onEventKey(event) {
  const item = event.target.closest("li");
  if (event.key === "Enter") {
    event.preventDefault();
    addEvent(null, "", item).focus();
  } else if (event.key === "Backspace" && !event.target.value && $("events").children.length > 1) {
    event.preventDefault();
    removeEvent(item);
  }
}

function writtenEvents() {
  const key = reads();
  return [...$("events").children]
    .map((item) => ({ item, service: item.querySelector("select").value, [key]: item.querySelector("input").value.trim() }))
    .filter((event) => event[key]);
}

// ------------------------------------------------------------------ searching

function soon() {
  clearTimeout(state.timer);
  state.timer = setTimeout(search, WAIT);
}

async function search() {
  clearTimeout(state.timer);
  if (!state.models) return start();
  state.running?.abort();
  const run = (state.running = new AbortController());
  const began = performance.now();
  $("results").classList.add("busy");
  try {
    const answer = await (state.mode === "write" ? byEvents(run.signal) : byUser(run.signal));
    if (run.signal.aborted) return;
    clearProblem();
    if (answer) show(answer, performance.now() - began);
  } catch (error) {
    if (!run.signal.aborted) refuse(error);
  } finally {
    if (state.running === run) $("results").classList.remove("busy");
  }
}

async function byEvents(signal) {
  const written = writtenEvents();
  if (!written.length) {
    empty("Nothing is written yet. Write a behaviour, or try an example.");
    return null;
  }
  const events = written.map(({ item, ...event }) => event);
  const embedded = await call("POST", "v1/users/embed", { users: [{ events }] }, signal);
  const vector = embedded.data[0].vector;
  const unseen = embedded.unseen_services;
  return { ...(await neighbours({ vector }, signal)), vector, unseen, events: written.length };
}

async function byUser(signal) {
  const user_id = $("user").value.trim();
  suggest(user_id, signal);
  if (!user_id) {
    $("history").replaceChildren();
    empty("Pick a user by their id, or let chance pick one.");
    return null;
  }
  const [found, own] = await Promise.all([
    neighbours({ user_id }, signal),
    call("POST", "v1/explore/histories", { user_ids: [user_id], newest: 8 }, signal),
  ]);
  const user = own.data[0];
  $("history").replaceChildren(user ? did(user) : el("p", { class: "empty" }, "Their history is not here yet."));
  return { ...found, user };
}

async function neighbours(who, signal) {
  const [alike, ...items] = await Promise.all([
    call("POST", "v1/users/similar", { ...who, k: K }, signal),
    ...services().map((service) => call("POST", "v1/items/search", { ...who, service, k: K }, signal)),
  ]);
  const ids = alike.data.map((one) => one.user_id);
  const histories = ids.length ? await call("POST", "v1/explore/histories", { user_ids: ids, newest: 3 }, signal) : { data: [] };
  return { alike, items, histories: new Map(histories.data.map((one) => [one.user_id, one])) };
}

// ------------------------------------------------------------------ showing

function show({ alike, items, histories, vector, user, unseen, events }, took) {
  $("latency").textContent = `${Math.round(took)} ms`;
  stamp(alike);
  const columns = services().map((service, number) => column(service, items[number].data));
  $("items").replaceChildren(...columns);
  $("alike").replaceChildren(...alike.data.map((one) => person(one, histories.get(one.user_id))));
  if (!alike.data.length) $("alike").replaceChildren(el("li", { class: "empty" }, "No other user is in the index."));
  const shown = items.reduce((sum, each) => sum + each.data.length, 0);
  const who = user ? `User ${user.user_id}` : `${events} behaviour${events === 1 ? "" : "s"}`;
  const strange = unseen?.length ? ` The model was not pretrained on ${unseen.join(", ")} and reads its words alone.` : "";
  $("status").textContent = `${who}: ${shown} items and ${alike.data.length} look-alikes.${strange}`;
  const marked = alike.data.map((one) => histories.get(one.user_id)).filter(Boolean);
  place(user ? user.at : vector && placed(vector), marked.map((one) => one.at));
}

function column(service, hits) {
  const list = el("ol");
  const top = Math.max(...hits.map((hit) => hit.score), 1e-9);
  const low = Math.min(...hits.map((hit) => hit.score), 0);
  for (const hit of hits) {
    const filled = el("i");
    filled.style.width = `${Math.max(3, (100 * (hit.score - low)) / (top - low || 1))}%`;
    list.append(el("li", {}, el("span", { class: "text" }, hit.text || hit.item_id),
      el("span", { class: "score", title: "score" }, hit.score.toFixed(2)), el("span", { class: "bar", "aria-hidden": "true" }, filled)));
  }
  const body = hits.length ? list : el("p", { class: "empty" }, "This service has no items in the index.");
  return toned(el("section", { class: "card", "aria-label": `Items of ${service}` }, el("h4", {}, dot(service), service), body), service);
}

function person(hit, history) {
  const name = el("button", { type: "button", title: "Look at this user", onclick: () => pick(hit.user_id) }, hit.user_id);
  const head = el("div", { class: "person" }, name, el("span", { class: "score", title: "cosine" }, hit.score.toFixed(2)));
  return el("li", { class: "card" }, head, history ? did(history) : el("p", { class: "empty" }, "Their history is not here yet."));
}

function did(user) {
  const lines = user.services.map(({ service, events, newest }) => {
    const texts = newest.map((item) => item.text || item.item_id).join(" · ");
    return el("div", {}, dot(service), el("p", {}, el("b", {}, `${service} ${events.toLocaleString()}`), " ", el("span", { class: "texts" }, texts)));
  });
  return el("div", { class: "did" }, ...lines);
}

function empty(text) {
  $("latency").textContent = "–";
  $("items").replaceChildren(el("p", { class: "empty" }, "Items of each service will stand here."));
  $("alike").replaceChildren(el("li", { class: "empty" }, "Users with similar habits will stand here."));
  $("status").textContent = text;
  clearProblem();
  place(null, []);
}

function stamp({ model, index }) {
  $("model").textContent = model.slice(0, 10);
  $("model").title = model;
  $("generation").textContent = index;
}

function clearProblem() {
  $("problem").hidden = true;
  for (const item of $("events").children) item.classList.remove("wrong");
}

function refuse(error) {
  const box = $("problem");
  const lines = [el("p", {}, error instanceof Refused ? error.sentence : "The page failed. Reload it; if it stays so, tell the operator.")];
  if (!(error instanceof Refused)) console.warn(error);
  const list = el("ul");
  const written = writtenEvents();
  for (const { pointer, detail } of error.errors ?? []) {
    const number = /\/events\/(\d+)/.exec(pointer)?.[1];
    if (number !== undefined) written[number]?.item.classList.add("wrong");
    list.append(el("li", {}, number === undefined ? detail : `Behaviour ${+number + 1}: ${detail}`));
  }
  if (list.children.length) lines.push(list);
  box.replaceChildren(...lines);
  box.hidden = false;
  $("status").textContent = "";
  if (error.status === 401 || error.status === 403) showKey(true);
  if (error.retry) state.timer = setTimeout(search, 1000 * error.retry);
}

// ------------------------------------------------------------------ the map

function placed(vector) {
  const { axes, mean, columns } = state.map;
  const part = vector.slice(columns[0], columns[1]);
  const length = Math.hypot(...part) || 1;
  return axes.map((axis) => axis.reduce((sum, weight, n) => sum + weight * (part[n] / length - mean[n]), 0));
}

function place(you, alike) {
  state.marks = { you, alike };
  if (!state.map) return;
  drawMap($("map"), state.map.points, you, alike);
  const share = Math.round(100 * state.map.explained);
  const where = you ? `This user among ${state.map.points.length.toLocaleString()} others, ${alike.length} look-alikes marked.` : `${state.map.points.length.toLocaleString()} users of the population.`;
  $("map-text").textContent = `${where} The two main axes hold ${share} % of what tells users apart.`;
}

// ------------------------------------------------------------------ choosing a user

async function suggest(prefix, signal) {
  try {
    const { data } = await call("GET", `v1/explore/users?prefix=${encodeURIComponent(prefix)}&limit=12`, null, signal);
    $("users").replaceChildren(...data.map((user) => el("option", { value: user })));
  } catch (error) {
    if (!(error instanceof Refused) && !signal.aborted) throw error;
  }
}

async function anyUser() {
  const { data } = await call("GET", "v1/explore/users?limit=50");
  return data[Math.floor(Math.random() * data.length)];
}

function pick(user) {
  $("user").value = user;
  choose("known");
  $("results").focus({ preventScroll: true });
  scrollTo({ top: 0, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

async function example() {
  const user = await anyUser();
  const { data } = await call("POST", "v1/explore/histories", { user_ids: [user], newest: 2 });
  $("events").replaceChildren();
  for (const { service, newest } of data[0]?.services ?? []) {
    for (const item of newest) addEvent(service, reads() === "text" ? item.text : item.item_id);
  }
  if (!$("events").children.length) addEvent();
  search();
}

const guarded = (action) => () => action().catch(refuse);

// ------------------------------------------------------------------ tabs, key, start

function choose(mode) {
  state.mode = mode;
  for (const name of ["write", "known"]) {
    const tab = $(`tab-${name}`);
    tab.setAttribute("aria-selected", String(name === mode));
    tab.tabIndex = name === mode ? 0 : -1;
    $(name).hidden = name !== mode;
  }
  search();
}

function showKey(open) {
  $("key-form").hidden = !open;
  $("key-button").setAttribute("aria-expanded", String(open));
  if (open) $("key").focus();
}

async function start() {
  try {
    [state.models, state.map] = await Promise.all([call("GET", "v1/models"), call("GET", "v1/explore/map")]);
  } catch (error) {
    refuse(error);
    return;
  }
  clearProblem();
  const { data, index } = state.models;
  stamp({ model: data[0].id, index: index.id });
  $("size").textContent = `${index.users.toLocaleString()} users · ${index.items.toLocaleString()} items`;
  if (reads() !== "text") $("write-hint").textContent = "Which items did they meet, oldest first? This model reads item ids. Enter adds a line.";
  $("events").replaceChildren();
  addEvent();
  search();
}

$("add").addEventListener("click", () => addEvent().focus());
$("sample").addEventListener("click", guarded(example));
$("clear").addEventListener("click", () => { $("events").replaceChildren(); addEvent().focus(); search(); });
$("user").addEventListener("input", soon);
$("random").addEventListener("click", guarded(async () => { $("user").value = await anyUser(); await search(); }));
for (const tab of [$("tab-write"), $("tab-known")]) {
  tab.addEventListener("click", () => choose(tab.id.slice(4)));
  tab.addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    const other = tab.id === "tab-write" ? "known" : "write";
    choose(other);
    $(`tab-${other}`).focus();
  });
}
$("key-button").addEventListener("click", () => showKey($("key-form").hidden));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey($("key").value.trim());
  $("key").value = "";
  showKey(false);
  start();
});
$("key-button").classList.toggle("set", hasKey());
const redraw = () => state.marks && place(state.marks.you, state.marks.alike);
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
start();
