"use strict";
// What the report's page and examples/app.py share. Everything from the data reaches a page as text or as an attribute,
// never as markup.

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
// Six colours, then the same darker, then paler (the paper has up to 15 iterations).
const SHADES = ["", "var(--text)", "var(--page)"];
const turn = (index) => Math.floor(index / 6) % 3;
const colour = (index) => (turn(index) ? `color-mix(in srgb, var(--c${index % 6}) 52%, ${SHADES[turn(index)]})` : `var(--c${index % 6})`);
const natural = new Intl.Collator(undefined, { numeric: true }).compare; // class 2 before class 10

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

function key(colour, text) {
  return make("span", { class: "key" }, make("span", { class: "swatch", background: colour }), text);
}

const keys = (...entries) => make("div", { class: "keys" }, ...entries);

const things = (number, one) => (number === 1 ? one : one + (one.endsWith("s") ? "es" : "s"));
const count = (number, one) => `${number.toLocaleString("en")} ${things(number, one)}`;

// A film, which loads nothing before it is played; what plays a segment of it, from its start to its end; and links that do.
function filmOf(file) {
  const video = make("video", { src: file, controls: "", preload: "none" });
  const box = make("div", { class: "film" }, video);
  let stop = Infinity;
  video.addEventListener("timeupdate", () => {
    if (video.currentTime < stop) return;
    stop = Infinity; // played on from there, it goes on
    video.pause();
  });
  video.addEventListener("error", () => {
    const name = decodeURIComponent(file.split("/").pop());
    box.replaceChildren(make("span", { class: "quiet" }, "This browser cannot play ", make("a", { href: file }, name), "; MP4 (H.264) and WebM can be played everywhere."));
  });
  const play = (start, end) => {
    video.currentTime = start;
    stop = end;
    video.play().catch(() => {}); // the error is told above
    box.scrollIntoView({ block: "nearest", behavior: "smooth" });
  };
  const link = (anchor, start, end, content) => {
    anchor.setAttribute("href", `${file}#t=${start},${end}`); // for a window of its own
    anchor.append(content);
    anchor.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      play(start, end);
    });
    return anchor;
  };
  return { box, link, play, video };
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
