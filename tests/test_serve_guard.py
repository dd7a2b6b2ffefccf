"""What the guard flags does not leave, however it is asked for, and what it cannot judge neither."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

import demur
from demur.errors import FingerprintError, InputError
from demur.guard import CalibratedGroup, GuardReading, StreamingGuard, Watcher
from demur.models.base import LanguageModel
from demur.organism import world
from demur.sampling import Masked, Sampler, sampler_from
from demur.serve.host import host, read_guard
from demur.serve.hosted import Limits
from demur.serve.moderation import Moderated, Moderator
from demur.serve.rails import FLAGGED, UNFINISHED
from demur.serve.sequence import ServedSequence
from served import QUESTION, a_guard, at_threshold, serving, without_end

MODELS = ["organism-ar", "organism-dlm"]
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return demur.load(request.param)


@pytest.fixture(scope="module")
def sampler(model: LanguageModel) -> Sampler:
    """The model's own, or for the diffusion model one with blocks."""
    if model.traits.attention == "causal":
        return sampler_from(model.traits.sampler)
    return Masked(steps=16, gen_length=32, block_length=8)


@pytest.fixture(scope="module")
def guard(model: LanguageModel, sampler: Sampler) -> StreamingGuard:
    return a_guard(model, sampler=sampler)


@pytest.fixture(scope="module")
def suspicious(
    model: LanguageModel, guard: StreamingGuard, sampler: Sampler
) -> tuple[str, StreamingGuard, int, str]:
    """A prompt, a guard that flags its answer in the middle, at which step, and the answer."""
    prompts = world.prompts("test", "harmful", attack="role_play", n=12)
    traces = demur.trace(model, prompts, batch_size=12, sampler=sampler)
    statistics = guard.statistics(traces)
    for row, trace in enumerate(traces):
        rises = np.flatnonzero(np.diff(statistics[row, : trace.n_steps]) > 1e-3) + 1
        late = rises[(rises >= 6) & (rises < trace.n_steps - 1)]
        if len(late):
            step = int(late[0])
            threshold = float(statistics[row, step - 1 : step + 1].mean())
            return prompts[row].text, at_threshold(guard, threshold), step + 1, trace.response
    raise AssertionError("no answer becomes more suspicious on its way")


def body(model: LanguageModel, text: str, **fields: Any) -> dict[str, Any]:
    return {"model": model.name, "messages": [{"role": "user", "content": text}], **fields}


def said(events: list[Any]) -> str:
    return "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1])


