"use strict";
// The page's only script. Everything from the data reaches the page as text or as an attribute, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const LINKS = 12; // of a video's annotations in words
const last = data.sets.length - 1;
const percent = (value, digits = 1) => (value === null ? "–" : (100 * value).toFixed(digits));
const byId = (id) => document.getElementById(id);
// Six colours, then the same darker, then paler (the paper has up to 15 iterations); lines differ in their dashes too.
const SHADES = ["", "var(--text)", "var(--page)"];
const DASHES = ["none", "7 3", "2 3"];
const turn = (index) => Math.floor(index / 6) % 3;
const colour = (index) => (turn(index) ? `color-mix(in srgb, var(--c${index % 6}) 52%, ${SHADES[turn(index)]})` : `var(--c${index % 6})`);
const natural = new Intl.Collator(undefined, { numeric: true }).compare; // class 2 before class 10
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// An element with attributes and children; strings become text. Colours are styles, so that they can be variables.
function element(created, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (["fill", "stroke", "background"].includes(name)) created.style[name] = value;
    else created.setAttribute(name, value);
  }
  created.append(...children);
  return created;
}
const make = (tag, attributes = {}, ...children) => element(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) => element(document.createElementNS(SVG, tag), attributes, children);

// Drawings are made for the screen's width, so that their text stays readable on a phone.
const roomFor = (width) => Math.max(Math.min(width, document.body.clientWidth - 40), 280);

function key(colour, text) {
  return make("span", { class: "key" }, make("span", { class: "swatch", background: colour }), text);
}

const keys = (...entries) => make("div", { class: "keys" }, ...entries);

// A table that sorts by any column and filters by text.
// columns: {title, value(row), show(row) -> text or element, text: left-aligned}
function table(place, columns, rows, { filter, search, sort, page = 100, detail } = {}) {
  let [column, down] = sort;
  let limit = page;
  const open = new Set(); // rows whose detail is shown; they stay open when the table is sorted, filtered or longer
  const body = make("tbody");
  const count = make("span", { class: "count" });
  const more = make("button", { class: "more", type: "button" });
  const heads = columns.map((entry, index) => {
    const button = make("button", { type: "button" }, entry.title);
    button.addEventListener("click", () => {
      down = index === column ? !down : !entry.text; // numbers start with the largest, names with A
      column = index;
      render();
    });
    return make("th", { scope: "col", class: entry.text ? "text" : "" }, button);
  });

  function compare(a, b) {
    const [x, y] = [columns[column].value(a), columns[column].value(b)];
    if (x === null || y === null) return (x === null) - (y === null); // what is not known goes last
    const order = typeof x === "string" ? natural(x, y) : x - y;
    return down ? -order : order;
  }

  function render() {
    const text = filter ? filter.value.trim().toLowerCase() : "";
    const matches = rows.filter((row) => !text || search(row).toLowerCase().includes(text)).sort(compare);
    heads.forEach((head, index) => {
      head.setAttribute("aria-sort", index !== column ? "none" : down ? "descending" : "ascending");
    });
    body.replaceChildren(
      ...matches.slice(0, limit).flatMap((row) => {
        const cells = columns.map((entry) => make("td", { class: entry.text ? "text" : "" }, entry.show(row)));
        const line = make("tr", {}, ...cells);
        return detail ? openable(line, cells[0], row, detail, columns.length, open) : [line];
      }),
    );
    count.textContent = `${matches.length} of ${rows.length}`;
    more.hidden = matches.length <= limit;
    more.textContent = `Show ${Math.min(page, matches.length - limit)} more`;
  }

  more.addEventListener("click", () => { limit += page; render(); });
  if (filter) {
    filter.addEventListener("input", () => { limit = page; render(); });
    filter.after(count);
  }
  place.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body), more);
  render();
}

// The first cell becomes a button that opens a row below; gives the line, and that row where it is open.
function openable(line, cell, row, detail, width, open) {
  const button = make("button", { type: "button" }, ...cell.childNodes);
  const below = () => make("tr", { class: "detail" }, make("td", { colspan: width }, make("div", { class: "pinned" }, detail(row))));
  const show = () => {
    line.classList.toggle("open", open.has(row));
    button.setAttribute("aria-expanded", String(open.has(row)));
  };
  cell.replaceChildren(button);
  button.addEventListener("click", () => {
    if (open.delete(row)) line.nextElementSibling.remove();
    else { open.add(row); line.after(below()); }
    show();
  });
  show();
  return open.has(row) ? [line, below()] : [line];
}

