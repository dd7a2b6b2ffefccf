"""Checkpoints that cannot be used: what happened, what was found, what to do next."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import demur
from conftest import save_llama
from demur.errors import InputError, MissingExtraError, ModelError
from demur.models import known_families
from demur.models.base import LanguageModel
from demur.types import Prompt
from parity import tiny
from parity.blocks import save_llada2


def weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change a checkpoint's tensors."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def config(folder: Path, **values: Any) -> Path:
    """Change a checkpoint's config; None removes a key."""
    path = folder / "config.json"
    written = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({k: v for k, v in written.items() if v is not None}))
    return folder


@pytest.mark.parametrize("make", [save_llama, tiny.llada, tiny.dream, tiny.a2d])
def test_missing_extra_and_misshapen_tensors(make: Any, tmp_path: Path) -> None:
    first = sorted(load_file(make(tmp_path / "whole") / "model.safetensors"))[3]

    def grow(tensors: dict[str, Any]) -> None:
        tensors[first] = np.concatenate([tensors[first], tensors[first]])

    broken = {
        "missing": lambda t: t.pop(first),
        "unexpected": lambda t: t.update({"model.surplus.weight": np.zeros(3, np.float32)}),
        "mismatched": grow,
    }
    for kind, change in broken.items():
        folder = weights(make(tmp_path / kind), change)
        with pytest.raises(ModelError, match=f"{kind}") as caught:
            demur.load(folder)
        assert kind in str(caught.value)
        assert "config.json" in str(caught.value)


def test_truncated_weights(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "cut")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged") as caught:
        demur.load(folder)
    assert "pickle" not in str(caught.value)


def test_pickled_weights_load_when_asked_for(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "tiny")
    expected = demur.load(folder).net.state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(expected, folder / "pytorch_model.bin")
    found = demur.load(folder, allow_pickle=True).net.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_malicious_pickle_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    folder = save_llama(tmp_path / "tiny")
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="Could not load"):
        demur.load(folder, allow_pickle=True)
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "pickle")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled weights \(pytorch_model.*--allow-pickle"):
        demur.load(folder)


def test_no_weights_and_no_folder(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="There are no weights"):
        demur.load(folder)
    for absent in (tmp_path / "nowhere", "./nowhere", "a/b/c", "nowhere"):
        with pytest.raises(ModelError, match="there is no such folder") as caught:
            demur.load(absent)
        assert "repo id" not in str(caught.value)


def test_damaged_config(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "damaged")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"no readable config\.json"):
        demur.load(folder)


@pytest.mark.parametrize(
    ("written", "said"),
    [("[1, 2]", "No model at"), ('{"demur": "x"}', "demur: 'x', which is not a card")],
)
def test_a_config_of_another_kind(written: str, said: str, tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "odd")
    (folder / "config.json").write_text(written)
    with pytest.raises(ModelError, match=said):
        demur.load(folder)


def test_a_llada_of_another_build_is_named(tmp_path: Path) -> None:
    folder = config(tiny.llada(tmp_path / "odd"), n_heads=None)
    with pytest.raises(ModelError, match="calls itself llada without n_heads"):
        demur.load(folder)
    with pytest.raises(ModelError, match="is a LLaDA-MoE"):
        demur.load(config(folder, num_experts=64))


def test_layers_and_their_types_that_differ_in_number(tmp_path: Path) -> None:
    folder = config(tiny.a2d(tmp_path / "odd"), num_hidden_layers=2)
    with pytest.raises(ModelError, match="2 layers and 3 layer_types"):
        demur.load(folder)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (tiny.llada, "model.transformer.blocks.1.ff_out.weight"),
        (save_llada2, "model.layers.1.attention.query_key_value.weight"),
    ],
)
def test_a_tensor_is_called_as_in_the_file(make: Any, name: str, tmp_path: Path) -> None:
    folder = weights(make(tmp_path / "lacking"), lambda tensors: tensors.pop(name))
    with pytest.raises(ModelError, match=f"missing: {name}"):
        demur.load(folder)


def test_llada2_takes_no_pickle(tmp_path: Path) -> None:
    folder = save_llada2(tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors only, with --allow-pickle too"):
        demur.load(folder, allow_pickle=True)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    folder = save_llada2(tmp_path / "cut")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"in model\.safetensors: .*Download that file again"):
        demur.load(folder)


def test_one_place_for_a_model(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "two")
    with pytest.raises(ModelError, match=r"device 'cpu' and device_map 'auto'.*Give one"):
        demur.load(folder, device="cpu", device_map="auto")


def test_hub_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"hf download demur-tests/absent.*HF_HUB_OFFLINE"):
        demur.load("demur-tests/absent")


def test_unknown_architecture_lists_what_is_known(tmp_path: Path) -> None:
    folder = config(save_llama(tmp_path / "odd"), model_type="mystery")
    with pytest.raises(ModelError, match="mystery") as caught:
        demur.load(folder)
    for family in known_families():
        assert family.NAME in str(caught.value)
    assert "To add one" in str(caught.value)


