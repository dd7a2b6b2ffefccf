"""A checkpoint's tokenizer and chat template: prompts to token ids.

No token is added beyond the template's own, and the text of a control token inside a prompt stays
text. Ids of any other prompt equal those of ``apply_chat_template``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from demur.errors import InputError, ModelError
from demur.models.checkpoint import Checkpoint
from demur.models.formats import quiet, sentence
from demur.models.sandbox import arguments, literals, rendered
from demur.thoughts import is_mark, knows_thoughts, opening
from demur.types import Prompt, Template

#: Placeholder for the user's text while the template is rendered; a model never reads it.
_TEXT = "\ue0f2text\ue0f2"


def load_tokenizer(checkpoint: Checkpoint, *, native: str = "AutoTokenizer") -> Any:
    """Load the tokenizer, padded on the left; the adapter's own if it has one.

    Args:
        checkpoint: where it is.
        native: the transformers class to load it with, for families whose config or tokenizer names
            remote code.

    Raises:
        ModelError: none there, or it has no chat template.
    """
    import transformers

    own = checkpoint.adapter.tokenizer if checkpoint.adapter else None
    source: dict[str, Any] = {"revision": checkpoint.hub_revision}
    if checkpoint.gguf:
        source = {"gguf_file": checkpoint.gguf}
    try:
        with quiet():
            tokenizer = getattr(transformers, native).from_pretrained(
                str(own or checkpoint.location),
                trust_remote_code=False,
                padding_side="left",
                **({} if own else source),
            )
    except Exception as error:
        raise ModelError(
            f"Could not load the tokenizer of {checkpoint.name}: {sentence(error)} "
            "Check that its tokenizer files are in the folder."
        ) from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"The tokenizer of {checkpoint.name} has no chat template. Use the instruction-tuned "
            "checkpoint or put a chat_template.jinja beside it."
        )
    return tokenizer


def unknown_words(tokenizer: Any, texts: Iterable[str]) -> list[str]:
    """Words of these texts that a word-level vocabulary does not have, in order, each once.

    Other vocabularies spell every word, so for them the list is empty.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ != "WordLevel" or not backend.pre_tokenizer:
        return []
    known, found = tokenizer.get_vocab(), dict[str, None]()
    for text in texts:
        plain = backend.normalizer.normalize_str(text) if backend.normalizer else text
        words = (word for word, _ in backend.pre_tokenizer.pre_tokenize_str(plain))
        found |= dict.fromkeys(word for word in words if word.isalnum() and word not in known)
    return list(found)


def end_ids(tokenizer: Any, net: Any, *turn_ends: str | None) -> tuple[int, ...]:
    """Tokens that end a response: the generation config's, the tokenizer's and ends of a turn.

    ``turn_ends`` are token texts; those that the tokenizer does not know are left out.
    """
    ids: list[int] = []
    for source in (getattr(net, "generation_config", None), tokenizer):
        found = getattr(source, "eos_token_id", None)
        ids += found if isinstance(found, list | tuple) else [] if found is None else [found]
    turns = [tokenizer.convert_tokens_to_ids(text) for text in turn_ends if text]
    ids += [i for i in turns if i not in (None, tokenizer.unk_token_id)]
    return tuple(dict.fromkeys(int(i) for i in ids))


def mask_id(checkpoint: Checkpoint, tokenizer: Any, *, released: str) -> int:
    """The mask token that the config names, or else the tokenizer.

    Args:
        checkpoint: its config may have ``mask_token_id``.
        tokenizer: its tokenizer.
        released: the mask token of the family's released checkpoints, for the message.

    Raises:
        ModelError: neither names one.
    """
    found = checkpoint.config.get("mask_token_id")
    if found is None:
        found = tokenizer.mask_token_id
    if not isinstance(found, int):
        raise ModelError(
            f"{checkpoint.name} is a masked diffusion model without a mask token: its config has "
            f"mask_token_id {checkpoint.config.get('mask_token_id')!r} and its tokenizer none. Add "
            f"mask_token_id to config.json ({released} in the released ones)."
        )
    return found