function withInterval(value, interval, digits) {
  if (!interval) return percent(value, digits);
  const range = make("span", { class: "interval" }, interval.map((bound) => percent(bound, digits - 1)).join(" – "));
  return make("span", {}, `${percent(value, digits)} `, range);
}

function scores() {
  const names = data.tious.map((tiou) => tiou.toFixed(2));
  const columns = [
    { title: "name", text: true, value: (set) => set.name, show: (set) => set.name },
    {
      title: "average", value: (set) => set.average_mAP,
      show: (set) => withInterval(set.average_mAP, set.interval?.average_mAP, 2),
    },
    ...names.map((name, k) => ({
      title: name, value: (set) => set.mAP[k],
      show: (set) => withInterval(set.mAP[k], set.interval?.mAP.map((bounds) => bounds[k]), 2),
    })),
    { title: "detections", value: (set) => set.detections, show: (set) => String(set.detections) },
  ];
  table(byId("score-table"), columns, [...data.sets], { sort: [0, false] });
  if (data.tious.length > 1) byId("score-chart").append(scoreChart(names));
}

// mAP over thresholds, a line a set, its confidence interval as a band.
function scoreChart(names) {
  const [width, height, left, bottom] = [roomFor(640), 250, 40, 30];
  const highest = Math.max(...data.sets.flatMap((set) => (set.interval ? set.interval.mAP[1] : set.mAP)), 0.01) * 1.06;
  const x = (k) => left + ((width - left - 10) * k) / (names.length - 1);
  const y = (value) => height - bottom - (height - bottom - 10) * (value / highest);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "mAP by tIoU threshold" });
  svg.style.maxWidth = "44rem";
  const step = [0.01, 0.02, 0.05, 0.1, 0.2].find((size) => highest / size <= 6) || 0.25;
  for (let value = 0; value <= highest; value += step) {
    svg.append(draw("line", { class: "grid", x1: left, x2: width - 10, y1: y(value), y2: y(value) }));
    svg.append(draw("text", { class: "quiet", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, percent(value, 0)));
  }
  names.forEach((name, k) => {
    svg.append(draw("text", { class: "quiet", x: x(k), y: height - bottom + 16, "text-anchor": "middle" }, name));
  });
  data.sets.forEach((set, index) => {
    const path = (values) => values.map((value, k) => `${x(k)},${y(value)}`);
    if (set.interval) {
      const [low, high] = set.interval.mAP;
      const points = [...path(high), ...path(low).reverse()].join(" ");
      svg.append(draw("polygon", { points, fill: colour(index), opacity: 0.15 }));
    }
    const points = path(set.mAP).join(" ");
    svg.append(draw("polyline", { points, fill: "none", stroke: colour(index), "stroke-width": 2, "stroke-dasharray": DASHES[turn(index)] }));
  });
  const box = make("div", {}, svg);
  const what = "mAP (%) over tIoU" + (data.resamples ? "; bands: 95 % over resampled videos" : "");
  box.append(keys(...data.sets.map((set, index) => key(colour(index), set.name)), make("span", { class: "quiet" }, what)));
  return box;
}

// The change from the first set to the last.
function change(first, final) {
  if (first === null || final === null) return "–";
  const points = 100 * (final - first);
  const text = (points > 0 ? "+" : "") + points.toFixed(1);
  return make("span", { class: points > 0.05 ? "better" : points < -0.05 ? "worse" : "" }, text);
}