@pytest.mark.parametrize(("mode", "hold"), [("hold", 0), ("hold", 3), ("buffer", 0)])
def test_a_block_is_what_gateways_expect(
    model: LanguageModel, suspicious: tuple[str, StreamingGuard, int, str], mode: Any, hold: int
) -> None:
    text, guard, step, answer = suspicious
    with serving([model], [guard], mode=mode, hold=hold) as server:
        events = server.stream(CHAT, body(model, text, stream=True))
        assert events[-1] == "[DONE]"
        choices = [event["choices"][0] for event in events[:-1]]
        assert [c["finish_reason"] for c in choices[:-1]] == [None] * (len(choices) - 1)
        assert ["role" in c["delta"] for c in choices] == [True] + [False] * (len(choices) - 1)
        last = choices[-1]
        assert last["finish_reason"] == "content_filter"
        assert last["content_filter_results"] == {"jailbreak": {"filtered": True, "detected": True}}
        assert last["demur"]["flagged_at_step"] == step
        assert last["demur"]["statistic"] > last["demur"]["threshold"]
        out = said(events)
        assert answer.startswith(out)
        if model.traits.attention == "causal" and mode == "hold":
            # The word of the step that is flagged does not leave, nor those that were held.
            assert len(out.split()) <= step - 1 - hold
            assert out
        else:
            # Only blocks that were finished before it, and none at all where all is held.
            finished = 0 if mode == "buffer" else 8 * ((step - 1) // 4)
            assert len(out.split()) <= finished - hold or not out
        whole = server.chat(model.name, text)
        assert whole["choices"][0]["message"]["content"] == ""
        assert whole["choices"][0]["finish_reason"] == "content_filter"
        assert server.figure("blocks_total", model=model.name, cause="score") == 2


def test_audit_marks_and_blocks_nothing(
    model: LanguageModel, suspicious: tuple[str, StreamingGuard, int, str]
) -> None:
    text, guard, step, answer = suspicious
    with serving([model], [guard], mode="audit") as server:
        events = server.stream(CHAT, body(model, text, stream=True))
        last = events[-2]["choices"][0]
        assert said(events) == answer
        assert last["finish_reason"] in ("stop", "length")
        assert last["content_filter_results"] == {
            "jailbreak": {"filtered": False, "detected": True}
        }
        assert last["demur"]["flagged_at_step"] == step
        assert server.figure("flags_total", model=model.name) == 1


def test_what_passes_is_what_an_unguarded_server_says(
    model: LanguageModel, guard: StreamingGuard, sampler: Sampler
) -> None:
    wanted = demur.trace(model, [QUESTION], sampler=sampler)[0]
    with serving([model], [at_threshold(guard, 1e9)], hold=4) as server:
        events = server.stream(CHAT, body(model, QUESTION, stream=True))
        assert said(events) == wanted.response
        found = events[-2]["choices"][0]["demur"]
        assert found["calibrated"]
        assert not found["flagged"]
        assert found["statistic"] == pytest.approx(
            float(guard.score(demur.trace(model, [QUESTION], sampler=sampler))[0]), abs=1e-3
        )
        assert 0 < found["p_value"] <= 1
        other = server.chat(model.name, temperature=0.7)["choices"][0]["demur"]
        assert not other["calibrated"]
        for calibrated in ("true", "false"):
            labels = {"model": model.name, "calibrated": calibrated}
            assert server.figure("p_value_count", **labels) == 1
        assert server.figure("step_seconds_count", model=model.name, part="guard") > 0


class Broken:
    """A guard whose watcher fails after some steps, or gives numbers that are none."""

    def __init__(self, guard: StreamingGuard, *, after: int, how: str) -> None:
        self._guard, self._after, self._how = guard, after, how

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guard, name)

    def watcher(self, rows: int) -> Any:
        return BrokenWatcher(self._guard.watcher(rows), self._after, self._how)


class BrokenWatcher:
    def __init__(self, watcher: Watcher, after: int, how: str) -> None:
        self._watcher, self._left, self._how = watcher, after, how

    def reset(self, rows: Any) -> None:
        if self._how == "reset":
            raise RuntimeError("the guard is broken")
        self._watcher.reset(rows)

    def observe(self, phi: Any, rows: Any) -> Any:
        self._left -= 1
        if self._left < 0 and self._how == "raise":
            raise RuntimeError("the guard is broken")
        readings = self._watcher.observe(phi, rows)
        if self._left < 0 and self._how == "nan":
            return [reading._replace(statistic=math.nan) for reading in readings]
        return readings


@pytest.mark.parametrize("how", ["raise", "nan", "reset"])
def test_a_guard_that_fails_lets_nothing_pass(
    model: LanguageModel, guard: StreamingGuard, how: str
) -> None:
    broken: Any = Broken(at_threshold(guard, 1e9), after=5, how=how)
    with serving([model], [broken]) as server:
        events = server.stream(CHAT, body(model, QUESTION, stream=True))
        last = events[-2]["choices"][0]
        assert last["finish_reason"] == "content_filter"
        assert last["demur"]["guard_failed"]
        assert last["demur"]["p_value"] is None
        assert len(said(events).split()) <= 8  # five steps, or the first block
        again = server.chat(model.name)["choices"][0]
        assert again["finish_reason"] == "content_filter"
        found = server.post("/classify", {"input": QUESTION}).json()
        assert found == {"jailbreak": True, "reason": UNFINISHED}
        assert server.figure("blocks_total", model=model.name, cause="error") == 3
        # The server itself goes on.
        assert server.post("/v1/chat/completions", {"model": "x"}).status_code == 400


