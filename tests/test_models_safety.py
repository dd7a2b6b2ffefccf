"""Checkpoints made to harm, and generation settings that would mislead: refused, bounded or named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import demur
from conftest import TEMPLATE, save_llama
from demur.errors import InputError, ModelError
from demur.models import ModelWarning
from demur.models.base import LanguageModel
from demur.models.sandbox import MAX_STEPS, rendered
from demur.sampling import sampler_from
from demur.sampling.choice import RowNoise, heated
from demur.types import Prompt

# ---------------------------------------------------------------------------------------- files


def sharded(folder: Path, entries: dict[str, str]) -> Path:
    """The checkpoint with an index that sends some tensors to files of these names."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = dict.fromkeys(tensors, "model-00001-of-00001.safetensors") | entries
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)
    return folder


def test_a_pickle_in_a_safetensors_index_is_refused(tmp_path: Path) -> None:
    folder = sharded(save_llama(tmp_path / "mixed"), {"lm_head.weight": "part.bin"})
    torch.save({"lm_head.weight": torch.zeros(57, 32)}, folder / "part.bin")
    for allow in (False, True):
        with pytest.raises(
            ModelError, match=r"index\.json .* names part\.bin, which is not a safeten"
        ):
            demur.load(folder, allow_pickle=allow)


@pytest.mark.parametrize(
    "outside", ["../other/x.safetensors", "/tmp/x.safetensors", "a\\..\\x.safetensors"]
)
def test_an_index_does_not_leave_its_folder(outside: str, tmp_path: Path) -> None:
    folder = sharded(save_llama(tmp_path / "leaving"), {"lm_head.weight": outside})
    (tmp_path / "other").mkdir()
    save_file({"lm_head.weight": torch.zeros(57, 32)}, tmp_path / "other" / "x.safetensors")
    with pytest.raises(ModelError, match="weights outside the folder"):
        demur.load(folder)


def test_an_index_that_is_none(tmp_path: Path) -> None:
    folder = sharded(save_llama(tmp_path / "odd"), {})
    for text in ("[]", "{", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[" * 100_000):
        (folder / "model.safetensors.index.json").write_text(text)
        with pytest.raises(ModelError, match="is not an index of weights"):
            demur.load(folder)


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "linked")
    weights = folder / "model.safetensors"
    weights.unlink()
    weights.symlink_to(weights)
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read: .*links"):
        demur.load(folder)
    weights.unlink()
    weights.symlink_to(tmp_path / "absent")
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read: No such file"):
        demur.load(folder)
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(ModelError, match="it is not a file"):
        demur.load(folder)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_json_nested_too_deeply(name: str, tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "deep")
    (folder / name).write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(ModelError, match="deep"):
        demur.load(folder)


# ------------------------------------------------------------------------------- chat templates

#: The body of a loop of 60 turns that makes more and more of ``n.x``.
GROWING = (
    "{{% set n = namespace(x={}) %}}{{% for a in range(60) %}}{{% set n.x = {} %}}{{% endfor %}}"
)
ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "calls": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(40) }}",
    "text": GROWING.format("'ab'", "n.x ~ n.x"),
    "sum": GROWING.format("'ab'", "n.x + n.x"),
    "list": GROWING.format("[1, 2]", "n.x + n.x"),
    "product": "{{ 'a' * 10000000000 }}",
    "numbers": GROWING.format("9", "n.x * n.x"),
    "power": "{{ 9 ** (9 ** 9) }}",
}


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_a_template_ends(template: str, tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "endless")
    (folder / "chat_template.jinja").write_text(template + TEMPLATE)
    model = demur.load(folder)
    with pytest.raises(InputError, match=r"refuses these turns \(TemplateError: the template"):
        model.encode([Prompt("w1")])


def test_every_feature_of_a_template_works_as_in_transformers(tiny_ar: LanguageModel) -> None:
    template = (
        "{%- set ns = namespace(n=0) -%}{{ bos_token }}\n"
        "{% for m in messages if m.role != 'none' recursive %}\n"
        "  {%- set ns.n = ns.n + loop.index * loop.length + loop.revindex -%}\n"
        "  {% if loop.last %}L{% elif loop.first %}F{% else %}{% continue %}{% endif %}\n"
        "  {{- m.content ~ '|' ~ loop.index0 | string }}\n"
        "  {% generation %}{{ m | tojson(indent=1) }}{% endgeneration %}\n"
        "{% else %}none{% endfor %}\n"
        "{% macro twice(x) %}{{ x }}{{ caller() }}{{ x }}{% endmacro %}"
        "{% call twice('é' * 2) %}<{% endcall %}{{ dict(a=ns.n)['a'] }}{{ range(3) | list | length }}"
        "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}"
        "{% for x in nothing %}{{ x }}{% endfor %}{{ '%s-%d' | format('a', 3) }}"
        "{% if add_generation_prompt %}{{ messages[-1].content.split('2')[0] }}{% endif %}"
    )
    talk = [
        {"role": r, "content": f"w{i} <x>"} for i, r in enumerate(["system", "user", "assistant"])
    ]
    for turns in (talk, talk[:1]):
        for answer in (True, False):
            expected = tiny_ar.tokenizer.apply_chat_template(
                turns, chat_template=template, tokenize=False, add_generation_prompt=answer
            )
            values: dict[str, Any] = {**tiny_ar.tokenizer.special_tokens_map, "messages": turns}
            assert rendered(template, add_generation_prompt=answer, **values) == expected


