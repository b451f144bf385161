"use strict";
// The editor, by what shared.js has. A segment is kept where somebody touched it; a detection that nobody touched is
// there while its score is at least the chosen one. What is there is what "Save" writes.

const LEAST_S = 0.05; // length of a segment
const TOP = 1000; // of the slider of scores: no detection
const PIXELS = 4; // a shorter drag is a click

let state = null;
let videos = []; // name, film, corrected, seconds (of a film in work), found, edit, pending (a loaded correction)
let current = -1;
let zoom = 1;
let now = 0; // seconds, where the playhead stands
let film = null;
let ids = 0;

const video = () => videos[current];
const edit = () => video()?.edit;
const hundredth = (second) => Math.round(second * 100) / 100;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const say = (text) => { byId("message").textContent = text; byId("message").hidden = !text; };
const length = () => Math.max(video().found.duration_s, ...edit().segments.map((each) => each.end), 0.1);
const percent = (second) => `${(100 * second) / length()}%`;
const isThere = (each) => each.kept ?? each.score >= edit().least;
const there = () => edit().segments.filter(isThere);
const payload = () => JSON.stringify(there().map((each) => [each.start, each.end, each.label]).sort());
const chosen = () => edit()?.segments.find((each) => each.id === edit().chosen && isThere(each));

async function ask(place, options) {
  const answer = await fetch(place, options).catch(() => { throw new Error("the program does not answer; is it still running?"); });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error);
  return value;
}

// What a promise fails with is told, not thrown.
const telling = (promise) => promise.catch((error) => say(error.message));

// --- videos ---

function take(given) {
  state = given;
  given.videos.forEach((entry, index) => { videos[index] = Object.assign(videos[index] ?? {}, entry); });
  byId("about").textContent = `${given.model}; saved in ${given.folder}`;
  byId("drop-text").textContent = given.takes_films ? "Drop a film or a file of features" : "Drop a file of features (.h5, .npy, .npz)";
  byId("classes").replaceChildren(...given.classes.map((name) => make("option", { value: name })));
  listVideos();
  if (given.videos.some((entry) => entry.seconds !== null)) setTimeout(() => telling(poll()), 1000);
}

let polling = false;
async function poll() {
  if (polling) return;
  polling = true;
  try { take(await ask("state")); } finally { polling = false; }
  if (current >= 0 && !video().found) await show(current);
}

function listVideos() {
  const text = byId("filter").value.trim().toLowerCase();
  const entries = videos.map((each, index) => [each, index]).filter(([each]) => each.name.toLowerCase().includes(text));
  byId("videos").replaceChildren(...entries.slice(0, 300).map(([each, index]) => {
    const changed = isChanged(each);
    const mark = changed ? ["mark changed", "●", "changed"] : each.corrected ? ["mark", "✓", "corrected"] : ["mark", "", ""];
    const button = make("button", { type: "button", "aria-current": String(index === current) },
      make("span", { class: mark[0], title: mark[2], role: "img", "aria-label": mark[2] }, mark[1]), make("span", {}, each.name));
    if (each.seconds !== null) button.append(make("span", { class: "quiet" }, each.seconds ? `${each.seconds.toFixed(0)} s of film done` : "waits"));
    button.addEventListener("click", () => telling(show(index)));
    return make("li", {}, button);
  }));
  if (entries.length > 300) byId("videos").append(make("li", { class: "quiet" }, `and ${entries.length - 300} more: filter`));
}

const isChanged = (each) => Boolean(each.edit?.touched && each.edit.now !== each.edit.saved);

async function show(index) {
  const before = current;
  current = index;
  say("");
  byId("name").textContent = video().name;
  if (before !== index) {
    now = 0;
    wanted = null;
    zoom = 1;
    film = video().film ? filmOf(`films/${index}`) : null;
    byId("film").replaceChildren(...(film ? [film.box] : []));
    if (film) {
      film.video.preload = "metadata";
      for (const event of ["timeupdate", "seeked"]) film.video.addEventListener(event, follow);
      film.video.addEventListener("play", frames);
    }
  }
  if (!video().found) {
    byId("editor").hidden = true;
    const found = await ask(`videos/${index}`);
    if (index !== current) return;
    if (found.waiting) {
      listVideos();
      setTimeout(() => telling(poll()), 1000);
      return say("Its features are being made; the film can be watched meanwhile.");
    }
    video().found = found;
  }
  if (!edit() || video().pending) begin(video());
  byId("editor").hidden = false;
  say(video().found.notes.join("; "));
  render();
}

