// What all views share: asking the page's process, its events, and how verdicts look in words, shapes and colours.
export const category = document.body.dataset.category;
export const mayEdit = document.body.dataset.mayEdit === "yes";
export const byId = (id) => document.getElementById(id);

export const WORDS = { good: "Good", reject: "Reject", failed: "Not judged", waiting: "Waiting" };
const SHAPES = {
  good: [["circle", { cx: 12, cy: 12, r: 11 }], ["path", { d: "M6.5 12.5l4 4 7-8.5" }]],
  reject: [["path", { d: "M7.6 1h8.8L23 7.6v8.8L16.4 23H7.6L1 16.4V7.6Z" }], ["path", { d: "M8 8l8 8M16 8l-8 8" }]],
  failed: [["path", { d: "M12 1.5 23.5 22H.5Z" }], ["path", { d: "M12 9v6M12 17.6v1" }]],
  waiting: [["circle", { cx: 12, cy: 12, r: 11 }], ["path", { d: "M12 6v6.5l4 2.5" }]],
};

// An element with attributes and children; text is never taken for HTML.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// The verdict's shape: a tick in a circle, a cross in an octagon, a bang in a triangle, a clock.
export function shape(outcome) {
  const [[tag, around], [, sign]] = SHAPES[outcome] ?? SHAPES.waiting;
  return svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" },
    svg(tag, { ...around, fill: "none", stroke: "currentColor", "stroke-width": 2 }),
    svg("path", { ...sign, fill: "none", stroke: "currentColor", "stroke-width": 3, "stroke-linecap": "round", "stroke-linejoin": "round" }));
}

export const badge = (outcome) =>
  make("span", { class: "badge", "data-outcome": outcome }, make("span", { class: "badge-shape" }, shape(outcome)), WORDS[outcome]);
export const markBadge = (wrong) => make("span", { class: "mark-badge" }, `⚑ ${wrong}`);

export function showVerdict(outcome) {
  const box = byId("verdict");
  box.dataset.outcome = outcome;
  byId("verdict-word").textContent = WORDS[outcome].toUpperCase();
  box.querySelector(".verdict-shape").replaceChildren(shape(outcome));
}

// Figures.
export const figure = (value, digits = 4) => (value === null || value === undefined ? "–" : Number(value).toPrecision(digits));
export const whole = (value) => Number(value).toLocaleString("en");
export const time = (seconds) => new Date(seconds * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });
export const percent = (share) => {
  if (share === null || share === undefined) return "–";
  return share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
};

export async function ask(address, options = {}) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("The page's process does not answer; is it running?");
  }
  if (response.status === 401) location.href = `/login?next=${encodeURIComponent(location.pathname)}`;
  if (response.ok) return response;
  const content = await response.json().catch(() => ({}));
  throw Object.assign(new Error(content.error ?? `The page answered ${response.status}.`), { status: response.status });
}
export const get = async (address) => (await ask(address)).json();
export const post = async (address, content) =>
  (await ask(address, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(content) })).json();

export function toast(text) {
  const box = make("div", { class: "toast" }, make("span", {}, text),
    make("button", { type: "button", onclick: () => box.remove() }, "Close"));
  byId("toasts").append(box);
  while (byId("toasts").children.length > 4) byId("toasts").firstChild.remove();
  setTimeout(() => box.remove(), 12000);
}

export function thumbnail(inspection, { chosen = false, href = null } = {}) {
  const under = make("span", { class: "under" }, shape(inspection.outcome), figureOrWord(inspection));
  if (inspection.wrong) under.append(make("span", { class: "flag", title: inspection.wrong }, "⚑"));
  const label = `${inspection.name}: ${WORDS[inspection.outcome]}${inspection.score === null ? "" : `, score ${figure(inspection.score)}`}${inspection.wrong ? `, marked ${inspection.wrong}` : ""}`;
  return make("a", { class: `thumb${chosen ? " chosen" : ""}`, "data-outcome": inspection.outcome, "data-id": inspection.id,
    href: href ?? `/look/${inspection.id}?category=${encodeURIComponent(inspection.category)}`, "aria-label": label },
    shot(inspection, "shot"), under);
}
const figureOrWord = (inspection) => (inspection.score === null ? WORDS[inspection.outcome] : figure(inspection.score, 3));

export function shot(inspection, className) {
  if (!inspection.width) return make("span", { class: className });
  return make("img", { class: className, src: `/api/inspections/${inspection.id}/thumbnail`, alt: "", loading: "lazy", decoding: "async" });
}

// A bar of the score, and where the threshold is.
export function showGauge(inspection) {
  const box = byId("gauge");
  if (inspection.score === null) {
    box.replaceChildren(make("p", { class: "muted" }, inspection.reason ?? "Waiting for the server."));
    return;
  }
  const { score, threshold, outcome } = inspection;
  const end = Math.max(2 * threshold, 1.08 * score, 1e-9);
  const at = (value) => Math.max(0, Math.min(1, value / end)) * 300;
  box.replaceChildren(
    make("div", { class: "gauge-figures" }, make("b", {}, figure(score)), make("span", { class: "muted" }, `${score > threshold ? "above" : "not above"} ${figure(threshold)}`)),
    svg("svg", { viewBox: "0 0 300 46", preserveAspectRatio: "none", role: "img", "aria-label": `Score ${figure(score)}, threshold ${figure(threshold)}` },
      svg("rect", { class: "track", x: 0, y: 6, width: 300, height: 24, rx: 5 }),
      svg("rect", { class: `fill ${outcome}`, x: 0, y: 6, width: at(score), height: 24, rx: 5 }),
      svg("line", { class: "limit", x1: at(threshold), x2: at(threshold), y1: 0, y2: 36 })));
}

export function showDefects(inspection, chosen = null) {
  const box = byId("defects");
  const defects = inspection.defects;
  if (!defects || !defects.length) {
    const why = defects ? "None." : inspection.score === null ? "Not judged yet." : "Not asked for.";
    box.replaceChildren(make("p", { class: "muted" }, why));
    return;
  }
  const head = make("tr", {}, ...["At", "Size", "Area", "Peak"].map((name) => make("th", { scope: "col" }, name)));
  const rows = defects.slice(0, 8).map((defect, index) =>
    make("tr", { class: chosen ? "defect-row" : null, onclick: () => chosen?.(index) },
      make("td", {}, `${defect.left}, ${defect.top}`), make("td", {}, `${defect.width} × ${defect.height}`),
      make("td", {}, whole(defect.area)), make("td", {}, figure(defect.peak, 3))));
  box.replaceChildren(make("table", { class: "defects" }, make("thead", {}, head), make("tbody", {}, ...rows)));
  box.append(make("p", { class: "muted" }, defects.length > 8 ? `Pixels of the picture; and ${defects.length - 8} more.` : "Pixels of the picture."));
}

export function showFacts(inspection) {
  const facts = [["Latency", inspection.latency_ms === null ? "–" : `${inspection.latency_ms.toFixed(1)} ms`], ["Release", inspection.release_id ?? "–"],
    ["Picture", inspection.width ? `${inspection.width} × ${inspection.height}` : "–"], ["Arrived", time(inspection.arrived_at)]];
  byId("facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

export const number = (value, name) => make("div", { class: "number" }, make("b", {}, value), make("span", {}, name));

// The banner stands as long as anything that is shown is of a release trained on rendered images.
const rendered = {};
export function showSynthetic(synthetic, what = "view") {
  rendered[what] = synthetic;
  byId("synthetic").hidden = !Object.values(rendered).some(Boolean);
}
