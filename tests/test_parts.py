"""Steps of thought and of answer, from the tokens to anchors, signal and guard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import demur
from demur.anchors import fit_anchors, separation
from demur.cli import app
from demur.errors import InputError, SignalError
from demur.guard import fit_guard, fit_streaming_guard, load_guard
from demur.guard.surrogate import read_texts
from demur.judges import refusal_judge
from demur.models.base import LanguageModel
from demur.parts import Part, part_of, thought_steps, with_part
from demur.runs import run_of
from demur.sampling import Autoregressive
from demur.sri import Anchors, signal
from demur.store import Store, writing
from demur.thoughts import spoken
from demur.types import Prompt, Record, Trace, Traces
from thinking import thinking_model

SCRIPT = ["<think>", "w1", "w2", "</think>", "w3", "w4", "<|eos|>"]
THOUGHT = [True] * 4 + [False] * 3


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return thinking_model(tmp_path_factory.mktemp("thinker") / "m", script=SCRIPT)


@pytest.fixture(scope="module")
def opener(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Its template opens the thought."""
    return thinking_model(tmp_path_factory.mktemp("opener") / "m", opens=True, script=SCRIPT[1:])


def prompts(count: int, label: str) -> list[Prompt]:
    words = [f"w{i % 17} w{i} w{i % 5}" for i in range(count)]
    return [
        Prompt(f"{text} {label[4]}", label=label, id=f"{label}{i}") for i, text in enumerate(words)
    ]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("marks", "opens", "script", "response", "thought"),
    [
        ("think", False, SCRIPT, "<think> w1 w2 </think> w3 w4", THOUGHT),
        ("think", True, SCRIPT[1:], "<think>w1 w2 </think> w3 w4", THOUGHT[1:]),
        ("magistral", False, ["[THINK]", "w1", "[/THINK]", "w3", "<|eos|>"], None, [1, 1, 1, 0, 0]),
        ("command", True, ["w1", "w2", "<|eos|>"], "<|START_THINKING|>w1 w2", [1, 1, 1]),
        (
            "harmony",
            False,
            [
                *("<|channel|>", "analysis", "<|message|>", "w1", "<|end|>", "<|start|>"),
                *("assistant", "<|channel|>", "final", "<|message|>", "w3", "<|eos|>"),
            ],
            None,
            [1] * 10 + [0, 0],
        ),
    ],
)
def test_marks_stay_and_steps_are_told_apart(
    tmp_path: Path,
    marks: str,
    opens: bool,
    script: list[str],
    response: str | None,
    thought: list[bool],
) -> None:
    model = thinking_model(tmp_path / "m", marks, opens=opens, script=script)
    for trace in demur.trace(model, ["w5 w6", "w7 w8 w9"], sampler=Autoregressive(steps=14)):
        assert response in (None, trace.response)
        assert trace.thought is not None
        assert trace.thought.tolist() == list(map(bool, thought))
        said = spoken(trace.answer)
        assert said == {"magistral": "w3", "harmony": "w3", "command": None}.get(marks, "w3 w4")
        verdict = refusal_judge("rules")(trace.prompt.goal, trace.answer)
        assert verdict.given == (said is not None)


@pytest.mark.parametrize("steps", [2, 3])
def test_a_thought_cut_off_by_t_is_unparsed(
    thinker: LanguageModel, opener: LanguageModel, steps: int
) -> None:
    for model in (thinker, opener):
        (trace,) = demur.trace(
            model, ["w5"], sampler=Autoregressive(steps=steps - (model is opener))
        )
        assert trace.thought is not None
        assert trace.thought.all()
        assert refusal_judge("rules")(trace.prompt.goal, trace.answer).label == "unparsed" or not (
            refusal_judge("rules")(trace.prompt.goal, trace.answer).given
        )
        # A draft carries the opening too.
        assert spoken(trace.answer_with("w1 w2")) is None


def test_a_prefill_is_counted(thinker: LanguageModel) -> None:
    prompt = Prompt("w5", response=("w9 w8",))
    (trace,) = demur.trace(thinker, [prompt], sampler=Autoregressive(steps=8))
    assert trace.response.startswith("w9 w8")
    assert trace.thought is None or len(trace.thought) == trace.n_steps


