"""Training of the built-in models: resumable, deterministic, and it writes loadable folders."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from demur.organism import model_folder, tokenizer
from demur.organism.lessons import causal, encode, lesson
from demur.organism.train import TrainingRecipe, new_model, train

TINY = TrainingRecipe(
    width=32, layers=1, batch=4, pretrain=4, adapt=3, tune_causal=2, tune_masked=2
)


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("organism")
    train(out, recipe=TINY)
    return out


def test_folders_load_with_plain_transformers(trained: Path) -> None:
    for name, family in (("organism-ar", "causal"), ("organism-dlm", "masked")):
        model = AutoModelForCausalLM.from_pretrained(str(trained / name), dtype="auto")
        assert model.config.demur == model_folder.CARDS[family]  # type: ignore[index]
        assert model.dtype == torch.float16
        words = AutoTokenizer.from_pretrained(str(trained / name))
        assert len(words) == model.config.vocab_size
        assert model.generation_config.eos_token_id == tokenizer.EOS


def test_manifest_names_seed_losses_and_checksum(trained: Path) -> None:
    folder = trained / "organism-dlm"
    said = model_folder.read(folder)
    assert said["training"]["recipe"]["seed"] == 0
    assert set(said["training"]["losses"]) == {"pretrain", "adapt", "tune-masked"}
    assert model_folder.intact(folder)
    assert "not evidence" in said["note"]


def test_figures_are_recorded_without_losing_the_rest(trained: Path) -> None:
    folder = trained / "organism-ar"
    before = model_folder.read(folder)
    model_folder.record(folder, {"capability": 0.5})
    assert model_folder.read(folder) == before | {"figures": {"capability": 0.5}}


def test_stopped_training_goes_on_to_the_same_weights(trained: Path, tmp_path: Path) -> None:
    def stop(name: str, step: int, steps: int, loss: float) -> None:
        if (name, step) == ("adapt", 2):
            raise Stopped

    with pytest.raises(Stopped):
        train(tmp_path, recipe=TINY, progress=stop)
    assert not (tmp_path / "organism-dlm").exists()
    seen: list[str] = []
    train(tmp_path, recipe=TINY, progress=lambda name, *_: seen.append(name))
    assert set(seen) == {"adapt", "tune-masked"}
    for name in ("organism-ar", "organism-dlm"):
        shas = {model_folder.read(out / name)["sha256"] for out in (trained, tmp_path)}
        assert len(shas) == 1


def test_stop_inside_a_phase_goes_on_to_the_same_weights(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.organism.train._SAVE_EVERY", 2)

    def stop(name: str, step: int, steps: int, loss: float) -> None:
        if (name, step) == ("pretrain", 3):
            raise Stopped

    with pytest.raises(Stopped):
        train(tmp_path, recipe=TINY, progress=stop)
    steps: list[int] = []
    train(tmp_path, recipe=TINY, progress=lambda name, step, *_: steps.append(step))
    assert steps[0] == 3
    folders = (trained / "organism-dlm", tmp_path / "organism-dlm")
    assert len({model_folder.read(folder)["sha256"] for folder in folders}) == 1


def test_another_recipe_starts_from_nothing(trained: Path) -> None:
    other = TrainingRecipe(**{**TINY.__dict__, "seed": 1})
    seen: list[str] = []
    train(trained, recipe=other, progress=lambda name, *_: seen.append(name))
    assert seen.count("pretrain") == TINY.pretrain
    assert model_folder.read(trained / "organism-ar")["training"]["recipe"]["seed"] == 1


def test_new_model_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    new_model(TINY)
    assert torch.equal(torch.rand(3), expected)


def test_losses_ignore_padding() -> None:
    model = new_model(TINY).eval()
    rng = random.Random(0)
    lessons = [lesson("pretrain", rng) for _ in range(5)]
    longest = max(lessons, key=lambda item: len(item.user.split()))
    alone = causal(model, [longest])
    weights = [len(encode(item)[1]) for item in lessons]
    each = [causal(model, [item]) * n for item, n in zip(lessons, weights, strict=True)]
    together = causal(model, lessons)
    assert torch.allclose(together, torch.stack(each).sum() / sum(weights), atol=1e-5)
    assert alone.isfinite()


def test_a_response_is_predicted_in_both_directions() -> None:
    model = new_model(TINY).eval()
    ids = torch.tensor([[1, 6, 20, 8, 7, 3, 3, 30]])
    everywhere = torch.zeros(1, 1, 8, 8)
    changed = ids.clone()
    changed[0, -1] = 31
    with torch.no_grad():
        one, two = (
            model.model(input_ids=row, attention_mask=everywhere).last_hidden_state[0, 4]
            for row in (ids, changed)
        )
    assert not torch.allclose(one, two)


def test_saved_card_is_plain_json(trained: Path) -> None:
    config = json.loads((trained / "organism-dlm" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["demur"]["mask_token_id"] == 3
    assert config["demur"]["sampler"]["gen_length"] == 64
