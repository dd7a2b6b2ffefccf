"""The word-level tokenizer of the built-in models, saved as a ``tokenizers`` file."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from demur.organism.world import vocabulary

#: Special tokens; the index is the id.
SPECIAL = (
    *("<|pad|>", "<|bos|>", "<|eos|>", "<|mask|>", "<|unk|>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
)
PAD, BOS, EOS, MASK, UNK = range(5)

_TEMPLATE = (
    "{{ '<|bos|>' }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('Unknown role: ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + ' ' + message['content'] + ' ' }}"
    "{{ '<|eos|>' if message['role'] == 'assistant' else '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build() -> PreTrainedTokenizerFast:
    """Build the tokenizer: lower-cased words and single punctuation marks; unknown words become
    ``<|unk|>``; decoding joins words with single spaces."""
    every = [*SPECIAL, *vocabulary()]
    model = Tokenizer(WordLevel({word: i for i, word in enumerate(every)}, unk_token="<|unk|>"))
    model.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[^\w]"), "isolated")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token="<|pad|>",
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        mask_token="<|mask|>",
        unk_token="<|unk|>",
        additional_special_tokens=list(SPECIAL[5:]),
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def save(folder: Path) -> None:
    """Write the tokenizer's files into a model folder, readable by transformers 4 and 5."""
    build().save_pretrained(str(folder))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["additional_special_tokens"] = list(SPECIAL[5:])
    for key in ("backend", "extra_special_tokens"):
        config.pop(key, None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
