// On every view: light or dark, the product's choice, and the way out.
import { post, category } from "./common.js";

const root = document.documentElement;
const chosen = localStorage.getItem("theme");
if (chosen) root.dataset.theme = chosen;

document.getElementById("theme")?.addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  dispatchEvent(new Event("themechange"));
});

document.getElementById("category")?.addEventListener("change", (event) => {
  const view = document.body.dataset.view === "look" ? "/" : location.pathname;
  if (event.target.value !== category) location.href = `${view}?category=${encodeURIComponent(event.target.value)}`;
});

document.getElementById("logout")?.addEventListener("click", async () => {
  await post("/api/logout", {});
  location.href = "/login";
});
