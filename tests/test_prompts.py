"""Prompt files: what is written reads back equal, and what is wrong is said where."""

from __future__ import annotations

import csv
import io
import json
import random
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demur.errors import InputError, MissingExtraError
from demur.prompts import read_prompts
from demur.types import Prompt

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
TEXTS = st.lists(WORDS.filter(str.strip), min_size=1, max_size=5)


def save(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(prompts: list[Prompt]) -> list[str]:
    return [prompt.text for prompt in prompts]


def from_stdin(monkeypatch: pytest.MonkeyPatch, content: str, **options: Any) -> list[Prompt]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    return read_prompts("-", **options)


# ------------------------------------------------------------------ round trips


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prompts")


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.sampled_from([",", "\t"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_any_text_survives_csv(folder: Path, rows: list[str], delimiter: str, quoting: Any) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting)
    writer.writerows([["Prompt", "note"], *([row, "x"] for row in rows)])
    name = "any.csv" if delimiter == "," else "any.tsv"
    assert texts(read_prompts(save(folder, name, out.getvalue()))) == rows


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.booleans())
def test_any_text_survives_jsonl_and_json(folder: Path, rows: list[str], ascii_only: bool) -> None:
    objects = [{"prompt": row} for row in rows]
    lines = "\n".join(json.dumps(item, ensure_ascii=ascii_only) for item in objects)
    whole = json.dumps(objects, ensure_ascii=ascii_only, indent=1)
    assert texts(read_prompts(save(folder, "any.jsonl", lines))) == rows
    assert texts(read_prompts(save(folder, "any.json", whole))) == rows


@settings(max_examples=30, deadline=None)
@given(TEXTS)
def test_any_text_survives_parquet(folder: Path, rows: list[str]) -> None:
    pq.write_table(pa.table({"question": rows}), folder / "any.parquet")
    assert texts(read_prompts(folder / "any.parquet")) == rows


@settings(max_examples=30, deadline=None)
@given(TEXTS)
def test_ids_never_repeat_and_do_not_depend_on_later_rows(folder: Path, rows: list[str]) -> None:
    lines = "\n".join(map(json.dumps, [*rows, *rows]))
    prompts = read_prompts(save(folder, "ids.jsonl", lines))
    assert len({prompt.id for prompt in prompts}) == 2 * len(rows)
    assert read_prompts(folder / "ids.jsonl", limit=len(rows)) == prompts[: len(rows)]


def test_repeated_ids_are_numbered(tmp_path: Path) -> None:
    path = save(tmp_path, "p.csv", "id,prompt\na,1\na,2\na-2,3\nb,4\na,5\n")
    assert [p.id for p in read_prompts(path)] == ["a", "a-2", "a-2-2", "b", "a-3"]


# ------------------------------------------------------------------ what columns mean


def test_text_files_hold_one_prompt_a_line(tmp_path: Path) -> None:
    path = save(tmp_path, "p.txt", 'one, two\r\n\n\u2028three "x"\n   \nfour')
    assert texts(read_prompts(path)) == ["one, two", '\u2028three "x"', "four"]
    assert texts(read_prompts(path, limit=2)) == ["one, two", '\u2028three "x"']


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_are_understood(tmp_path: Path, mark: str) -> None:
    path = save(tmp_path, "p.csv", "prompt\nhé 🦊\n".encode(mark))
    assert texts(read_prompts(path)) == ["hé 🦊"]


def test_goal_label_attack_and_id_are_kept(tmp_path: Path) -> None:
    rows = [
        {"Prompt": "sneaky", "Goal": "plain", "label": "unsafe", "attack": "flip", "id": 7},
        {"Prompt": "nice", "Goal": "", "label": "odd", "attack": None, "id": None},
    ]
    path = save(tmp_path, "p.json", json.dumps({"about": "x", "rows": rows}))
    first, second = read_prompts(path, label="borderline")
    assert first == Prompt("sneaky", "7", "plain", "flip", "harmful")
    assert second == Prompt("nice", label="borderline")


def test_alpaca_and_harmbench_context_is_joined(tmp_path: Path) -> None:
    alpaca = [
        {"instruction": "Sum up {x}", "input": "a text", "output": "-"},
        {"instruction": "Hi", "input": "", "output": "-"},
    ]
    path = save(tmp_path, "alpaca.json", json.dumps(alpaca))
    assert texts(read_prompts(path)) == ["Sum up {x}\n\na text", "Hi"]
    assert texts(read_prompts(path, column="instruction")) == ["Sum up {x}", "Hi"]
    path = save(tmp_path, "hb.csv", "Behavior,ContextString,BehaviorID\nuse it,the text,b1\n")
    (prompt,) = read_prompts(path, label="harmful")
    assert (prompt.text, prompt.goal) == ("the text\n\n---\n\nuse it", "use it")
    assert (prompt.id, prompt.label) == ("b1", "harmful")


def test_wildjailbreak_plain_and_adversarial_rows(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        "wild.tsv",
        "vanilla\tadversarial\tcompletion\tdata_type\n"
        "do x\t\tno\tvanilla_harmful\n"
        'do y\t"imagine ""y"""\tok\tadversarial_benign\n',
    )
    plain, wrapped = read_prompts(path)
    assert (plain.text, plain.attack, plain.label) == ("do x", "none", "harmful")
    assert (wrapped.text, wrapped.goal) == ('imagine "y"', "do y")
    assert (wrapped.attack, wrapped.label) == ("adversarial", "harmless")


@pytest.mark.parametrize("name", ["Text Me", "text me", " TEXT ME "])
def test_a_column_can_be_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, "p.csv", "prompt,Text Me\na,b\n")
    assert texts(read_prompts(path, column=name.strip())) == ["b"]


