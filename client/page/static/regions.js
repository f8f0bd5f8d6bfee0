// Where the pictures of a product are inspected and what is ignored: polygons drawn on one of them, as a file to calibrate with.
import { byId, category, get, make, toast, WORDS } from "./common.js";
import { follow } from "./events.js";
import { loadImage, View } from "./picture.js";
import { KINDS, pathOf, Polygons } from "./polygons.js";

const NEAR = 12, DRAG = 4; // screen pixels: a corner is meant; a pointer is moved and not clicked
const COLOURS = { inspect: "#00e5ff", ignore: "#ff2fd0" }, SHADE = "#000a", LISTED = 50, COUNTED = 256;
const DRAFT = `regions ${category}`;
const canvas = byId("drawing"), view = new View(canvas), polygons = new Polygons();
let image = null, kind = "inspect", held = null, share = null;

// Pictures.

async function list() {
  const { inspections } = await get(`/api/history?category=${encodeURIComponent(category)}`), select = byId("picture");
  const shown = inspections.filter((inspection) => inspection.width).slice(0, LISTED);
  select.replaceChildren(make("option", { value: "" }, shown.length ? "none" : "nothing was judged yet"),
    ...shown.map((inspection) => make("option", { value: inspection.id }, `${inspection.id}: ${inspection.name} (${WORDS[inspection.outcome]})`)));
  return shown;
}

async function show(address, why) {
  let loaded;
  try {
    loaded = await loadImage(address);
  } catch {
    return toast(why);
  }
  const fault = polygons.show(loaded.naturalWidth, loaded.naturalHeight);
  if (fault) return toast(fault);
  image = loaded;
  view.of(polygons.width, polygons.height);
  changed();
}

const showJudged = (id) => show(`/api/inspections/${id}/picture`, "That picture is not there any more.");

async function showFile(file) {
  const address = URL.createObjectURL(file);
  await show(address, `${file.name} cannot be shown by this browser; drop it onto the live view, and choose it here then.`);
  byId("picture").value = "";
  URL.revokeObjectURL(address);
}

async function openRegions(file) {
  const fault = polygons.read(await file.text());
  if (fault) return toast(`${file.name}: ${fault}`);
  if (!image) view.of(polygons.width, polygons.height);
  changed();
}

// Drawing.

function draw() {
  view.resize();
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!polygons.width) return;
  context.fillStyle = "#6b7680";
  context.fillRect(view.left, view.top, view.scale * polygons.width, view.scale * polygons.height);
  if (image) view.onto(context, image, { smooth: view.scale < 3 });
  const shade = hidden(canvas.width, canvas.height, view.scale, view.left, view.top);
  context.drawImage(shade, 0, 0);
  for (const polygon of polygons.list) outline(context, polygon);
}

// What does not count, dark, on a canvas of its own; the rest of it is clear.
function hidden(width, height, scale, left, top) {
  const shade = new OffscreenCanvas(width, height), context = shade.getContext("2d", { willReadFrequently: true });
  context.setTransform(scale, 0, 0, scale, left, top);
  context.fillStyle = SHADE;
  const inspect = polygons.paths("inspect");
  if (inspect.length) context.fillRect(0, 0, polygons.width, polygons.height);
  context.globalCompositeOperation = "destination-out";
  context.fillStyle = "#000";
  for (const path of inspect) context.fill(path, "evenodd");
  for (const path of polygons.paths("ignore")) {
    context.globalCompositeOperation = "destination-out";
    context.fillStyle = "#000";
    context.fill(path, "evenodd");
    context.globalCompositeOperation = "source-over";
    context.fillStyle = SHADE;
    context.fill(path, "evenodd");
  }
  return shade;
}

function outline(context, polygon) {
  const ratio = view.ratio(), path = new Path2D();
  path.addPath(pathOf(polygon), new DOMMatrix([view.scale, 0, 0, view.scale, view.left, view.top]));
  const dash = polygon.kind === "ignore" ? [9 * ratio, 6 * ratio] : [];
  for (const [colour, width] of [["#000c", 5], [COLOURS[polygon.kind], 2.5]]) {
    context.setLineDash(dash);
    context.lineWidth = width * ratio;
    context.strokeStyle = colour;
    context.stroke(path);
  }
  context.setLineDash([]);
  for (const corner of polygon.corners) {
    const [x, y] = onScreen(corner);
    context.beginPath();
    context.arc(x, y, 5 * ratio, 0, 2 * Math.PI);
    context.fillStyle = COLOURS[polygon.kind];
    context.fill();
    context.lineWidth = 1.5 * ratio;
    context.strokeStyle = "#000";
    context.stroke();
  }
  if (!polygon.corners.length) return;
  const [x, y] = onScreen(polygon.corners[0]), text = `${polygon.kind} ${polygons.number(polygon)}`;
  context.font = `600 ${14 * ratio}px system-ui, sans-serif`;
  const width = context.measureText(text).width, left = Math.max(4 * ratio, Math.min(canvas.width - width - 8 * ratio, x + 10 * ratio)), base = Math.max(18 * ratio, y - 8 * ratio);
  context.fillStyle = "#000c";
  context.fillRect(left - 4 * ratio, base - 15 * ratio, width + 8 * ratio, 20 * ratio);
  context.fillStyle = "#fff";
  context.fillText(text, left, base);
}

