// The page: a question, one search or two, live. Everything it shows comes from the server that it came from.

import { SearchColumn } from "./search.js";
import { keyed, models, setKey } from "./server.js";

const $ = (id) => document.getElementById(id);
const columns = [];
let offered = [];

function problem(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text;
}

async function greet() {
  try {
    offered = await models();
  } catch (error) {
    if (error.status === 401) {
      $("key-line").hidden = false;
      problem(keyed() ? error.message : "This server wants an API key.");
      $("key").focus();
    } else {
      problem(error.message);
    }
    return;
  }
  problem("");
  const [first] = offered;
  $("server").textContent = `${first.id}, ${first.max_model_len.toLocaleString("en")} tokens of context`;
  for (const column of columns) column.offer(offered);
  if (!columns.length) addColumn();
  layOut();
}

function addColumn(wanted) {
  const column = new SearchColumn(offered, wanted);
  columns.push(column);
  $("searches").append(column.element);
}

function layOut() {
  const two = $("compare").checked;
  if (two && columns.length === 1) addColumn("high");
  if (columns[1]) columns[1].element.hidden = !two;
}

function active() {
  return columns.filter((column) => !column.element.hidden);
}

function showRunning() {
  const running = columns.some((column) => column.running);
  $("cancel").disabled = !running;
  $("go").disabled = running;
  $("compare").disabled = running;
}

function number(id) {
  const text = $(id).value.trim();
  return text === "" ? null : Number(text);
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (columns.some((column) => column.running)) return;
  if (!offered.length) await greet();
  problem("");
  const options = { budget: number("budget"), seed: number("seed") };
  try {
    await Promise.all(active().map((column) => column.run($("question").value, options)));
  } catch (error) {
    $("key-line").hidden = false;
    problem(error.message);
  }
});
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
});
$("compare").addEventListener("change", layOut);
$("key").addEventListener("change", () => { setKey($("key").value); greet(); });
$("cancel").addEventListener("click", () => columns.forEach((column) => column.cancel()));
document.addEventListener("keydown", (event) => { if (event.key === "Escape") columns.forEach((column) => column.cancel()); });
addEventListener("pagehide", () => columns.forEach((column) => column.leave()));  // a page that is kept for "back" would keep its searches
document.addEventListener("running", showRunning);
greet();
