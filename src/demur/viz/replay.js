/*
 * Replay: generations step by step, on one clock.
 *
 *   const replay = Replay.mount(element, scenes, { ownTheme: false });
 *   replay.play(); replay.pause(); replay.seek(clock); replay.push(step, place);
 *   replay.expect(total, place); replay.end(place, verdict);
 *
 * scene: { title, prompt, note, verdict, signal, total, flagged, steps: [step, ...] }; total is the
 *        expected number of steps, flagged the 1-based step at which a guard flagged it or null. The
 *        verdict is shown at the end. Without signal, chart and sigma are left out; when signal is not
 *        given, the steps say whether there is one.
 * step:  { cells: [[text, state, mark], ...], sigma: number in [0, 1] or null, flagged: optional };
 *        state "m" masked, "d" draft, "c" committed; mark "" or "r" refusal word, "h" harmful word,
 *        "e" end of the response.
 *
 * The clock runs from 0 (nothing generated) to the longest scene's total; shorter scenes move in
 * proportion. Texts only ever become text nodes.
 */
globalThis.Replay ??= (() => {
  "use strict";

  const STATES = { m: "masked", d: "draft", c: "committed" };
  const MARKS = { r: "refusal word", h: "harmful word", e: "end of the response" };
  const SPEEDS = [0.5, 1, 2, 4];
  const STEPS_PER_SECOND = 5;
  const SVG = "http://www.w3.org/2000/svg";
  const ICONS = {
    first: "M4 3v10M13 3L6 8l7 5z",
    back: "M11 3L4 8l7 5z",
    next: "M5 3l7 5-7 5z",
    last: "M12 3v10M3 3l7 5-7 5z",
    play: "M4 2.5l9 5.5-9 5.5z",
    pause: "M5 3v10M11 3v10",
    theme: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zm0 1.6v10.8A5.4 5.4 0 0 1 8 2.6z",
  };

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function draw(tag, attributes, ...children) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function icon(name) {
    const path = draw("path", { d: ICONS[name], "fill-rule": "evenodd" });
    return draw("svg", { viewBox: "0 0 16 16", class: name, "aria-hidden": "true" }, path);
  }

  function button(name, label, action) {
    const element = make("button", { type: "button", "aria-label": label, title: label }, icon(name));
    element.addEventListener("click", action);
    return element;
  }

  /* How the signal reads; .5 and .3 are the paper's thresholds. The words are about the hidden state:
     the text may do something else. */
  function reading(sigma) {
    if (sigma >= 0.5) return "complying";
    return sigma > 0.3 ? "leaning to refusal" : "refusing";
  }

  const WORDS = {
    complying: "state close to answers",
    "leaning to refusal": "state leans to refusal",
    refusing: "state close to refusals",
  };

  const shown = (sigma) => sigma.toFixed(2).replace(/^0\./, ".");

  /* The signal up to the current step, over the two regions. */
  class Chart {
    constructor() {
      this.line = draw("polyline", { class: "line" });
      this.flag = draw("line", { class: "flag", y1: 0, y2: 1 });
      this.drawing = draw(
        "svg",
        { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" },
        draw("rect", { class: "complying", width: 1, height: 0.5 }),
        draw("rect", { class: "refusing", y: 0.5, width: 1, height: 0.5 }),
        draw("line", { class: "middle", x2: 1, y1: 0.5, y2: 0.5 }),
        this.flag,
        this.line,
      );
      this.dot = make("span", { class: "dot" });
      this.flagLabel = make("span", { class: "flag-label" }, "flagged");
      this.plot = make(
        "div",
        { class: "plot" },
        this.drawing,
        this.flagLabel,
        this.dot,
      );
      const scale = make("div", { class: "scale" }, ...["1", ".5", "0"].map((t) => make("span", {}, t)));
      this.element = make(
        "div",
        { class: "chart", role: "img" },
        make("span", { class: "region complying" }, "↑ close to answers"),
        scale,
        this.plot,
        make("span", { class: "region refusing" }, "↓ close to refusals"),
      );
    }

    show(steps, index, total, flagged) {
      const x = (step) => (total > 1 ? (step - 1) / (total - 1) : 0.5);
      const points = steps
        .slice(0, index)
        .map((step, place) => [x(place + 1), step.sigma])
        .filter(([, sigma]) => sigma !== null);
      this.line.setAttribute("points", points.map(([a, sigma]) => `${a},${1 - sigma}`).join(" "));
      const last = points.at(-1);
      this.dot.hidden = !last;
      if (last) {
        this.dot.style.left = `${100 * last[0]}%`;
        this.dot.style.top = `${100 * (1 - last[1])}%`;
        this.dot.dataset.reading = reading(last[1]);
      }
      const reached = flagged !== null && index >= flagged;
      this.flag.classList.toggle("reached", reached);
      this.flagLabel.hidden = !reached;
      if (reached) {
        const at = x(flagged);
        this.flag.setAttribute("x1", at);
        this.flag.setAttribute("x2", at);
        this.flagLabel.style.left = `${100 * at}%`;
        this.flagLabel.classList.toggle("leftwards", at > 0.7);
      }
      const said = last ? `sigma ${shown(last[1])}, ${WORDS[reading(last[1])]}` : "no signal yet";
      this.element.setAttribute("aria-label", `Signal after ${index} of ${total} steps: ${said}`);
    }
  }

  /* The response positions; only cells that differ from what is shown are touched. */
  class Grid {
    constructor() {
      this.element = make("ol", { class: "grid", "aria-label": "Response, position by position" });
      this.keys = [];
    }

    show(cells, before, drafting) {
      while (this.element.children.length < cells.length) this.element.append(make("li"));
      while (this.element.children.length > cells.length) this.element.lastChild.remove();
      this.keys.length = cells.length;
      cells.forEach(([text, state, mark], place) => {
        const item = this.element.children[place];
        const [oldText, oldState] = before?.[place] ?? ["", "m"];
        const revised = oldState === "d" && text !== oldText && `was: ${oldText}`;
        const fresh = state === "c" && oldState !== "c";
        const key = JSON.stringify([text, state, mark, revised, fresh, drafting]);
        if (this.keys[place] === key) return;
        this.keys[place] = key;
        // An autoregressive model has no masks: what follows is not there yet.
        item.dataset.state = state === "m" && !drafting ? "later" : STATES[state];
        item.dataset.mark = mark ? MARKS[mark].split(" ")[0] : "";
        item.classList.toggle("revised", Boolean(revised));
        item.classList.toggle("fresh", fresh);
        item.textContent = mark === "e" ? "end" : text;
        const about = [STATES[state], mark && MARKS[mark], revised];
        item.title = [`${place + 1}. ${text}`.trim(), ...about.filter(Boolean)].join(" · ");
      });
    }
  }

  class SceneView {
    constructor(scene) {
      this.scene = { note: "", verdict: "", total: 0, flagged: null, ...scene, steps: [...scene.steps] };
      this.drafting = false;
      this.scene.steps.forEach((step) => this.notice(step));
      this.chart = new Chart();
      this.grid = new Grid();
      this.readout = make("p", { class: "readout" });
      this.value = make("strong");
      this.state = make("span", { class: "state" });
      this.place = make("span", { class: "place" });
      this.readout.append(this.value, this.state, this.place);
      this.prompt = make("div", { class: "prompt" }, scene.prompt);
      const heading = make("h3", {}, scene.title);
      this.element = make("div", { class: "scene", role: "group", "aria-label": scene.title }, heading);
      if (scene.note) this.element.append(make("p", { class: "about" }, scene.note));
      this.verdict = make("p", { class: "ending" });
      this.element.append(this.prompt, this.readout, this.chart.element, this.grid.element, this.verdict);
    }

    /* Whether there is a signal to show. */
    get signal() {
      return this.scene.signal ?? this.scene.steps.some((step) => step.sigma !== null);
    }

    /* A model that drafts shows so in its first step. */
    notice(step) {
      this.drafting ||= step.cells.some(([, state]) => state === "d");
    }

    get total() {
      return Math.max(this.scene.total, this.scene.steps.length);
    }

    /* Show the state after `index` steps; 0 is before the first. */
    show(index) {
      const { steps, flagged } = this.scene;
      const widest = steps.at(-1)?.cells ?? [];
      const cells = index ? steps[index - 1].cells : widest.map(() => ["", "m", ""]);
      const before = index > 1 ? steps[index - 2].cells : null;
      this.index = index;
      this.grid.show(cells, before, this.drafting);
      this.chart.element.hidden = this.value.hidden = !this.signal;
      this.chart.show(steps, index, this.total, flagged);
      const sigma = index ? steps[index - 1].sigma : null;
      const committed = cells.filter(([, state]) => state === "c").length;
      this.value.textContent = sigma === null ? "σ –" : `σ ${shown(sigma)}`;
      this.state.textContent = sigma === null ? "" : WORDS[reading(sigma)];
      this.state.dataset.reading = sigma === null ? "" : reading(sigma);
      const settled = this.drafting ? ` · ${committed} of ${cells.length} committed` : "";
      this.place.textContent = `step ${index} of ${this.total}${settled}`;
      this.verdict.hidden = !this.scene.verdict || index < this.total;
      this.verdict.textContent = this.scene.verdict;
    }

    describe() {
      const sigma = this.signal ? this.value.textContent.replace("σ", "sigma") : "";
      const words = [`step ${this.index} of ${this.total}`, sigma, this.state.textContent];
      const { flagged } = this.scene;
      if (flagged !== null && this.index >= flagged) words.push(`flagged at step ${flagged}`);
      if (!this.verdict.hidden) words.push(this.scene.verdict);
      return `${this.scene.title}: ${words.filter(Boolean).join(", ")}`;
    }
  }

  class Player {
    constructor(root, scenes, { ownTheme = false } = {}) {
      this.root = root;
      this.views = scenes.map((scene) => new SceneView(scene));
      this.timer = null;
      this.speed = 1;
      this.following = true;
      this.build(ownTheme);
      this.seek(this.latest);
    }

    get length() {
      return Math.max(1, ...this.views.map((view) => view.total));
    }

    /* The clock's place of the last step there is; the end, unless steps are still to come. */
    get latest() {
      const parts = this.views.map((view) => view.scene.steps.length / Math.max(1, view.total));
      return Math.round(this.length * Math.max(0, ...parts));
    }

    get playing() {
      return this.timer !== null;
    }

    build(ownTheme) {
      this.toggle = button("play", "Play", () => (this.playing ? this.pause() : this.play()));
      this.toggle.classList.add("toggle");
      this.slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "Step" });
      this.slider.addEventListener("input", () => this.move(this.slider.valueAsNumber));
      this.count = make("output", { class: "count" });
      this.live = make("p", { class: "unseen", "aria-live": "polite" });
      const speeds = SPEEDS.map((s) => make("option", { value: s }, `${String(s).replace("0.", ".")}×`));
      const speed = make("select", { "aria-label": "Speed", title: "Speed" }, ...speeds);
      speed.value = "1";
      speed.addEventListener("change", () => (this.speed = Number(speed.value)));
      this.bar = make(
        "div",
        { class: "bar", role: "toolbar", "aria-label": "Replay" },
        this.toggle,
        button("first", "To the beginning", () => this.move(0)),
        button("back", "One step back", () => this.move(this.clock - 1)),
        button("next", "One step on", () => this.move(this.clock + 1)),
        button("last", "To the end", () => this.move(this.latest)),
        this.slider,
        this.count,
        speed,
      );
      if (ownTheme) this.bar.append(button("theme", "Light or dark", () => this.switchTheme()));
      const stage = make("div", { class: "stage" }, ...this.views.map((view) => view.element));
      this.root.setAttribute("role", "group");
      this.root.setAttribute("aria-label", "Replay of generations");
      this.root.tabIndex = 0;
      this.root.classList.add("demur-replay");
      this.root.toggleAttribute("data-own-theme", ownTheme);
      this.legend = legend();
      this.root.replaceChildren(this.sharedPrompt(), this.bar, stage, this.legend, this.live);
      this.root.onkeydown = (event) => this.key(event);
    }

    /* One prompt for all scenes is shown once, above them. */
    sharedPrompt() {
      const prompts = new Set(this.views.map((view) => view.scene.prompt));
      if (prompts.size !== 1) return "";
      for (const view of this.views) view.prompt.remove();
      return make("div", { class: "prompt" }, [...prompts][0]);
    }

    /* Show the clock's moment without updating the live region. */
    seek(clock) {
      this.clock = Math.min(Math.max(0, Math.round(clock)), this.latest);
      this.following = this.clock === this.latest;
      this.render();
    }

    render() {
      for (const view of this.views) {
        const due = Math.ceil((this.clock * view.total) / this.length);
        const ready = view.scene.steps.length;
        view.show(this.following ? ready : Math.min(due, ready));
      }
      const drafting = this.views.some((view) => view.drafting);
      for (const item of this.legend.querySelectorAll(".drafting")) item.hidden = !drafting;
      this.slider.max = this.length;
      this.slider.value = this.clock;
      this.slider.setAttribute("aria-valuetext", `${this.clock} of ${this.length}`);
      this.count.textContent = `${this.clock} / ${this.length}`;
    }

    /* Go where the reader asked to go, and say what is there. */
    move(clock) {
      this.pause();
      this.seek(clock);
      this.announce();
    }

    announce() {
      this.live.textContent = this.views.map((view) => view.describe()).join(". ");
    }

    play() {
      if (this.playing) return;
      if (this.clock >= this.latest) this.seek(0);
      this.face("pause", "Pause");
      const tick = () => {
        this.seek(this.clock + 1);
        if (this.clock >= this.latest) {
          this.pause();
          this.announce();
        } else {
          this.timer = setTimeout(tick, 1000 / (STEPS_PER_SECOND * this.speed));
        }
      };
      this.timer = setTimeout(tick, 1000 / (STEPS_PER_SECOND * this.speed));
    }

    pause() {
      clearTimeout(this.timer);
      this.timer = null;
      this.face("play", "Play");
    }

    face(name, label) {
      this.toggle.replaceChildren(icon(name));
      this.toggle.setAttribute("aria-label", label);
      this.toggle.title = label;
    }

    /* A live step. Shown at once unless the reader looks at an earlier moment. */
    push(step, place = 0) {
      const { scene } = this.views[place];
      scene.steps.push(step);
      this.views[place].notice(step);
      if (step.flagged) scene.flagged ??= scene.steps.length;
      if (this.following) this.clock = this.latest;
      this.render();
    }

    /* How many steps a live scene will have. */
    expect(total, place = 0) {
      this.views[place].scene.total = total;
      this.render();
    }

    /* No more steps come. */
    end(place = 0, verdict = "") {
      this.views[place].scene.verdict = verdict;
      this.expect(this.views[place].scene.steps.length, place);
      this.seek(this.following ? this.latest : this.clock);
    }

    key(event) {
      if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
      const moves = {
        ArrowRight: this.clock + 1,
        ArrowLeft: this.clock - 1,
        Home: 0,
        End: this.latest,
      };
      if (event.key in moves) this.move(moves[event.key]);
      else if (event.key === " " && event.target.tagName !== "BUTTON") this.toggle.click();
      else return;
      event.preventDefault();
    }

    switchTheme() {
      const asked = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
      const now = this.root.dataset.theme ?? asked;
      this.root.dataset.theme = now === "dark" ? "light" : "dark";
    }
  }

  function legend() {
    const items = [
      ["masked", "", "masked", ""],
      ["draft", "", "draft, may still change", "draft"],
      ["draft", "", "revised at this step", "draft", "revised"],
      ["committed", "", "committed", "word"],
      ["committed", "", "committed at this step", "word", "fresh"],
      ["committed", "refusal", "refusal word", "word"],
      ["committed", "harmful", "harmful word", "word"],
    ];
    const rows = items.map(([state, mark, label, text, extra = ""]) => {
      const sample = make("span", { class: `sample ${extra}`, "data-state": state, "data-mark": mark }, text);
      return make("li", state === "committed" && !extra ? {} : { class: "drafting" }, sample, ` ${label}`);
    });
    return make("ul", { class: "legend", "aria-label": "How to read the cells" }, ...rows);
  }

  function mount(element, scenes, options) {
    return new Player(element, scenes, options);
  }

  /* Mount every element of the page that carries its scenes as JSON and is not mounted yet. */
  function mountAll() {
    for (const element of document.querySelectorAll("[data-replay]")) {
      const data = element.querySelector('script[type="application/json"]');
      if (data) mount(element, JSON.parse(data.textContent), { ownTheme: "ownTheme" in element.dataset });
    }
  }

  return { mount, mountAll };
})();
globalThis.Replay.mountAll();
