// One picture from close by: zoom and pan, the map's value under the pointer, and the mark where its verdict is wrong.
import { ask, byId, category, figure, get, make, markBadge, mayEdit, post, showDefects, showFacts, showGauge, showSynthetic, showVerdict, toast } from "./common.js";
import { Drawing } from "./drawing.js";
import { follow } from "./events.js";
import { View, draw, heatOf, loadImage, loadMap, outlineOf } from "./picture.js";

const id = Number(location.pathname.split("/").pop());
const filters = location.search || `?category=${encodeURIComponent(category)}`;
const overlay = new View(byId("overlay")), original = new View(byId("original"));
const drawing = new Drawing();
let inspection = null, map = null, image = null, chosen = null, around = {};
let heat = null, outline = null, frame = null;

const checked = (name) => byId(name).checked;
function redraw() {
  frame ??= requestAnimationFrame(() => {
    frame = null;
    draw(overlay, {
      image, heat, opacity: byId("opacity").value / 100, map, outline: checked("outline") ? outline : null,
      defects: checked("boxes") ? inspection?.defects : [], chosen, drawn: drawing.active ? drawing.canvas : null,
    });
    if (!checked("side-by-side")) return;
    original.resize();
    Object.assign(original, { scale: overlay.scale, fitted: overlay.fitted, left: overlay.left, top: overlay.top, width: overlay.width, height: overlay.height });
    if (overlay.fitted) original.fit();
    draw(original, { image });
  });
}

async function load() {
  const found = await get(`/api/inspections/${id}${filters}`);
  around = { newer: found.newer, older: found.older };
  for (const name of ["newer", "older"]) byId(name).disabled = around[name] === null;
  describe(found.inspection);
  if (inspection.picture) {
    image = await loadImage(`/api/inspections/${id}/picture`).catch((error) => { byId("map-note").textContent = error.message; return null; });
  } else byId("map-note").textContent = "The picture is not kept here (any more).";
  if (image) {
    overlay.of(image.naturalWidth, image.naturalHeight);
    drawing.of(image.naturalWidth, image.naturalHeight);
    if (inspection.drawn) drawing.load(await loadImage(`/api/inspections/${id}/drawn?${inspection.changed}`));
  }
  redraw();
  await loadTheMap();
  document.body.dataset.ready = "yes";
}

async function loadTheMap() {
  if (inspection.score === null || !image) return;
  try {
    map = await loadMap(id);
    heat = heatOf(map, inspection.threshold);
    outline = outlineOf(map);
    if (map.release !== inspection.release_id) byId("map-note").textContent = `The map was asked for later, from release ${map.release}; release ${inspection.release_id} judged.`;
  } catch (error) {
    byId("map-note").textContent = `There is no map: ${error.message}`;
  }
  redraw();
}

function describe(found) {
  inspection = found;
  showVerdict(found.outcome);
  showGauge(found);
  showFacts(found);
  showDefects(found, choose);
  showSynthetic(found.synthetic);
  byId("picture-name").textContent = found.name;
  document.title = `${found.name} · AST-MFR`;
  const marked = byId("marked");
  marked.replaceChildren();
  if (found.wrong) marked.append(markBadge(found.wrong), make("p", {}, found.note || "No note."), make("p", { class: "muted" }, `By ${found.who}${found.drawn ? ", with a drawn mask" : ""}.`));
  else if (!mayEdit) marked.append(make("p", { class: "muted" }, "Not marked."));
  if (mayEdit) describeForm(found);
}

function describeForm(found) {
  const judged = found.outcome === "good" || found.outcome === "reject";
  byId("mark-form").hidden = !judged;
  byId("again").hidden = found.outcome !== "failed";
  if (!judged) {
    byId("marked").append(make("p", {}, found.reason ?? "It is not judged yet."));
    return;
  }
  const escape = found.outcome === "good";
  byId("mark-meaning").textContent = escape ? "It was judged good. If it has a defect, mark it as an escape." : "It was rejected. If it is good, mark it as a false reject.";
  byId("mark").textContent = found.wrong ? "Change the mark" : `Mark as ${escape ? "escape" : "false reject"}`;
  byId("unmark").hidden = !found.wrong;
  if (document.activeElement !== byId("note")) byId("note").value = found.note ?? "";
}

function choose(index) {
  chosen = chosen === index ? null : index;
  redraw();
}

function tell(event) {
  const [x, y] = overlay.place(event), out = byId("pointer");
  if (!image || x < 0 || y < 0 || x >= overlay.width || y >= overlay.height) { out.textContent = ""; return; }
  const where = `Pixel ${Math.floor(x)}, ${Math.floor(y)}`;
  if (!map) { out.textContent = where; return; }
  const cell = Math.floor((y / overlay.height) * map.rows) * map.columns + Math.floor((x / overlay.width) * map.columns);
  const share = inspection.threshold > 0 ? `, ${(map.values[cell] / inspection.threshold).toFixed(2)} thresholds` : "";
  out.textContent = `${where}: ${figure(map.values[cell])}${share}${map.mask[cell] ? ", in the mask" : ""}`;
}