@final
@dataclass(frozen=True)
class Chat:
    """A tokenizer's chat template with a system prompt.

    Attributes:
        name: of the model, for messages.
        tokenizer: a transformers tokenizer with a chat template.
        system: the system prompt; put before the user's text if the template has no place for one.
        options: arguments of the template, besides the turns.
        control_ids: tokens that control generation, even if the tokenizer does not mark them so.
    """

    name: str
    tokenizer: Any
    system: str
    options: Mapping[str, Any]
    control_ids: tuple[int, ...] = ()

    def ids(self, prompt: Prompt, *, mask_id: int | None) -> list[int]:
        """Token ids of the whole prompt, with ``mask_id`` in the masked slots of a user template.

        Raises:
            InputError: the prompt has masked slots and the model no mask token, or the template
                refuses the prompt's earlier turns.
            ModelError: the template does not show the user's text once and unchanged.
        """
        if prompt.turns:
            said = [{"role": turn.role, "content": turn.content} for turn in prompt.turns]
            asked = {"role": "user", "content": prompt.text}
            slots = None if prompt.user is None else self._slots(prompt, prompt.user, mask_id)
            return self.dialogue_ids([*said, asked], last=slots)
        frame = self._asked(_TEXT).split(_TEXT)
        if len(frame) != 2:
            raise ModelError(
                f"The chat template of {self.name} shows the user's text {len(frame) - 1} times "
                "unchanged, not once. Correct chat_template.jinja, or the chat_template of "
                "tokenizer_config.json."
            )
        if prompt.user is None and not self._cuts(prompt.text):
            return self._tokens(self._asked(prompt.text))
        before, after = (self._tokens(part) for part in frame)
        if prompt.user is None:
            return [*before, *self.plain_ids(prompt.text), *after]
        return [*before, *self._slots(prompt, prompt.user, mask_id), *after]

    def _slots(self, prompt: Prompt, template: Template, mask_id: int | None) -> list[int]:
        """Token ids of a user template, with ``mask_id`` in its masked slots."""
        ids = self.template_ids(template)
        if mask_id is None and -1 in ids:
            raise InputError(
                f"Prompt {prompt.id} has masked slots, but {self.name} is autoregressive and has "
                "no mask token. Use a diffusion model."
            )
        return [mask_id if i < 0 and mask_id is not None else i for i in ids]

    def dialogue_ids(
        self, turns: Sequence[Mapping[str, str]], *, last: Sequence[int] | None = None
    ) -> list[int]:
        """Token ids of a dialogue and of the header of the answer.

        Args:
            turns: ``{"role": "system", "user" or "assistant", "content": text}`` in order. The
                model's own system prompt is put first if there is none.
            last: token ids that replace the last turn's content.

        Raises:
            InputError: the template refuses these turns.
        """
        if self.system and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": self.system}, *turns]
        return self.turn_ids(turns, last=last)

    def turn_ids(
        self,
        turns: Sequence[Mapping[str, str]],
        *,
        after: str = "",
        last: Sequence[int] | None = None,
    ) -> list[int]:
        """Token ids of exactly these turns and of ``after``, the beginning of the answer.

        Args:
            turns: as for ``dialogue_ids``.
            after: how the answer begins.
            last: token ids that replace the last turn's content.

        Raises:
            InputError: the template refuses these turns.
        """
        texts = [turn["content"] for turn in turns]
        parts = self._folded([{**turn, "content": _TEXT} for turn in turns]).split(_TEXT)
        if len(parts) != len(turns) + 1:
            raise InputError(
                f"The chat template of {self.name} shows {len(parts) - 1} of these {len(turns)} turns. "
                "Use a model whose template shows every turn."
            )
        if last is not None and not any(map(self._cuts, texts[:-1])):
            shown = self._folded([*turns[:-1], {**turns[-1], "content": _TEXT}])
            before, _, behind = shown.partition(_TEXT)
            return [*self._tokens(before), *last, *self._tokens(behind + after)]
        if last is not None:
            ids = self._tokens(parts[0])
            for text, behind in zip(texts[:-1], parts[1:-1], strict=True):
                ids += [*self.plain_ids(text), *self._tokens(behind)]
            return [*ids, *last, *self._tokens(parts[-1] + after)]
        if not any(map(self._cuts, texts)):
            return self._tokens(self._folded(turns) + after)
        return self.framed_ids([*parts[:-1], parts[-1] + after], texts)

    def framed_ids(self, frame: Sequence[str], texts: Sequence[str]) -> list[int]:
        """Token ids of user texts between the parts of a frame; only the frame has control tokens.

        All is read in one piece if it can be: some tokenizers put a space before every piece.
        """
        if not any(map(self._cuts, texts)):
            pairs = zip(frame, [*texts, ""], strict=True)
            return self._tokens("".join(part for pair in pairs for part in pair))
        ids = self._tokens(frame[0])
        for text, behind in zip(texts, frame[1:], strict=True):
            ids += [*self.plain_ids(text), *self._tokens(behind)]
        return ids

    def template_ids(self, template: Template) -> list[int]:
        """Token ids of a template, -1 for each masked slot."""
        ids: list[int] = []
        for part in template:
            ids += self.plain_ids(part) if isinstance(part, str) else [-1] * part
        return ids

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of user text; the text of a control token is cut apart so that it stays text."""
        edges = [0, *self._cuts(text), len(text)]
        pieces = (text[a:b] for a, b in itertools.pairwise(edges))
        return [token for piece in pieces if piece for token in self._tokens(piece)]

    def text(self, ids: Sequence[int], *, special: bool = False) -> str:
        """See ``LanguageModel.decode``."""
        if self._hidden and not special:
            ids, special = [i for i in ids if i not in self._hidden], True
        text: str = self.tokenizer.decode(ids, skip_special_tokens=not special)
        return text

    def opening(self, ids: Sequence[int]) -> str:
        """The opening of a thought that a prompt of these tokens ends with; empty for none."""
        return opening(self.text(ids[-64:], special=True)) if self.thinks else ""

    @cached_property
    def thinks(self) -> bool:
        """Whether the chat template or the tokenizer knows marks of thoughts."""
        template = self.tokenizer.chat_template
        known = isinstance(template, str) and knows_thoughts(template)
        return known or bool(self._hidden)

    @cached_property
    def _hidden(self) -> frozenset[int]:
        """Special tokens that text leaves out, where others of them are marks of thoughts."""
        known = self.tokenizer.added_tokens_decoder
        ids = {i: str(known[i].content) for i in self.tokenizer.all_special_ids if i in known}
        marks = {i for i, text in ids.items() if is_mark(text)}
        return frozenset(ids.keys() - marks) if marks else frozenset()

    def render(self, turns: Sequence[Mapping[str, str]], *, answer: bool = True) -> str:
        """The template around these turns, as ``apply_chat_template(tokenize=False)`` returns it.

        The date is always the same. With ``answer``, the header of the answer comes last.
        """
        values = {**self.tokenizer.special_tokens_map, "tools": None, "documents": None}
        values |= {**self.options, "messages": [dict(turn) for turn in turns]}
        return rendered(self._source, add_generation_prompt=answer, **values)

    @property
    def _source(self) -> str:
        source: str = self.tokenizer.get_chat_template()
        return source

    @cached_property
    def control_tokens(self) -> frozenset[str]:
        """Texts that are never read as a token inside a prompt.

        Special tokens, the end and mask tokens, and added tokens that the template itself writes, such
        as ``<think>``. Other added tokens, such as Gemma's HTML tags and runs of line breaks, are
        ordinary text.
        """
        written = "\n".join(literals(self._source))
        kept = set(self.tokenizer.all_special_tokens)
        for number, token in self.tokenizer.added_tokens_decoder.items():
            text = token.content
            marks = any(not (each.isalnum() or each.isspace()) for each in text)
            if token.special or number in self.control_ids or (marks and text in written):
                kept.add(text)
        return frozenset(filter(None, kept))

    def turn_end(self) -> tuple[str, int] | None:
        """The control token that closes an answer in the template, if there is one: text and id."""
        turns = [{"role": r, "content": t} for r, t in (("user", "text"), ("assistant", _TEXT))]
        try:
            last = self.render(turns, answer=False).rsplit(_TEXT, 1)[1]
            inner = self.render([*turns, turns[0]], answer=False).rsplit(_TEXT, 1)[1]
        except Exception:
            return None
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(last, inner, strict=False))
        closing = "".join(a for a, _ in same).lstrip()
        found = [token for token in self.control_tokens if closing.startswith(token)]
        if not found:
            return None
        text = max(found, key=len)
        return text, int(self.tokenizer.convert_tokens_to_ids(text))

    def check_options(self, given: Mapping[str, Any]) -> None:
        """Raise InputError unless the template reads a variable of each of these names."""
        fixed = {"messages", "add_generation_prompt", "tools", "documents"}
        free = arguments(self._source) - fixed - self.tokenizer.special_tokens_map.keys()
        if unknown := sorted(given.keys() - free):
            raise InputError(
                f"The chat template of {self.name} takes no argument {unknown[0]!r}. It takes: "
                f"{', '.join(sorted(free)) or 'none'}."
            )

    def _asked(self, text: str) -> str:
        user = {"role": "user", "content": text}
        return self._folded([{"role": "system", "content": self.system}, user][not self.system :])

    def _folded(self, turns: Sequence[Mapping[str, str]]) -> str:
        """Render; a system turn that the template has no place for goes into the next turn."""
        if turns[0]["role"] == "system" and len(turns) > 1 and not self._shows_system():
            system, first, *others = turns
            folded = {**first, "content": f"{system['content']}\n\n{first['content']}"}
            turns = [folded, *others]
        try:
            return self.render(turns)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip()}"[:300]
            raise InputError(
                f"The chat template of {self.name} refuses these turns ({reason}). Correct "
                "chat_template.jinja, or use a model whose template takes them."
            ) from error

    def _shows_system(self) -> bool:
        """Whether the template shows a system turn; some raise an error, others leave it out."""
        turns = [{"role": "system", "content": _TEXT}, {"role": "user", "content": "text"}]
        try:
            return _TEXT in self.render(turns)
        except Exception:
            return False

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def _sizes(self) -> Mapping[str, set[int]]:
        """First character of control tokens -> their lengths."""
        sizes: dict[str, set[int]] = {}
        for token in self.control_tokens:
            sizes.setdefault(token[0], set()).add(len(token))
        return sizes

    def _cuts(self, text: str) -> list[int]:
        """Offsets one character into the text of each control token."""
        sizes, tokens = self._sizes, self.control_tokens
        return [
            place + 1
            for place, letter in enumerate(text)
            if letter in sizes and any(text[place : place + n] in tokens for n in sizes[letter])
        ]
