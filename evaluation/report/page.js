"use strict";
// The report, by what shared.js has.

const data = JSON.parse(document.getElementById("data").textContent);
const LINKS = 12; // of a video's annotations in words, or of its best detections
const last = data.sets.length - 1;
const truth = data.ground_truth !== null;
const percent = (value, digits = 1) => (value === null ? "–" : (100 * value).toFixed(digits));
// Colours repeat after six, mixed; lines differ in their dashes too.
const DASHES = ["none", "7 3", "2 3"];
const CURVE = 34; // height of the strip of a curve
const plain = (value) => (value === null ? "–" : String(value));
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// Drawings are made for the screen's width, so that their text stays readable on a phone.
const roomFor = (width) => Math.max(Math.min(width, document.body.clientWidth - 40), 280);

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

// The main set's figure, as large as it is important.
function headline() {
  const set = data.sets[last];
  const place = byId("headline");
  const say = (figure, ...words) => place.append(make("strong", {}, figure), " ", ...words);
  if (!truth) return say(set.detections.toLocaleString("en"), `${things(set.detections, "detection")} of ${set.name} in ${set.videos} of ${count(data.videos.length, "video")}`);
  const [low, high] = [data.tious[0], data.tious[data.tious.length - 1]].map((tiou) => tiou.toFixed(2));
  const range = set.interval?.average_mAP.map((bound) => percent(bound)).join(" to ");
  const points = (value) => (value > 0 ? "+" : "") + (100 * value).toFixed(1);
  const apart = data.difference ? ` (${data.difference.map(points).join(" to ")})` : "";
  const words = [`${data.tious.length > 1 ? "average mAP" : "mAP"} of ${set.name} at tIoU ${low === high ? low : `${low} to ${high}`}`];
  if (range) words.push(`, 95 % interval ${range}`);
  if (last) words.push("; ", change(data.sets[0].average_mAP, set.average_mAP), ` points against ${data.sets[0].name}${apart}`);
  say(`${percent(set.average_mAP)} %`, ...words);
}

function scores() {
  const name = { title: "name", text: true, value: (set) => set.name, show: (set) => set.name };
  const number = (title, value) => ({ title, value, show: (set) => plain(value(set)) });
  if (!truth) {
    const counts = [number("best score", (set) => set.best), number("median score", (set) => set.median)];
    counts.push(number("detections", (set) => set.detections), number("videos with any", (set) => set.videos));
    table(byId("score-table"), [name, ...counts], [...data.sets], { sort: [0, false] });
    const lines = data.sets.map((set) => ({ name: set.name, values: set.above }));
    const about = { x: "score", y: "detections a video with at least this score", show: plain, note: "" };
    if (data.least.length > 1) byId("score-chart").append(chart(data.least, lines, about));
    return;
  }
  const columns = [
    name,
    {
      title: "average", value: (set) => set.average_mAP,
      show: (set) => withInterval(set.average_mAP, set.interval?.average_mAP, 2),
    },
    ...data.tious.map((tiou, k) => ({
      title: tiou.toFixed(2), value: (set) => set.mAP[k],
      show: (set) => withInterval(set.mAP[k], set.interval?.mAP.map((bounds) => bounds[k]), 2),
    })),
    number("detections", (set) => set.detections),
  ];
  table(byId("score-table"), columns, [...data.sets], { sort: [0, false] });
  const lines = data.sets.map((set) => ({ name: set.name, values: set.mAP, band: set.interval?.mAP }));
  const note = data.resamples ? "Bands: 95 % over resampled videos." : "";
  const about = { x: "tIoU threshold", y: "mAP (%)", show: (value) => percent(value, 0), note };
  if (data.tious.length > 1) byId("score-chart").append(chart(data.tious, lines, about));
}

