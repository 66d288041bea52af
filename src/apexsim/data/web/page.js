"use strict";
(() => {
let data = {charts: [], details: {}};  // of the page that is shown
const tip = document.getElementById("tip"), detail = document.getElementById("detail");
const styles = () => getComputedStyle(document.documentElement);
const colour = i => styles().getPropertyValue("--c" + (i % 10)).trim();
const ink = name => styles().getPropertyValue("--" + name).trim();
const made = (kind, text, cls) => { const e = document.createElement(kind); if (text !== undefined) e.textContent = text; if (cls) e.className = cls; return e; };
const number = v => v === 0 ? "0" : Math.abs(v) >= 1e5 ? v.toLocaleString("en", {maximumFractionDigits: 0}) : v.toLocaleString("en", {maximumSignificantDigits: 4});

// ---- details ------------------------------------------------------------------------------------------------------------
function open(key) {
  const found = data.details[key];
  if (!found) return;
  const box = detail.querySelector("div");
  box.replaceChildren(made("h3", found.title));
  for (const [label, text] of found.rows) {
    const list = box.lastElementChild.tagName === "DL" ? box.lastElementChild : box.appendChild(document.createElement("dl"));
    list.append(made("dt", label), made("dd", text));
  }
  if (found.script) box.append(code(found.script));
  for (const note of found.notes) box.append(made("p", note, "note"));
  if (detail.showModal) detail.showModal(); else detail.setAttribute("open", "");
  detail.scrollTop = 0;
}
function code(text) {
  const box = made("div", undefined, "code"), button = made("button", "copy", "copy");
  button.type = "button";
  box.append(button, made("pre", text));
  return box;
}
document.addEventListener("click", event => {
  const at = event.target;
  if (at.matches(".close") || at === detail) { detail.close ? detail.close() : detail.removeAttribute("open"); return; }
  if (at.matches(".copy")) { copy(at); return; }
  const why = at.closest("[data-why]");
  if (why) { say(why.dataset.why, event.clientX, event.clientY); return; }
  const row = at.closest("[data-key]");
  if (row) open(row.dataset.key);
});
document.addEventListener("keydown", event => {
  if (event.key === "Enter" && event.target.dataset && event.target.dataset.key) open(event.target.dataset.key);
});
function copy(button) {
  const text = button.parentNode.querySelector("pre").textContent;
  const done = () => { button.textContent = "copied"; setTimeout(() => { button.textContent = "copy"; }, 1200); };
  const select = () => {
    const range = document.createRange(); range.selectNodeContents(button.parentNode.querySelector("pre"));
    const chosen = getSelection(); chosen.removeAllRanges(); chosen.addRange(range);
    if (document.execCommand("copy")) done();
  };
  navigator.clipboard ? navigator.clipboard.writeText(text).then(done, select) : select();
}
function say(text, x, y) {
  tip.textContent = text; tip.style.display = text ? "block" : "none";
  const wide = tip.offsetWidth, high = tip.offsetHeight;
  tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - wide - 6)) + "px";
  tip.style.top = Math.max(4, y + high + 20 > innerHeight ? y - high - 10 : y + 14) + "px";
}
addEventListener("scroll", () => say("", 0, 0), {passive: true});

// ---- tables -------------------------------------------------------------------------------------------------------------
function sortable(box) {
  const body = box.querySelector("tbody"), rows = [...body.rows], find = box.querySelector("input");
  if (find) find.addEventListener("input", () => {
    const words = find.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  });
  [...box.querySelectorAll("th")].forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => { const cell = row.cells[i]; return "v" in cell.dataset ? +cell.dataset.v : cell.textContent; };
    rows.sort((a, b) => {
      const x = value(a), y = value(b), numbers = typeof x === "number" && typeof y === "number";
      if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
      return (up ? 1 : -1) * (numbers ? x - y : x.localeCompare(y, "en", {numeric: true}));
    });
    body.append(...rows);
  }));
}