def test_rails_are_answered(
    model: LanguageModel, suspicious: tuple[str, StreamingGuard, int, str], sampler: Sampler
) -> None:
    text, guard, *_ = suspicious
    # Some prompt of the harmless ones stays below; the threshold lies in the middle of an answer.
    calm = world.prompts("test", "harmless", n=12)
    scores = guard.score(demur.trace(model, calm, batch_size=12, sampler=sampler))
    passed = calm[int(scores.argmin())].text
    assert scores.min() < guard.threshold
    path = "/beta/litellm_basic_guardrail_api"
    with serving([model], [guard]) as server:
        assert server.post("/classify", {"input": text}).json() == {
            "jailbreak": True,
            "reason": FLAGGED,
        }
        assert server.post("/classify", {"input": passed}).json() == {"jailbreak": False}
        asked = {"texts": [passed, text], "input_type": "request", "litellm_version": "1"}
        blocked = server.post(path, asked).json()
        assert blocked["action"] == "BLOCKED"
        assert "jailbreak" in blocked["blocked_reason"]
        assert server.post(path, {**asked, "texts": [passed]}).json()["action"] == "NONE"


def test_what_was_not_read_to_its_end_did_not_pass(
    model: LanguageModel, guard: StreamingGuard
) -> None:
    with serving([model], [at_threshold(guard, 1e9)], limits=Limits(seconds=0.01)) as server:
        found = server.post("/classify", {"input": QUESTION})
        assert found.json() == {"jailbreak": True, "reason": UNFINISHED}


