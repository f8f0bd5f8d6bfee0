// The scores that were seen, and which pictures another threshold would judge otherwise.
import { byId, category, figure, get, make, number, post, thumbnail, toast, whole, WORDS } from "./common.js";
import { follow } from "./events.js";

const BINS = 90, SHOWN = 40, STEPS = 1000;
const canvas = byId("histogram"), slider = byId("slider");
let seen = null, end = 1, bins = [], chosen = null, typed = false, timer = null;

async function load() {
  seen = await get(`/api/scores?category=${encodeURIComponent(category)}`);
  const { scores, threshold } = seen;
  const highest = scores.reduce((most, score) => Math.max(most, score), 0), live = threshold ?? highest / 2;
  end = Math.max(2 * live, Math.min(1.05 * highest, 6 * live)) || 1;
  bins = Array.from({ length: BINS + 1 }, () => [0, 0, 0]);
  scores.forEach((score, index) => { bins[Math.min(BINS, Math.floor((score / end) * BINS))][seen.wrong[index] ? 2 : seen.rejected[index] ? 1 : 0]++; });
  slider.disabled = threshold === null;
  if (!typed) chosen = threshold;
  note();
  update();
}

function note() {
  const { scores, limit, others, threshold } = seen;
  let text = `${whole(scores.length)} pictures${scores.length === limit ? ", the latest," : ""} by the live release and its earlier thresholds.`;
  if (others) text += ` ${others} other release${others > 1 ? "s" : ""} judged too, whose scores cannot be compared with these.`;
  if (threshold === null) text = "The live release has judged no picture yet; its threshold is known from the first one on.";
  byId("chart-note").textContent = text;
}

// Which pictures another threshold puts on the other side than the live one does; the nearest first.
function changed() {
  const toGood = [], toReject = [];
  seen.scores.forEach((score, index) => {
    const now = score > seen.threshold, then = score > chosen;
    if (now && !then) toGood.push(index);
    if (!now && then) toReject.push(index);
  });
  const near = (one, other) => Math.abs(seen.scores[one] - seen.threshold) - Math.abs(seen.scores[other] - seen.threshold);
  return [toGood.sort(near), toReject.sort(near)];
}

function update() {
  draw();
  if (byId("apply") && seen.threshold === null) byId("apply").disabled = true;
  if (seen.threshold === null) { byId("changes").replaceChildren(make("p", { class: "muted" }, "Nothing yet.")); return; }
  slider.value = Math.round((chosen / span()) * STEPS);
  slider.setAttribute("aria-valuetext", `${figure(chosen)}, live ${figure(seen.threshold)}`);
  if (byId("value") && document.activeElement !== byId("value")) byId("value").value = Number(chosen.toPrecision(6));
  const [toGood, toReject] = changed(), above = seen.scores.filter((score) => score > chosen).length;
  const wrongAgain = (indices, wrong) => indices.filter((index) => seen.wrong[index] === wrong).length;
  byId("changes").replaceChildren(number(figure(chosen), `new threshold, live ${figure(seen.threshold)}`), number(whole(toGood.length), "would pass"), number(whole(toReject.length), "would be rejected"),
    number(seen.scores.length ? `${((100 * above) / seen.scores.length).toFixed(1)} %` : "–", "rejected of all seen"),
    number(whole(wrongAgain(toGood, "false reject") + wrongAgain(toReject, "escape")), "marks put right"));
  clearTimeout(timer);
  timer = setTimeout(() => { fill("to-good", toGood, "good"); fill("to-reject", toReject, "reject"); }, 60);
  if (byId("apply")) ready();
}

function fill(name, indices, outcome) {
  const cards = indices.slice(0, SHOWN).map((index) => make("li", {}, thumbnail(
    { id: seen.ids[index], name: `Picture ${seen.ids[index]}`, outcome, score: seen.scores[index], wrong: seen.wrong[index], width: 1, category }, {})));
  const more = indices.length - cards.length;
  byId(`${name}-title`).textContent = `${outcome === "good" ? "Would pass" : "Would be rejected"}: ${whole(indices.length)}${more > 0 ? `, the nearest ${SHOWN} shown` : ""}`;
  byId(name).replaceChildren(...cards);
}