function classes() {
  const average = (row, index) => mean(row.ap[index]);
  const columns = [
    { title: "class", text: true, value: (row) => row.name, show: (row) => row.name },
    { title: "instances", value: (row) => row.instances, show: (row) => String(row.instances) },
    ...data.sets.map((set, index) => ({
      title: last ? set.name : "average AP", value: (row) => average(row, index),
      show: (row) => withInterval(average(row, index), row.intervals[index], 1),
    })),
    ...changes((row) => average(row, 0), (row) => average(row, last)),
    ...data.tious.map((tiou, k) => ({
      title: tiou.toFixed(2), value: (row) => row.ap[last][k], show: (row) => percent(row.ap[last][k]),
    })),
  ];
  const filter = byId("class-filter");
  table(byId("class-table"), columns, data.classes, { filter, search: (row) => row.name, sort: [0, false], page: 200 });
}

function changes(first, final) {
  if (!last) return [];
  const value = (row) => (first(row) === null || final(row) === null ? null : final(row) - first(row));
  return [{ title: "change", value, show: (row) => change(first(row), final(row)) }];
}

function videos() {
  const columns = [
    { title: "video", text: true, value: (row) => row.name, show: (row) => row.name },
    { title: "classes", text: true, value: (row) => row.labels.join(", "), show: (row) => row.labels.join(", ") },
    { title: "seconds", value: (row) => row.duration, show: (row) => (row.duration === null ? "–" : row.duration.toFixed(0)) },
    { title: "annotations", value: (row) => row.truth.length, show: (row) => String(row.truth.length) },
    ...data.sets.map((set, index) => ({
      title: last ? set.name : "AP", value: (row) => row.scores[index], show: (row) => percent(row.scores[index]),
    })),
    ...changes((row) => row.scores[0], (row) => row.scores[last]),
  ];
  const search = (row) => `${row.name} ${row.labels.join(" ")}`;
  const options = { filter: byId("video-filter"), search, sort: [0, false], page: 50, detail: timeline };
  table(byId("video-table"), columns, [...data.videos], options);
}

function ends() {
  const known = data.videos.filter((row) => row.scores[last] !== null && row.detections);
  const count = Math.min(4, Math.floor(known.length / 2));
  byId("ends-about").textContent =
    `Of ${data.sets[last].name}: AP within the video, mean over its classes and thresholds; of equal ones, those with more annotations.`;
  const card = (row, what) => {
    const value = make("span", { class: "quiet" }, `${what} (${data.sets.map((set, k) => `${set.name}: ${percent(row.scores[k])}`).join(", ")})`);
    return make("div", { class: "card" }, make("h3", {}, row.name, value), timeline(row));
  };
  for (const [what, sign] of [["best", -1], ["worst", 1]]) {
    known.sort((a, b) => sign * (a.scores[last] - b.scores[last]) || b.truth.length - a.truth.length);
    byId("ends-list").append(...known.slice(0, count).map((row) => card(row, what)));
  }
  if (!count) for (const part of [byId("ends"), document.querySelector('nav a[href="#ends"]')]) part.remove();
}