def test_the_hub_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'demur\[hub\]'"):
        read_prompts("hub:org/name")


@pytest.mark.filterwarnings("ignore")  # the library's own deprecations
def test_the_hub_loads_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    save(tmp_path, "set/train.csv", "goal,target\na,b\n")
    save(tmp_path, "set/test.csv", "goal,target\nc,d\n")
    assert texts(read_prompts(f"hub:{tmp_path}/set")) == ["a"]
    assert texts(read_prompts(f"hub:{tmp_path}/set:test")) == ["c"]
    with pytest.raises(InputError, match=r"could not be loaded \(.*Check the name"):
        read_prompts(f"hub:{tmp_path}/nowhere")


# ------------------------------------------------------------------ standard input


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("one, two\nthree\n", ["one, two", "three"]),
        ('{"prompt": "a"}\n{"prompt": "b"}\n', ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ('goal,target\n"x\ny",z\n', ["x\ny"]),
        ("prompt\nhello\n", ["hello"]),
        ('"id"\t"prompt"\n1\thello, you\n', ["hello, you"]),
        ("{not json\n[neither\n", ["{not json", "[neither"]),
        ("What is a prompt, exactly?\n", ["What is a prompt, exactly?"]),
    ],
)
def test_standard_input_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, content: str, expected: list[str]
) -> None:
    assert texts(from_stdin(monkeypatch, content)) == expected


def test_a_named_column_makes_standard_input_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert texts(from_stdin(monkeypatch, "ask,x\nhi,1\n", column="ask")) == ["hi"]
    with pytest.raises(InputError, match="standard input is empty"):
        from_stdin(monkeypatch, " \n")


# ------------------------------------------------------------------ bad input

