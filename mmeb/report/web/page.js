"use strict";
const byId = (id) => document.getElementById(id);
const name = byId("name"), order = byId("order"), open = byId("open"), sections = byId("sections");
const tasks = () => [...document.querySelectorAll("[data-task]")];
document.body.classList.remove("no-script");

function filter() {
  const meta = document.querySelector("[name=meta]:checked").value, wanted = name.value.trim().toLowerCase();
  for (const task of tasks())
    task.hidden = (meta && task.dataset.meta !== meta) || !task.dataset.task.toLowerCase().includes(wanted);
  const shown = sections.querySelectorAll("details:not([hidden])").length;
  byId("count").textContent = `${shown} of ${sections.children.length} tasks`;
  byId("none").hidden = shown > 0;
}
function sort() {
  for (const parent of [byId("rows"), sections])
    parent.append(...[...parent.children].sort((a, b) => a.dataset[order.value] - b.dataset[order.value]));
}
function toggleAll() {
  const opening = open.textContent === "Open all";
  for (const task of sections.querySelectorAll("details:not([hidden])")) task.open = opening;
  open.textContent = opening ? "Close all" : "Open all";
}
function follow() {
  const target = byId(location.hash.slice(1));
  if (target && target.matches("details")) { target.open = true; target.scrollIntoView(); target.querySelector("summary").focus({preventScroll: true}); }
}
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
document.querySelector("form").addEventListener("input", filter);
order.addEventListener("change", sort);
open.addEventListener("click", toggleAll);
window.addEventListener("hashchange", follow);
filter();
follow();
