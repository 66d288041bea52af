"use strict";
(() => {
const $ = id => document.getElementById(id);
const form = $("ask"), send = $("send"), stop = $("stop"), bar = $("bar"), state = $("state"), coming = $("coming"), files = $("files"), report = $("report");
const lists = ["slos", "goodput"];  // several values with blanks between them
let job = "", events = null, asked = 0;

const verb = () => form.elements.verb.value;
const fields = () => [...form.querySelectorAll(".field")].filter(box => !box.hidden).map(box => box.querySelector("[name]")).filter(Boolean);
const json = {"content-type": "application/json"};

// ---- the form -----------------------------------------------------------------------------------------------------------
function fit() {
  for (const box of form.querySelectorAll("[data-verbs]")) box.hidden = !box.dataset.verbs.split(" ").includes(verb());
  for (const group of form.querySelectorAll("fieldset")) group.hidden = [...group.querySelectorAll(".field")].every(box => box.hidden);
}
function said() {
  const found = {};
  for (const field of fields()) {
    if (field.type === "checkbox") { if (field.checked) found[field.name] = true; continue; }
    const text = field.value.trim();
    if (text) found[field.name] = text;
  }
  return found;
}
function body() {
  const found = said();
  for (const name of lists) if (found[name]) found[name] = found[name].split(/[\s,]+/);
  if (found.model && found.model.startsWith("{")) try { found.model = JSON.parse(found.model); } catch (error) { /* the server says what is wrong */ }
  return found;
}
function address() {
  const query = new URLSearchParams(said());
  if (verb() !== "plan") query.set("verb", verb());
  return location.pathname + (query.size ? "?" + query : "");
}
function restore() {
  const query = new URLSearchParams(location.search);
  const wanted = query.get("verb");
  for (const one of form.elements.verb) if (one.value === wanted) one.checked = true;
  fit();
  for (const field of fields()) {
    const text = query.get(field.name);
    if (text === null) continue;
    if (field.type === "checkbox") field.checked = text === "true";
    else {
      if (field.tagName === "SELECT" && ![...field.options].some(one => one.value === text)) field.add(new Option(text.slice(0, 24), text));
      field.value = text;
    }
    if (field.closest("#more")) $("more").open = true;
  }
  return query.size > 0;
}

// ---- what is wrong --------------------------------------------------------------------------------------------------------
function clear() {
  for (const one of form.querySelectorAll(".wrong")) { one.hidden = true; one.textContent = ""; }
  for (const one of form.querySelectorAll("[aria-invalid]")) one.removeAttribute("aria-invalid");
}
function wrong(error) {
  const place = error.where && $("e-" + error.where), field = error.where && $("f-" + error.where);
  const at = place && field && !field.closest("[hidden]") ? place : $("e-");
  at.textContent = [at === place ? error.message : [error.where, error.message].filter(Boolean).join(": "), error.hint].filter(Boolean).join("; ");
  at.hidden = false;
  if (at !== place) { at.scrollIntoView({block: "nearest"}); return; }
  field.setAttribute("aria-invalid", "true");
  if (field.closest("#more")) $("more").open = true;
  field.focus();
  field.scrollIntoView({block: "center"});
}
async function refusal(reply) {
  try { return (await reply.json()).error; } catch (error) { return {message: "the server said " + reply.status}; }
}

// ---- a question -----------------------------------------------------------------------------------------------------------
async function ask() {
  const mine = ++asked;
  clear(); quiet();
  history.replaceState(null, "", address());
  running(true);
  try {
    const reply = await fetch("/api/" + verb(), {method: "POST", headers: {...json, prefer: "respond-async"}, body: JSON.stringify(body())});
    if (mine !== asked) return;
    if (!reply.ok) { wrong(await refusal(reply)); running(false); return; }
    follow((await reply.json()).id);
  } catch (error) { lost(); }
}
function follow(id) {
  job = id;
  events = new EventSource("/api/jobs/" + id + "/events");
  events.onmessage = event => told(JSON.parse(event.data));
  events.onerror = () => { if (events && events.readyState === EventSource.CLOSED) lost(); };
}
function told(found) {
  if (found.state === "queued") state.textContent = found.before ? found.before + " before it" : "waiting";
  if (found.state === "running") {
    state.textContent = found.total ? found.done + " of " + found.total + ": " + found.what : found.what || "at work";
    if (found.total) { bar.max = found.total; bar.value = found.done; } else bar.removeAttribute("value");
  }
  come(found.rows || [], found.first || 0);
  if (!["done", "failed", "cancelled"].includes(found.state)) return;
  const id = job;
  quiet(); running(false);
  if (found.state === "done") show(id, found);
  else if (found.state === "failed") wrong(found.error);
  else state.textContent = "stopped";
}
function come(rows, first) {
  const list = coming.querySelector("ol");
  for (const row of rows.slice(Math.max(0, list.children.length - first))) {
    const item = document.createElement("li");
    item.textContent = row.text; item.className = row.fits ? "" : "no";
    list.append(item);
  }
  coming.hidden = !list.children.length;
}
async function show(id, found) {
  const reply = await fetch("/api/jobs/" + id + "/parts");
  if (!reply.ok) { wrong(await refusal(reply)); return; }
  const parts = await reply.json();
  report.innerHTML = "<header><h1>" + parts.title + "</h1>" + parts.answer + "</header><nav>" + parts.contents + "</nav><main>" + parts.body + "</main>";
  document.title = report.querySelector("h1").textContent + " – apexsim";
  window.apexsim.show(parts.data);
  coming.hidden = true;
  if (found.stopped) {
    const told = document.createElement("p");
    told.className = "wrong"; told.textContent = "Stopped after " + found.done + " of " + found.total + ": this is what was found by then.";
    report.querySelector("header").prepend(told);
  }
  report.scrollIntoView({behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth"});
  state.textContent = found.stopped ? "stopped" : found.keeps ? "" : "no plan keeps the limits";
  files.replaceChildren(link("/api/jobs/" + id + "/report.html", "this report as one file"), link("/api/jobs/" + id + "/answer", "its JSON"),
                        link(address(), "link to this question"));
  files.hidden = false;
}
function link(where, text) { const a = document.createElement("a"); a.href = where; a.textContent = text; return a; }
function running(on) {
  send.disabled = on; stop.hidden = !on; bar.hidden = !on; bar.removeAttribute("value");
  form.setAttribute("aria-busy", on);
  if (on) { state.textContent = "waiting"; report.replaceChildren(); files.hidden = true; coming.querySelector("ol").replaceChildren(); coming.hidden = true; }
  else if (state.textContent === "waiting") state.textContent = "";
}
function quiet() { if (events) events.close(); events = null; job = ""; }
function lost() { quiet(); running(false); wrong({message: "the server does not answer", hint: "is it still running?"}); }

// ---- hands ------------------------------------------------------------------------------------------------------------------
form.addEventListener("submit", event => { event.preventDefault(); ask(); });
form.addEventListener("reset", () => setTimeout(() => { clear(); fit(); history.replaceState(null, "", location.pathname); }));
form.addEventListener("change", event => { if (event.target.name === "verb") { clear(); fit(); } });
stop.addEventListener("click", async () => {
  state.textContent = "stopping";
  if (job) await fetch("/api/jobs/" + job, {method: "DELETE"}).catch(lost);
});
$("link").addEventListener("click", async () => {
  history.replaceState(null, "", address());
  try { await navigator.clipboard.writeText(location.href); state.textContent = "link copied"; } catch (error) { state.textContent = "the link stands in the address bar"; }
});
$("f-file").addEventListener("change", async event => {
  const file = event.target.files[0], choice = $("f-trace");
  if (!file) return;
  clear();
  if (file.size > +document.body.dataset.upload) { wrong({where: "trace", message: "the file is larger than " + (+document.body.dataset.upload >> 20) + " MiB"}); return; }
  state.textContent = "uploading";
  const reply = await fetch("/api/traces?name=" + encodeURIComponent(file.name), {method: "POST", headers: {"content-type": "application/octet-stream"}, body: file}).catch(() => null);
  state.textContent = "";
  if (!reply) { lost(); return; }
  if (!reply.ok) { wrong(await refusal(reply)); return; }
  const found = await reply.json();
  choice.add(new Option(file.name, found.trace));
  choice.value = found.trace;
});
addEventListener("pagehide", () => { if (job) fetch("/api/jobs/" + job, {method: "DELETE", keepalive: true}); });
if (restore() && document.body.dataset.asks === "yes" && form.elements.model.value) { ask(); state.scrollIntoView({block: "center"}); }
})();