// The corrections that there are, and the detections that they leave.
function begin(each) {
  const { detections, corrected, least } = each.found;
  const given = each.pending ?? corrected;
  const kept = (given ?? []).map(([start, end, label]) => ({ id: ++ids, start, end, label, score: null, kept: true }));
  const overlaps = (a, b) => a.label === b.label && Math.min(a.end, b.end) - Math.max(a.start, b.start) > 0.5 * (Math.max(a.end, b.end) - Math.min(a.start, b.start));
  const loose = detections
    .map(([start, end, label, score]) => ({ id: ++ids, start, end, label, score, kept: null }))
    .filter((one) => !kept.some((other) => overlaps(one, other)));
  const scores = loose.map((one) => one.score);
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  each.edit = {
    segments: [...kept, ...loose], past: [], future: [], chosen: null, touched: Boolean(each.pending), low, high,
    least: given ? Infinity : least ?? (high > 0 ? high / 2 : low),
  };
  each.edit.saved = corrected ? JSON.stringify(corrected.slice().sort()) : null;
  delete each.pending;
}

// --- changes ---

function change(act) {
  const before = JSON.stringify([edit().segments, edit().chosen]);
  act();
  if (JSON.stringify([edit().segments, edit().chosen]) === before) return;
  remember(before);
  render();
}

function remember(before) {
  edit().past.push(before);
  edit().future = [];
  edit().touched = true;
}

function step(from, to) {
  if (!from.length) return;
  to.push(JSON.stringify([edit().segments, edit().chosen]));
  [edit().segments, edit().chosen] = JSON.parse(from.pop());
  render();
}
const undo = () => step(edit().past, edit().future);
const redo = () => step(edit().future, edit().past);

function place(each, start, end) {
  const limit = length();
  each.start = hundredth(clamp(start, 0, limit - LEAST_S));
  each.end = hundredth(clamp(end, each.start + LEAST_S, Math.max(limit, each.start + LEAST_S)));
  each.kept = true;
}

function moveBy(each, seconds) {
  const long = each.end - each.start;
  const start = clamp(each.start + seconds, 0, Math.max(length() - long, 0));
  place(each, start, start + long);
}

// One end goes to a second, no further than the other end.
function moveEnd(each, part, second) {
  if (part === "start") place(each, Math.min(second, each.end - LEAST_S), each.end);
  else place(each, each.start, Math.max(second, each.start + LEAST_S));
}

function add(label, start, end) {
  const each = { id: ++ids, label, score: null, kept: true, start: 0, end: 0 };
  place(each, start, end);
  edit().segments.push(each);
  edit().chosen = each.id;
  return each;
}

function addAtPlayhead() {
  const label = chosen()?.label ?? lanes()[0] ?? state.classes[0];
  const long = Math.min(Math.max(length() / 20, 1), length());
  change(() => add(label, Math.min(now, length() - long), Math.min(now, length() - long) + long));
  focusOn(edit().chosen);
}

function remove(each) {
  change(() => {
    if (each.score === null) edit().segments.splice(edit().segments.indexOf(each), 1);
    else each.kept = false; // a lower score must not bring it back
    edit().chosen = null;
  });
  byId("scroller").focus({ preventScroll: true });
}

function relabel(each, label) {
  if (!label) return;
  if (!state.classes.includes(label)) {
    state.classes.push(label);
    byId("classes").append(make("option", { value: label }));
  }
  change(() => { each.label = label; each.kept = true; });
}

// --- drawing ---

function lanes() {
  const named = Object.keys(video().found.curves).filter((name) => name !== "foreground");
  return [...new Set([...named, ...there().map((each) => each.label)])].sort(natural);
}

