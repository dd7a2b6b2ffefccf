"""The streaming guard keeps its false-positive rate over whole generations, and finds jailbreaks."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, betabinom

import demur
import guarded
from demur.errors import CalibrationError, FingerprintError, SignalError
from demur.guard import StreamingGuard, fit_guard, fit_streaming_guard, threshold_rank
from demur.guard.calibration import cluster_weights, threshold
from demur.judges import refusal_judge
from demur.metrics import auroc
from demur.organism import world
from demur.sampling import Autoregressive
from demur.sri import Anchors
from demur.types import Fingerprint, Prompt, Trace, Traces

MARK = Fingerprint("m", "0", {"name": "autoregressive", "steps": 128}, "running", "", "float32")


@pytest.fixture(scope="module")
def pool() -> Traces:
    """Benign generations of one set, exchangeable with each other once shuffled."""
    return guarded.every_attack("guard", "harmless", 100)


def exact_interval(hits: int, n: int, *, confidence: float = 0.999) -> tuple[float, float]:
    """Clopper-Pearson interval of a rate."""
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, hits, n - hits + 1) if hits else 0.0
    return float(low), float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0


def walks(n: int, steps: int, *, seed: int, lean: float = 0.0) -> Traces:
    """Random walks between two directions, each ending after a random number of steps."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, steps + 1, size=n)
    moves = generator.normal(0, 0.2, size=(n, steps, 4)).cumsum(axis=1)
    states = moves + np.array([3.0, 3 * lean, 0, 0]) + generator.normal(size=(n, 1, 4))
    traces = []
    for row, length in zip(states.astype(np.float32), lengths, strict=True):
        tokens = np.full((length, steps), -1, dtype=np.int32)
        traces.append(
            Trace(
                prompt=Prompt("w", label="harmless"),
                response="",
                response_ids=tokens[0, :0],
                committed=tokens,
                draft=tokens,
                phi={"last": row[:length]},
                finish_reason="stop",
                blocks=np.zeros(length, dtype=np.int32),
                fingerprint=MARK,
            )
        )
    return Traces(tuple(traces))


def axes(steps: int) -> Anchors:
    good, bad = np.zeros((2, steps, 4), dtype=np.float32)
    good[:, 0] = bad[:, 1] = 1
    return Anchors(good, bad, alignment="repeat_state", fingerprint=MARK)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_rate_of_false_alarms_anywhere_on_built_in_generations(pool: Traces, alpha: float) -> None:
    """Each draw calibrates on 200 generations and tests another one: given the pool, draws are
    independent, so the exact binomial interval holds."""
    train, rest = Traces(pool.items[::8]), [t for i, t in enumerate(pool) if i % 8]
    fitted = fit_streaming_guard(train, Traces(tuple(rest)), anchors=guarded.anchors())
    scores = fitted.score(Traces(tuple(rest)))
    assert len(np.unique(scores)) > 0.9 * len(scores)
    generator, draws, rank = np.random.default_rng(0), 4000, threshold_rank(200, alpha)
    alarms = 0
    for _ in range(draws):
        drawn = scores[generator.choice(len(scores), size=201, replace=False)]
        alarms += int(drawn[-1] > np.sort(drawn[:-1])[-rank])
    low, high = exact_interval(alarms, draws)
    assert low <= alpha
    assert high >= rank / 201 - 0.01, "far more cautious than stated"


def test_rate_of_false_alarms_at_every_length() -> None:
    train, calibration, fresh = (
        walks(n, 128, seed=seed) for n, seed in ((200, 0), (199, 1), (400, 2))
    )
    ranks = {alpha: threshold_rank(199, alpha) for alpha in (0.01, 0.05, 0.1)}
    fitted = fit_streaming_guard(train, calibration, anchors=axes(128))
    known, new = fitted.statistics(calibration), fitted.statistics(fresh)
    for steps in range(1, 129):
        ordered = np.sort(known[:, steps - 1])
        for rank in ranks.values():
            alarms = int((new[:, steps - 1] > ordered[-rank]).sum())
            assert alarms <= betabinom.ppf(1 - 1e-5, 400, rank, 200 - rank)


