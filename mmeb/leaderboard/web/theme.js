/* Applied before the first paint, so that a dark page does not flash. */
let theme = "system";
try { theme = localStorage.getItem("theme") ?? theme; } catch { /* a page from disk may have no storage */ }
document.documentElement.dataset.choice = ["light", "dark"].includes(theme) ? theme : "system";
if (theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches))
  document.documentElement.classList.add("dark");