def test_the_client_reads_a_block(
    model: LanguageModel, suspicious: tuple[str, StreamingGuard, int, str]
) -> None:
    text, guard, *_ = suspicious
    with (
        serving([model], [guard]) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        found = client.chat.completions.create(
            model=model.name, messages=[{"role": "user", "content": text}]
        )
        assert found.choices[0].finish_reason == "content_filter"
        evidence = found.choices[0].model_extra
        assert evidence
        assert evidence["demur"]["guard"] == "sri-step"
        assert json.dumps(evidence)


def test_no_more_leaves_than_the_guard_reads(guard: StreamingGuard, model: LanguageModel) -> None:
    """The guard scores its first T steps; an answer that it could not follow further ends there."""
    if model.traits.attention != "causal":
        pytest.skip("a diffusion response has a fixed length")
    with serving([without_end(model)], [at_threshold(guard, 1e9)]) as server:
        endless = server.chat(model.name, max_tokens=400)
        assert endless["usage"]["completion_tokens"] == guard.steps
        assert endless["choices"][0]["finish_reason"] == "length"


@pytest.fixture(scope="module")
def usual(model: LanguageModel) -> StreamingGuard:
    """A guard of the model's own sampler."""
    return at_threshold(a_guard(model), 1e9)


def test_drift_bets_on_answers_that_ended_as_the_calibration_s(
    model: LanguageModel, usual: StreamingGuard
) -> None:
    def drift() -> float:
        return server.figure("drift", model=model.name)

    with serving([model], [usual]) as server:
        for fields in ({"max_tokens": 2}, {"stop": [" a"]}, {"temperature": 0.5}):
            server.chat(model.name, **fields)
        assert drift() == 0
        server.chat(model.name)
        assert (once := drift()) > 0
        server.post("/classify", {"input": QUESTION})
        assert drift() > once


def test_a_blocked_answer_counts_as_the_calibration_s_above_the_threshold(
    model: LanguageModel, usual: StreamingGuard
) -> None:
    """The first passage is no maximum: of scores above the threshold the bet knows nothing more."""
    scores = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    group = CalibratedGroup(float(np.quantile(scores, 0.8)), np.sort(scores[:500]))
    judge = Moderator(replace(usual, groups={"all": group}), rows=1)
    for score in scores[500:]:
        # Blocked at the first passage, somewhere between the threshold and the maximum.
        first = (score + group.threshold) / 2 if score > group.threshold else score
        job = ServedSequence(prompt=[1], sampler=Masked(), seed=0, most=1)
        judge._watched[job] = Moderated(0, GuardReading(step=1, statistic=float(first)))
        judge.verdict(job, whole=True)
    assert judge.drift < 1500 * 100


def test_what_was_asked_before_changes_no_bit(usual: StreamingGuard, model: LanguageModel) -> None:
    """An answer's statistic holds nothing of those whose place it takes."""
    texts = [p.text for p in world.prompts("test", "harmless", n=3)]
    order = random.Random(0).choices(texts, k=20)
    with serving([model], [usual]) as server:
        answers = [server.chat(model.name, text, temperature=0.0, seed=1) for text in order]
    told = [answer["choices"][0]["demur"]["statistic"] for answer in answers]
    assert len(set(zip(order, told, strict=True))) == len(set(order)) == len(texts)


def test_the_p_value_that_is_told_is_the_guard_s(usual: StreamingGuard) -> None:
    generator = np.random.default_rng(0)
    first, second = (np.sort(generator.normal(size=n)).astype(np.float32) for n in (40, 60))
    groups = {
        "plain": CalibratedGroup(1.5, first),
        "wrapped": CalibratedGroup(2.0, second, np.full(60, 0.5)),
    }
    guard = replace(usual, groups=groups)
    judge, places = (
        Moderator(guard, rows=1),
        [*first.tolist(), *generator.normal(size=50), -9.0, 9.0],
    )
    for statistic in places:
        job = ServedSequence(prompt=[1], sampler=Masked(), seed=0, most=1)
        judge._watched[job] = Moderated(0, GuardReading(step=1, statistic=statistic))
        told = judge.verdict(job, whole=False)["p_value"]
        assert told == guard.p_value([statistic])[0]


@pytest.mark.parametrize("uncalibrated", ["block", "audit", "refuse"])
def test_what_the_calibration_does_not_cover(
    model: LanguageModel, usual: StreamingGuard, uncalibrated: Any
) -> None:
    """Everything is flagged here; what of it is blocked depends on who asked how."""
    wanted = {"block": "content_filter", "audit": "stop"}.get(uncalibrated)
    strict = at_threshold(usual, -1e9)
    with serving([model], [strict], uncalibrated=uncalibrated) as server:
        answer = server.post(CHAT, body(model, QUESTION))
        assert answer.headers["x-demur-calibrated"] == "true"
        assert answer.json()["choices"][0]["finish_reason"] == "content_filter"
        for stream in (False, True):
            other = server.post(CHAT, body(model, QUESTION, temperature=0.1, stream=stream))
            if wanted is None:
                assert other.status_code == 400
                assert other.json()["error"]["code"] == "uncalibrated"
            else:
                assert other.headers["x-demur-calibrated"] == "false"
                assert f'"finish_reason":"{wanted}"' in other.text
                assert '"calibrated":false' in other.text
        about = server.engines[model.name].hosted.coverage()
        assert "temperature 0.0" in about
        assert ("Answers end after" in about) == (model.traits.attention == "causal")


def test_steps_that_no_guard_reads_are_refused(model: LanguageModel, usual: StreamingGuard) -> None:
    if model.traits.attention == "causal":
        pytest.skip("an autoregressive answer is ended where the guard ends")
    short = replace(usual, middle=usual.middle[:8], spread=usual.spread[:8])
    with pytest.raises(FingerprintError, match="first 8 of 32 steps"):
        host([model], [short])


def test_a_guard_of_another_model_is_refused(
    guard: StreamingGuard, model: LanguageModel, tiny_ar: LanguageModel, tmp_path: Path
) -> None:
    with pytest.raises(FingerprintError, match="demur guard fit"):
        host([tiny_ar], [guard])
    renamed = replace(model, revision="another")
    with pytest.raises(FingerprintError, match="revision"):
        host([renamed], [guard])
    with pytest.raises(InputError, match="two guards"):
        host([model], [guard, guard])
    with pytest.raises(InputError, match="--streaming"):
        read_guard(tmp_path / "none")
    guard.save(tmp_path / "guard")
    assert read_guard(tmp_path / "guard").threshold == pytest.approx(guard.threshold)


def test_guards_find_their_models(guard: StreamingGuard, model: LanguageModel) -> None:
    other = demur.load(next(name for name in MODELS if name != model.name))
    engines = host([other, model], [guard]).engines
    assert engines[model.name].hosted.guard is guard
    assert engines[other.name].hosted.guard is None


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The log of what the guard did says nothing of what was asked or answered."""
    caplog.set_level("INFO")
    yield
    for record in caplog.records:
        if record.name.startswith("demur"):
            assert "puzzle" not in record.getMessage()