// The row of each segment: none overlaps another of its row.
function rowsOf(segments) {
  const ends = [];
  const rows = new Map();
  for (const each of [...segments].sort((a, b) => a.start - b.start || a.id - b.id)) {
    const free = ends.findIndex((end) => end <= each.start + 1e-9);
    const row = free < 0 ? ends.length : free;
    ends[row] = each.end;
    rows.set(each.id, row);
  }
  return [rows, Math.max(ends.length, 1)];
}

function curveOf(name, shade) {
  const curve = video().found.curves[name];
  const svg = draw("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  if (!curve) return svg;
  const [seconds, values] = curve;
  const points = values.map((value, k) => `${((1000 * seconds[k]) / length()).toFixed(1)},${(100 - 96 * value).toFixed(1)}`);
  const ends = [seconds[0], seconds[seconds.length - 1]].map((second) => `${((1000 * second) / length()).toFixed(1)},100`);
  svg.append(draw("polygon", { points: [ends[0], ...points, ends[1]].join(" "), fill: shade }));
  return svg;
}

const shadeOf = (label) => colour(Math.max(state.classes.indexOf(label), 0));
const words = (each) => `${each.start.toFixed(2)} to ${each.end.toFixed(2)} s`;

function barOf(each, row) {
  const isChosen = each.id === edit().chosen;
  const handle = (part, text) => make("div", {
    class: `end ${part}`, role: "slider", tabindex: isChosen ? 0 : -1, "data-id": each.id, "data-part": part,
    "aria-label": `${text} of ${each.label}`, "aria-valuemin": 0, "aria-valuemax": length(),
    "aria-valuenow": each[part === "start" ? "start" : "end"], "aria-valuetext": `${each[part === "start" ? "start" : "end"]} seconds`,
  });
  const about = each.score === null ? "by hand" : `score ${each.score}${each.kept ? ", kept" : ""}`;
  const bar = make("div", {
    class: `segment${isChosen ? " chosen" : ""}${each.kept ? "" : " loose"}`, role: "group", tabindex: 0, "data-id": each.id, "data-part": "move",
    "aria-label": `${each.label}, ${words(each)}, ${about}`, background: shadeOf(each.label), title: `${each.label}  ${words(each)}  ${about}`,
  }, make("span", { class: "text" }, each.score === null ? "✓" : `${each.kept ? "✓ " : ""}${+each.score.toPrecision(3)}`), handle("start", "start"), handle("stop", "end"));
  Object.assign(bar.style, { left: percent(each.start), width: percent(each.end - each.start), top: `calc(var(--row) * ${row})` });
  return bar;
}

function render() {
  const held = document.activeElement?.dataset ?? {};
  byId("track").style.width = `${100 * zoom}%`;
  const visible = there();
  const list = lanes().map((label) => {
    const own = visible.filter((each) => each.label === label);
    const [rows, count] = rowsOf(own);
    const box = make("div", { class: "rows" }, ...own.map((each) => barOf(each, rows.get(each.id))));
    box.style.height = `calc(var(--row) * ${count})`;
    return make("div", { class: "lane", "data-label": label }, curveOf(label, shadeOf(label)), make("span", { class: "of" }, label), box);
  });
  if (video().found.curves.foreground) {
    list.push(make("div", { class: "lane only-curve" }, curveOf("foreground", "var(--quiet)"), make("span", { class: "of" }, "foreground, 0 to 1")));
  }
  byId("lanes").replaceChildren(...list);
  const room = byId("scroller").clientWidth * zoom;
  byId("ruler").replaceChildren(...ticks(length(), Math.max(room / 90, 2)).flatMap((second) => [
    draw("line", { x1: percent(second), x2: percent(second), y1: 18, y2: 30 }),
    draw("text", { class: "quiet", x: percent(second), dx: second ? 0 : 5, y: 13, "text-anchor": second ? "middle" : "start" }, clock(second)),
  ]));
  if (Number(held.id) === edit().chosen) focusOn(edit().chosen, held.part);
  showPlayhead();
  showLeast();
  showDetails();
  edit().now = payload();
  byId("undo").disabled = !edit().past.length;
  byId("redo").disabled = !edit().future.length;
  byId("saved").textContent = isChanged(video()) ? "not saved" : video().corrected ? "saved" : "";
  document.title = `${isChanged(video()) ? "● " : ""}${video().name} – Correct detections`;
  listVideos();
}

function focusOn(id, part = "move") {
  const element = document.querySelector(`#lanes [data-id="${id}"][data-part="${part}"]`);
  element?.focus({ preventScroll: part !== "move" });
}

function showLeast() {
  const { low, high, least, segments } = edit();
  const loose = segments.filter((each) => each.score !== null);
  byId("least").disabled = !loose.length;
  byId("least").value = least > high ? TOP : high > low ? Math.round(((TOP - 1) * (least - low)) / (high - low)) : 0;
  const shown = loose.filter(isThere).length;
  const from = least > high ? "No detections but those kept" : `Detections from score ${+least.toPrecision(3)} on`;
  byId("least-text").textContent = loose.length ? `${from}: ${shown} of ${loose.length}` : "The model found nothing here.";
}

function showDetails() {
  const form = byId("details");
  const each = chosen();
  if (!each) {
    form.replaceChildren(make("span", { class: "quiet" }, `${count(there().length, "segment")}. Choose one to change it, or drag in a lane to add one.`));
    return;
  }
  const number = (part) => make("input", { type: "number", name: part, min: 0, max: length(), step: 0.01, value: each[part], inputmode: "decimal" });
  const [start, end] = [number("start"), number("end")];
  const label = make("input", { type: "text", name: "label", list: "classes", value: each.label, maxlength: 200 });
  start.addEventListener("change", () => change(() => moveEnd(each, "start", Number(start.value) || 0)));
  end.addEventListener("change", () => change(() => moveEnd(each, "stop", Number(end.value) || 0)));
  label.addEventListener("change", () => { relabel(each, label.value.trim()); label.value = each.label; });
  const remover = make("button", { class: "more", type: "button", title: "Delete" }, "Delete");
  remover.addEventListener("click", () => remove(each));
  const player = make("button", { class: "more", type: "button", title: "Enter" }, "Play");
  player.addEventListener("click", () => play(each));
  const score = each.score === null ? "by hand" : `score ${each.score}${each.kept ? ", kept" : ""}`;
  form.replaceChildren(make("label", {}, "Class", label), make("label", {}, "from", start), make("label", {}, "to", end, "s"),
    ...(film ? [player] : []), remover, make("span", { class: "quiet" }, score));
}

// --- the film ---

function play(each) {
  if (film) film.play(each.start, each.end);
  else seek(each.start);
}

// A film that is on its way to another frame goes to the last one that was asked for, and to none between.
let wanted = null;
function seek(second) {
  now = clamp(second, 0, length());
  if (film?.video.seeking) wanted = now;
  else if (film) film.video.currentTime = now;
  showPlayhead();
}

function follow() {
  if (!film.video.seeking && wanted !== null) [film.video.currentTime, wanted] = [wanted, null];
  if (!film.video.seeking) now = film.video.currentTime;
  showPlayhead();
}
function frames() {
  follow();
  if (!film.video.paused) requestAnimationFrame(frames);
}

function showPlayhead() {
  if (edit()) byId("playhead").style.left = percent(Math.min(now, length()));
}

// --- mouse and touch ---

let drag = null;
const secondAt = (event) => {
  const box = byId("track").getBoundingClientRect();
  return clamp(((event.clientX - box.left) / box.width) * length(), 0, length());
};

byId("lanes").addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || drag) return;
  const part = event.target.closest("[data-part]");
  const label = event.target.closest(".lane")?.dataset.label;
  const each = part && edit().segments.find((one) => one.id === Number(part.dataset.id));
  if (!each && (!label || event.pointerType === "touch")) return; // a finger scrolls there
  drag = {
    each, label, part: each ? part.dataset.part : "new", from: event.clientX, at: secondAt(event), moved: false,
    before: JSON.stringify([edit().segments, edit().chosen]), bounds: each && [each.start, each.end],
  };
  byId("lanes").setPointerCapture(event.pointerId);
  event.preventDefault(); // no text is chosen
  if (each) {
    edit().chosen = each.id;
    render();
    focusOn(each.id, drag.part);
  }
});

