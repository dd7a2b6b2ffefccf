/* One prompt to every served model; steps go into the replay as they come. */
(() => {
  "use strict";

  const $ = (id) => document.getElementById(id);
  let running = null;

  function headers() {
    const key = $("key").value;
    const kind = { "Content-Type": "application/json" };
    return key ? { ...kind, Authorization: `Bearer ${key}` } : kind;
  }

  /* The events of a stream, each parsed. */
  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part.replace(/^data: /, "");
        if (data !== "[DONE]") yield JSON.parse(data);
      }
    }
  }

  async function asked(path, options) {
    const response = await fetch(path, options);
    if (response.status === 401) $("locked").hidden = false;
    if (!response.ok) throw new Error((await response.json()).error.message);
    return response;
  }

  function make(tag, text = "") {
    const element = document.createElement(tag);
    element.textContent = text;
    return element;
  }

  function line(name, text) {
    const element = make("p", text);
    element.className = name;
    return element;
  }

  /* What a client receives of one model's answer. */
  class Outcome {
    constructor(model, guarded) {
      this.guarded = guarded;
      const title = make("h2", model);
      this.element = make("article");
      this.element.className = "outcome";
      this.verdict = line("verdict", "answering");
      this.left = line("left");
      this.figures = line("figures");
      this.element.append(title, this.verdict, this.left, this.figures);
    }

    say(text) {
      this.left.textContent += text;
    }

    /* Nothing more comes, because of an error or because the operator stopped it. */
    abandon(why) {
      this.element.dataset.reason = "abandoned";
      this.verdict.textContent = why;
      this.close();
    }

    close() {
      if (!this.left.textContent) this.left.append(make("em", "nothing"));
    }

    end({ reason, evidence }) {
      this.element.dataset.reason = evidence?.flagged ? "content_filter" : evidence ? reason : "unguarded";
      this.close();
      this.verdict.textContent = this.words(reason, evidence);
      if (!evidence) return;
      const { statistic, threshold, p_value: p } = evidence;
      const score = statistic === null ? "none" : statistic.toFixed(2);
      const chance = p === null ? "none" : p.toFixed(3);
      this.figures.textContent = `score ${score} · threshold ${threshold.toFixed(2)} · p-value ${chance}`;
    }

    words(reason, evidence) {
      if (reason === "failed") return "the server failed";
      if (!evidence) return "not guarded";
      if (reason === "content_filter") {
        const step = evidence.flagged_at_step;
        return step ? `stopped by the guard at step ${step}` : "stopped: the guard could not judge";
      }
      if (!evidence.flagged) return this.guarded ? "passed" : "the guard would let it pass";
      const step = evidence.flagged_at_step;
      return this.guarded ? `flagged at step ${step}, not stopped` : `the guard would stop it at step ${step}`;
    }
  }

  async function watch(asking, place, prompt, replay, outcome, signal) {
    try {
      await follow(asking, place, prompt, replay, outcome, signal);
    } catch (error) {
      outcome.abandon(reasonOf(error));
    }
    const said = outcome.verdict.textContent;
    replay.end(place, said);
    return `${asking.title}: ${said}`;
  }

  async function follow({ model, guarded }, place, prompt, replay, outcome, signal) {
    const body = JSON.stringify({ model, prompt, guarded });
    const response = await asked("watch", { method: "POST", headers: headers(), body, signal });
    for await (const step of events(response)) {
      if ("total" in step) replay.expect(step.total, place);
      else if ("cells" in step) replay.push(step, place);
      else if ("said" in step) outcome.say(step.said);
      else outcome.end(step);
    }
  }

  /* A guarded model answers with its guard and, beside that, without. */
  function twice({ model, guarded, signal }) {
    const first = { model, title: model, guarded: true, signal };
    const title = `${model}, without the guard`;
    return guarded ? [first, { ...first, title, guarded: false }] : [first];
  }

  async function ask() {
    const prompt = $("prompt").value.trim();
    if (!prompt) {
      $("status").textContent = "Type a prompt first.";
      $("prompt").focus();
      return;
    }
    running = new AbortController();
    busy(true);
    try {
      const listed = await (await asked("watch/models", { headers: headers() })).json();
      const askings = listed.flatMap(twice);
      const scenes = askings.map(({ title, signal }) => ({ title, signal, prompt, steps: [] }));
      const outcomes = askings.map(({ title, guarded }) => new Outcome(title, guarded));
      $("steps").hidden = false;
      $("outcomes").replaceChildren(...outcomes.map((outcome) => outcome.element));
      const replay = Replay.mount($("replay"), scenes);
      $("status").textContent = `Asking ${listed.map(({ model }) => model).join(" and ")}.`;
      const { signal } = running;
      const work = askings.map((one, i) => watch(one, i, prompt, replay, outcomes[i], signal));
      $("status").textContent = `${(await Promise.all(work)).join("; ")}.`;
    } catch (error) {
      $("status").textContent = `${reasonOf(error)}.`;
    } finally {
      busy(false);
    }
  }

  function reasonOf(error) {
    if (error.name === "AbortError") return "stopped by you";
    return `not answered: ${error.message.replace(/\.$/, "")}`;
  }

  function busy(now) {
    $("go").disabled = now;
    $("stop").disabled = !now;
  }

  /* The link carries the prompt. Opening it fills the field and sends nothing. */
  function link() {
    const prompt = $("prompt").value.trim();
    $("link").hidden = !prompt;
    $("link").href = `#prompt=${encodeURIComponent(prompt)}`;
  }

  function fill(prompt) {
    $("prompt").value = prompt;
    link();
  }

  function carried() {
    const prompt = new URLSearchParams(location.hash.slice(1).replace(/\+/g, "%2B")).get("prompt");
    if (prompt) fill(prompt);
  }

  async function showExamples() {
    const response = await fetch("watch/examples");
    if (!response.ok) return;
    for (const text of await response.json()) {
      const button = make("button", text);
      button.type = "button";
      button.addEventListener("click", () => {
        fill(text);
        if (!running || $("stop").disabled) ask();
      });
      $("examples").append(button);
    }
    $("examples").hidden = false;
  }

  carried();
  showExamples();
  addEventListener("hashchange", carried);
  $("prompt").addEventListener("input", link);
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  $("stop").addEventListener("click", () => running?.abort());
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
  });
})();