// Ground truth on top, each set below, a lane a class; taller and darker: a higher score within its row.
function timeline(row) {
  if (!row.detections) return make("p", { class: "quiet" }, "This video's time line was left out to keep the page small.");
  const labels = [...row.labels].sort(natural);
  const lanes = new Map(labels.map((label, index) => [label, index]));
  const all = [...row.truth, ...row.detections.flat()];
  const ends = all.reduce((most, segment) => Math.max(most, segment[1]), 0);
  const length = Math.max(row.duration ?? 0, ends) || 1; // annotations can lie beyond the stated end
  const beyond = row.duration !== null && ends > 1.005 * row.duration; // less cannot be seen
  const [width, left, tall, thin] = [roomFor(1000), roomFor(1000) < 600 ? 78 : 110, labels.length > 2 ? 15 : 24, 8];
  const rows = [["ground truth", row.truth, row.truth.length], ...data.sets.map((set, k) => [set.name, row.detections[k], row.counts[k]])];
  const body = tall * Math.max(labels.length, 1);
  const room = body + thin + 6;
  const height = rows.length * room + 20;
  const x = (second) => left + (width - left) * Math.min(Math.max(second / length, 0), 1);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `time line of ${row.name}` });
  for (const second of ticks(length, width < 600 ? 4 : 9)) {
    svg.append(draw("line", { class: "grid", x1: x(second), x2: x(second), y1: 0, y2: height - 20 }));
    svg.append(draw("text", { class: "quiet", x: x(second), y: height - 6, "text-anchor": second ? "middle" : "start" }, clock(second)));
  }
  for (const [start, end, label] of row.truth) {
    const wide = Math.max(x(end) - x(start), 1);
    svg.append(draw("rect", { x: x(start), width: wide, y: 0, height: height - 20, fill: colour(lanes.get(label)), opacity: 0.1 }));
  }
  rows.forEach(([name, segments, count], index) => {
    const top = index * room; // below the classes' lanes, a thin one holds the classes that the video does not have
    svg.append(draw("text", { x: 0, y: top + body / 2 + 4 }, clip(name, Math.floor(left / 6)), draw("title", {}, `${name}: ${count} segments`)));
    const known = segments.map((segment) => segment[3] ?? 1);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const strengthOf = (score) => (score === undefined || high === low ? 1 : (score - low) / (high - low));
    // The surest first: a bar that it overlaps stands before it, as it is lower.
    const drawn = [...segments].sort((a, b) => strengthOf(b[3]) - strengthOf(a[3]));
    for (const [start, end, label, score] of drawn) {
      const strength = strengthOf(score);
      const lane = lanes.get(label);
      const annotated = lane !== undefined;
      const base = annotated ? top + (lane + 1) * tall : top + body + thin;
      const size = (annotated ? tall - 2 : thin) * (0.3 + 0.7 * strength);
      // Mixed with the page rather than transparent, so that bars over each other keep their own shade.
      const shade = `color-mix(in srgb, ${annotated ? colour(lane) : "var(--other)"} ${Math.round(40 + 60 * strength)}%, var(--panel))`;
      const box = { class: "bar", x: x(start), width: Math.max(x(end) - x(start), 1.5), y: base - size, height: size, fill: shade };
      const text = `${label}  ${start.toFixed(1)}–${end.toFixed(1)} s` + (score === undefined ? "" : `  score ${score}`);
      const bar = draw("rect", box, draw("title", {}, text));
      svg.append(row.file ? draw("a", { href: `${row.file}#t=${start},${end}`, target: "_blank" }, bar) : bar);
    }
  });
  const legend = [...labels.map((label) => key(colour(lanes.get(label)), label)), key("var(--other)", "another class")];
  if (beyond) {
    svg.append(draw("line", { class: "end", x1: x(row.duration), x2: x(row.duration), y1: 0, y2: height - 20 }));
    legend.push(make("span", { class: "quiet" }, `Dashed: the video's end, ${clock(row.duration)}.`));
  }
  const box = make("div", {}, svg, keys(...legend));
  if (row.file) {
    const links = row.truth.slice(0, LINKS).flatMap(([start, end, label]) => [
      make("a", { href: `${row.file}#t=${start},${end}`, target: "_blank" }, `${label} ${clock(start)}`), " ",
    ]);
    const more = row.truth.length - LINKS;
    box.append(make("div", { class: "links" }, "Play: ", ...links, more > 0 ? `and ${more} more, which the bars above open.` : ""));
  }
  const most = Math.max(...row.counts);
  if (most > data.drawn) box.append(make("span", { class: "quiet" }, `Only the ${data.drawn} best of up to ${most} detections are drawn.`));
  return box;
}

function ticks(length, most) {
  const step = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600].find((size) => length / size <= most) || 7200;
  return Array.from({ length: Math.floor(length / step) + 1 }, (_, k) => k * step).filter((second) => second <= length * 0.97);
}

function clock(second) {
  if (second < 60) return `${+second.toFixed(1)} s`;
  const parts = [Math.floor(second / 3600), Math.floor((second % 3600) / 60), Math.floor(second % 60)];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((part, k) => (k ? String(part).padStart(2, "0") : part)).join(":");
}

const clip = (text, size) => (text.length > size ? `${text.slice(0, size - 1)}…` : text);

byId("title").textContent = data.title;
byId("about").textContent =
  `${data.videos.length} videos, ${data.classes.length} classes, ${data.classes.reduce((sum, row) => sum + row.instances, 0)} annotations (${data.ground_truth}); ` +
  `scores in percent`;
scores();
ends();
classes();
videos();
document.documentElement.dataset.ready = "true";