byId("lanes").addEventListener("pointermove", (event) => {
  if (!drag || (!drag.moved && Math.abs(event.clientX - drag.from) < PIXELS && !otherLane(event))) return;
  const second = secondAt(event);
  if (!drag.moved) {
    drag.moved = true;
    if (drag.part === "new") {
      drag.each = add(drag.label, Math.min(drag.at, second), Math.max(drag.at, second));
      render();
    }
  }
  const { each } = drag;
  if (drag.part === "new") place(each, Math.min(drag.at, second), Math.max(drag.at, second));
  else if (drag.part === "move") {
    [each.start, each.end] = drag.bounds;
    moveBy(each, second - drag.at);
    const lane = otherLane(event);
    if (lane) each.label = lane;
  } else moveEnd(each, drag.part, drag.bounds[drag.part === "start" ? 0 : 1] + second - drag.at);
  const bar = document.querySelector(`#lanes .segment[data-id="${each.id}"]`);
  Object.assign(bar.style, { left: percent(each.start), width: percent(each.end - each.start), background: shadeOf(each.label) });
  const rows = [...document.querySelectorAll("#lanes .lane")].find((lane) => lane.dataset.label === each.label).querySelector(".rows");
  if (bar.parentElement !== rows) rows.append(bar);
  showDetails();
  seek(drag.part === "stop" ? each.end : drag.part === "new" ? second : each.start); // the frame at that end
});

