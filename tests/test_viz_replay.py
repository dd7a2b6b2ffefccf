"""The replay's data: cells of real traces, and nothing in them that a page could run."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest

import demur
from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, Masked
from demur.types import Trace
from demur.viz.replay import Scene, TokenCell, as_script_json, replay_element, replay_html, scene

HOSTILE = "</script><script>alert(1)</script>&amp;\u2028<!--"


def text_of(token: int) -> str:
    return f"t{token}"


@pytest.fixture(scope="module")
def diffused(tiny_dlm: LanguageModel) -> Trace:
    sampler = Masked(steps=4, gen_length=8, block_length=8)
    return demur.trace(tiny_dlm, ["w1 w2"], sampler=sampler)[0]


@pytest.fixture(scope="module")
def written(tiny_ar: LanguageModel) -> Trace:
    return demur.trace(tiny_ar, ["w1 w2"], sampler=Autoregressive(steps=6))[0]


def scripts(page: str) -> list[str]:
    return re.findall(r"<script(?: [^>]*)?>(.*?)</script>", page, re.DOTALL)


def data_of(page: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(scripts(page)[0])
    return found


def test_a_diffusion_scene_shows_drafts_until_they_are_committed(diffused: Trace) -> None:
    made = scene(diffused, np.linspace(0, 1, 4), text_of=text_of, title="dlm")
    assert len(made.steps) == diffused.n_steps
    for cells, draft, committed in zip(made.steps, diffused.draft, diffused.committed, strict=True):
        assert [c.text for c in cells] == [f"t{token}" for token in draft]
        assert [c.state == "committed" for c in cells] == (committed >= 0).tolist()
    assert {c.state for c in made.steps[0]} == {"draft", "committed"}
    assert {c.state for c in made.steps[-1]} == {"committed"}


def test_an_autoregressive_scene_leaves_later_positions_empty(written: Trace) -> None:
    made = scene(written, np.full(written.n_steps, 0.5), text_of=text_of, title="ar")
    for place, cells in enumerate(made.steps, 1):
        assert [c.state for c in cells[:place]] == ["committed"] * place
        assert set(cells[place:]) <= {TokenCell("", "masked")}


def test_a_prefilled_beginning_is_shown_before_what_was_generated(tiny_ar: LanguageModel) -> None:
    prompt = demur.Prompt("w1", response=("w3 w4",))
    trace = demur.trace(tiny_ar, [prompt], sampler=Autoregressive(steps=3))[0]
    made = scene(trace, np.zeros(3), text_of=lambda token: tiny_ar.decode([token]), title="ar")
    assert [(c.text, c.state) for c in made.steps[0][:2]] == [
        ("w3", "committed"),
        ("w4", "committed"),
    ]
    assert [c.state for c in made.steps[0][2:]] == ["committed", "masked", "masked"]


def test_words_are_marked_without_case_and_punctuation(diffused: Trace) -> None:
    tokens = [t for t in np.unique(diffused.draft).tolist() if t != diffused.response_ids[-1]]
    texts = {tokens[0]: " Cannot,", tokens[1]: "DANGER"}
    made = scene(
        diffused,
        np.zeros(4),
        text_of=lambda token: texts.get(token, "word"),
        title="dlm",
        refusal_words={"cannot"},
        harmful_words={"danger", "cannot"},
    )
    marks = {cell.text: cell.mark for cells in made.steps for cell in cells}
    assert marks[" Cannot,"] == "refusal"
    assert marks["DANGER"] == "harmful"
    assert marks["word"] == ""


def test_positions_that_only_ever_held_the_end_are_left_out(diffused: Trace) -> None:
    last = int(diffused.draft.max()) + 1
    draft = np.concatenate([diffused.draft, np.full((4, 5), last)], axis=1)
    committed = np.concatenate([diffused.committed, np.full((4, 5), last)], axis=1)
    changed = {"draft": draft, "committed": committed, "finish_reason": "length"}
    longer = Trace(**{**vars(diffused), **changed})
    made = scene(longer, np.zeros(4), text_of=text_of, title="dlm", end_ids={last})
    assert [c.mark for c in made.steps[-1]] == [""] * 8 + ["end"]


def test_the_token_a_response_ended_with_is_marked(diffused: Trace) -> None:
    end = int(diffused.draft[-1][0])
    changed = {"finish_reason": "stop", "response_ids": np.array([end], dtype=np.int32)}
    stopped = Trace(**{**vars(diffused), **changed})
    made = scene(stopped, np.zeros(4), text_of=text_of, title="dlm")
    assert made.steps[-1][0].mark == "end"


def test_a_signal_longer_than_the_trace_is_cut_and_a_shorter_one_refused(diffused: Trace) -> None:
    made = scene(diffused, np.linspace(0, 1, 9), text_of=text_of, title="dlm")
    assert made.sigma == pytest.approx([0, 0.125, 0.25, 0.375])
    with pytest.raises(InputError, match="4 steps and 3 values of sigma"):
        scene(diffused, np.zeros(3), text_of=text_of, title="dlm")


def test_a_flag_must_be_one_of_the_steps(diffused: Trace) -> None:
    with pytest.raises(InputError, match="flagged at step 5 of 4"):
        scene(diffused, np.zeros(4), text_of=text_of, title="dlm", flagged=5)


def test_nothing_to_replay_is_refused() -> None:
    with pytest.raises(InputError, match="no scenes"):
        replay_html([])
    with pytest.raises(InputError, match="0 steps"):
        Scene("t", "p", [], [])


def test_the_fragment_carries_the_scene(diffused: Trace) -> None:
    made = scene(diffused, [0.1, math.nan, 0.3, 0.98765], text_of=text_of, title="dlm", flagged=2)
    (found,) = data_of(replay_html([made]))
    assert found["title"] == "dlm"
    assert found["total"] == 4
    assert found["flagged"] == 2
    assert [step["sigma"] for step in found["steps"]] == [0.1, None, 0.3, 0.9877]
    first = made.steps[0][0]
    assert found["steps"][0]["cells"][0] == [first.text, first.state[0], ""]


def test_hostile_text_cannot_leave_its_place() -> None:
    cells = [TokenCell(HOSTILE, "committed", "harmful")]
    page = replay_html([Scene(HOSTILE, HOSTILE, [cells], [0.5], note=HOSTILE)])
    data, script = scripts(page)
    assert "alert(1)" not in script
    assert not set("<>&\u2028") & set(data)
    (found,) = json.loads(data)
    assert found["prompt"] == found["title"] == found["note"] == HOSTILE
    assert found["steps"][0]["cells"][0][0] == HOSTILE
    assert "<script>alert" not in page


def test_json_for_a_script_refuses_what_json_cannot_say() -> None:
    assert json.loads(as_script_json({"a": "\ud800<"})) == {"a": "\ud800<"}
    with pytest.raises(ValueError, match="JSON"):
        as_script_json(math.inf)


def test_the_fragment_names_no_address(diffused: Trace) -> None:
    page = replay_html([scene(diffused, np.zeros(4), text_of=text_of, title="dlm")])
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}


def test_only_the_whole_fragment_has_its_own_switch(diffused: Trace) -> None:
    made = [scene(diffused, np.zeros(4), text_of=text_of, title="dlm")]
    assert "data-own-theme>" in replay_html(made)
    assert "data-own-theme" not in replay_element(made)