def test_no_mask_token(tmp_path: Path) -> None:
    folder = config(tiny.llada(tmp_path / "maskless"), mask_token_id=None)
    with pytest.raises(ModelError, match=r"Add mask_token_id to config\.json \(126336"):
        demur.load(folder)
    folder = save_llama(tmp_path / "own", card={"family": "masked"})
    with pytest.raises(ModelError, match=r"Add demur\.mask_token_id"):
        demur.load(folder)


def test_no_chat_template(tmp_path: Path) -> None:
    folder = tiny.llada(tmp_path / "mute")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": None}))
    with pytest.raises(ModelError, match="no chat template"):
        demur.load(folder)


def test_no_tokenizer(tmp_path: Path) -> None:
    folder = tiny.llada(tmp_path / "wordless")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="tokenizer of wordless"):
        demur.load(folder)


def test_a_llada_unlike_the_released_ones(tmp_path: Path) -> None:
    folder = config(tiny.llada(tmp_path / "odd"), block_type="sequential")
    with pytest.raises(ModelError, match="sequential"):
        demur.load(folder)


def test_dtype_and_device(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "half")
    assert demur.load(folder, dtype="bfloat16").dtype == "bfloat16"
    assert demur.load(folder).dtype == "float32"
    with pytest.raises(ModelError, match="Unknown dtype 'int8'"):
        demur.load(folder, dtype="int8")
    for absent in ("cuda:99", "abacus"):
        with pytest.raises(ModelError, match=f"device '{absent}'.*Use cpu"):
            demur.load(folder, device=absent)


def test_unknown_layer(tiny_ar: LanguageModel) -> None:
    assert [tiny_ar.block_index(x) for x in ("first", "middle", "3")] == [0, 0, 2]
    for wrong in ("0", "4", "deep"):
        with pytest.raises(InputError, match="1 to 3"):
            tiny_ar.block_index(wrong)


def test_prompt_too_long(tiny_ar: LanguageModel) -> None:
    with pytest.raises(InputError, match="more than tiny-ar can read"):
        demur.trace(tiny_ar, [Prompt("w1 " * 100_000)])


def test_revision_follows_the_weights(tmp_path: Path) -> None:
    one = demur.load(save_llama(tmp_path / "one")).revision
    same = demur.load(save_llama(tmp_path / "same")).revision
    other = demur.load(save_llama(tmp_path / "other", seed=1)).revision
    assert one == same
    assert one != other


def test_attention_implementation_changes_no_token(tmp_path: Path) -> None:
    from demur.generation import trace_batch
    from demur.sampling import Masked

    card = {"family": "masked", "mask_token_id": 3}
    folder = save_llama(tmp_path / "dlm", card=card)
    prompts = [Prompt("w1 w2 w3", id="a"), Prompt("w4", id="b")]
    sampler = Masked(steps=4, gen_length=8, block_length=8)
    first, second = (
        trace_batch(demur.load(folder, attention=kind), prompts, sampler=sampler)
        for kind in ("sdpa", "eager")
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.committed, b.committed)
        np.testing.assert_allclose(a.phi["last"], b.phi["last"], atol=1e-5)
    with pytest.raises(ModelError, match="attention='sdpa'"):
        trace_batch(demur.load(folder, attention="flex_attention"), prompts, sampler=sampler)


def test_fewer_bits_and_device_map_name_their_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.models.formats.find_spec", lambda name: None)
    folder = save_llama(tmp_path / "small")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"bits": 4}, "weights in 4 bits"),
        ({"bits": 8}, "weights in 8 bits"),
        ({"device_map": "auto"}, "over devices"),
    ]
    for options, what in cases:
        with pytest.raises(MissingExtraError, match=rf"{what}.*demur\[quant\]"):
            demur.load(folder, **options)
    with pytest.raises(ModelError, match="Use 8 or 4"):
        demur.load(folder, bits=2)


@pytest.mark.parametrize("make", [tiny.llada, tiny.dream, tiny.a2d])
def test_shards_give_the_same_model(make: Any, tmp_path: Path) -> None:
    whole = demur.load(make(tmp_path / "whole"))
    folder = make(tmp_path / "shards")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, index = sorted(tensors), {}
    for number in (1, 2):
        file = f"model-0000{number}-of-00002.safetensors"
        part = {name: tensors[name] for name in names[number - 1 :: 2]}
        save_file(part, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": index})
    )
    parts = demur.load(folder)
    for (name, a), (_, b) in zip(
        whole.net.state_dict().items(), parts.net.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_a_missing_shard(tmp_path: Path) -> None:
    folder = tiny.llada(tmp_path / "shards")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = dict.fromkeys(("model.transformer.wte.weight",), "model-00001-of-00002.safetensors")
    index["model.transformer.ln_f.weight"] = "model-00002-of-00002.safetensors"
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": index})
    )
    with pytest.raises(ModelError, match="Check that the folder is complete"):
        demur.load(folder)


def test_a_model_without_an_end_token_loads(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "endless")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        file = folder / name
        values = json.loads(file.read_text())
        for key in ("eos_token_id", "eos_token"):
            values.pop(key, None)
        if name == "config.json":
            values["eos_token_id"] = None
        file.write_text(json.dumps(values))
    model = demur.load(folder)
    assert model.traits.end_ids == ()
    assert demur.trace(model, ["w1 w2"])[0].finish_reason == "length"