// The class of the lane below the pointer, where it is another than the segment's.
function otherLane(event) {
  if (drag.part !== "move") return null;
  const label = document.elementFromPoint(event.clientX, event.clientY)?.closest(".lane")?.dataset.label;
  return label && label !== drag.each.label ? label : null;
}

byId("lanes").addEventListener("pointerup", () => {
  if (!drag) return;
  const { each, moved, before, at, part } = drag;
  drag = null;
  if (moved) remember(before);
  else if (!each) {
    edit().chosen = null;
    seek(at);
  }
  render();
  if (moved) focusOn(each.id, part === "new" ? "move" : part);
});

byId("lanes").addEventListener("pointercancel", () => {
  if (!drag) return;
  [edit().segments, edit().chosen] = JSON.parse(drag.before);
  drag = null;
  render();
});

byId("ruler").addEventListener("pointerdown", (event) => {
  if (event.pointerType !== "touch") byId("ruler").setPointerCapture(event.pointerId);
  seek(secondAt(event));
});
byId("ruler").addEventListener("pointermove", (event) => { if (byId("ruler").hasPointerCapture(event.pointerId)) seek(secondAt(event)); });

function zoomBy(factor) {
  const middle = chosen() ? (chosen().start + chosen().end) / 2 : now;
  zoom = clamp(zoom * factor, 1, Math.max(length() / 10, 1));
  render();
  const scroller = byId("scroller");
  scroller.scrollLeft = (middle / length()) * scroller.clientWidth * zoom - scroller.clientWidth / 2;
}

byId("scroller").addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoomBy(event.deltaY < 0 ? 1.25 : 0.8);
}, { passive: false });

// --- keys ---

byId("lanes").addEventListener("focusin", (event) => {
  const id = Number(event.target.dataset.id);
  if (!id || id === edit().chosen || drag) return;
  edit().chosen = id;
  render();
});

document.addEventListener("keydown", (event) => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if ((event.ctrlKey || event.metaKey) && key === "s") {
    event.preventDefault();
    return telling(save());
  }
  if (!edit() || byId("editor").hidden || event.altKey || event.target.closest("input, summary")) return;
  const each = chosen();
  const shift = event.shiftKey ? 1 : 0.1;
  const act = () => {
    if (event.ctrlKey || event.metaKey) return { z: event.shiftKey ? redo : undo, y: redo }[key];
    if (key === "n") return addAtPlayhead;
    if (!each) return null;
    const part = event.target.dataset?.part ?? "move";
    const by = (seconds) => () => change(() => (part === "move" ? moveBy(each, seconds) : moveEnd(each, part, (part === "start" ? each.start : each.end) + seconds)));
    const lane = (direction) => () => relabel(each, lanes()[lanes().indexOf(each.label) + direction]);
    return {
      ArrowLeft: by(-shift), ArrowRight: by(shift), ArrowUp: lane(-1), ArrowDown: lane(1),
      Delete: () => remove(each), Backspace: () => remove(each),
      Enter: event.target.closest("button") ? null : () => play(each),
      "[": () => change(() => moveEnd(each, "start", now)), "]": () => change(() => moveEnd(each, "stop", now)),
      Escape: () => { edit().chosen = null; byId("scroller").focus({ preventScroll: true }); render(); },
    }[key];
  };
  const action = act();
  if (!action) return;
  event.preventDefault();
  action();
});