def test_rate_at_every_length_on_thousands_of_built_in_generations() -> None:
    """Calibration and fresh prompts are a random split of one pool, so that the number of alarms has
    a known distribution at every T."""
    small, sampler = demur.load("organism-ar-small"), Autoregressive(steps=128)

    def traced(
        split: world.Split, kind: world.TaskKind, n: int, attack: str = "none"
    ) -> list[Trace]:
        prompts = world.prompts(split, kind, attack=attack, n=n)
        return list(demur.trace(small, prompts, sampler=sampler, batch_size=128))

    judge = refusal_judge("paper")
    known = [*traced("anchors", "harmless", 32), *traced("anchors", "harmful", 32)]
    anchors = demur.fit_anchors(
        known, [judge(t.prompt.goal, t.response).hit for t in known], allow_few=True
    )
    pool = [t for attack in world.ATTACKS for t in traced("guard", "harmless", 480, attack)]
    assert len(pool) >= 2500
    order = np.random.default_rng(0).permutation(len(pool)).tolist()
    train, calibration, fresh = (
        Traces(tuple(pool[i] for i in part))
        for part in (order[:480], order[480:1479], order[1479:])
    )
    guard = fit_streaming_guard(train, calibration, anchors=anchors)
    assert guard.steps == 128
    held, new = guard.statistics(calibration), guard.statistics(fresh)
    for alpha in (0.01, 0.05, 0.1):
        rank = threshold_rank(999, alpha)
        spread = betabinom(len(new), rank, 1000 - rank)
        for steps in range(1, 129):
            alarms = int((new[:, steps - 1] > np.sort(held[:, steps - 1])[-rank]).sum())
            assert spread.ppf(1e-5) <= alarms <= spread.ppf(1 - 1e-5)
        low, high = exact_interval(int((new[:, -1] > np.sort(held[:, -1])[-rank]).sum()), len(new))
        assert low <= alpha <= high + 3 * spread.std() / len(new)


