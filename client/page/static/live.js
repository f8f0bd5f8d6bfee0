// What arrives: the latest picture under its map, the last ones, the shift; pictures are dropped anywhere.
import { ask, byId, category, figure, get, make, mayEdit, number, percent, post, showDefects, showFacts, showGauge, showSynthetic, showVerdict, thumbnail, toast, whole } from "./common.js";
import { follow, showNotices, showStatus } from "./events.js";
import { View, draw, heatOf, loadImage, loadMap, outlineOf } from "./picture.js";

const KEPT = 36;
const strip = byId("strip");
const view = new View(byId("overlay")), original = new View(byId("original"));
const latest = new Map(); // by id
let shown = null, content = {}, wanted = null, busy = false;

const link = (inspection) => `/look/${inspection.id}?category=${encodeURIComponent(category)}`;
const settled = (inspection) => inspection.outcome !== "waiting";

// The newest picture that was asked for is drawn; those in between are passed over where pictures come too fast.
async function show(inspection) {
  wanted = inspection;
  if (busy) return;
  busy = true;
  while (wanted) {
    const now = wanted;
    wanted = null;
    try {
      const [image, map] = await Promise.all([
        now.picture && now.width ? loadImage(`/api/inspections/${now.id}/preview`) : null,
        now.score === null || !now.picture ? null : loadMap(now.id).catch(() => null),
      ]);
      describe(now);
      content = { image, heat: map && heatOf(map, now.threshold), outline: map && outlineOf(map), map, defects: now.defects };
      if (image) for (const each of [view, original]) each.of(now.width, now.height);
      byId("stage-note").textContent = image ? "" : now.picture ? now.reason ?? "" : "The picture is not kept here (any more).";
      redraw();
    } catch (error) {
      describe(now);
      content = {};
      byId("stage-note").textContent = error.message;
      redraw();
    }
    performance.mark("shown", { detail: now.id });
  }
  busy = false;
}

function describe(inspection) {
  shown = inspection;
  showVerdict(inspection.outcome);
  byId("verdict-score").textContent = inspection.score === null ? "" : `${figure(inspection.score, 3)} / ${figure(inspection.threshold, 3)}`;
  showSynthetic(inspection.synthetic);
  showGauge(inspection);
  showFacts(inspection);
  showDefects(inspection);
  byId("picture-name").textContent = inspection.name;
  byId("stage").href = link(inspection);
  strip.querySelector(".chosen")?.classList.remove("chosen");
  strip.querySelector(`[data-id="${inspection.id}"]`)?.classList.add("chosen");
}

function redraw() {
  draw(view, { ...content, opacity: byId("opacity").value / 100 });
  draw(original, { image: content.image });
}

function put(inspection) {
  latest.set(inspection.id, inspection);
  const card = make("li", {}, thumbnail(inspection, { chosen: inspection.id === shown?.id }));
  const before = strip.querySelector(`[data-id="${inspection.id}"]`)?.parentElement;
  if (before) before.replaceWith(card);
  else {
    const next = [...strip.children].find((item) => Number(item.firstChild.dataset.id) < inspection.id);
    strip.insertBefore(card, next ?? null);
  }
  while (strip.children.length > KEPT) {
    latest.delete(Number(strip.lastChild.firstChild.dataset.id));
    strip.lastChild.remove();
  }
}

function arrived(inspection) {
  if (inspection.category !== category) return;
  put(inspection);
  countSoon();
  if (settled(inspection) && !byId("hold").checked && (!shown || inspection.id >= shown.id)) show(inspection);
}

let counting = null;
const countSoon = () => { counting ??= setTimeout(async () => {
  counting = null;
  try { showShift(await get(`/api/shift?category=${encodeURIComponent(category)}`)); } catch { /* the link says so */ }
}, 300); };

function showShift(shift) {
  byId("counts").replaceChildren(number(whole(shift.good + shift.reject), "judged"), number(whole(shift.reject), "rejected"), number(percent(shift.reject_rate), "reject rate"));
  if (shift.failed) byId("counts").append(number(whole(shift.failed), "not judged"));
  if (shift.waiting) byId("counts").append(number(whole(shift.waiting), "waiting"));
  const since = new Date(shift.since).toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit" });
  byId("since").textContent = `Since ${since}, ${shift.by_hand ? "when somebody began to count anew" : "the start of the shift"}. Shifts start at ${shift.starts.join(", ")}.`;
  if (mayEdit && document.activeElement !== byId("starts")) byId("starts").value = shift.starts.join(" ");
}

// Dropped and chosen pictures: a few on their way at a time.
const waiting = [];
let sending = 0, sent = 0;
function take(files) {
  waiting.push(...files);
  for (let begun = sending; begun < 3 && waiting.length; begun++) send();
}
async function send() {
  sending++;
  while (waiting.length) {
    const file = waiting.shift();
    byId("sending").textContent = `Sending ${file.name}${waiting.length ? ` and ${waiting.length} more` : ""}`;
    try {
      await ask(`/api/pictures?category=${encodeURIComponent(category)}&name=${encodeURIComponent(file.name)}`, { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } });
      sent++;
    } catch (error) {
      toast(error.message);
    }
  }
  sending--;
  if (!sending) byId("sending").textContent = sent ? `${sent} taken.` : "";
}

function listenForDrops() {
  let depth = 0;
  const has = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragenter", (event) => { if (has(event)) { depth++; document.body.classList.add("dragging"); } });
  addEventListener("dragleave", (event) => { if (has(event) && --depth <= 0) { depth = 0; document.body.classList.remove("dragging"); } });
  addEventListener("dragover", (event) => { if (has(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!has(event)) return;
    event.preventDefault();
    depth = 0;
    document.body.classList.remove("dragging");
    if (mayEdit) take(event.dataTransfer.files);
    else toast("You may look, and not change anything; log in with the editor's token for that.");
  });
  byId("files")?.addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
}

function listenForShift() {
  byId("shift-form")?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const starts = byId("starts").value.split(/[\s,;]+/).filter(Boolean);
    try { await post("/api/shift", { starts }); byId("starts").blur(); } catch (error) { toast(error.message); }
  });
  byId("count-anew")?.addEventListener("click", () => post("/api/shift", { now: true }).catch((error) => toast(error.message)));
}

byId("opacity").addEventListener("input", redraw);
new ResizeObserver(redraw).observe(view.canvas);
byId("hold").addEventListener("change", () => {
  const newest = [...latest.values()].filter(settled).sort((one, other) => other.id - one.id)[0];
  if (!byId("hold").checked && newest) show(newest);
});
byId("stage").addEventListener("click", (event) => { if (!shown) event.preventDefault(); });
listenForDrops();
listenForShift();

try {
  const start = await get(`/api/live?category=${encodeURIComponent(category)}`);
  start.inspections.slice().reverse().forEach(put);
  showShift(start.shift);
  showStatus(start.status);
  showNotices(start.notices);
  const first = start.inspections.find(settled);
  if (first) show(first);
  follow(start.change, { inspection: arrived, shift: countSoon });
} catch (error) {
  toast(error.message);
}