const onScreen = ([x, y]) => [view.left + view.scale * x, view.top + view.scale * y];

// The polygon and the position of the corner under a pointer.
function cornerAt(event) {
  const [x, y] = view.place(event), near = (NEAR * view.ratio()) / view.scale;
  for (const polygon of [...polygons.list].reverse()) {
    const index = polygon.corners.findIndex((corner) => Math.hypot(corner[0] - x, corner[1] - y) <= near);
    if (index >= 0) return { polygon, index };
  }
  return null;
}

canvas.addEventListener("pointerdown", (event) => {
  if (!polygons.width || event.button) return;
  canvas.setPointerCapture(event.pointerId);
  held = { x: event.clientX, y: event.clientY, corner: cornerAt(event), moved: false };
});

canvas.addEventListener("pointermove", (event) => {
  tellPlace(event);
  if (!held) return;
  const distance = Math.hypot(event.clientX - held.x, event.clientY - held.y);
  if (!held.moved && distance < DRAG) return;
  if (!held.moved && held.corner) polygons.remember();
  held.moved = true;
  if (held.corner) {
    const [x, y] = view.place(event);
    held.corner.polygon.corners[held.corner.index] = [polygons.within(Math.round(x), polygons.width), polygons.within(Math.round(y), polygons.height)];
    changed();
  } else {
    view.move((event.clientX - held.x) * view.ratio(), (event.clientY - held.y) * view.ratio());
    held.x = event.clientX;
    held.y = event.clientY;
    draw();
  }
});

canvas.addEventListener("pointerup", (event) => {
  const click = held && !held.moved ? held : null;
  held = null;
  if (!click) return;
  const { corner } = click;
  if (corner && (corner.polygon.open || !polygons.open())) { // a polygon may share corners with others
    if (corner.polygon.open && corner.index === 0 && corner.polygon.corners.length >= 3) close();
    return;
  }
  const [x, y] = view.place(event);
  polygons.add(kind, Math.round(x), Math.round(y));
  changed();
});
canvas.addEventListener("pointercancel", () => { held = null; });
canvas.addEventListener("wheel", (event) => {
  if (!polygons.width) return;
  event.preventDefault();
  const box = canvas.getBoundingClientRect(), ratio = view.ratio();
  view.zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, (event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio);
  draw();
}, { passive: false });

function tellPlace(event) {
  const [x, y] = view.place(event).map(Math.round);
  const inside = polygons.width && x >= 0 && y >= 0 && x <= polygons.width && y <= polygons.height;
  byId("pointer").textContent = inside ? `${x}, ${y} of ${polygons.width} × ${polygons.height} pixels` : sizeText();
}
const sizeText = () => (polygons.width ? `${polygons.width} × ${polygons.height} pixels` : "No picture yet");

function close() {
  if (!polygons.open()) return;
  polygons.remember();
  polygons.closeAll();
  changed();
}

// The list, by which everything is done with the keyboard.

function fields() {
  const place = document.activeElement?.dataset?.place;
  byId("polygons").replaceChildren(...polygons.list.map(fieldset));
  if (place) byId("polygons").querySelector(`[data-place="${CSS.escape(place)}"]`)?.focus();
}

function fieldset(polygon, position) {
  const name = `${polygon.kind} ${polygons.number(polygon)}`;
  const change = (action) => () => { polygons.remember(); action(); changed(); };
  const rows = polygon.corners.map((corner, index) => make("li", { class: "corner" },
    ...["x", "y"].map((axis, at) => make("input", {
      type: "number", step: "any", min: 0, max: at ? polygons.height : polygons.width, value: Number.isFinite(corner[at]) ? corner[at] : "",
      "aria-label": `${name}, corner ${index + 1}, ${axis}`, "data-place": `${position} ${index} ${axis}`,
      onchange: ({ target }) => { polygons.remember(); corner[at] = target.value === "" ? null : Number(target.value); changed(false); },
    })),
    make("button", { type: "button", class: "plain", "aria-label": `Remove corner ${index + 1} of ${name}`, "data-place": `${position} ${index} remove`, onclick: change(() => polygon.corners.splice(index, 1)) }, "✕")));
  const other = KINDS.find((each) => each !== polygon.kind);
  const middle = [Math.round(polygons.width / 2), Math.round(polygons.height / 2)];
  return make("fieldset", { class: "polygon", "data-kind": polygon.kind }, make("legend", {}, name, polygon.open ? " (being drawn)" : ""),
    make("ol", { class: "corners" }, ...rows),
    make("div", { class: "row" },
      make("button", { type: "button", "data-place": `${position} add`, "aria-label": `Add a corner to ${name}`, onclick: change(() => polygon.corners.push([...(polygon.corners.at(-1) ?? middle)])) }, "Add corner"),
      make("button", { type: "button", "data-place": `${position} kind`, "aria-label": `Make ${name} one to ${other}`, onclick: change(() => { polygon.kind = other; }) }, `To ${other}`),
      make("button", { type: "button", "data-place": `${position} gone`, "aria-label": `Remove ${name}`, onclick: change(() => polygons.list.splice(polygons.list.indexOf(polygon), 1)) }, "Remove")));
}