def test_steps_that_commit_several_tokens() -> None:
    committed = np.array(
        [[1, -1, -1, -1], [1, 2, -1, -1], [1, 2, -1, -1], [1, 2, 3, 4]], dtype=np.int32
    )
    pieces = ["<think>", "a", "</think>", "b"]
    found = thought_steps(committed, pieces)
    assert found is not None
    assert found.tolist() == [True, True, True, False]
    assert thought_steps(committed, ["a", "b", "c", "d"]) is None
    opened = thought_steps(committed, ["a", "</think>", "b", "c"], before="<think>\n")
    assert opened is not None
    assert opened.tolist() == [True, True, True, False]


def test_a_running_mean_restarts_where_the_answer_begins(thinker: LanguageModel) -> None:
    """Against the mean of the states that the model itself gives."""
    for pooling in ("running", "generated", "content"):
        record = Record(pooling=pooling)
        (trace,) = demur.trace(thinker, ["w5 w6"], sampler=Autoregressive(steps=8), record=record)
        ids = [*thinker.chat.ids(trace.prompt, mask_id=None), *trace.response_ids.tolist()]
        batch = thinker.batch([ids])
        states = thinker.states(batch.ids, None)["last"][0].detach().numpy()
        begin = len(ids) - 7 - (pooling == "running")
        own = states[begin : begin + 7]
        if pooling == "content":
            own = own[:-1]
        answer, thought = part_of(trace, "answer"), part_of(trace, "thought")
        count = np.arange(1, len(own[4:]) + 1)[:, None]
        expected = np.cumsum(own[4:], axis=0) / count
        found = answer.phi["last"][: len(expected)]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        if pooling == "content":  # the end token is left out of the mean
            np.testing.assert_allclose(answer.phi["last"][-1], expected[-1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(thought.phi["last"], trace.phi["last"][:4], rtol=1e-5, atol=1e-6)
        assert answer.n_steps == 3
        assert part_of(answer, "answer") is answer
        assert part_of(thought, "thought") is thought
        assert part_of(trace, "all") is trace


def test_a_diffusion_step_keeps_its_state(tiny_dlm: LanguageModel) -> None:
    (trace,) = demur.trace(tiny_dlm, ["w5 w6"])
    flags = np.arange(trace.n_steps) < 2
    cut = part_of(replace(trace, thought=flags), "answer")
    assert np.array_equal(cut.phi["last"], trace.phi["last"][2:])
    assert np.array_equal(cut.draft, trace.draft[2:])


def test_the_store_keeps_it(thinker: LanguageModel, tiny_ar: LanguageModel, tmp_path: Path) -> None:
    sampler = Autoregressive(steps=8)
    for model, names in ((thinker, ["thought"]), (tiny_ar, [])):
        traces = demur.trace(model, prompts(4, "harmless"), sampler=sampler)
        run = run_of(traces.fingerprint, [t.prompt for t in traces], Record(), shard_rows=4)
        folder = tmp_path / str(bool(names))
        with writing(folder, run) as writer:
            writer.add(0, [2, 3], list(traces[2:]))
            without = [replace(t, thought=None) for t in traces[:2]]
            writer.add(0, [0, 1], without)
            writer.seal(0)
        store = Store.open(folder)
        assert [n for n in store.read().column_names if n in ("thought", "turns")] == names
        back = list(store.traces())
        assert [t.thought is None for t in back] == [True, True, *[not names] * 2]
        if names:
            assert [t.thought.tolist() for t in back[2:] if t.thought is not None] == [THOUGHT] * 2


@pytest.fixture(scope="module")
def judged(thinker: LanguageModel) -> tuple[Traces, list[bool]]:
    rows = [*prompts(24, "harmless"), *prompts(24, "harmful")]
    traces = demur.trace(thinker, rows, sampler=Autoregressive(steps=8), batch_size=48)
    return traces, [t.prompt.label == "harmful" for t in traces]


@pytest.mark.parametrize("part", ["all", "answer", "thought"])
def test_anchors_signal_and_guard_of_a_part(
    judged: tuple[Traces, list[bool]], tmp_path: Path, part: Part
) -> None:
    traces, refused = judged
    anchors = fit_anchors(traces, refused, part=part)
    mean = np.mean([part_of(t, part).phi["last"][0] for t in traces[:24]], axis=0)
    np.testing.assert_allclose(anchors.harmless[0], mean, rtol=1e-4, atol=1e-5)
    back = Anchors.load(anchors.save(tmp_path / "a"))
    assert back.part == part
    assert ("part" in back.about()) == (part != "all")
    sigma = signal(traces, back, part=part)
    assert sigma.shape == (48, 8)
    cut = Traces(tuple(part_of(t, part) for t in traces))
    assert np.array_equal(signal(cut, back), sigma)
    assert len(separation(traces, refused, part=part).per_step) == 8
    guard = fit_guard(traces[:12], traces[12:24], anchors=back, alpha=0.1, part=part)
    again = load_guard(guard.save(tmp_path / "g"))
    assert again.part == part
    np.testing.assert_allclose(again.score(traces), guard.score(traces))
    other: Part = "all" if part != "all" else "answer"
    with pytest.raises(InputError, match="These anchors are of"):
        fit_guard(traces[:12], traces[12:24], anchors=back, alpha=0.1, part=other)
    with pytest.raises(InputError, match="--part"):
        signal(traces, back, part=other)
    if part != "all":
        with pytest.raises(InputError, match="These anchors are of"):
            fit_streaming_guard(traces, traces, anchors=back, alpha=0.1)
        with pytest.raises(SignalError, match="Bare signals"):
            fit_guard(sigma, sigma, part=part)


def test_traces_without_the_part(judged: tuple[Traces, list[bool]]) -> None:
    traces, refused = judged
    cut: list[Trace] = [replace(t, thought=np.ones(t.n_steps, bool)) for t in traces[:2]]
    mixed = Traces((*cut, *traces[2:]))
    anchors = fit_anchors(mixed, refused, part="answer")
    assert (anchors.counts, anchors.dropped) == ((22, 24), (2, 0))
    with pytest.raises(InputError, match="cut off while it thought"):
        signal(mixed, anchors)
    assert len(with_part(mixed, "answer")) == 46
    assert len(with_part([replace(cut[0], thought=None)], "thought")) == 0
    with pytest.raises(InputError, match="Unknown part"):
        with_part(mixed, "answers")  # type: ignore[arg-type]


def test_a_surrogate_reads_what_follows_the_thought(tiny_ar: LanguageModel) -> None:
    prompt = Prompt("w1")
    pairs = [(prompt, text) for text in ("<think>w5 w6</think>w2 w3", "w2 w3", "<think>w5")]
    thought, plain, cut = read_texts(tiny_ar, pairs)
    assert np.array_equal(thought.phi["last"], plain.phi["last"])
    assert thought.response == plain.response == "w2 w3"
    assert cut.response == ""
    assert cut.n_steps == 1


def test_from_the_command_line(judged: tuple[Traces, list[bool]], tmp_path: Path) -> None:
    traces, refused = judged
    said = [
        replace(t, response="I cannot help with that." if r else "Sure. It is w3.")
        for t, r in zip(traces, refused, strict=True)
    ]
    run = run_of(traces.fingerprint, [t.prompt for t in said], Record(), shard_rows=48)
    with writing(tmp_path / "run", run) as writer:
        said[0] = replace(said[0], thought=np.ones(said[0].n_steps, bool))
        writer.add(0, list(range(48)), said)
        writer.seal(0)
    benign = run_of(traces.fingerprint, [t.prompt for t in said[1:24]], Record(), shard_rows=48)
    with writing(tmp_path / "benign", benign) as writer:
        writer.add(0, list(range(23)), said[1:24])
        writer.seal(0)

    def told(*words: str) -> str:
        result = CliRunner().invoke(app, [*words])
        assert result.exit_code in (0, 1), result.output
        return str(result.output)

    run_folder, anchors, guard = (str(tmp_path / n) for n in ("run", "a", "g"))
    assert "answer" in told("anchors", run_folder, "--out", anchors, "--part", "answer")
    assert "1 of 48 generations have no answer" in told("signal", run_folder, "--anchors", anchors)
    words = ["guard", "fit", str(tmp_path / "benign"), "--anchors", anchors, "--out", guard]
    told(*words, "--alpha", "0.3", "--part", "answer")
    assert "1 of 48 generations have no answer" in told(
        "guard", "score", run_folder, "--guard", guard
    )
    assert load_guard(guard).part == "answer"
    with pytest.raises(InputError, match="These anchors are of the answer"):
        CliRunner().invoke(app, [*words, "--alpha", "0.3"], catch_exceptions=False)