// ---- charts -------------------------------------------------------------------------------------------------------------
const HEIGHT = () => innerWidth < 640 ? 260 : 320;
function points(spec) {
  const all = [];
  spec.series.forEach((one, s) => one.x.forEach((x, i) => {
    const y = one.y[i];
    if (x === null || y === null || (spec.log_x && x <= 0) || (spec.log_y && y <= 0)) return;
    all.push({s, i, x, y});
  }));
  return all.sort((a, b) => a.x - b.x);
}
function range(spec, log, axis) {
  return (u, low, high) => {
    for (const line of spec.lines) if (line.axis === axis && line.at !== null && high !== null) {
      if (line.at > high && line.at < 2.5 * high) high = line.at;
      if (axis === "x" && line.at < low) low = line.at;
    }
    if (low === null || high === null) return [0, 1];
    if (log) return [low / 1.15, high * 1.25];
    const room = 0.08 * (high - low || Math.abs(high) || 1);
    return [axis === "y" && spec.zero ? 0 : Math.max(low >= 0 ? 0 : -Infinity, low - room), high + 1.6 * room];
  };
}
function steps(log) {
  if (!log) return {};
  const splits = (u, axis, low, high) => {
    const found = [];
    for (let k = Math.floor(Math.log10(low)); k <= Math.ceil(Math.log10(high)); k++) for (const m of [1, 2, 5]) {
      const at = m * 10 ** k;
      if (at >= low && at <= high) found.push(at);
    }
    return found;
  };
  return {splits, filter: (u, ticks) => ticks};
}
function chart(box, spec) {
  const all = points(spec);
  if (!all.length) { box.replaceChildren(made("p", "nothing to draw", "note")); return; }
  const columns = [all.map(p => p.x), ...spec.series.map((_, s) => all.map(p => p.s === s ? p.y : null))];
  const shade = s => spec.series[s].faint ? ink("dim") : colour(s);
  const axis = {stroke: ink("dim"), grid: {stroke: ink("line"), width: 1}, ticks: {stroke: ink("line"), width: 1}, font: "12px system-ui, sans-serif",
                labelFont: "12px system-ui, sans-serif", labelSize: 18};
  const values = (u, ticks) => ticks.map(v => v === null ? "" : number(v));
  const plot = new uPlot({
    width: box.clientWidth, height: HEIGHT(), legend: {show: false}, padding: [10, 12, 0, 0],
    cursor: {drag: {x: false, y: false}, x: false, y: false, points: {show: false}},
    scales: {x: {time: false, distr: spec.log_x ? 3 : 1, range: range(spec, spec.log_x, "x")},
             y: {distr: spec.log_y ? 3 : 1, range: range(spec, spec.log_y, "y")}},
    axes: [{...axis, ...steps(spec.log_x), label: spec.x, values, space: 60, size: 30},
           {...axis, ...steps(spec.log_y), label: spec.y, values, size: (u, texts) => 24 + 7 * Math.max(3, ...(texts || []).map(t => t.length))}],
    series: [{}, ...spec.series.map((one, s) => ({
      label: one.name, stroke: shade(s), width: one.line ? 2 : 0, spanGaps: true, paths: one.line ? undefined : () => null,
      points: {show: one.labels.length > 0 || !one.line || one.x.length < 40, size: one.faint ? 5 : 8, fill: shade(s), stroke: shade(s)},
    }))],
    hooks: {draw: [u => { bars(u, spec, shade); across(u, spec); names(u, spec, all, shade); }]},
  }, columns, box);
  const near = event => {
    const frame = plot.over.getBoundingClientRect(), px = event.clientX - frame.left, py = event.clientY - frame.top;
    let best = null, least = 30;
    for (const p of all) {
      const far = Math.hypot(plot.valToPos(p.x, "x") - px, plot.valToPos(p.y, "y") - py);
      if (far < least) { least = far; best = p; }
    }
    return best;
  };
  plot.over.addEventListener("pointermove", event => {
    const p = near(event);
    if (!p) { say("", 0, 0); plot.over.style.cursor = ""; return; }
    const one = spec.series[p.s], key = one.keys[p.i];
    plot.over.style.cursor = key ? "pointer" : "";
    const band = one.low.length && one.low[p.i] !== null ? " (" + number(one.low[p.i]) + " to " + number(one.high[p.i]) + ")" : "";
    say((one.labels[p.i] || one.name) + "\n" + spec.x + ": " + number(p.x) + "\n" + spec.y + ": " + number(p.y) + band, event.clientX, event.clientY);
  });
  plot.over.addEventListener("pointerleave", () => say("", 0, 0));
  plot.over.addEventListener("click", event => { const p = near(event); if (p && spec.series[p.s].keys[p.i]) open(spec.series[p.s].keys[p.i]); });
  const key = made("div", undefined, "key");
  if (spec.series.length > 1) spec.series.forEach((one, s) => {
    const item = made("span"), dot = made("i"); dot.style.background = shade(s); item.append(dot, one.name); key.append(item);
  });
  box.append(key);
  return plot;
}
function bars(u, spec, shade) {
  const c = u.ctx, r = devicePixelRatio; c.save(); c.beginPath(); c.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height); c.clip();
  spec.series.forEach((one, s) => {
    c.strokeStyle = c.fillStyle = shade(s); c.globalAlpha = 0.4; c.lineWidth = 1.2 * r;
    if (one.band) {
      c.globalAlpha = 0.13; c.beginPath();
      const way = [...one.x.keys()].filter(i => one.low[i] !== null && one.x[i] !== null);
      way.forEach((i, k) => c[k ? "lineTo" : "moveTo"](u.valToPos(one.x[i], "x", true), u.valToPos(one.high[i], "y", true)));
      way.reverse().forEach(i => c.lineTo(u.valToPos(one.x[i], "x", true), u.valToPos(Math.max(one.low[i], spec.log_y ? u.scales.y.min : 0), "y", true)));
      c.fill(); return;
    }
    one.x.forEach((x, i) => {
      if (x === null || one.y[i] === null) return;
      c.beginPath();
      if (one.low.length && one.low[i] !== null) { const at = u.valToPos(x, "x", true); c.moveTo(at, u.valToPos(one.low[i], "y", true)); c.lineTo(at, u.valToPos(one.high[i], "y", true)); }
      if (one.x_low.length && one.x_low[i] !== null) { const at = u.valToPos(one.y[i], "y", true); c.moveTo(u.valToPos(one.x_low[i], "x", true), at); c.lineTo(u.valToPos(one.x_high[i], "x", true), at); }
      c.stroke();
    });
  });
  c.restore();
}
function across(u, spec) {
  const c = u.ctx, r = devicePixelRatio, {left, top, width, height} = u.bbox; c.save();
  c.font = 11 * r + "px system-ui, sans-serif"; c.strokeStyle = c.fillStyle = ink("no"); c.setLineDash([5 * r, 4 * r]); c.lineWidth = r;
  spec.lines.forEach((line, k) => {
    if (line.at === null) return;
    const at = u.valToPos(line.at, line.axis, true);
    if (line.axis === "x" ? at < left || at > left + width : at < top || at > top + height) return;
    c.beginPath();
    if (line.axis === "x") {
      c.moveTo(at, top); c.lineTo(at, top + height);
      const far = at > left + 0.6 * width; c.textAlign = far ? "right" : "left"; c.textBaseline = "alphabetic";
      c.fillText(line.text, at + (far ? -4 : 4) * r, top + (11 + 13 * k) * r);
    } else {
      c.moveTo(left, at); c.lineTo(left + width, at); c.textAlign = "left"; c.textBaseline = "bottom"; c.fillText(line.text, left + 4 * r, at - 2 * r);
    }
    c.stroke();
  });
  c.restore();
}
function names(u, spec, all, shade) {
  const c = u.ctx, r = devicePixelRatio, taken = [];
  c.save(); c.font = 11 * r + "px system-ui, sans-serif"; c.textBaseline = "middle"; c.textAlign = "left";
  for (const p of all) {
    const one = spec.series[p.s];
    if (!one.named || !one.labels[p.i]) continue;
    const text = one.labels[p.i], wide = c.measureText(text).width, high = 13 * r, x = u.valToPos(p.x, "x", true), y = u.valToPos(p.y, "y", true);
    const right = u.bbox.left + u.bbox.width;
    const tries = [[x + 8 * r, y - 9 * r], [x + 8 * r, y + 10 * r], [x - wide - 8 * r, y - 9 * r], [x - wide - 8 * r, y + 10 * r], [x - wide / 2, y - 16 * r], [x - wide / 2, y + 17 * r]];
    const free = ([a, b]) => a >= u.bbox.left && a + wide <= right && b > u.bbox.top + 6 * r && b < u.bbox.top + u.bbox.height - 6 * r &&
      taken.every(t => a > t[0] + t[2] || a + wide < t[0] || Math.abs(b - t[1]) > high);
    const spot = tries.find(free);
    if (!spot) continue;
    taken.push([spot[0], spot[1], wide]); c.fillStyle = shade(p.s); c.fillText(text, spot[0], spot[1]);
  }
  c.restore();
}
const live = new Map();
function draw(box) {
  if (live.get(box)) live.get(box).destroy();
  box.replaceChildren();
  live.set(box, chart(box, data.charts[+box.dataset.chart]));
}
const seen = new IntersectionObserver(found => { for (const one of found) if (one.isIntersecting) { seen.unobserve(one.target); draw(one.target); } }, {rootMargin: "300px"});
function show(found) {
  for (const plot of live.values()) if (plot) plot.destroy();
  live.clear(); seen.disconnect(); data = found;
  for (const box of document.querySelectorAll(".table")) sortable(box);
  for (const box of document.querySelectorAll(".chart")) {
    box.style.minHeight = HEIGHT() + "px";
    if (box.getBoundingClientRect().top < innerHeight) draw(box); else seen.observe(box);
  }
}
let width = innerWidth, waiting = 0;
const again = () => { clearTimeout(waiting); waiting = setTimeout(() => { for (const box of live.keys()) draw(box); }, 120); };
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; again(); } });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
addEventListener("beforeprint", () => { for (const box of document.querySelectorAll(".chart")) if (!live.get(box)) draw(box); });
const own = document.getElementById("data");
if (own) show(JSON.parse(own.textContent));
window.apexsim = {show};  // for a page whose answers come later
})();