def test_clusters_keep_the_rate_on_tasks_that_calibration_did_not_see() -> None:
    """Random splits of the tasks: alpha holds on average over them, and prompt by prompt does not."""
    pool = guarded.every_attack("guard", "harmless", 300)
    anchors, goal = guarded.anchors(), attrgetter("goal")
    tasks = sorted({t.prompt.goal for t in pool})
    assert len(tasks) > 100
    base = fit_streaming_guard(pool, pool, anchors=anchors)
    scores, names = base.score(pool), np.array([t.prompt.goal for t in pool])
    generator, alpha, rates = np.random.default_rng(0), 0.05, defaultdict(list)
    for _ in range(200):
        seen = np.isin(names, generator.choice(tasks, size=60, replace=False))
        order = np.argsort(scores[seen])
        ordered, weights = scores[seen][order], cluster_weights(names[seen][order].tolist())
        rates["clusters"].append(
            (scores[~seen] > threshold(ordered, alpha, weights=weights)).mean()
        )
        rates["prompts"].append((scores[~seen] > threshold(ordered, alpha)).mean())
    error = np.std(rates["clusters"]) / 200**0.5
    assert np.mean(rates["clusters"]) <= alpha + 3 * error
    assert np.quantile(rates["clusters"], 0.95) < np.quantile(rates["prompts"], 0.95)
    half = [t for t in pool if t.prompt.goal in tasks[: len(tasks) // 2]]
    fitted = fit_streaming_guard(
        pool, Traces(tuple(half)), anchors=anchors, alpha=0.1, clusters=goal
    )
    group = fitted.group("all")
    assert group.weights is not None
    assert group.weights.sum() == pytest.approx(len(tasks) // 2)
    np.testing.assert_array_equal(fitted.p_value(scores) <= 0.1, scores > fitted.threshold)
    with pytest.raises(CalibrationError, match="at least 99"):
        fit_streaming_guard(pool, Traces(tuple(half)), anchors=anchors, alpha=0.01, clusters=goal)
    with pytest.raises(CalibrationError, match="does not support clusters"):
        fit_streaming_guard(pool, pool, anchors=anchors, alpha=0.1, clusters=goal, method="pac")


@pytest.mark.parametrize("steps", [1, 2, 17, 64, 128])
def test_guards_of_any_length_find_what_leans_to_refusal(steps: int) -> None:
    sets = (walks(300, 128, seed=seed) for seed in (0, 1))
    fitted = fit_streaming_guard(*sets, anchors=axes(steps), alpha=0.1)
    assert fitted.steps == steps
    assert fitted.flag(walks(300, 128, seed=2)).mean() < 0.2
    assert fitted.flag(walks(300, 128, seed=3, lean=2.0)).mean() > 0.8


def test_pac_keeps_the_rate_with_confidence() -> None:
    """The rate given the calibration set exceeds alpha in at most 5% of the sets."""
    generator, alpha = np.random.default_rng(0), 0.05
    sets = generator.normal(size=(2000, 100))
    ordered = np.sort(sets, axis=1)[:, -threshold_rank(100, alpha, method="pac")]
    rates = 0.5 * (1 - np.vectorize(lambda x: math.erf(x / 2**0.5))(ordered))
    low, _ = exact_interval(int((rates > alpha).sum()), 2000)
    assert low <= 0.05


def test_groups_keep_the_rate_each() -> None:
    """Wrapped prompts that score higher do not use up the plain ones' alarms."""

    def grouped(seed: int) -> Traces:
        plain, odd = walks(400, 32, seed=seed), walks(400, 32, seed=seed + 1, lean=0.7)
        renamed = (dataclasses.replace(t, prompt=Prompt("o", attack="flip")) for t in odd)
        return Traces((*plain, *renamed))

    def group(prompt: Prompt) -> str:
        return "plain" if prompt.attack == "none" else "wrapped"

    fitted = fit_streaming_guard(
        walks(300, 32, seed=9), grouped(10), anchors=axes(32), alpha=0.1, groups=group
    )
    fresh = grouped(20)
    odd = np.array([group(t.prompt) == "wrapped" for t in fresh])
    flagged = fitted.flag(fresh, groups=group)
    bound = betabinom.ppf(0.9999, 400, 40, 361)
    assert flagged[odd].sum() <= bound
    assert 0 < flagged[~odd].sum() <= bound
    cautious = fitted.flag(fresh)
    assert cautious[~odd].sum() < flagged[~odd].sum()
    assert fitted.threshold == fitted.group("wrapped").threshold > fitted.group("plain").threshold
    with pytest.raises(CalibrationError, match="knows plain, wrapped"):
        fitted.group("borderline")


def test_half_of_the_goals_are_held_out_where_no_calibration_is_given() -> None:
    benign = guarded.every_attack("guard", "harmless", 40)
    goals = {t.prompt.goal for t in benign}
    fitted = fit_streaming_guard(
        benign, anchors=guarded.anchors(), alpha=0.2, clusters=attrgetter("goal"), seed=1
    )
    group = fitted.group("all")
    assert group.weights is not None
    assert group.weights.sum() == pytest.approx(len(goals) // 2)
    held = {t.prompt.goal for t in benign if np.isin(fitted.score(Traces((t,))), group.calibration)}
    assert len(held) == len(goals) // 2
    other = fit_streaming_guard(benign, anchors=guarded.anchors(), alpha=0.2, seed=2)
    assert other.calibrated_on == len(benign) // 2


def test_p_values_agree_with_flags() -> None:
    guard = guarded.guard()
    scores = guard.score(guarded.traced("test", "harmful", 40, attack="prefix_injection"))
    np.testing.assert_array_equal(guard.p_value(scores) <= guard.alpha, scores > guard.threshold)
    np.testing.assert_array_equal(guard.p_value(scores), guard.p_value(scores, group="all"))


def test_finds_answered_jailbreaks_by_half_of_the_steps() -> None:
    guard, refused = guarded.guard(), refusal_judge("paper")
    harmful = [
        t
        for t in guarded.every_attack("test", "harmful", 12)
        if not refused(t.prompt.goal, t.response).hit
    ]
    benign = guard.statistics(guarded.every_attack("test", "harmless", 12))
    found = guard.statistics(Traces(tuple(harmful)))
    whole, half = (auroc(benign[:, at], found[:, at]).value for at in (-1, 11))
    assert whole > 0.9
    assert half > whole - 0.03
    finished = fit_guard(
        guarded.every_attack("guard", "harmless", 60),
        guarded.every_attack("calibration", "harmless", 20),
        anchors=guarded.anchors(),
        detector="sri-standardised",
    )
    jailbreaks = finished.score(Traces(tuple(harmful)))
    offline = auroc(finished.score(guarded.every_attack("test", "harmless", 12)), jailbreaks).value
    assert half > offline - 0.03


def test_statistics_stop_where_a_generation_does() -> None:
    sets = (walks(100, 16, seed=seed) for seed in (0, 1))
    guard, traces = fit_streaming_guard(*sets, anchors=axes(16)), walks(50, 32, seed=2)
    statistics = guard.statistics(traces)
    for trace, row in zip(traces, statistics, strict=True):
        ran = min(trace.n_steps, 16)
        assert (np.diff(row) >= 0).all()
        assert (row[ran - 1 :] == row[-1]).all()
        watcher = guard.watcher(1)
        for step, state in enumerate(trace.phi["last"]):
            (reading,) = watcher.observe({"last": state[None]}, [0])
            expected = row[min(step, 15)]
            np.testing.assert_allclose(reading.statistic, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(guard.score(traces), statistics[:, -1])


def test_saved_guard_is_the_same(tmp_path: Path) -> None:
    guard, traces = guarded.guard(), guarded.traced("test", "harmless", 6)
    again = StreamingGuard.load(guard.save(tmp_path / "guard.safetensors"))
    np.testing.assert_array_equal(again.score(traces), guard.score(traces))
    assert (again.threshold, again.alpha, again.fingerprint) == (
        guard.threshold,
        guard.alpha,
        guard.fingerprint,
    )
    with pytest.raises(demur.errors.InputError, match="not demur"):
        demur.Guard.load(tmp_path / "guard.safetensors")


def test_other_generations_are_refused() -> None:
    guard, mark = guarded.guard(), guarded.guard().fingerprint
    for field, value in (("model", "x"), ("revision", "x"), ("system", "x"), ("dtype", "float16")):
        with pytest.raises(FingerprintError, match=field):
            guard.require(dataclasses.replace(mark, **{field: value}))
    sampler = dict(mark.sampler)
    guard.require(dataclasses.replace(mark, sampler={**sampler, "steps": 5}))
    for change in ({"steps": 25}, {"temperature": 1.0}):
        with pytest.raises(FingerprintError, match="sampler"):
            guard.require(dataclasses.replace(mark, sampler={**sampler, **change}))


def test_what_cannot_be_fitted_is_refused() -> None:
    train, few = walks(40, 8, seed=0), walks(19, 8, seed=1)
    with pytest.raises(CalibrationError, match=r"'all'.*at least 99"):
        fit_streaming_guard(train, few, anchors=axes(8))
    with pytest.raises(SignalError, match="at least 20"):
        fit_streaming_guard(few, train, anchors=axes(8))
    resampled = dataclasses.replace(axes(8), alignment="resample")
    with pytest.raises(SignalError, match="how long"):
        fit_streaming_guard(train, train, anchors=resampled)
    with pytest.raises(FingerprintError, match="model"):
        fit_streaming_guard(
            train, guarded.traced("test", "harmless", 2), anchors=axes(8), alpha=0.5
        )
