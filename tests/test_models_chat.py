"""Chat templates as they come: without a place for a system turn, with dates, broken."""

from __future__ import annotations

import copy
import dataclasses

import pytest

import demur
from demur.errors import InputError, ModelError
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive
from demur.types import Prompt

ASKED = [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]
DROPS = "{% for m in messages if m.role != 'system' %}<|user|>{{ m.content }}{% endfor %}"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + DROPS
TALKS = "{% if messages[0].role == 'system' %}{{ messages[0]['content'].no() }}{% endif %}" + DROPS


def with_template(model: LanguageModel, template: str) -> LanguageModel:
    """The same model with another chat template, its tokenizer left alone."""
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = template
    return dataclasses.replace(model, tokenizer=tokenizer)


def shown(model: LanguageModel, text: str = "w1 w2") -> str:
    return model.decode(model.encode([Prompt(text)]).ids[0].tolist(), special=True)


@pytest.mark.parametrize("template", [DROPS, REFUSES, TALKS], ids=["drops", "refuses", "breaks"])
def test_a_system_prompt_is_never_lost(template: str, tiny_ar: LanguageModel) -> None:
    model = with_template(tiny_ar, template)
    text = shown(model)
    assert text.index("helpful") < text.index("w1")
    assert text.count("<|user|>") == 1
    ids = model.chat.dialogue_ids(ASKED)
    assert model.decode(ids, special=True).count("helpful") == 1


def test_a_date_in_a_template_is_always_the_same(tiny_ar: LanguageModel) -> None:
    """As in the templates of Llama 3.1 and later, and of gpt-oss."""
    asks = "{% if strftime_now is defined %}{% set today = strftime_now('%d %b %Y') %}{% endif %}"
    model = with_template(
        tiny_ar, f"{asks}{{{{ today }}}} {{{{ strftime_now('%Y-%m-%d') }}}} <|user|>"
    )
    assert model.chat.render([{"role": "user", "content": ""}]) == "26 Jul 2024 2024-07-26 <|user|>"


@pytest.mark.parametrize(
    ("template", "times"),
    [
        ("<|user|>{{ messages[-1].content }}{{ messages[-1].content }}", 2),
        ("<|user|>{{ messages[-1].content | upper }}", 0),
        ("<|user|>hello", 0),
    ],
)
def test_a_template_that_does_not_show_the_text_once(
    template: str, times: int, tiny_ar: LanguageModel
) -> None:
    with pytest.raises(ModelError, match=rf"shows the user's text {times} times.*chat_template"):
        shown(with_template(tiny_ar, template))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for m in messages %}{{ m.content }}", "TemplateSyntaxError"),
        ("{{ messages + 1 }}", "TypeError"),
        ("{{ messages[9].content.text }}", "UndefinedError"),
    ],
)
def test_a_broken_template_says_why(template: str, said: str, tiny_ar: LanguageModel) -> None:
    with pytest.raises(InputError, match=rf"tiny-ar refuses these turns \({said}.*Correct"):
        shown(with_template(tiny_ar, template))


def test_a_prefill_counts_towards_the_context(
    tiny_ar: LanguageModel, tiny_dlm: LanguageModel
) -> None:
    room = tiny_ar.context_length - len(tiny_ar.encode([Prompt("w1")]).ids[0])
    begun = Prompt("w1", response=("w2 w3 w4",))
    assert tiny_ar.check_fits(Prompt("w1"), new_tokens=room)
    assert tiny_ar.check_fits(begun, new_tokens=room - 3) == tiny_ar.context_length - room + 3
    with pytest.raises(InputError, match="more than tiny-ar can read"):
        demur.trace(tiny_ar, [begun], sampler=Autoregressive(steps=room))
    assert tiny_dlm.check_fits(begun, new_tokens=room) == tiny_dlm.context_length - room


#: An HTML tag, a run of line breaks and a word are ordinary added tokens, as in Gemma 3. The template
#: writes line breaks, the word and a thought: only the last of these is a control token.
ADDED = ["\n\n", "\n\n\n", "<h1>", "</h1>", "w1", "<think>"]
THINKS = (
    "<|bos|>{% for m in messages %}{% if m.role == 'user' %}<|user|>{% endif %}\n\n{{ m.content }}"
    "{% endfor %}<|assistant|>{{ '<think>' }} w1"
)


@pytest.fixture(scope="module")
def html(tiny_ar: LanguageModel) -> LanguageModel:
    """A model whose tokenizer has added tokens that are no control tokens."""
    from tokenizers import AddedToken

    model = with_template(tiny_ar, THINKS)
    kinds = [AddedToken(text, special=False, normalized=False) for text in ADDED]
    model.tokenizer.add_tokens(kinds)
    return model


@pytest.mark.parametrize(
    "text",
    [
        "w1 w2",
        "w1\n\nw2",
        "\n\n\n\n w3 \n\n",
        "<h1>w1</h1>\n\n<h1> w2 </h1>",
        "w1w1 <h1",
        "< think >",
        "think> w1 <|",
        "<|user |> w1",
        "w1\u00a0w2 \ue000",
    ],
)
def test_ids_are_those_of_the_template(text: str, html: LanguageModel) -> None:
    turns = [{"role": "system", "content": html.system}, {"role": "user", "content": text}]
    found = html.tokenizer.apply_chat_template(
        turns, tokenize=True, add_generation_prompt=True, return_dict=True
    )
    expected = list(found["input_ids"])
    assert html.chat.ids(Prompt(text), mask_id=None) == expected
    assert html.chat.turn_ids(turns) == html.chat.dialogue_ids(turns[1:]) == expected


@pytest.mark.parametrize("control", ["<think>", "<|user|>", "<|eos|>", "<|mask|>", "<|bos|>"])
def test_a_control_token_in_a_prompt_is_text(control: str, html: LanguageModel) -> None:
    number = html.tokenizer.convert_tokens_to_ids(control)
    plain = html.chat.ids(Prompt("w2"), mask_id=None)
    for text in (control, f"w1 {control}{control} w2", f"\n\n{control[0]}{control}"):
        assert html.chat.ids(Prompt(text), mask_id=None).count(number) == plain.count(number)
        assert number not in html.chat.plain_ids(text)


def test_an_end_token_that_the_tokenizer_takes_for_a_word_is_control(html: LanguageModel) -> None:
    end = html.tokenizer.convert_tokens_to_ids("</h1>")
    model = dataclasses.replace(html, traits=dataclasses.replace(html.traits, end_ids=(2, end)))
    assert end in html.chat.plain_ids("w1 </h1>")
    assert end not in model.chat.plain_ids("w1 </h1>")
