// The history: filtered, page by page; its address holds the filters, so that it can be kept and opened again.
import { badge, byId, figure, get, make, markBadge, shot, showSynthetic, time, toast, whole } from "./common.js";
import { follow } from "./events.js";

const form = byId("filters"), body = byId("rows").tBodies[0];
let page = [];

function filters() {
  const asked = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (!value) continue;
    asked.set(name, name === "since" || name === "until" ? String(new Date(value).getTime() / 1000) : value.trim());
  }
  return asked;
}

const local = (seconds) => { const at = new Date(seconds * 1000); return new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16); };
function restore() {
  const asked = new URLSearchParams(location.search);
  for (const [name, value] of asked) {
    const field = form.elements[name];
    if (!field || name === "release") continue;
    field.value = name === "since" || name === "until" ? local(Number(value)) : value;
  }
  if (asked.has("all")) form.elements.category.value = "";
}

async function releases() {
  const field = byId("release"), chosen = new URLSearchParams(location.search).get("release") ?? field.value;
  const found = await get(`/api/releases?category=${encodeURIComponent(form.elements.category.value)}`);
  field.replaceChildren(make("option", { value: "" }, "all"), ...found.releases.map(({ id, count }) => make("option", { value: id }, `${id} (${whole(count)})`)));
  if (found.releases.some(({ id }) => id === chosen)) field.value = chosen;
}

async function show(place = {}) {
  const asked = filters(), kept = asked.toString();
  history.replaceState(null, "", `/history?${kept}${form.elements.category.value ? "" : "&all=1"}`);
  for (const kind of ["csv", "json"]) byId(kind).href = `/export/history.${kind}?${kept}`;
  for (const [name, value] of Object.entries(place)) asked.set(name, value);
  try {
    const found = await get(`/api/history?${asked}`);
    page = found.inspections;
    body.replaceChildren(...page.map((inspection) => row(inspection, kept)));
    if (!page.length) body.append(make("tr", {}, make("td", { colspan: 11 }, "Nothing is like that.")));
    byId("older").disabled = !found.older || !page.length;
    byId("newer").disabled = !found.newer || !page.length;
    if (!place.before && !place.after) count(kept).catch((error) => toast(error.message));
    showSynthetic(page.some((inspection) => inspection.synthetic));
  } catch (error) {
    toast(error.message);
  }
  document.body.dataset.ready = "yes";
  performance.mark("history");
}

async function count(kept) {
  const found = await get(`/api/history/count?${kept}`);
  byId("count").textContent = `${whole(found.count)} picture${found.count === 1 ? "" : "s"}, newest first.`;
}

function row(inspection, kept) {
  const href = `/look/${inspection.id}?${kept}`, defects = inspection.defects;
  const largest = defects?.length ? whole(Math.max(...defects.map((defect) => defect.area))) : "";
  return make("tr", {}, make("td", {}, make("a", { href, "aria-label": `Look closer at ${inspection.name}` }, shot(inspection, "shot"))), make("td", {}, badge(inspection.outcome)),
    make("td", { class: "figure" }, figure(inspection.score)), make("td", { class: "figure" }, figure(inspection.threshold)), make("td", { class: "figure" }, defects ? String(defects.length) : ""), make("td", { class: "figure" }, largest),
    make("td", { class: "long", title: inspection.reason ?? inspection.name }, make("a", { href }, inspection.name)), make("td", {}, time(inspection.arrived_at)), make("td", {}, inspection.category), make("td", {}, inspection.release_id ?? ""),
    make("td", {}, inspection.wrong ? markBadge(inspection.wrong) : ""));
}

form.addEventListener("submit", (event) => { event.preventDefault(); show(); });
form.addEventListener("reset", () => setTimeout(() => { for (const field of form.elements) if (field.name) field.value = ""; show(); releases(); }));
form.elements.category.addEventListener("change", () => releases().catch((error) => toast(error.message)));
byId("older").addEventListener("click", () => show({ before: page.at(-1).id }));
byId("newer").addEventListener("click", () => show({ after: page[0].id }));

restore();
// The release in the address needs the list first; the list else needs not to be waited for.
const listed = releases().catch((error) => toast(error.message));
if (new URLSearchParams(location.search).has("release")) await listed;
await show();
follow(null, {});
