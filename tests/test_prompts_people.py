"""Prompt files as people have them: exports of pandas, spreadsheets, data sets and chat logs."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demur.errors import InputError
from demur.prompts import (
    prompts_with_summary,
    read_completions,
    read_labels,
    read_prompts,
    write_prompts,
)
from demur.types import Prompt, Turn

CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": "how are you?"},
]
TURNS = (Turn("system", "be brief"), Turn("user", "hello"), Turn("assistant", "hi"))


def save(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# ------------------------------------------------------------------ columns


def test_a_jsonl_column_is_one_that_any_row_has(tmp_path: Path) -> None:
    rows = [{"prompt": "a"}, {"id": 7, "prompt": "b", "label": "unsafe"}]
    first, second = read_prompts(save(tmp_path, "p.jsonl", jsonl(*rows)))
    assert first.label == "unknown"
    assert (second.id, second.label) == ("7", "harmful")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_column_of_flags_is_no_prompt(tmp_path: Path, kind: str) -> None:
    """In WildGuardMix ``adversarial`` is true or false; in WildJailbreak it is the prompt."""
    rows = [
        {"prompt": "a", "adversarial": True, "prompt_harm_label": "harmful"},
        {"prompt": "b", "adversarial": False, "prompt_harm_label": "unharmful"},
    ]
    path = tmp_path / f"p.{kind}"
    if kind == "jsonl":
        save(tmp_path, path.name, jsonl(*rows))
    elif kind == "csv":
        lines = [f"{r['prompt']},{r['adversarial']},{r['prompt_harm_label']}" for r in rows]
        save(tmp_path, path.name, "\n".join(["prompt,adversarial,prompt_harm_label", *lines]))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    prompts = read_prompts(path)
    assert [(p.text, p.attack, p.label) for p in prompts] == [
        ("a", "none", "harmful"),
        ("b", "none", "harmless"),
    ]


def test_ids_that_became_floats_are_whole_again(tmp_path: Path) -> None:
    rows = [{"id": 1.0, "prompt": "a"}, {"id": None, "prompt": "b"}, {"id": 2.5, "prompt": "c"}]
    found = [p.id for p in read_prompts(save(tmp_path, "p.jsonl", jsonl(*rows)))]
    assert found == ["1", Prompt("b").id, "2.5"]
    prompts, summary = prompts_with_summary(
        save(tmp_path, "p.csv", ",id,prompt\n0,1.0,a\n1,,b\n2,3.0,c\n")
    )
    assert [p.id for p in prompts] == ["1", Prompt("b").id, "3"]
    assert "2 ids such as 1.0 were read as 1" in str(summary)
    versions = read_prompts(save(tmp_path, "v.csv", "id,prompt\n1.0,a\n1.10,b\n"))
    assert [p.id for p in versions] == ["1.0", "1.10"]
    pq.write_table(
        pa.table({"id": [1.0, float("nan")], "prompt": ["a", "b"]}), tmp_path / "p.parquet"
    )
    assert [p.id for p in read_prompts(tmp_path / "p.parquet")] == ["1", Prompt("b").id]


@pytest.mark.parametrize("index", ["", "Unnamed: 0", "__index_level_0__"])
def test_the_index_of_pandas_is_neither_taken_nor_suggested(tmp_path: Path, index: str) -> None:
    _, summary = prompts_with_summary(save(tmp_path, "p.csv", f"{index},prompt\n0,a\n1,b\n"))
    assert summary.unread == ()
    assert summary.columns == {"prompt": "prompt"}
    with pytest.raises(InputError, match=r"--column ask$"):
        read_prompts(save(tmp_path, "q.csv", f"{index},ask\n0123456789,a\n1,b\n"))


def test_a_missing_column_suggests_the_one_with_the_longest_texts(tmp_path: Path) -> None:
    path = save(tmp_path, "p.csv", "nr,words_to_send\n1,how do I bake a cake?\n")
    with pytest.raises(InputError, match=r"--column words_to_send$"):
        read_prompts(path)


# ------------------------------------------------------------------ formats


def test_json_lines_may_end_in_json_or_ndjson_and_be_packed(tmp_path: Path) -> None:
    rows = [{"prompt": "a\nb", "label": "safe"}, {"prompt": "c", "label": "unsafe"}]
    wanted = read_prompts(save(tmp_path, "p.jsonl", jsonl(*rows)))
    assert [p.text for p in wanted] == ["a\nb", "c"]
    for name in ("p.json", "p.ndjson"):
        assert read_prompts(save(tmp_path, name, jsonl(*rows))) == wanted
    for name in ("p.jsonl.gz", "p.json.gz"):
        packed = gzip.compress(jsonl(*rows).encode("utf-8-sig"))
        assert read_prompts(save(tmp_path, name, packed)) == wanted
    table = b'\xef\xbb\xbfprompt,label\r\n"a\nb",safe\r\nc,unsafe\r\n'
    assert read_prompts(save(tmp_path, "p.csv.gz", gzip.compress(table))) == wanted
    with pytest.raises(InputError, match="line 2: broken JSON"):
        read_prompts(save(tmp_path, "q.json", '{"prompt": "a"}\n{"prompt": \n'))
    with pytest.raises(InputError, match=r"holds a list.*ends in \.json"):
        read_prompts(save(tmp_path, "q.jsonl", '["a", "b"]\n'))


@pytest.mark.parametrize(
    "content",
    [
        'id;prompt;label\n1;"one, two; three";unsafe\n',
        'sep=;\nid;prompt;label\n1;"one, two; three";unsafe\n',
        '\ufeff"id";"prompt";"label"\r\n1;"one, two; three";unsafe\r\n',
        "id\tprompt\tlabel\n1\tone, two; three\tunsafe\n",
    ],
)
def test_a_csv_may_have_other_separators(tmp_path: Path, content: str) -> None:
    path = save(tmp_path, "p.csv", content)
    assert read_prompts(path) == [Prompt("one, two; three", "1", label="harmful")]


def test_a_tsv_field_may_begin_with_a_quote(tmp_path: Path) -> None:
    content = (
        'prompt\tlabel\n"hello" she said\tsafe\n"wrapped ""it"""\tunsafe\nan "inner" one\tsafe\n'
    )
    prompts, summary = prompts_with_summary(save(tmp_path, "p.tsv", content))
    assert [p.text for p in prompts] == ['"hello" she said', 'wrapped "it"', 'an "inner" one']
    assert "Quotes were read as text" in str(summary)
    spanning = 'prompt\tlabel\n"one\ntwo"\tsafe\n'
    assert [p.text for p in read_prompts(save(tmp_path, "q.tsv", spanning))] == ["one\ntwo"]
    both = 'prompt\tlabel\n"open\tsafe\nplain\tsafe\nclosed"\tunsafe\n'
    with pytest.raises(InputError, match=r"line 2: a field begins with a quote.*3 rows.*1 if"):
        read_prompts(save(tmp_path, "r.tsv", both))


