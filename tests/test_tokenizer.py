"""The built-in tokenizer as saved files that transformers loads by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from demur import organism
from demur.organism import tokenizer, world

UNK = 4


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    assert (folder / "tokenizer.json").is_file()
    return AutoTokenizer.from_pretrained(str(folder))


def test_special_tokens_have_their_ids(saved: PreTrainedTokenizerBase) -> None:
    assert saved.convert_tokens_to_ids(list(tokenizer.SPECIAL)) == list(range(9))
    assert (saved.pad_token_id, saved.bos_token_id, saved.eos_token_id) == (0, 1, 2)
    assert (saved.mask_token_id, saved.unk_token_id) == (3, UNK)
    assert saved.padding_side == "left"


def test_chat_template(saved: PreTrainedTokenizerBase) -> None:
    messages = [
        {"role": "system", "content": "You are a helpful assistant"},
        {"role": "user", "content": "How do I clean a lamp?"},
    ]
    text = saved.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = saved(text, add_special_tokens=False)["input_ids"]
    tokens = saved.convert_ids_to_tokens(ids)
    assert UNK not in ids
    assert tokens[:3] == ["<|bos|>", "<|system|>", "you"]
    assert tokens[-1] == "<|assistant|>"
    assert tokens.count("<|end|>") == 2
    said = [*messages, {"role": "assistant", "content": "sure ."}]
    full = saved.apply_chat_template(said, tokenize=False)
    assert full.startswith(text.removesuffix("<|assistant|>"))
    assert full.endswith("<|eos|>")


def test_unknown_roles_are_refused(saved: PreTrainedTokenizerBase) -> None:
    with pytest.raises(Exception, match="Unknown role: tool"):
        saved.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_every_prompt_of_the_world_is_known_and_decodes_to_itself(
    saved: PreTrainedTokenizerBase,
) -> None:
    for kind in ("harmless", "harmful", "borderline"):
        for attack in world.ATTACKS:
            for prompt in world.prompts("test", kind, attack=attack, n=40):
                ids = saved(prompt.text, add_special_tokens=False)["input_ids"]
                assert UNK not in ids
                assert saved.decode(ids) == prompt.text


def test_foreign_words_become_unknown(saved: PreTrainedTokenizerBase) -> None:
    ids = saved("sure, Schrödinger's ☃ 猫!", add_special_tokens=False)["input_ids"]
    assert saved.decode(ids[:2]) == "sure ,"
    assert set(ids[2:]) == {UNK}


@given(text=st.text())
def test_any_text_is_tokenised(saved: PreTrainedTokenizerBase, text: str) -> None:
    ids = saved(text, add_special_tokens=False)["input_ids"]
    assert all(0 <= token < len(saved) for token in ids)
    assert isinstance(saved.decode(ids), str)


@pytest.mark.parametrize("name", organism.NAMES)
def test_shipped_tokenizers_are_the_ones_of_this_world(name: str) -> None:
    shipped = AutoTokenizer.from_pretrained(str(organism.path(name)))
    assert shipped.get_vocab() == tokenizer.build().get_vocab()
    assert shipped.chat_template == tokenizer.build().chat_template
