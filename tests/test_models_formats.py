"""GGUF files and PEFT adapters: read as the original tools read them, and named when they cannot be."""

from __future__ import annotations

import dataclasses
import json
import shutil
import string
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import demur
from conftest import TEMPLATE, not_here, save_llama
from demur.errors import DemurError, InputError, MissingExtraError, ModelError
from demur.models import ModelWarning
from demur.models.checkpoint import find
from demur.types import Prompt

TEXT = "w1 w2 w3"


def need(module: str) -> Any:
    """An optional part."""
    try:
        return __import__(module)
    except ImportError:
        return not_here(f"{module} is not installed")


# ---------------------------------------------------------------------------------------- GGUF


def save_gguf(file: Path, folder: Path, *, kind: str = "llama", quantized: bool = False) -> Path:
    """A checkpoint of ``save_llama`` as llama.cpp converts it, with a byte-level tokenizer."""
    gguf = need("gguf")
    need("accelerate")
    config = json.loads((folder / "config.json").read_text())
    heads, kept = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(file, kind)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kept)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_string("general.base_model.0.repo_url", "https://huggingface.co/house/tiny-llama")
    special = ["<|pad|>", "<|bos|>", "<|eos|>", "<|unk|>", "<|user|>", "<|assistant|>"]
    letters = [*string.ascii_lowercase, *string.digits, *string.ascii_uppercase[::-1]]
    tokens = [*special, "Ġ", "w1", "w2", *letters][: config["vocab_size"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(special) + [1] * (len(tokens) - len(special)))
    writer.add_token_merges(["w 1", "w 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(3)
    writer.add_chat_template(TEMPLATE)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "model.layers": "blk",
    }
    for name, value in load_file(folder / "model.safetensors").items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        for part, count in (("attn_q.", heads), ("attn_k.", kept)):
            if part in name:  # llama.cpp rotates neighbours, transformers halves
                rows, columns = value.shape
                value = value.view(count, 2, rows // count // 2, columns).swapaxes(1, 2)
                value = value.reshape(rows, columns)
        array = value.numpy()
        if quantized and array.ndim == 2:
            coded = gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, coded, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that the GGUF files are made of."""
    return save_llama(tmp_path_factory.mktemp("original") / "tiny-llama")


@pytest.mark.parametrize("quantized", [False, True])
def test_a_gguf_file_holds_the_same_model(original: Path, quantized: bool, tmp_path: Path) -> None:
    file = save_gguf(tmp_path / "tiny.Q8_0.gguf", original, quantized=quantized)
    model = demur.load(file)
    assert model.name == "tiny.Q8_0"
    assert not hasattr(model.net.config, "quantization_config")
    exact = demur.load(original).net.state_dict()
    for name, value in model.net.state_dict().items():
        torch.testing.assert_close(value, exact[name], rtol=0, atol=0.02 if quantized else 0)
    asked = [{"role": "system", "content": model.system}, {"role": "user", "content": TEXT}]
    found = model.tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)
    assert model.chat.ids(Prompt(TEXT), mask_id=None) == found["input_ids"]
    [one] = demur.trace(model, [TEXT])
    assert one.fingerprint.revision == find(file).revision != find(original).revision


def test_a_folder_with_one_gguf_file_is_that_file(original: Path, tmp_path: Path) -> None:
    file = save_gguf(tmp_path / "tiny.gguf", original)
    assert find(tmp_path).revision == find(file).revision
    (tmp_path / "mmproj-tiny.gguf").write_bytes(b"GGUF")
    assert find(tmp_path).gguf == "tiny.gguf"
    shutil.copy(file, tmp_path / "tiny.Q4_0.gguf")
    with pytest.raises(ModelError, match=r"2 GGUF files: tiny\.Q4_0\.gguf, tiny\.gguf\. Give one"):
        demur.load(tmp_path)
    assert find(file).gguf == "tiny.gguf"


def test_gguf_files_that_cannot_be_read(original: Path, tmp_path: Path) -> None:
    strange = save_gguf(tmp_path / "odd.gguf", original)
    strange.write_bytes(strange.read_bytes().replace(b"llama", b"lloma"))
    with pytest.raises(ModelError, match=r"architecture 'lloma'.*hf download house/tiny-lloma"):
        demur.load(strange)
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    with pytest.raises(ModelError, match=r"cut\.gguf is not a GGUF file, or damaged"):
        demur.load(tmp_path / "cut.gguf")
    (tmp_path / "big-00001-of-00002.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        ModelError, match=r"llama-gguf-split --merge big-00001-of-00002\.gguf big\.gguf"
    ):
        demur.load(tmp_path / "big-00001-of-00002.gguf")
    with pytest.raises(ModelError, match="there is no such file"):
        demur.load(tmp_path / "absent.gguf")
    with pytest.raises(ModelError, match="is quantized already"):
        demur.load(strange, bits=4)


def test_a_missing_reader_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demur.models.formats.find_spec", lambda name: None)
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    with pytest.raises(MissingExtraError, match=r"GGUF file.*demur\[gguf\]"):
        demur.load(tmp_path)
    folder = save_llama(tmp_path / "base")
    adapter = tmp_path / "lora"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(folder)})
    )
    save_file({}, adapter / "adapter_model.safetensors")
    for options in ({"name": adapter}, {"name": folder, "adapter": adapter}):
        with pytest.raises(MissingExtraError, match=r"adapter.*demur\[peft\]"):
            demur.load(**options)


# ------------------------------------------------------------------------------------ adapters


def save_lora(folder: Path, base: Path, *, seed: int = 1, **settings: Any) -> Path:
    """A random LoRA of all linear layers, saved by PEFT."""
    peft = need("peft")
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        target_modules="all-linear",
        init_lora_weights=False,
        **{"r": 4, "lora_alpha": 16, **settings},
    )
    with warnings.catch_warnings():
        # PEFT asks transformers for what it calls by another name now.
        warnings.simplefilter("ignore", FutureWarning)
        net = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        net.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the adapters adapt."""
    return save_llama(tmp_path_factory.mktemp("adapted") / "base")


@pytest.fixture(scope="module")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of it."""
    return save_lora(tmp_path_factory.mktemp("adapters") / "lora", base)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*", "ignore::UserWarning:peft.*")
@pytest.mark.parametrize("saved", [[], ["lm_head", "embed_tokens"]])
def test_an_adapter_gives_peft_s_own_numbers(saved: list[str], base: Path, tmp_path: Path) -> None:
    peft = need("peft")
    from transformers import AutoModelForCausalLM

    folder = save_lora(tmp_path / "lora", base, modules_to_save=saved or None)
    model = demur.load(folder)
    net = AutoModelForCausalLM.from_pretrained(base)
    whole = peft.PeftModel.from_pretrained(net, folder).eval()
    ids = model.encode([Prompt(TEXT)]).ids
    found = model.logits(model.states(ids, None)["last"])
    assert not torch.allclose(found, demur.load(base).net(ids).logits, atol=1e-2)
    torch.testing.assert_close(found, whole(ids).logits, rtol=0, atol=1e-5)
    merged = whole.merge_and_unload()(ids).logits
    torch.testing.assert_close(found, merged, rtol=1e-4, atol=1e-4)
    out = whole.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    [one] = demur.trace(model, [Prompt(TEXT)])
    kept = min(8, len(one.response_ids))
    assert one.response_ids[:kept].tolist() == out[:kept].tolist()


def test_an_adapter_is_named(base: Path, lora: Path, tmp_path: Path) -> None:
    plain, alone, beside = find(base), find(lora), find(base, adapter=lora)
    assert (alone.name, alone.revision) == (beside.name, beside.revision)
    assert alone.name == "base+lora"
    assert alone.revision.startswith(f"{plain.revision}+")
    other = find(base, adapter=save_lora(tmp_path / "lora", base, seed=2))
    assert other.name == alone.name
    assert other.revision != alone.revision
    mark = demur.trace(demur.load(lora), [TEXT]).fingerprint
    assert (mark.model, mark.revision) == (alone.name, alone.revision)


def test_an_adapter_beside_weights_is_applied_only_when_asked_for(
    base: Path, lora: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    for file in lora.glob("adapter_*"):
        shutil.copy(file, folder)
    with pytest.warns(ModelWarning, match="an adapter beside its weights, which is not applied"):
        plain = demur.load(folder)
    assert plain.notes
    assert (plain.name, plain.revision) == (find(base).name, find(base).revision)
    assert not any("lora" in name for name, _ in plain.net.named_parameters())
    applied = demur.load(folder, adapter=folder)
    assert not applied.notes
    assert any("lora" in name for name, _ in applied.net.named_parameters())


def test_an_adapter_of_a_masked_model_and_of_a_built_in_one(tmp_path: Path, base: Path) -> None:
    card = {"family": "masked", "mask_token_id": 3}
    folder = save_llama(tmp_path / "dlm", card=card)
    model = demur.load(folder, adapter=save_lora(tmp_path / "lora", folder))
    assert model.traits.attention == "bidirectional"
    assert demur.trace(model, [TEXT])[0].fingerprint.model == "dlm+lora"


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*", "ignore::UserWarning:peft.*")
def test_adapters_that_cannot_be_applied(base: Path, lora: Path, tmp_path: Path) -> None:
    peft = need("peft")
    from transformers import AutoModelForCausalLM

    moved = tmp_path / "moved"
    shutil.copytree(lora, moved)
    config = json.loads((moved / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "house/absent"
    (moved / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"adapter of 'house/absent'.*demur\.load\(BASE, adapter="):
        demur.load(moved)
    assert find(base, adapter=moved).adapter

    tensors = load_file(moved / "adapter_model.safetensors")
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, moved / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="does not fit base"):
        demur.load(base, adapter=moved)
    (moved / "adapter_model.safetensors").rename(moved / "adapter_model.bin")
    with pytest.raises(ModelError, match="only a pickle"):
        demur.load(base, adapter=moved)

    net = AutoModelForCausalLM.from_pretrained(base)
    prompted = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    peft.get_peft_model(net, prompted).save_pretrained(tmp_path / "prompted")
    with pytest.raises(ModelError, match=r"PROMPT_TUNING.*such as LoRA"):
        demur.load(base, adapter=tmp_path / "prompted")
    with pytest.raises(ModelError, match=r"no readable adapter_config\.json"):
        demur.load(base, adapter=base)
    with pytest.raises(ModelError, match="No adapter at 'house/absent'"):
        demur.load(base, adapter="house/absent")


# --------------------------------------------------------------------- system prompt, arguments


THINKS = (
    "<|bos|>{% for m in messages %}{{ m.content }} {% endfor %}<|assistant|>"
    "{% if enable_thinking is defined and enable_thinking is false %} w7{% endif %}"
    "{% if not mood is defined %}{% set mood = 'w8' %}{% endif %} {{ mood }}"
)


def test_a_system_prompt_and_the_template_s_arguments(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "thinks"
    shutil.copytree(base, folder)
    (folder / "chat_template.jinja").write_text(THINKS)
    plain = demur.load(folder)
    assert demur.load(folder, template={}).revision == plain.revision == find(folder).revision
    model = demur.load(folder, system="w9", template={"mood": "w6", "enable_thinking": False})
    shown = model.decode(model.encode([Prompt(TEXT)]).ids[0].tolist())
    assert shown.split() == ["w9", "w1", "w2", "w3", "w7", "w6"]
    assert plain.decode(plain.encode([Prompt(TEXT)]).ids[0].tolist()).split()[-1] == "w8"
    mark = demur.trace(model, [TEXT]).fingerprint
    assert mark.system == "w9"
    assert mark.revision == f'{plain.revision}?enable_thinking=false&mood="w6"'
    bare = demur.load(folder, system="")
    assert bare.decode(bare.encode([Prompt(TEXT)]).ids[0].tolist()).split()[0] == "w1"
    with pytest.raises(
        InputError, match=r"no argument 'thinking'.*It takes: enable_thinking, mood"
    ):
        demur.load(folder, template={"thinking": False})
    again = dataclasses.replace(model, template={})
    assert again.chat.options == {}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*", "ignore::UserWarning:peft.*")
def test_a_network_in_memory_with_an_adapter(base: Path, lora: Path) -> None:
    peft = need("peft")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    whole = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), lora).eval()
    model = demur.load(whole, tokenizer=tokenizer, system="w9")
    ids = model.encode([Prompt(TEXT)]).ids
    found = model.logits(model.states(ids, None)["last"])
    torch.testing.assert_close(found, whole(ids).logits, rtol=0, atol=1e-5)
    plain = demur.load(AutoModelForCausalLM.from_pretrained(base), tokenizer=tokenizer)
    assert plain.revision != model.revision
    with pytest.raises(ModelError, match="adapter cannot be set here"):
        demur.load(whole, tokenizer=tokenizer, adapter=lora)
    prompted = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ModelError, match=r"PROMPT_TUNING.*such as LoRA"):
        demur.load(
            peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), prompted),
            tokenizer=tokenizer,
        )


def test_the_command_line_takes_them(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from demur.cli import app
    from demur.store import Store

    folder = tmp_path / "thinks"
    shutil.copytree(base, folder)
    (folder / "chat_template.jinja").write_text(THINKS)
    settings = {**json.loads((folder / "generation_config.json").read_text()), "min_new_tokens": 2}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    (tmp_path / "prompts.txt").write_text(f"{TEXT}\n")
    loading = ["--model", str(folder), "--system", "w9", "--template", "enable_thinking=false"]
    for words in (
        ["trace", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "run"), *loading],
        ["watch", TEXT, *loading, "--delay", "0"],
    ):
        with suppress(DemurError):  # watch has no anchors of such a model
            app(words, standalone_mode=False)
        assert "demur: WARNING: generation_config.json of thinks sets min_new_tokens 2" in (
            capsys.readouterr().err
        )
    mark = Store.open(tmp_path / "run").manifest.fingerprint
    assert (mark.system, mark.revision.rsplit("?")[1]) == ("w9", "enable_thinking=false")
    with pytest.warns(ModelWarning, match="min_new_tokens 2"):
        model = demur.load(folder, system="w9", template={"enable_thinking": False})
    assert mark == demur.trace(model, [TEXT]).fingerprint