// --- saving and loading ---

async function save() {
  if (!edit()) return;
  if (document.activeElement.matches("input")) document.activeElement.blur(); // what is being typed counts
  const [each, written] = [video(), payload()];
  const { saved } = await ask(`videos/${current}`, { method: "POST", body: JSON.stringify({ segments: JSON.parse(written) }) });
  each.corrected = true;
  each.edit.saved = written;
  say("");
  render();
  byId("saved").textContent = saved;
}

async function load(file) {
  const { videos: loaded } = await ask(`load?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
  const unknown = Object.keys(loaded).filter((name) => !videos.some((each) => each.name === name));
  const known = videos.filter((each) => Object.hasOwn(loaded, each.name));
  for (const each of known) each.pending = loaded[each.name];
  for (const label of new Set(Object.values(loaded).flat().map((row) => row[2]))) if (!state.classes.includes(label)) state.classes.push(label);
  if (current >= 0 && video().pending) await show(current);
  const rest = unknown.length ? `; not here: ${unknown.slice(0, 3).join(", ")}${unknown.length > 3 ? ", ..." : ""}` : "";
  say(`${file.name}: read for ${count(known.length, "video")}${rest}. Look at each, and save it.`);
}

// By XMLHttpRequest, as fetch does not tell how much was sent.
function upload(file) {
  if (file.size > state.max_upload_bytes) return say(`${file.name}: larger than ${state.max_upload_bytes / 2 ** 20} MiB`);
  const request = new XMLHttpRequest();
  const rate = byId("fps").value ? `&fps=${encodeURIComponent(byId("fps").value)}` : "";
  request.open("POST", `uploads?name=${encodeURIComponent(file.name)}${rate}`);
  request.upload.addEventListener("progress", (event) => say(`${file.name}: ${Math.round((100 * event.loaded) / event.total)} %`));
  request.addEventListener("error", () => say("the program does not answer; is it still running?"));
  request.addEventListener("load", () => {
    const answer = JSON.parse(request.responseText);
    if (request.status !== 200) return say(answer.error);
    const first = videos.length;
    take(answer);
    telling(show(first));
  });
  request.send(file);
}

const takeFile = (file) => (/\.(csv|json|jsonl|srt|vtt|eaf)$/i.test(file.name) ? telling(load(file)) : upload(file));
for (const [id, act] of [["file", takeFile], ["load", (file) => telling(load(file))]]) {
  byId(id).addEventListener("change", () => { [...byId(id).files].forEach(act); byId(id).value = ""; });
}
document.addEventListener("dragover", (event) => { event.preventDefault(); byId("drop").classList.add("over"); });
document.addEventListener("dragleave", () => byId("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  [...event.dataTransfer.files].forEach(takeFile);
});

byId("save").addEventListener("click", () => telling(save()));
byId("undo").addEventListener("click", () => undo());
byId("redo").addEventListener("click", () => redo());
byId("add").addEventListener("click", addAtPlayhead);
byId("wide").addEventListener("click", () => zoomBy(2));
byId("narrow").addEventListener("click", () => zoomBy(0.5));
byId("filter").addEventListener("input", listVideos);
byId("details").addEventListener("submit", (event) => event.preventDefault());
byId("least").addEventListener("input", () => {
  const { low, high } = edit();
  const value = Number(byId("least").value);
  edit().least = value === TOP ? Infinity : low + ((high - low) * value) / (TOP - 1);
  edit().touched = true;
  render();
});
window.addEventListener("resize", () => { if (edit()) render(); });
window.addEventListener("beforeunload", (event) => { if (videos.some(isChanged)) event.preventDefault(); });

telling(ask("state").then((given) => {
  take(given);
  document.documentElement.dataset.ready = "true";
  if (videos.length) return show(0);
  say("No videos yet: drop a file, or give some on the command line.");
}));
