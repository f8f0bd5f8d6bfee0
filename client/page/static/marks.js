// Marked verdicts, their export, and a candidate release beside the live one.
import { badge, byId, category, figure, get, make, markBadge, number, post, shot, showSynthetic, toast } from "./common.js";
import { follow } from "./events.js";

const href = (id) => `/look/${id}?category=${encodeURIComponent(category)}&marked=any`;

async function load() {
  const found = await get(`/api/marks?category=${encodeURIComponent(category)}`);
  const tiles = found.inspections.map((inspection) => make("li", { class: "tile" }, make("a", { href: href(inspection.id) },
    shot(inspection, "shot"), make("div", { class: "text" }, markBadge(inspection.wrong), make("span", { class: "name" }, inspection.name),
      make("span", { class: "muted" }, `score ${figure(inspection.score)}, threshold ${figure(inspection.threshold)}`),
      inspection.drawn ? make("span", {}, "with a drawn mask") : null, make("span", {}, inspection.note || ""), make("span", { class: "muted" }, inspection.who)))));
  byId("marked-count").textContent = `(${tiles.length})`;
  byId("marked-list").replaceChildren(...(tiles.length ? tiles : [make("li", { class: "muted" }, "No verdict is marked. Look closer at a picture to mark its verdict as wrong.")]));
  showSynthetic(found.inspections.some((inspection) => inspection.synthetic));
  if (byId("download")) byId("download").hidden = !tiles.length;
  if (byId("export-folder")) byId("export-folder").disabled = !tiles.length;
  if (byId("compare")) {
    byId("compare").disabled = !tiles.length || Boolean(found.fault);
    byId("compare-fault").textContent = found.fault ?? "";
  }
}

async function write() {
  try {
    const done = await post("/api/marks/export", { category });
    const sentences = [`${done.n_train_good} to train on, ${done.n_test_good} good to test with, ${done.n_escapes} escapes, ${done.n_masks} masks; ${done.n_added} are new.`, ...done.left_out, ...done.remarks];
    byId("exported").replaceChildren(make("p", {}, make("strong", {}, "Written to "), make("code", {}, done.folder)), ...sentences.map((text) => make("p", {}, text)),
      make("p", {}, "The next release: ", make("code", {}, done.command)));
  } catch (error) {
    byId("exported").replaceChildren(make("p", { class: "fault" }, error.message));
  }
}

async function compare(event) {
  event.preventDefault();
  const button = byId("compare");
  byId("compare-fault").textContent = "";
  byId("compared").replaceChildren(make("p", {}, "The candidate is being started and asked; this takes up to a minute."));
  button.disabled = true;
  try {
    showCompared(await post("/api/compare", { category, number: Number(byId("number").value) }), byId("number").value);
  } catch (error) {
    byId("compared").replaceChildren();
    byId("compare-fault").textContent = error.message;
  }
  button.disabled = false;
}

function showCompared(found, release) {
  const cell = (answer, right) => make("td", {}, answer ? badge(answer.score > answer.threshold ? "reject" : "good") : "–", answer ? ` ${figure(answer.score, 3)} / ${figure(answer.threshold, 3)} ` : "", right === null ? "" : make("strong", {}, right ? "right" : "wrong"));
  const rows = found.rows.map((row) => make("tr", {}, make("td", {}, make("a", { href: href(row.id) }, row.name)), make("td", {}, markBadge(row.wrong)),
    cell(row.live, row.live_right), cell(row.candidate, row.candidate_right), make("td", {}, row.fault ?? (row.trained_on ? "may be trained on it" : ""))));
  const head = make("tr", {}, ...["Picture", "Marked", "Live release", `Release ${release}`, ""].map((name) => make("th", { scope: "col" }, name)));
  byId("compared").replaceChildren(make("div", { class: "numbers" }, number(String(found.put_right), "put right"), number(String(found.made_wrong), "made wrong"), number(String(found.rows.length), "marked pictures")),
    found.synthetic ? make("p", { class: "banner" }, "Synthetic data: the release was trained on rendered images.") : "",
    make("div", { class: "table-part", tabindex: "0", role: "region", "aria-label": "Comparison" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))));
}

// Which releases there are, `deploy` says, in a second or two.
async function list() {
  const field = byId("number");
  try {
    const { candidates } = await get(`/api/candidates?category=${encodeURIComponent(category)}`);
    const name = (one) => `${one.number}: ${new Date(one.published_at).toLocaleString([], { dateStyle: "short", timeStyle: "short" })}, threshold ${figure(one.threshold)}${one.was_live ? ", live before" : ""}${one.reason ? `, ${one.reason.slice(0, 40)}` : ""}`;
    field.replaceChildren(...(candidates.length ? candidates.map((one) => make("option", { value: one.number }, name(one))) : [make("option", { value: "" }, "none but the live one")]));
  } catch (error) {
    field.replaceChildren(make("option", { value: "" }, "not known"));
    byId("compare-fault").textContent = error.message;
  }
}

byId("export-folder")?.addEventListener("click", write);
byId("compare-form")?.addEventListener("submit", compare);
try {
  await load();
  if (byId("compare") && !byId("compare-fault").textContent) list();
  document.body.dataset.ready = "yes";
} catch (error) {
  toast(error.message);
}
let again = null;
follow(null, { inspection: (inspection) => { if (inspection.category === category && inspection.outcome !== "waiting") again ??= setTimeout(() => { again = null; load().catch(() => {}); }, 1000); } });
