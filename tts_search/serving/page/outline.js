// A tree that grows while one looks: a row a node, arrow keys to walk, the chosen path marked.

import { chip, make } from "./parts.js";

const MOST_ROWS = 1500;                 // beyond that the page of the finished search is the better place
const ENDINGS = { length: "✂", thought: "◆", end: "■" };
const ENDING_WORDS = { length: "cut off", thought: "thought complete", end: "response complete" };

export class Outline {
  constructor(list, onSelect) {
    this.list = list;
    this.onSelect = onSelect;
    this.nodes = [{ index: 0, parent: null, children: [], level: -1, row: null }];
    this.selected = null;
    this.followed = true;               // until somebody selects a row, the newest path is shown
    this.shown = 0;
    list.replaceChildren();
    this.leave = new AbortController();
    list.addEventListener("keydown", (event) => this.onKey(event), { signal: this.leave.signal });
    list.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) { this.followed = false; this.select(this.nodes[row.dataset.index]); }
    }, { signal: this.leave.signal });
  }

  close() {
    this.leave.abort();
  }

  add(told) {
    this.list.hidden = false;
    for (const node of told) {
      const up = this.nodes[node.parent];
      node.children = [];
      // Only where paths part a row is indented, so that long chains stay in view.
      node.level = up.parent === null ? 0 : up.children.length ? up.level + 1 : up.level;
      up.children.push(node);
      this.nodes[node.index] = node;
      if (this.shown < MOST_ROWS) this.place(node, up);
      else if (this.shown++ === MOST_ROWS) this.list.append(make("li", "more", "More paths grow: the explorer will show them all."));
    }
    if (this.followed && told.length) this.select(told[told.length - 1], false);
  }

  place(node, up) {
    const row = make("li", "row fresh");
    row.id = `${this.list.id}-${node.index}`;
    row.dataset.index = node.index;
    row.setAttribute("role", "treeitem");
    row.setAttribute("aria-level", String(depth(this.nodes, node)));
    row.setAttribute("aria-selected", "false");
    row.style.paddingLeft = `${8 + 14 * Math.min(node.level, 12)}px`;
    const text = node.pieces.map((piece) => piece.text).join("").replace(/\s+/g, " ").trim();
    const end = make("span", "end", ENDINGS[node.ending] ?? "");
    if (ENDING_WORDS[node.ending]) { end.title = ENDING_WORDS[node.ending]; end.setAttribute("aria-label", end.title); }
    row.append(chip(node.score), make("span", "words", text.slice(0, 300) || "(no text)"), end);
    const before = rowBefore(up, node);
    if (before) before.after(row);
    else this.list.append(row);
    node.row = row;
    this.shown += 1;
  }

  choose(node) {
    for (let at = this.nodes[node]; at && at.parent !== null; at = this.nodes[at.parent]) at.row?.classList.add("chosen");
    if (this.nodes[node]) { this.followed = false; this.select(this.nodes[node], false); this.scrollTo(node); }
  }

  scrollTo(index) {
    this.nodes[index]?.row?.scrollIntoView({ block: "nearest" });
  }

  select(node, scroll = true) {
    if (!node?.row) return;
    this.selected?.row?.setAttribute("aria-selected", "false");
    this.selected = node;
    node.row.setAttribute("aria-selected", "true");
    this.list.setAttribute("aria-activedescendant", node.row.id);
    if (scroll) node.row.scrollIntoView({ block: "nearest" });
    this.onSelect(this.path(node));
  }

  path(node) {
    const path = [];
    for (let at = node; at && at.parent !== null; at = this.nodes[at.parent]) path.unshift(at);
    return path;
  }

  onKey(event) {
    const rows = [...this.list.querySelectorAll(".row")], at = rows.indexOf(this.selected?.row);
    const up = this.selected && this.nodes[this.selected.parent], down = this.selected?.children[0];
    const to = { ArrowDown: rows[at + 1], ArrowUp: rows[Math.max(0, at - 1)], Home: rows[0], End: rows[rows.length - 1], ArrowLeft: up?.row, ArrowRight: down?.row }[event.key];
    if (!["ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
    event.preventDefault();
    this.followed = false;
    if (to) this.select(this.nodes[to.dataset.index]);
  }
}

function depth(nodes, node) {
  let steps = 0;
  for (let at = node; at.parent !== null; at = nodes[at.parent]) steps += 1;
  return steps;
}

function rowBefore(up, node) {          // the row behind which a new child of `up` stands
  let at = up.children.length > 1 ? up.children[up.children.indexOf(node) - 1] : up;
  while (at !== up && at.children.length) at = at.children[at.children.length - 1];
  return at.row;
}
