// A token is given once; the page remembers it in a cookie that scripts cannot read.
import { byId, post } from "./common.js";

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  byId("login-fault").textContent = "";
  try {
    await post("/login", { token: byId("token").value, name: byId("name").value });
    location.href = ownPlace(new URLSearchParams(location.search).get("next") ?? "/");
  } catch (error) {
    byId("login-fault").textContent = error.message;
  }
});

// A place on this page, as the browser understands it: it takes a backslash for a slash, and //host for another host.
function ownPlace(next) {
  try {
    const place = new URL(next, location.origin);
    return place.origin === location.origin ? place.href : "/";
  } catch {
    return "/";
  }
}
