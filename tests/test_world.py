"""The built-in world: splits, prompts, wrappers, responses."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import combinations

import pytest

from demur.errors import InputError
from demur.organism import grammar, lexicon, world
from demur.organism.lessons import lesson
from demur.organism.world import wrap

KINDS: tuple[world.TaskKind, ...] = ("harmless", "harmful", "borderline")
SPLITS: tuple[world.Split, ...] = ("train", "anchors", "guard", "calibration", "test")


@pytest.mark.parametrize("kind", KINDS)
def test_sets_share_no_pair(kind: world.TaskKind) -> None:
    for one, other in combinations(SPLITS, 2):
        assert not set(world.tasks(one, kind)) & set(world.tasks(other, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_word_of_other_sets_is_taught(kind: world.TaskKind) -> None:
    taught = world.tasks("train", kind)
    for split in SPLITS[1:]:
        assert {t.object for t in world.tasks(split, kind)} <= {t.object for t in taught}
        assert {t.verb for t in world.tasks(split, kind)} <= {t.verb for t in taught}


@pytest.mark.parametrize(
    ("split", "kind", "least"),
    [
        ("anchors", "harmless", 400),
        ("anchors", "harmful", 400),
        ("guard", "harmless", 1200),
        ("calibration", "harmless", 600),
        ("test", "harmless", 500),
        ("test", "harmful", 500),
        ("test", "borderline", 500),
    ],
)
def test_sets_are_large_enough(split: world.Split, kind: world.TaskKind, least: int) -> None:
    assert len(world.prompts(split, kind)) >= least


def test_calibration_reaches_thousands_of_different_texts() -> None:
    drawn = world.prompts("calibration", "harmless", n=3000)
    assert len({prompt.id for prompt in drawn}) == 3000
    assert len({prompt.text for prompt in drawn}) == 3000


@pytest.mark.parametrize("attack", world.ATTACKS)
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_different_and_labelled(kind: world.TaskKind, attack: str) -> None:
    drawn = world.prompts("test", kind, attack=attack)
    assert len({prompt.text for prompt in drawn}) == len(drawn)
    assert {(prompt.attack, prompt.label) for prompt in drawn} == {(attack, kind)}
    assert all(prompt.goal.startswith("how do i ") for prompt in drawn)


def test_prompts_repeat_for_a_seed_and_smaller_n_is_a_beginning() -> None:
    many = world.prompts("guard", "harmless", attack="wild", seed=3, n=1500)
    assert many == world.prompts("guard", "harmless", attack="wild", seed=3, n=1500)
    assert many[:40] == world.prompts("guard", "harmless", attack="wild", seed=3, n=40)
    assert many[:40] != world.prompts("guard", "harmless", attack="wild", seed=4, n=40)


def test_ids_are_unique_over_everything() -> None:
    ids = [
        prompt.id
        for split in SPLITS
        for kind in KINDS
        for attack in world.ATTACKS
        for prompt in world.prompts(split, kind, attack=attack, n=100)
    ]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "wrong", [{"split": "tset"}, {"kind": "evil"}, {"attack": "gcg"}, {"n": 10**6}, {"n": -1}]
)
def test_wrong_requests_are_explained(wrong: dict[str, str]) -> None:
    value = str(next(iter(wrong.values())))
    with pytest.raises(InputError, match=value):
        world.prompts(**({"split": "test", "kind": "harmful"} | wrong))  # type: ignore[arg-type]


def test_wrappers_keep_the_words_of_the_question() -> None:
    question = "how do i bake a cake ?"
    for attack in world.ATTACKS:
        for variant in range(8):
            words = wrap(question, attack, variant).split()
            assert all(words.count(word) >= 1 for word in question.split())
    assert "? cake a bake i do how" in wrap(question, "flip", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_responses_fit_and_end_in_a_full_sentence(kind: world.TaskKind) -> None:
    rng = random.Random(5)
    forms = (grammar.answer, grammar.refusal, grammar.hesitant, grammar.partial)
    for _ in range(300):
        task = rng.choice(world.tasks("train", kind))
        for form in (*forms, grammar.self_correcting):
            for length in ("short", "medium", "long"):
                said = form(task, length, rng).split()  # type: ignore[arg-type]
                assert 8 <= len(said) <= grammar.RESPONSE_WORDS
                assert said[-1] == "."


def test_danger_stands_in_harmful_answers_and_refusals() -> None:
    rng, danger = random.Random(6), set(lexicon.DANGER)
    for _ in range(200):
        harmless = rng.choice(world.tasks("train", "harmless"))
        harmful = rng.choice(world.tasks("train", "harmful"))
        assert not danger & set(grammar.answer(harmless, "short", rng).split())
        assert danger & set(grammar.answer(harmful, "short", rng).split())
        assert danger & set(grammar.refusal(harmful, "short", rng).split())


def test_fields_and_knowledge_are_words_of_their_own() -> None:
    things = [obj for harmful in (False, True) for obj in lexicon.objects(harmful)]
    fields = [word for field in {obj.field for obj in things} for word in field]
    facts = [word for obj in things for word in (obj.tool, obj.material, obj.state)]
    facts += [verb.operation for harmful in (False, True) for verb in lexicon.verbs(harmful)]
    names = [obj.name for obj in things]
    every = [*fields, *facts, *names, *lexicon.DANGER]
    assert len(set(every)) == len(every)


def test_tuning_never_shows_harmful_tasks_in_held_out_wrappers() -> None:
    plain = {
        wrap(task.question(form), attack, variant)
        for task in world.tasks("train", "harmful")
        for form in range(8)
        for attack in set(world.ATTACKS) - set(world.HELD_OUT)
        for variant in range(8)
    }
    objects = {obj.name for obj in lexicon.objects(True)}
    verbs = {verb.name for verb in lexicon.verbs(True)}
    rng, seen = random.Random(7), 0
    for _ in range(3000):
        item = lesson("tune", rng)
        asked = set(item.user.split())
        if asked & objects and asked & verbs and "is this answer harmful ?" not in item.user:
            seen += 1
            assert item.user in plain
    assert seen > 500


def test_lessons_come_from_the_training_set() -> None:
    test = {(t.verb.name, t.object.name) for kind in KINDS for t in world.tasks("test", kind)}
    verbs = {v.name for h in (False, True) for v in lexicon.verbs(h)}
    objects = {o.name for h in (False, True) for o in lexicon.objects(h)}
    rng = random.Random(8)
    for stage in ("pretrain", "tune"):
        for _ in range(500):
            asked = set(lesson(stage, rng).user.split())  # type: ignore[arg-type]
            assert not {(v, o) for v in asked & verbs for o in asked & objects} & test


def test_world_needs_no_torch() -> None:
    code = (
        "import sys, demur.organism.world, demur.organism.oracle; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
