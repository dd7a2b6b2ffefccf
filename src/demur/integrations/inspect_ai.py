"""inspect_ai: a provider of models with a guard, and a scorer of the SRI signal.

    inspect eval task.py --model demur/organism-ar -M guard=guard.safetensors

inspect finds the provider ``demur`` through the entry point group ``inspect_ai``. A flagged generation
has an empty completion and the stop reason ``content_filter``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from demur.errors import InputError, MissingExtraError
from demur.generation import steps
from demur.guard import AnyGuard, StreamingGuard, load_guard
from demur.models import load
from demur.models.base import LanguageModel
from demur.parts import part_of, with_part
from demur.sampling import Sampler, sampler_with, spec
from demur.sri import Anchors, signal
from demur.thoughts import spoken, thinking
from demur.types import Prompt, Record, Trace, Traces, Turn

try:
    from inspect_ai.model import (
        ChatMessage,
        ContentReasoning,
        ContentText,
        GenerateConfig,
        ModelAPI,
        ModelOutput,
        StopReason,
        modelapi,
    )
    from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
    from inspect_ai.solver import TaskState
except ImportError as error:
    raise MissingExtraError("inspect_ai", "inspect") from error

#: Key of the metadata that provider and scorer write.
KEY = "demur"


@modelapi(name="demur")
class GuardedModel(ModelAPI):
    """A model that demur loads. Arguments (``-M name=value``): ``guard``, ``anchors``, ``dtype``,
    ``device``, ``revision``, ``adapter``, ``system``, ``template`` (such as
    ``-M 'template={enable_thinking: false}'``), and any setting of the sampler. A task's system message
    takes the place of ``system``.

    What the model thinks is given as reasoning beside the completion, which is the answer alone.

    Without anchors, given or in the guard, there is no signal. With anchors or a guard, their sampler
    is used, and the task's ``max_tokens`` only cuts the text afterwards, so that any task can run.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (the signature of inspect_ai)
        *,
        guard: str = "",
        anchors: str = "",
        dtype: str | None = None,
        device: str | None = None,
        revision: str | None = None,
        adapter: str | None = None,
        system: str | None = None,
        template: Mapping[str, Any] | None = None,
        **sampler: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if template is not None and not isinstance(template, Mapping):
            raise InputError(
                f"template is {template!r}. Write it so: -M 'template={{enable_thinking: false}}'"
            )
        self.model = load(
            model_name,
            dtype=dtype,
            device=device,
            revision=revision,
            adapter=adapter,
            system=system,
            template=template,
        )
        self.guard = load_guard(guard) if guard else None
        own = self.guard.anchors if self.guard else None
        self.anchors = Anchors.load(anchors) if anchors else own
        marks = [one.fingerprint for one in (self.guard, self.anchors) if one and one.fingerprint]
        mark = marks[0] if marks else None
        self.pooling = mark.pooling if mark else None
        self.fixed = mark is not None
        self.sampler = sampler_with(mark.sampler if mark else self.model.traits.sampler, sampler)

    def max_connections(self) -> int:
        """One: generations do not run in parallel."""
        return 1

    async def generate(
        self,
        input: list[ChatMessage],
        tools: Sequence[Any],
        tool_choice: Any,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Generate one answer under the guard.

        Raises:
            InputError: tools, a conversation that does not end with a user turn, or a setting that
                the model's sampler lacks.
        """
        from anyio import to_thread

        if tools:
            raise InputError("demur's models cannot call tools. Run the task without tools.")
        model, prompt = _asked(self.model, input)
        asked = {"temperature": config.temperature, "top_p": config.top_p}
        if not self.fixed:
            length = self.sampler.length_field
            asked[length] = config.max_tokens
        given = {name: value for name, value in asked.items() if value is not None}
        sampler = sampler_with(spec(self.sampler), given)
        return await to_thread.run_sync(lambda: self._answer(model, prompt, sampler, config))

    def _answer(
        self, model: LanguageModel, prompt: Prompt, sampler: Sampler, config: GenerateConfig
    ) -> ModelOutput:
        layers = {"last", *(self.guard.layers if self.guard else ())}
        layers |= {self.anchors.layer} if self.anchors else set()
        record = Record(layers=tuple(layers), pooling=self.pooling, seed=config.seed or 0)
        generation = steps(model, [prompt], sampler=sampler, record=record)
        guard = self.guard
        watched = guard.watch(generation) if isinstance(guard, StreamingGuard) else generation
        for _ in watched:
            pass
        traces = generation.traces()
        known = _evidence(traces, self.anchors, self.guard)
        if known.get("flagged"):
            output = ModelOutput.from_content(self.model_name, "", "content_filter")
        else:
            text, ended = _at_most(config.max_tokens, traces[0], model)
            said, thought = spoken(text), thinking(text)
            output = ModelOutput.from_content(self.model_name, said or "", ended)
            if thought:
                answer = ContentText(text=said or "")
                output.choices[0].message.content = [ContentReasoning(reasoning=thought), answer]
            if said is None:
                known["unanswered"] = True  # cut off while it thought
        output.metadata = {KEY: known}
        return output


@scorer(metrics=[mean(), stderr()])
def sri() -> Scorer:
    """The signal at the last step, in [0, 1], 1 = complying; the metadata has the whole series."""

    async def score(state: TaskState, target: Target) -> Score:
        known = (state.output.metadata or {}).get(KEY, {})
        if not known.get("sigma"):
            raise InputError(
                "No signal to score. Use a model demur/NAME with -M anchors=FILE or -M guard=FILE."
            )
        return Score(value=known["sigma"][-1], answer=state.output.completion, metadata=known)

    return score


def _asked(model: LanguageModel, messages: Sequence[ChatMessage]) -> tuple[LanguageModel, Prompt]:
    """The model with the task's system prompt, and the conversation."""
    turns = [message for message in messages if message.role != "system"]
    roles = [turn.role for turn in turns]
    if not {*roles} <= {"user", "assistant"} or roles[-1:] != ["user"]:
        raise InputError(
            "demur needs samples of user and assistant turns that end with a user turn; this one has: "
            f"{', '.join(roles) or 'none'}."
        )
    system = [message.text for message in messages if message.role == "system"]
    model = replace(model, system="\n\n".join(system)) if system else model
    before = [Turn("user" if t.role == "user" else "assistant", t.text) for t in turns[:-1]]
    return model, Prompt(turns[-1].text, turns=tuple(before))


def _at_most(tokens: int | None, trace: Trace, model: LanguageModel) -> tuple[str, StopReason]:
    """The response, cut to ``tokens``, and the stop reason."""
    ids = trace.response_ids.tolist()
    if tokens is not None and tokens < len(ids):
        opened = trace.response.removesuffix(model.decode(ids))
        return opened + model.decode(ids[:tokens]), "max_tokens"
    return trace.response, "stop" if trace.finish_reason == "stop" else "max_tokens"


def _evidence(traces: Traces, anchors: Anchors | None, guard: AnyGuard | None) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if anchors is not None and with_part(traces, anchors.part):
        steps = part_of(traces[0], anchors.part).n_steps
        sigma = signal(traces, anchors)[0, :steps]
        known["sigma"] = [round(float(value), 4) for value in sigma]
    if guard is not None and with_part(traces, guard.part):
        scores = guard.score(traces)
        known |= {
            "score": float(scores[0]),
            "p_value": float(guard.p_value(scores)[0]),
            "flagged": bool(scores[0] > guard.threshold),
        }
    return known
