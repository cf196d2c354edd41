// One search in its column: what it is asked, how far it has come, its tree, its answer.

import { Outline } from "./outline.js";
import { chip, count, make, plural, shade } from "./parts.js";
import { ask, call, cancel, events, keyed } from "./server.js";

let made = 0;

export class SearchColumn {
  constructor(models, wanted) {
    this.element = document.getElementById("search").content.cloneNode(true).firstElementChild;
    this.part = (name) => this.element.querySelector(`.${name}`);
    this.part("tree").id = `tree-${(made += 1)}`;
    this.offer(models, wanted);
    this.part("stop").addEventListener("click", () => this.cancel());
    this.part("save").addEventListener("click", () => this.save());
    this.running = false;
    this.rounds = 0;
  }

  offer(models, wanted = this.part("effort").value) {
    const select = this.part("effort");
    select.replaceChildren(...models.map((model) => {
      const option = make("option", "", model.parent ? model.id.slice(model.parent.length + 1) : `${model.id} (the server's default)`);
      option.value = model.id;
      option.selected = option.textContent === wanted || model.id === wanted;
      return option;
    }));
  }

  async run(question, { budget, seed }) {
    this.reset();
    this.abort = new AbortController();
    this.setRunning(true);
    const search = budget ? { budget } : {}, body = { model: this.part("effort").value, messages: [{ role: "user", content: question }], search };
    if (seed !== null) body.seed = seed;
    try {
      this.id = await ask(body, this.abort.signal);
      for await (const event of events(this.id, this.abort.signal)) this.hear(event);
      if (!this.over) this.fail("The connection broke off.");
    } catch (error) {
      this.fail(error.name === "AbortError" ? "Cancelled." : error.message);
      if (error.status === 401) throw error;
    } finally {
      this.setRunning(false);
    }
  }

  reset() {
    this.outline?.close();
    this.outline = new Outline(this.part("tree"), (path) => this.showPath(path));
    Object.assign(this, { id: null, over: false, tokens: 0, budget: null, best: null, parents: new Set(), nodes: 0, started: performance.now() });
    for (const name of ["answer", "warnings", "tree", "detail", "spent", "explore", "save"]) this.part(name).hidden = true;
    this.part("answer").querySelector(".prose").textContent = "";
    this.part("state").classList.remove("bad");
    this.say("Waiting for its turn…");
  }

  hear(event) {
    this[`on_${event.type}`]?.(event);
  }

  on_started(event) {
    this.budget = event.budget;
    const bar = this.part("spent");
    bar.hidden = !event.budget;
    if (event.budget) { bar.max = event.budget; bar.value = 0; }
    this.say("Begun.");
  }

  on_sampled(event) {
    this.tokens = event.tokens;
    if (this.budget) this.part("spent").value = event.tokens;
    this.sayFar();
  }

  on_grown(event) {
    for (const node of event.nodes) {
      this.nodes += 1;
      this.parents.add(node.parent);
      if (node.score !== null) this.best = Math.max(this.best ?? 0, node.score);
    }
    this.outline.add(event.nodes);
    this.sayFar();
  }

  on_chosen(event) {
    this.outline.choose(event.node);
    this.say("Answering from the chosen thinking…");
  }

  on_answering(event) {
    this.part("answer").hidden = false;
    this.part("answer").querySelector(".prose").textContent += event.text;
  }

  on_finished(event) {
    this.over = true;
    this.on_answering({ text: "" });
    this.part("answer").querySelector(".prose").textContent = event.answer || "(no answer)";
    const { search } = event, seconds = ((performance.now() - this.started) / 1000).toFixed(1);
    const score = typeof search.score === "number" ? `score ${search.score.toFixed(2)}, ` : "";
    this.say(`${search.strategy}: ${score}${plural(this.paths(), "path")}, ${plural(search.usage.sampled_tokens, "token")}, ${seconds} s (${search.stop_reason}).`);
    const warnings = this.part("warnings");
    warnings.hidden = !search.warnings?.length;
    warnings.replaceChildren(...(search.warnings ?? []).map((text) => make("li", "", text)));
    this.part("save").hidden = false;
    const explore = this.part("explore");
    explore.hidden = keyed();           // a link cannot carry a key
    explore.href = `v1/searches/${this.id}?form=html`;
  }

  on_failed(event) {
    this.fail(event.error?.message ?? "The search failed.");
  }

  fail(message) {
    this.over = true;
    this.part("state").classList.add("bad");
    this.say(message);
  }

  paths() {
    const inner = [...this.parents].filter((parent) => parent !== 0).length;
    return this.nodes - inner;
  }

  sayFar() {
    const best = this.best === null ? "" : `, best ${this.best.toFixed(2)}`, of = this.budget ? ` of ${count(this.budget)}` : "";
    this.say(`${plural(this.paths(), "path")}${best}, ${count(this.tokens)}${of} tokens`);
  }

  say(text) {
    if (this.part("state").textContent !== text) this.part("state").textContent = text;
  }

  setRunning(running) {
    this.running = running;
    this.part("stop").hidden = !running;
    this.part("effort").disabled = running;
    this.element.setAttribute("aria-busy", String(running));
    this.element.dispatchEvent(new CustomEvent("running", { bubbles: true }));
  }

  leave() {
    this.abort?.abort();
  }

  async cancel() {
    if (!this.running) return;
    if (this.id) await cancel(this.id).catch(() => null);
    this.abort.abort();
  }

  async save() {
    const text = await (await call(`v1/searches/${this.id}?form=json`)).text(), link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `${this.id}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  showPath(path) {                      // a step that began in an earlier node is shown whole
    const panel = this.part("detail"), list = make("div");
    let text = "", number = 0;
    const add = (score, step) => {
      const line = make("div", "step"), gutter = make("div", "gutter"), prose = make("div", "prose", text.replace(/^\n+/, "").trimEnd() || "↵");
      if (step) gutter.append(chip(score), `step ${(number += 1)}`);
      if (score !== null) prose.style.borderLeftColor = shade(score).background;
      line.append(gutter, prose);
      list.append(line);
      text = "";
    };
    for (const node of path) {
      for (const piece of node.pieces) {
        text += piece.text;
        if (piece.step) add(piece.score, true);
      }
    }
    if (text) add(null, false);
    panel.hidden = false;
    panel.replaceChildren(list);
  }
}