// After every change; a field that holds what was typed into it stays, and with it the focus that is just moving on.

function changed(anew = true) {
  share = polygons.width && polygons.list.length ? inspectedShare() : null;
  const fault = polygons.fault() ?? (share === 0 ? "Nothing is left to inspect." : null), open = polygons.open();
  byId("regions-fault").textContent = fault && !(open && open.corners.length < 3) ? fault : "";
  byId("regions-status").textContent = statusText();
  byId("download").disabled = Boolean(fault) || !polygons.list.length;
  byId("undo").disabled = !polygons.before.length;
  byId("close-polygon").disabled = !open;
  for (const name of KINDS) byId(`add-${name}`).disabled = !polygons.width;
  byId("pointer").textContent = sizeText();
  localStorage.setItem(DRAFT, JSON.stringify([polygons.list, polygons.width, polygons.height]));
  if (anew) fields();
  draw();
}

function statusText() {
  if (!polygons.width) return "Choose a picture, or open a regions.json.";
  const count = (name) => polygons.list.filter((polygon) => polygon.kind === name).length;
  if (!polygons.list.length) return "All of the picture is inspected.";
  return `${count("inspect")} to inspect, ${count("ignore")} to ignore; about ${Math.round(100 * share)} % of the picture is inspected.`;
}

function inspectedShare() {
  const scale = COUNTED / Math.max(polygons.width, polygons.height);
  const width = Math.max(1, Math.round(polygons.width * scale)), height = Math.max(1, Math.round(polygons.height * scale));
  const { data } = hidden(width, height, scale, 0, 0).getContext("2d").getImageData(0, 0, width, height);
  let clear = 0;
  for (let index = 3; index < data.length; index += 4) clear += data[index] < 85;
  return clear / (width * height);
}

function download() {
  const address = URL.createObjectURL(new Blob([`${JSON.stringify(polygons.content())}\n`], { type: "application/json" }));
  const link = make("a", { href: address, download: "regions.json" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

function choose(name) {
  kind = name;
  for (const each of KINDS) byId(`draw-${each}`).setAttribute("aria-pressed", String(each === name));
  close();
}

for (const name of KINDS) {
  byId(`draw-${name}`).addEventListener("click", () => choose(name));
  byId(`add-${name}`).addEventListener("click", () => {
    choose(name);
    polygons.remember();
    polygons.addPolygon(name);
    changed();
    byId("polygons").lastElementChild.querySelector("button[data-place$=add]").focus();
  });
}
byId("close-polygon").addEventListener("click", close);
byId("undo").addEventListener("click", () => polygons.undo() && changed());
byId("download").addEventListener("click", download);
byId("picture").addEventListener("change", (event) => event.target.value && showJudged(event.target.value));
const taking = (take) => (event) => { const [file] = event.target.files; event.target.value = ""; if (file) take(file); };
byId("picture-file").addEventListener("change", taking(showFile));
byId("regions-file").addEventListener("change", taking(openRegions));
byId("fit").addEventListener("click", () => { view.fit(); draw(); });
byId("zoom-in").addEventListener("click", () => { view.zoom(1.3); draw(); });
byId("zoom-out").addEventListener("click", () => { view.zoom(1 / 1.3); draw(); });
new ResizeObserver(draw).observe(canvas);

// What was drawn here last stays until it is removed; then the newest picture of its shape is shown.
try {
  const [kept, width, height] = JSON.parse(localStorage.getItem(DRAFT) ?? "[[], 0, 0]");
  if (kept.length) Object.assign(polygons, { list: kept, width, height });
} catch {
  localStorage.removeItem(DRAFT);
}
if (polygons.width) view.of(polygons.width, polygons.height);
changed();
try {
  const shown = await list();
  const fitting = shown.find((inspection) => !polygons.list.length || inspection.width * polygons.height === inspection.height * polygons.width);
  if (fitting) {
    byId("picture").value = String(fitting.id);
    await showJudged(fitting.id);
  }
} catch (error) {
  toast(error.message);
}
document.body.dataset.ready = "yes";
follow(null, {});