function draw() {
  const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(name).trim();
  const ratio = devicePixelRatio || 1, width = (canvas.width = canvas.clientWidth * ratio), height = (canvas.height = canvas.clientHeight * ratio);
  const context = canvas.getContext("2d"), bottom = height - 26 * ratio, log = byId("log-scale").checked;
  const total = (bin) => bin[0] + bin[1] + bin[2], scaled = (count) => (log ? Math.log1p(count) : count);
  const most = Math.max(1, ...bins.map(total)), unit = (bottom - 14 * ratio) / scaled(most), step = width / (BINS + 1);
  context.font = `${13 * ratio}px system-ui, sans-serif`;
  bins.forEach((bin, index) => {
    let y = bottom;
    const all = total(bin), high = scaled(all) * unit;
    ["--good", "--reject", "--marked"].forEach((name, kind) => {
      const part = all ? (bin[kind] / all) * high : 0;
      context.fillStyle = colour(name);
      context.fillRect(index * step + ratio * 0.5, y - part, Math.max(1, step - ratio), part);
      y -= part;
    });
  });
  context.fillStyle = colour("--soft");
  context.fillRect(0, bottom, width, ratio);
  const between = roundStep(end / 6);
  for (let value = 0; value < end * 0.97; value += between) {
    context.textAlign = value === 0 ? "left" : "center";
    context.fillText(String(Number(value.toPrecision(6))), (value / end) * BINS * step, height - 6 * ratio);
  }
  context.textAlign = "left";
  context.fillText(`${whole(most)} pictures${log ? ", logarithmic" : ""}`, 4 * ratio, 13 * ratio);
  if (seen.threshold === null) return;
  line(context, (seen.threshold / end) * BINS * step, colour("--ink"), [], bottom, ratio);
  line(context, (chosen / end) * BINS * step, colour("--accent"), [8 * ratio, 5 * ratio], bottom, ratio);
}

// 1, 2 or 5 times a power of ten, at least as much as asked for.
function roundStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * ([1, 2, 5].find((times) => times * power >= least) ?? 10);
}

function line(context, x, colour, dash, bottom, ratio) {
  context.strokeStyle = colour;
  context.lineWidth = 3 * ratio;
  context.setLineDash(dash);
  context.beginPath();
  context.moveTo(x, 0);
  context.lineTo(x, bottom);
  context.stroke();
  context.setLineDash([]);
}

function choose(value) {
  if (!Number.isFinite(value) || value < 0 || seen?.threshold === null) return;
  chosen = value;
  typed = true;
  update();
}

function ready() {
  const same = Math.abs(chosen - seen.threshold) <= 1e-9 * Math.abs(seen.threshold);
  byId("apply").disabled = same || !byId("reason").value.trim() || Boolean(seen.fault);
  byId("apply-fault").textContent = seen.fault ?? "";
}

async function apply(event) {
  event.preventDefault();
  const button = byId("apply"), before = button.textContent;
  button.disabled = true;
  button.textContent = "Applying…";
  try {
    const done = await post("/api/threshold", { category, threshold: chosen, reason: byId("reason").value, release_id: seen.release_id });
    typed = false;
    byId("reason").value = "";
    await load();
    toast(`The threshold is ${figure(done.threshold)}, release ${done.release_id}. ${done.said.at(-1) ?? ""}`);
  } catch (error) {
    await load().catch(() => {}); // another release may be live by now
    byId("apply-fault").textContent = error.message;
  }
  button.textContent = before;
  button.disabled = true;
}

slider.addEventListener("input", () => choose((slider.value / STEPS) * span()));
byId("log-scale").addEventListener("change", draw);
byId("value")?.addEventListener("input", (event) => choose(Number.parseFloat(event.target.value.replace(",", "."))));
byId("reason")?.addEventListener("input", ready);
byId("apply-form")?.addEventListener("submit", apply);
// The slider spans the whole width, the last bar included, in which all above it are.
const span = () => (end * (BINS + 1)) / BINS;
const drag = (event) => { const box = canvas.getBoundingClientRect(); choose(Math.max(0, ((event.clientX - box.left) / box.width) * span())); };
canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); slider.focus(); drag(event); });
canvas.addEventListener("pointermove", (event) => { if (canvas.hasPointerCapture(event.pointerId)) drag(event); });
addEventListener("themechange", () => seen && draw());
new ResizeObserver(() => seen && draw()).observe(canvas);

let again = null;
const soon = () => { again ??= setTimeout(() => { again = null; load().catch((error) => toast(error.message)); }, 3000); };
try {
  await load();
  document.body.dataset.ready = "yes";
} catch (error) {
  toast(error.message);
}
follow(null, { inspection: (inspection) => inspection.category === category && WORDS[inspection.outcome] && soon(), threshold: (content) => content.category === category && load() });