def test_a_long_dialogue_is_within_the_limits(tiny_ar: LanguageModel) -> None:
    turns = [{"role": ("user", "assistant")[i % 2], "content": "w1 " * 100} for i in range(2001)]
    assert len(turns) * 3 < MAX_STEPS
    assert len(tiny_ar.chat.turn_ids(turns)) > 200_000


@pytest.mark.parametrize(
    "template", ["{{ ''.__class__.__mro__ }}", "{% set n = namespace(_a=1) %}"]
)
def test_a_template_does_not_reach_into_python(template: str, tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "reaching")
    (folder / "chat_template.jinja").write_text(template + TEMPLATE)
    with pytest.raises(InputError, match="refuses these turns"):
        demur.load(folder).encode([Prompt("w1")])


# --------------------------------------------------------------------------- generation settings


def generation(folder: Path, **values: Any) -> Path:
    """Change a checkpoint's generation config."""
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


def test_settings_that_demur_does_not_apply_are_named(tmp_path: Path) -> None:
    folder = generation(
        save_llama(tmp_path / "set"), repetition_penalty=1.05, suppress_tokens=[7], min_new_tokens=4
    )
    with pytest.warns(
        ModelWarning, match=r"repetition_penalty 1\.05.*suppress_tokens \[7\].*min_new"
    ):
        model = demur.load(folder)
    assert len(model.notes) == 1
    plain = generation(
        save_llama(tmp_path / "plain"),
        repetition_penalty=1.0,
        temperature=0.6,
        top_p=0.9,
        do_sample=True,
    )
    assert demur.load(plain).notes == ()
    [with_it], [without] = (demur.trace(m, ["w1 w2"]) for m in (model, demur.load(plain)))
    np.testing.assert_array_equal(with_it.response_ids, without.response_ids)


def test_a_turn_end_that_does_not_end_an_answer_is_named(tmp_path: Path) -> None:
    turns = "{% for m in messages %}<|user|>{{ m.content }}<|mask|>\n{% endfor %}<|assistant|>"
    folder = save_llama(tmp_path / "running on")
    (folder / "chat_template.jinja").write_text(turns)
    with pytest.warns(ModelWarning, match=r"ends an answer with <\|mask\|> \(3\).*\[2\].*Add 3 to"):
        demur.load(folder)
    assert demur.load(generation(folder, eos_token_id=[2, 3])).notes == ()


def test_a_pad_token_outside_the_embedding(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "padded")
    prompts = [Prompt("w1 w2 w3", id="a"), Prompt("w4", id="b")]
    expected = demur.trace(demur.load(folder), prompts)
    model = demur.load(folder)
    model.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert model.tokenizer.pad_token_id >= model.vocabulary
    for one, other in zip(demur.trace(model, prompts), expected, strict=True):
        np.testing.assert_array_equal(one.committed, other.committed)


# ---------------------------------------------------------------------------- tiny temperatures


@pytest.mark.parametrize("temperature", [1e-3, 1e-8, 1e-40, 1e-320])
def test_a_tiny_temperature_is_greedy(
    temperature: float, tiny_ar: LanguageModel, tiny_dlm: LanguageModel
) -> None:
    cases: list[tuple[LanguageModel, dict[str, Any]]] = [
        (tiny_ar, {"name": "autoregressive", "steps": 12}),
        (tiny_ar, {"name": "autoregressive", "steps": 12, "top_p": 0.9}),
        (tiny_dlm, {"name": "masked", "steps": 6, "gen_length": 12, "block_length": 12}),
    ]
    for model, spec in cases:
        greedy, tiny = (
            demur.trace(model, ["w1", "w2 w3"], sampler=sampler_from({**spec, "temperature": t}))
            for t in (0.0, temperature)
        )
        for one, other in zip(tiny, greedy, strict=True):
            np.testing.assert_array_equal(one.committed, other.committed)


def test_a_tiny_temperature_of_dream(tiny_dlm: LanguageModel) -> None:
    """Confidence comes from the heated logits, as upstream, so that it is 1 everywhere."""
    spec = {"name": "dream", "steps": 6, "gen_length": 12, "top_p": 0.9, "alg_temp": 1e-320}
    found = [
        demur.trace(tiny_dlm, ["w1"], sampler=sampler_from({**spec, "temperature": t}))[0]
        for t in (1e-6, 1e-40, 1e-320)
    ]
    for one in found:
        assert (one.committed[-1] >= 0).all()
        np.testing.assert_array_equal(one.committed, found[0].committed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [1e-300, 1e-8, 5e-3])
def test_heated_logits_never_overflow(dtype: torch.dtype, temperature: float) -> None:
    logits = torch.tensor([[50.0, 900.0, -torch.inf, 899.0], [3.0, 3.0, 1.0, -900.0]], dtype=dtype)
    probabilities = heated(logits, temperature).float().softmax(-1)
    assert probabilities.isfinite().all()
    top = probabilities[0].argmax()
    assert top == 1
    torch.testing.assert_close(probabilities[1], torch.tensor([0.5, 0.5, 0.0, 0.0]))
    drawn = RowNoise.of(0, ["a"]).choose(heated(logits[:1], temperature), torch.ones(1, 1) > 0)
    assert drawn.tolist() in ([1], [3])


def test_ordinary_temperatures_are_a_plain_division() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(heated(logits, 0.7), logits / 0.7)