function listenToPointer(view) {
  const pointers = new Map();
  const canvas = view.canvas;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (drawing.active && view === overlay && pointers.size === 1 && event.button === 0) drawing.begin(...overlay.place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    tell(event);
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const ratio = overlay.ratio(), now = [event.clientX, event.clientY];
    if (pointers.size === 2) pinch(pointers, event.pointerId, now);
    else if (drawing.drawing) drawing.go(...overlay.place(event));
    else overlay.move(ratio * (now[0] - before[0]), ratio * (now[1] - before[1]));
    pointers.set(event.pointerId, now);
    redraw();
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => { pointers.delete(event.pointerId); drawing.end(); redraw(); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect(), ratio = overlay.ratio();
    overlay.zoom(Math.exp(-event.deltaY / 400), ratio * (event.clientX - box.left), ratio * (event.clientY - box.top));
    redraw();
  }, { passive: false });
}

function pinch(pointers, moved, now) {
  const [other] = [...pointers].filter(([key]) => key !== moved).map(([, place]) => place), before = pointers.get(moved);
  const apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
  const box = overlay.canvas.getBoundingClientRect(), ratio = overlay.ratio();
  drawing.cancel();
  overlay.zoom(apart(now) / apart(before), ratio * ((now[0] + other[0]) / 2 - box.left), ratio * ((now[1] + other[1]) / 2 - box.top));
}

const go = (name) => { if (around[name] !== null && around[name] !== undefined) location.href = `/look/${around[name]}${filters}`; };
const zoom = (factor) => { overlay.zoom(factor); redraw(); };
const actual = () => { overlay.zoom(1 / overlay.scale); redraw(); };
const fit = () => { overlay.fit(); redraw(); };
const toggle = (name) => { byId(name).checked = !checked(name); byId(name).dispatchEvent(new Event("change")); };
const KEYS = { "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: fit, o: () => toggle("outline"), d: () => toggle("boxes"),
  m: () => (byId("note") ?? byId("main")).focus(), ArrowLeft: () => go("newer"), ArrowRight: () => go("older") };
const MOVES = { ArrowLeft: [80, 0], ArrowRight: [-80, 0], ArrowUp: [0, 80], ArrowDown: [0, -80] };

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("textarea, select, input:not([type=checkbox])")) return;
  const act = event.shiftKey && MOVES[event.key] ? () => { overlay.move(...MOVES[event.key]); redraw(); } : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

function listenToTools() {
  for (const name of ["outline", "boxes"]) byId(name).addEventListener("change", redraw);
  byId("side-by-side").addEventListener("change", () => {
    byId("beside").hidden = !checked("side-by-side");
    byId("canvases").classList.toggle("single", !checked("side-by-side"));
    redraw();
  });
  byId("opacity").addEventListener("input", redraw);
  byId("zoom-in").addEventListener("click", () => zoom(1.4));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 1.4));
  byId("fit").addEventListener("click", fit);
  byId("actual").addEventListener("click", actual);
  for (const name of ["newer", "older"]) byId(name).addEventListener("click", () => go(name));
  new ResizeObserver(redraw).observe(byId("canvases"));
}

function listenToMark() {
  byId("draw").addEventListener("change", () => {
    drawing.active = checked("draw");
    byId("draw-tools").hidden = !drawing.active;
    byId("overlay").classList.toggle("drawing", drawing.active);
    redraw();
  });
  const press = (erase) => { drawing.erase = erase; byId("brush").setAttribute("aria-pressed", !erase); byId("eraser").setAttribute("aria-pressed", erase); };
  byId("brush").addEventListener("click", () => press(false));
  byId("eraser").addEventListener("click", () => press(true));
  byId("undo").addEventListener("click", () => { drawing.undo(); redraw(); });
  byId("brush-size").addEventListener("input", (event) => { drawing.size = Number(event.target.value) / 100; });
  byId("mark-form").addEventListener("submit", (event) => { event.preventDefault(); act(mark); });
  byId("unmark").addEventListener("click", () => act(() => ask(`/api/inspections/${id}/mark`, { method: "DELETE" })));
  byId("again").addEventListener("click", () => act(() => post(`/api/inspections/${id}/again`, {})));
}

async function mark() {
  const mask = drawing.changed || inspection.drawn ? await drawing.png() : null;
  await post(`/api/inspections/${id}/mark`, { wrong: inspection.outcome === "good" ? "escape" : "false reject", note: byId("note").value, mask });
  byId("note").blur();
}

async function act(what) {
  try {
    await what();
    describe((await get(`/api/inspections/${id}${filters}`)).inspection);
  } catch (error) {
    toast(error.message);
  }
}

listenToPointer(overlay);
listenToPointer(original);
listenToTools();
if (mayEdit) listenToMark();
try {
  await load();
} catch (error) {
  toast(error.message);
}
follow(inspection?.changed ?? null, { inspection: (other) => {
  if (other.id !== id) return;
  const before = inspection.score;
  describe(other);
  if (before === null && other.score !== null) loadTheMap();
} });