def test_classes_of_a_data_set_have_their_names(tmp_path: Path) -> None:
    kind = {"names": ["safe", "unsafe"], "_type": "ClassLabel"}
    about = {"info": {"features": {"prompt": {"_type": "Value"}, "label": kind}}}
    table = pa.table({"prompt": ["a", "b", "c"], "label": [0, 1, -1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    pq.write_table(table, tmp_path / "p.parquet")
    found = [p.label for p in read_prompts(tmp_path / "p.parquet")]
    assert found == ["harmless", "harmful", "unknown"]


def test_harmbench_test_cases_and_lists_by_label(tmp_path: Path) -> None:
    cases = {"bake_1": ["bake it", "bake it now"], "brew_2": ["brew it"]}
    prompts = read_prompts(save(tmp_path, "cases.json", json.dumps(cases)))
    assert [(p.id, p.text) for p in prompts] == [
        ("bake_1", "bake it"),
        ("bake_1-2", "bake it now"),
        ("brew_2", "brew it"),
    ]
    lists = {"harmful": ["a", "b"], "harmless": ["c"]}
    prompts = read_prompts(save(tmp_path, "lists.json", json.dumps(lists)))
    assert [(p.text, p.label) for p in prompts] == [
        ("a", "harmful"),
        ("b", "harmful"),
        ("c", "harmless"),
    ]


# ------------------------------------------------------------------ conversations


@pytest.mark.parametrize("column", ["prompt", "messages", "conversation"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_conversations_are_read_alike_everywhere(tmp_path: Path, kind: str, column: str) -> None:
    rows = [
        {"id": "a", column: CHAT, "label": "safe"},
        {"id": "b", column: [*CHAT, {"role": "assistant", "content": "fine"}], "label": "safe"},
        {"id": "c", column: [{"role": "user", "content": "hello"}], "label": "unsafe"},
    ]
    path = tmp_path / f"p.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        save(tmp_path, path.name, jsonl(*rows) if kind == "jsonl" else json.dumps(rows))
    prompts, summary = prompts_with_summary(path)
    assert prompts == [
        Prompt("how are you?", "a", label="harmless", turns=TURNS),
        Prompt("how are you?", "b", label="harmless", turns=TURNS),
        Prompt("hello", "c", label="harmful"),
    ]
    assert "2 prompts have earlier turns" in str(summary)
    assert "1 conversations end with an answer, which was left out" in str(summary)


def test_sharegpt_parts_of_text_and_json_in_csv(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hi"}]
    said += [{"from": "human", "value": "how are you?"}]
    (prompt,) = read_prompts(save(tmp_path, "p.jsonl", jsonl({"conversations": said})))
    assert (prompt.text, prompt.turns) == ("how are you?", TURNS[1:])
    parts = [{"type": "text", "text": "how "}, {"type": "text", "text": "are you?"}]
    row = {"messages": [*CHAT[:3], {"role": "user", "content": parts}]}
    assert read_prompts(save(tmp_path, "q.jsonl", jsonl(row)))[0].turns == TURNS
    cell = json.dumps(CHAT).replace('"', '""')
    assert read_prompts(save(tmp_path, "r.csv", f'messages\n"{cell}"\n'))[0].turns == TURNS
    # A prompt that is written as JSON is a prompt.
    assert read_prompts(save(tmp_path, "s.csv", f'prompt\n"{cell}"\n'))[0].turns == ()


CONVERSATIONS = {
    "images": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
        "turn 1 of column messages holds .* no images or tool calls",
    ),
    "tool": ([{"role": "tool", "content": "x"}], "is by 'tool'. Known: system"),
    "nobody": ([{"content": "x"}], "is by None"),
    "only the answer": (
        [{"role": "assistant", "content": "x"}],
        "ends with assistant; it must end",
    ),
    "system last": ([*CHAT, CHAT[0]], "ends with .*system; it must end with a user turn"),
    "questions alone": (["one", "two"], "2 user turns without the answers"),
    "nothing": ([], "not a conversation"),
    "half a pair": ([{"role": "user", "content": "\ud800"}], "half a surrogate pair"),
    "number": ([{"role": "user", "content": 3}], "holds '3', not text"),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_bad_conversations_say_what_and_where(tmp_path: Path, name: str) -> None:
    turns, message = CONVERSATIONS[name]
    path = save(tmp_path, "p.jsonl", jsonl({"messages": CHAT}, {"messages": turns}))
    with pytest.raises(InputError, match=rf"p\.jsonl, line 2.*{message}"):
        read_prompts(path)


def test_prompts_with_turns_are_written_and_read_back_equal(tmp_path: Path) -> None:
    prompts = [Prompt("plain"), Prompt("how are you?", turns=TURNS, label="harmless")]
    assert read_prompts(write_prompts(tmp_path / "p.jsonl", prompts)) == prompts
    assert '"turns"' not in (tmp_path / "p.jsonl").read_text().split("\n")[0]


def test_turns_do_not_change_what_a_plain_prompt_is_called() -> None:
    assert Prompt("how can i bake a cake ?").id == "1f211bd4fba82bb6"
    assert Prompt("x", turns=TURNS).id not in (Prompt("x").id, Prompt("x", turns=TURNS[1:]).id)
    for prompt in (Prompt("x", user=("a", 3), response=("b", 2)), Prompt("x", turns=TURNS)):
        assert Prompt.from_data(json.loads(json.dumps(prompt.as_data()))) == prompt


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "from", "content", "value", "type", "text"]), inner
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["messages", "prompt", "turns", "response"]),
    st.lists(JSON, min_size=1, max_size=3),
)
def test_any_json_in_a_cell_gives_a_value_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, column: str, values: list[Any]
) -> None:
    rows = [{"prompt": "a", "label": value, "id": value, column: value} for value in values]
    path = save(tmp_path_factory.getbasetemp(), "any.jsonl", jsonl(*rows))
    for read in (read_prompts, read_completions, read_labels):
        with suppress(InputError):
            assert read(path)


# ------------------------------------------------------------------ what was taken


def test_the_summary_names_what_was_taken_and_what_was_not(tmp_path: Path) -> None:
    content = "id,prompt,label,toxicity,note\n1,a,safe,0,x\n2,b,maybe,1,y\n3,c,unsafe,1,z\n"
    prompts, summary = prompts_with_summary(save(tmp_path, "p.csv", content))
    assert summary.columns == {"prompt": "prompt", "id": "id", "label": "label"}
    assert summary.labels == {"harmless": 1, "unknown": 1, "harmful": 1}
    assert (summary.unread, summary.unread_labels) == (("toxicity", "note"), ("toxicity",))
    text = str(summary)
    assert text.startswith(f"3 prompts from {tmp_path}/p.csv: 1 harmless, 1 unknown, 1 harmful.")
    assert "look like labels and were not read: toxicity" in text
    assert "1 rows of column label name no label: 'maybe'" in text
    assert len(prompts) == summary.count


def test_a_column_whose_words_are_labels_is_named_whatever_it_is_called(tmp_path: Path) -> None:
    content = "prompt,kind\na,benign\nb,malicious\n"
    assert prompts_with_summary(save(tmp_path, "p.csv", content))[1].unread_labels == ("kind",)


def test_the_built_in_world_is_summarised_too() -> None:
    _, summary = prompts_with_summary("organism:test/harmless", limit=3)
    assert str(summary) == "3 prompts from organism:test/harmless: 3 harmless."


@pytest.mark.filterwarnings("ignore")  # the library's own deprecations
def test_a_hub_set_gives_class_names_and_says_which_split_it_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    kinds = datasets.ClassLabel(names=["benign", "malicious"])
    features = datasets.Features(
        {
            "messages": [{"role": datasets.Value("string"), "content": datasets.Value("string")}],
            "label": kinds,
        }
    )
    rows = {"messages": [CHAT, CHAT[1:2]], "label": [1, 0]}
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        made = datasets.Dataset.from_dict(rows, features=features)
        made.to_parquet(tmp_path / "set" / f"{split}.parquet")
    prompts, summary = prompts_with_summary(f"hub:{tmp_path}/set")
    assert [(p.text, p.turns, p.label) for p in prompts] == [
        ("how are you?", TURNS, "harmful"),
        ("hello", (), "harmless"),
    ]
    assert "Split train of train, test was read" in str(summary)
    assert read_prompts(tmp_path / "set/test.parquet") == prompts