// Lines over numbers x that are evenly spaced, each with a band where it has one; axes from 0 on, with their titles.
function chart(x, lines, about) {
  const [width, height, left, bottom, top] = [roomFor(1120), 300, 48, 46, 24];
  const highest = Math.max(...lines.flatMap((line) => (line.band ? line.band[1] : line.values)), 0.01) * 1.06;
  const across = (k) => left + ((width - left - 14) * k) / (x.length - 1);
  const up = (value) => height - bottom - (height - bottom - top) * (value / highest);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${about.y} over ${about.x}` });
  const between = round(highest / 6);
  for (let n = 0; n * between <= highest; n++) {
    const [value, y] = [+(n * between).toPrecision(6), up(n * between)];
    svg.append(draw("line", { class: "grid", x1: left, x2: width - 14, y1: y, y2: y }));
    svg.append(draw("text", { class: "quiet", x: left - 6, y: y + 4, "text-anchor": "end" }, about.show(value)));
  }
  // Thresholds are named, as many as have room; of more numbers than these, round ones.
  const every = Math.ceil(x.length / Math.min(11, width / 36));
  const [first, step] = [x[0], (x[x.length - 1] - x[0]) / (x.length - 1)];
  const apart = round((x.length * step) / Math.min(12, width / 60));
  const marks = x.length > 20
    ? Array.from({ length: x.length }, (_, k) => +((Math.ceil(first / apart) + k) * apart).toPrecision(6))
      .filter((value) => value <= x[x.length - 1]).map((value) => [(value - first) / step, String(value)])
    : x.map((value, k) => [k, value.toFixed(2)]).filter((_, k) => k % every === 0);
  for (const [k, text] of marks) {
    svg.append(draw("text", { class: "quiet", x: across(k), y: height - bottom + 16, "text-anchor": "middle" }, text));
  }
  svg.append(draw("text", { class: "axis", x: (left + width - 14) / 2, y: height - 8, "text-anchor": "middle" }, about.x));
  svg.append(draw("text", { class: "axis", x: 0, y: 12 }, about.y));
  const path = (values) => values.map((value, k) => `${across(k)},${up(value)}`);
  lines.forEach((line, index) => {
    if (line.band) {
      const points = [...path(line.band[1]), ...path(line.band[0]).reverse()].join(" ");
      svg.append(draw("polygon", { points, fill: colour(index), opacity: 0.15 }));
    }
    const points = path(line.values).join(" ");
    svg.append(draw("polyline", { points, fill: "none", stroke: colour(index), "stroke-width": 2, "stroke-dasharray": DASHES[turn(index)] }));
  });
  const box = make("div", {}, svg);
  box.append(keys(...lines.map((line, index) => key(colour(index), line.name)), make("span", { class: "quiet" }, about.note)));
  return box;
}

// 1, 2 or 5 times a power of ten, at least as large as a number.
function round(number) {
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 5, 10].find((size) => size * power >= number * 0.999) * power;
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
  const name = { title: "class", text: true, value: (row) => row.name, show: (row) => row.name };
  const number = (title, value) => ({ title, value, show: (row) => plain(value(row)) });
  const columns = truth ? [
    name,
    ...data.sets.map((set, index) => ({
      title: last ? set.name : "average AP", value: (row) => average(row, index),
      show: (row) => withInterval(average(row, index), row.intervals[index], 1),
    })),
    ...changes((row) => average(row, 0), (row) => average(row, last)),
    number("instances", (row) => row.instances),
    ...data.tious.map((tiou, k) => ({
      title: tiou.toFixed(2), value: (row) => row.ap[last][k], show: (row) => percent(row.ap[last][k]),
    })),
  ] : [
    name,
    number("best score", (row) => row.best),
    number("median score", (row) => row.median),
    ...data.sets.map((set, index) => number(last ? `detections of ${set.name}` : "detections", (row) => row.detections[index])),
    number("videos", (row) => row.videos),
    number("median seconds", (row) => row.seconds),
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
  const number = (title, value) => ({ title, value, show: (row) => plain(value(row)) });
  const scored = data.sets.map((set, index) => ({
    title: last ? set.name : truth ? "AP" : "best score", value: (row) => row.scores[index],
    show: (row) => (truth ? percent : plain)(row.scores[index]),
  }));
  const columns = [
    { title: "video", text: true, value: (row) => row.name, show: (row) => row.name },
    ...scored,
    ...(truth ? changes((row) => row.scores[0], (row) => row.scores[last]) : []),
    { title: "classes", text: true, value: (row) => row.labels.join(", "), show: (row) => row.labels.join(", ") },
    { title: "seconds", value: (row) => row.duration, show: (row) => (row.duration === null ? "–" : row.duration.toFixed(0)) },
    truth ? number("annotations", (row) => row.truth.length) : number("detections", (row) => row.counts[last]),
  ];
  const search = (row) => `${row.name} ${row.labels.join(" ")}`;
  const options = { filter: byId("video-filter"), search, sort: [0, false], page: 50, detail: timeline };
  table(byId("video-table"), columns, [...data.videos], options);
}

function ends() {
  const known = data.videos.filter((row) => row.scores[last] !== null && row.detections);
  const count = Math.min(4, Math.floor(known.length / (truth ? 2 : 1)));
  const which = truth
    ? "AP within the video, mean over its classes and thresholds; of equal ones, those with more annotations."
    : "those with the best scores.";
  byId("ends-about").textContent = `Of ${data.sets[last].name}: ${which}`;
  const shown = (score) => (truth ? percent : plain)(score);
  const card = (row, what) => {
    const value = make("span", { class: "quiet" }, `${what} (${data.sets.map((set, k) => `${set.name}: ${shown(row.scores[k])}`).join(", ")})`);
    return make("div", { class: "card" }, make("h3", {}, row.name, value), timeline(row));
  };
  for (const [what, sign] of truth ? [["best", -1], ["worst", 1]] : [["best score", -1]]) {
    known.sort((a, b) => sign * (a.scores[last] - b.scores[last]) || b.truth.length - a.truth.length);
    byId("ends-list").append(...known.slice(0, count).map((row) => card(row, what)));
  }
  if (!count) byId("ends").remove();
}

// Ground truth on top where there is any, each set below, a lane a class; taller and darker: a higher score within its row.
function timeline(row) {
  if (!row.detections) return make("p", { class: "quiet" }, "This video's time line was left out to keep the page small.");
  const labels = [...row.labels].sort(natural);
  const lanes = new Map(labels.map((label, index) => [label, index]));
  const all = [...row.truth, ...row.detections.flat()];
  const ends = all.reduce((most, segment) => Math.max(most, segment[1]), 0);
  const length = Math.max(row.duration ?? 0, ends) || 1; // annotations can lie beyond the stated end
  const beyond = row.duration !== null && ends > 1.005 * row.duration; // less cannot be seen
  const [width, left, tall, thin] = [roomFor(1000), roomFor(1000) < 600 ? 78 : 110, labels.length > 2 ? 15 : 24, 8];
  const annotated = row.truth.length ? [["ground truth", row.truth, row.truth.length]] : [];
  const rows = [...annotated, ...data.sets.map((set, k) => [set.name, row.detections[k], row.counts[k]])];
  const film = row.file && filmOf(row.file);
  const body = tall * Math.max(labels.length, 1);
  const room = body + thin + 6;
  const curves = row.curves ?? [];
  const height = rows.length * room + curves.length * CURVE + 20;
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
    const all = segments.map((segment) => segment[3] ?? 1);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    // Equal scores, as that of a lone bar, are taken as they are where they are shares of 1.
    const equal = low >= 0 && low <= 1 ? low : 1;
    const strengthOf = (score) => (score === undefined ? 1 : high === low ? equal : (score - low) / (high - low));
    // The surest first: a bar that it overlaps stands before it, as it is lower.
    const drawn = [...segments].sort((a, b) => strengthOf(b[3]) - strengthOf(a[3]));
    for (const [start, end, label, score] of drawn) {
      const strength = strengthOf(score);
      const lane = lanes.get(label);
      const known = lane !== undefined;
      const base = known ? top + (lane + 1) * tall : top + body + thin;
      const size = (known ? tall - 2 : thin) * (0.3 + 0.7 * strength);
      // Mixed with the page rather than transparent, so that bars over each other keep their own shade.
      const shade = `color-mix(in srgb, ${known ? colour(lane) : "var(--other)"} ${Math.round(40 + 60 * strength)}%, var(--panel))`;
      const box = { class: "bar", x: x(start), width: Math.max(x(end) - x(start), 1.5), y: base - size, height: size, fill: shade };
      const text = `${label}  ${start.toFixed(1)}–${end.toFixed(1)} s` + (score === undefined ? "" : `  score ${score}`);
      const bar = draw("rect", box, draw("title", {}, text));
      svg.append(film ? film.link(draw("a"), start, end, bar) : bar);
    }
  });
  curves.forEach(([name, seconds, values], index) => {
    const floor = rows.length * room + (index + 1) * CURVE;
    const points = values.map((value, k) => `${x(seconds[k])},${floor - (CURVE - 8) * Math.min(Math.max(value, 0), 1)}`);
    const shade = lanes.has(name) ? colour(lanes.get(name)) : "var(--quiet)";
    const area = [`${x(seconds[0])},${floor}`, ...points, `${x(seconds[seconds.length - 1])},${floor}`].join(" ");
    svg.append(draw("text", { x: 0, y: floor - CURVE / 2 + 8 }, clip(name, Math.floor(left / 6)), draw("title", {}, `${name}, 0 to 1`)));
    svg.append(draw("polygon", { class: "curve", points: area, fill: shade, opacity: 0.25 }));
    svg.append(draw("polyline", { points: points.join(" "), fill: "none", stroke: shade }));
  });
  const legend = [...labels.map((label) => key(colour(lanes.get(label)), label)), key("var(--other)", "another class")];
  if (beyond) {
    svg.append(draw("line", { class: "end", x1: x(row.duration), x2: x(row.duration), y1: 0, y2: height - 20 }));
    legend.push(make("span", { class: "quiet" }, `Dashed: the video's end, ${clock(row.duration)}.`));
  }
  const box = make("div", {}, svg, keys(...legend));
  if (film) {
    const played = row.truth.length ? row.truth : row.detections[last]; // the best first
    const links = played.slice(0, LINKS).flatMap(([start, end, label]) => [film.link(make("a"), start, end, `${label} ${clock(start)}`), " "]);
    const more = played.length - LINKS;
    box.append(make("div", { class: "links" }, "Play: ", ...links, more > 0 ? `and ${more} more, which the bars above play.` : ""));
    box.append(film.box);
  }
  const most = Math.max(...row.counts);
  if (most > data.drawn) box.append(make("span", { class: "quiet" }, `Only the ${data.drawn} best of up to ${most} detections are drawn.`));
  return box;
}

byId("title").textContent = data.title;
byId("about").textContent = truth
  ? `${count(data.videos.length, "video")}, ${count(data.classes.length, "class")}, ${count(data.classes.reduce((sum, row) => sum + row.instances, 0), "annotation")} (${data.ground_truth}); scores in percent`
  : `${count(data.videos.length, "video")}, ${count(data.classes.length, "class")}; without ground truth`;
if (!truth) {
  for (const section of document.querySelectorAll(".of-truth")) section.remove();
  document.querySelector("#ends h2").textContent = "Surest videos";
}
headline();
scores();
ends();
classes();
videos();
for (const section of document.querySelectorAll("main section")) {
  document.querySelector("nav").append(make("a", { href: `#${section.id}` }, section.querySelector("h2").textContent), " ");
}
byId("footer").append(...data.footer.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
document.documentElement.dataset.ready = "true";
