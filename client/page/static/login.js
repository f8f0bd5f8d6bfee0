// A token is given once; the page remembers it in a cookie that scripts cannot read.
import { byId, post } from "./common.js";

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  byId("login-fault").textContent = "";
  try {
    await post("/login", { token: byId("token").value, name: byId("name").value });
    const next = new URLSearchParams(location.search).get("next") ?? "/";
    location.href = next.startsWith("/") && !next.startsWith("//") ? next : "/";
  } catch (error) {
    byId("login-fault").textContent = error.message;
  }
});
