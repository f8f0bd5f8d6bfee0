// The stream of what is new. A hidden tab lets go of its connection (browsers have six to one place) and catches up later.
import { byId, make, showSynthetic, category } from "./common.js";

let source = null;
let change = null;
let handlers = {};

export function follow(since, given) {
  change = since;
  handlers = given;
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : start()));
  if (!document.hidden) start();
}

function stop() {
  source?.close();
  source = null;
}

function start() {
  if (source) return;
  source = new EventSource(`/api/events${change === null ? "" : `?since=${change}`}`);
  source.onerror = () => {
    show("down", "page not reached");
    if (source?.readyState === EventSource.CLOSED) {
      stop();
      setTimeout(() => !document.hidden && start(), 2000);
    }
  };
  on("inspection", (inspection, event) => {
    if (event.lastEventId) change = event.lastEventId;
    handlers.inspection?.(inspection);
  });
  on("status", (status) => {
    if (status.category !== category) return;
    showStatus(status);
    handlers.status?.(status);
  });
  on("notices", showNotices);
  on("shift", () => handlers.shift?.());
  on("threshold", (content) => handlers.threshold?.(content));
  on("reload", () => location.reload());
}

const on = (kind, handle) => source.addEventListener(kind, (event) => handle(JSON.parse(event.data), event));

function show(state, text) {
  const link = byId("link");
  link.dataset.state = state;
  link.querySelector(".link-text").textContent = text;
}

let fault = null;
let notices = [];
export function showStatus(status) {
  fault = status.fault;
  if (status.fault) show("down", "server not ready");
  else show("up", status.release_id ? "server ready" : "page ready");
  showSynthetic(status.synthetic, "server");
  fill();
}
export function showNotices(sentences) {
  notices = sentences;
  fill();
}
const fill = () => byId("notices").replaceChildren(
  ...[...(fault ? [`Nothing is judged now: ${fault} Pictures wait, and none is lost.`] : []), ...notices].map((text) => make("p", { class: "banner" }, text)));