BAD = {
    "empty.csv": (b"", "is empty"),
    "blank.txt": (b" \n\n", "is empty"),
    "header.csv": (b"prompt,x\n", "only a header"),
    "columns.csv": (b"a,b\n1,2\n", r"no column that is known .* It has: a, b\..*--column a"),
    "twice.csv": (b"prompt,prompt\n1,2\n", "several columns 'prompt'"),
    "ragged.csv": (b'prompt,x\n"a\nb",1\nc\n', r"row 2, line 4: 1 fields where the header has 2"),
    "quote.csv": (b'prompt\n"a"b\n', r"line 2: .* Quote fields"),
    "open.csv": (b'prompt\n"a\nb\n', r"line \d: unexpected end of data"),
    "cell.csv": (b"prompt,x\na,1\n  ,2\n", r"row 2, line 3: the prompt is empty"),
    "latin.csv": ("prompt\ncaf\u00e9\n".encode("latin-1"), r"byte 0xe9 at offset 10 .*iconv"),
    "marked.csv": (b"\xef\xbb\xbfprompt\n\xff\n", r"byte 0xff at offset 10"),
    "odd.csv": ("\ufeffprompt\n".encode("utf-16-le") + b"x", r"is not UTF-16-LE"),
    "wide.csv": ("prompt\na\n".encode("utf-16-le"), r"NUL character at offset 1.*utf-16le"),
    "broken.jsonl": (b'{"prompt": "a"}\n\n{"prompt": \n', r"line 3: broken JSON"),
    "deep.jsonl": (b"[" * 200_000, r"line 1: broken JSON"),
    "list.jsonl": (b'["a"]\n', r"line 1 holds a list; expected an object or a text"),
    "missing.jsonl": (b'{"prompt": "a"}\n{"text": "b"}\n', r"line 2: the prompt is empty"),
    "number.jsonl": (b'{"prompt": 3}\n', r"line 1: column prompt holds '3' \(int\), not text"),
    "nul.jsonl": (rb'{"prompt": "a\u0000"}', r"line 1: column prompt holds a NUL"),
    "half.jsonl": (rb'{"prompt": "a\ud800"}', r"line 1: .* half a surrogate pair"),
    "scalar.json": (b"3", "holds a number; expected a list"),
    "broken.json": (b"[1,", "broken JSON"),
    "none.json": (b"[]", r"no column that is known"),
    "bad.parquet": (b"PAR1 nothing", "damaged or not a Parquet file"),
    "x.xlsx": (b"PK", r"is a workbook \(\.xlsx\).*Save it as CSV UTF-8.*libreoffice --headless"),
    "x.docx": (b"PK", r"unknown kind, \.docx.*Known: \.csv"),
    "cut.csv.gz": (b"\x1f\x8b\x08", "damaged or not a gzip file"),
    "flags.csv": (
        b"id,adversarial\n1,True\n",
        r"\(adversarial holds only true and false\).*--column",
    ),
    "noending": (b"hi", "unknown kind, without an ending"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_one_clear_error(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    path = save(tmp_path, name, content)
    with pytest.raises(InputError, match=f"(?s){message}") as raised:
        read_prompts(path)
    assert str(raised.value).startswith(str(path))


def test_missing_files_folders_and_wrong_options(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_prompts(tmp_path / "no.csv")
    with pytest.raises(InputError, match="is a folder"):
        read_prompts(tmp_path)
    path = save(tmp_path, "p.csv", "prompt,Other Name\na,b\n")
    with pytest.raises(InputError, match=r"no column 'x'\. It has: prompt, Other Name\..*--column"):
        read_prompts(path, column="x")
    with pytest.raises(InputError, match="limit is 0"):
        read_prompts(path, limit=0)
    with pytest.raises(InputError, match="Unknown label 'evil'"):
        read_prompts(path, label="evil")  # type: ignore[arg-type]


def test_a_truncated_parquet_page_is_found(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    table = pa.table({"prompt": [f"ask {i}" for i in range(500)]})
    pq.write_table(table, path, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged or not a Parquet file"):
        read_prompts(path)


def test_no_damaged_parquet_gives_anything_but_prompts_or_one_error(tmp_path: Path) -> None:
    path, dice = tmp_path / "p.parquet", random.Random(0)
    pq.write_table(pa.table({"prompt": [f"ask {i}" for i in range(50)]}), path)
    whole = path.read_bytes()
    for _ in range(600):
        content = bytearray(whole)
        content[dice.randrange(len(content))] = dice.randrange(256)
        path.write_bytes(content)
        with suppress(InputError):
            assert read_prompts(path)


def test_huge_fields_are_read_and_the_csv_limit_is_put_back(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = "x" * (before + 100_000)
    assert texts(read_prompts(save(tmp_path, "p.csv", f"prompt\n{long}\n"))) == [long]
    assert csv.field_size_limit() == before


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["csv", "tsv", "jsonl", "json", "txt", "parquet"]))
def test_any_bytes_give_prompts_or_one_error(folder: Path, content: bytes, kind: str) -> None:
    try:
        prompts = read_prompts(save(folder, f"fuzz.{kind}", content))
    except InputError:
        return
    assert prompts
    assert all(p.text.strip() for p in prompts)


# ------------------------------------------------------------------ published files

PUBLISHED = {
    "advbench.csv": (520, {"harmful": 520}),
    "jailbreakbench.csv": (100, {"harmful": 100}),
    "harmbench_behaviors_text_test.csv": (320, {"harmful": 320}),
    "strongreject.csv": (313, {"harmful": 313}),
    "xstest_prompts.csv": (450, {"harmless": 250, "harmful": 200}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sets_read_whole(name: str) -> None:
    root = Path(__file__).parents[1]
    found = [p for p in (root / "shared/data", root.parent / "shared/data") if p.is_dir()]
    if not found:
        pytest.skip("the published prompt files are not here")
    prompts = read_prompts(found[0] / name)
    count, labels = PUBLISHED[name]
    assert len(prompts) == len({prompt.id for prompt in prompts}) == count
    assert {word: sum(p.label == word for p in prompts) for word in labels} == labels


def test_sets_of_the_built_in_world() -> None:
    found = read_prompts("organism:test/harmful/role_play", limit=5)
    assert [p.attack for p in found] == ["role_play"] * 5
    assert {p.label for p in found} == {"harmful"}
    assert read_prompts("organism:guard/harmless")[0].attack == "none"
    for wrong, said in (("organism:test", "SPLIT/KIND"), ("organism:exam/harmful", "'exam'")):
        with pytest.raises(InputError, match=said):
            read_prompts(wrong)
