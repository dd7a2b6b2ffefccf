"""A real server on this machine that answers, stalls, fails and talks nonsense."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from demur.cli import app
from demur.endpoint import Endpoint, Message
from demur.errors import EndpointError, InputError
from demur.judges import find_judge, judge_all
from demur.models import load
from demur.models.base import LanguageModel
from demur.study.plan.spec import Judges
from demur.study.work.verdicts import harm_judge, refusal_judges

KEY = "sk-not-a-real-key-0123456789"


@dataclass
class Script:
    """What the server does next; when the script is over it echoes the last turn."""

    moves: list[Any] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    under_way: int = 0
    most: int = 0
    pause: float = 0.0
    lock: Any = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    script: Script

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        script = self.script
        with script.lock:
            script.seen.append({"path": self.path, **request})
            script.keys.append(self.headers["authorization"])
            script.under_way += 1
            script.most = max(script.most, script.under_way)
            move = script.moves.pop(0) if script.moves else None
        time.sleep(script.pause)
        # Counted out before the first byte leaves: whoever has read an answer may ask again at once.
        with script.lock:
            script.under_way -= 1
        self.play(move, request)

    def play(self, move: Any, request: dict[str, Any]) -> None:
        if move == "hang up":
            self.connection.close()
        elif move == "stall":
            time.sleep(1.0)
        elif isinstance(move, bytes):
            self.reply(200, move)
        elif isinstance(move, int):
            body = {"error": {"message": f"no, {self.headers['authorization']}"}}
            self.reply(move, json.dumps(body).encode())
        else:
            self.reply(200, completion(request["messages"][-1]["content"] if move is None else ""))

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(body)


def completion(text: str) -> bytes:
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
    }
    about = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    return json.dumps(about | {"choices": [choice], "usage": usage}).encode()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def url(script: Script) -> Iterator[str]:
    handler = type("Scripted", (Handler,), {"script": script})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def ask(url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("DEMUR_TEST_KEY", KEY)

    def make(**settings: Any) -> Endpoint:
        return Endpoint(url, "m", key_variable="DEMUR_TEST_KEY", **settings)

    return make


def one(text: str) -> list[Message]:
    return [Message("user", text)]


def test_answers_in_order_and_counts(ask: Callable[..., Endpoint], script: Script) -> None:
    endpoint = ask(concurrency=3)
    script.pause = 0.05
    texts = [f"t{i}" for i in range(9)]
    assert endpoint.answer([one(t) for t in texts], max_tokens=7) == texts
    assert script.most == 3
    assert endpoint.usage.requests == 9
    assert (endpoint.usage.prompt_tokens, endpoint.usage.answer_tokens) == (45, 18)
    first = script.seen[0]
    assert first["path"] == "/v1/chat/completions"
    assert (first["max_tokens"], first["temperature"], first["model"]) == (7, 0, "m")
    assert "seed" not in first
    assert script.keys[0] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "moves", [[429, 500], ["hang up"], [b"{not json"], [b'{"choices": []}'], [b"[]"], ["stall"]]
)
def test_tries_again(moves: list[Any], ask: Callable[..., Endpoint], script: Script) -> None:
    script.moves = list(moves)
    endpoint = ask(timeout=0.5)
    assert endpoint.answer([one("hello")], max_tokens=5) == ["hello"]
    assert len(script.seen) == len(moves) + 1
    assert endpoint.usage.requests == 1


@pytest.mark.parametrize(
    ("move", "says"),
    [(503, "status 503"), ("hang up", "APIConnectionError"), (b"nonsense", "malformed")],
)
def test_gives_up(move: Any, says: str, ask: Callable[..., Endpoint], script: Script) -> None:
    script.moves = [move] * 9
    with pytest.raises(EndpointError, match=says) as caught:
        ask(retries=1).answer([one("hello")], max_tokens=5)
    assert KEY not in str(caught.value)
    assert len(script.seen) == 2


def test_malformed_answers_are_asked_again_after_growing_pauses(
    ask: Callable[..., Endpoint], script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.endpoint.PAUSE", 0.1)
    script.moves = [b"nonsense"] * 3
    began = time.monotonic()
    assert ask().answer([one("hello")], max_tokens=5) == ["hello"]
    assert time.monotonic() - began > 0.1 + 0.2 + 0.4


def test_an_answer_cut_off_before_its_first_word_is_no_answer(
    ask: Callable[..., Endpoint], script: Script, tmp_path: Path
) -> None:
    cut = json.loads(completion(""))
    cut["choices"][0]["finish_reason"] = "length"
    script.moves = [json.dumps(cut).encode()]
    script.moves *= 2
    with pytest.raises(EndpointError, match=r"nothing within 1029 tokens.*--reasoning-tokens"):
        ask(cache=tmp_path).answer([one("hello")], max_tokens=5)
    assert [seen["max_tokens"] for seen in script.seen] == [5, 1029]
    assert not list(tmp_path.rglob("*.json"))
    more = ask(cache=tmp_path, reasoning_tokens=100)
    assert more.answer([one("hello")], max_tokens=5) == ["hello"]
    assert script.seen[-1]["max_tokens"] == 105


@pytest.mark.parametrize("thought", ["", "<think>The request asks"])
def test_an_answer_cut_off_in_a_thought_gets_room(
    ask: Callable[..., Endpoint], script: Script, tmp_path: Path, thought: str
) -> None:
    cut = json.loads(completion(thought))
    cut["choices"][0]["finish_reason"] = "length"
    script.moves = [json.dumps(cut).encode(), completion("<think>a</think>yes")]
    assert ask(cache=tmp_path).answer([one("hello")], max_tokens=5) == ["<think>a</think>yes"]
    assert [seen["max_tokens"] for seen in script.seen] == [5, 1029]
    assert ask(cache=tmp_path).answer([one("hello")], max_tokens=5) == ["<think>a</think>yes"]
    assert len(script.seen) == 2
    script.moves = [json.dumps(cut).encode()]
    with pytest.raises(EndpointError, match=r"nothing within 14 tokens"):
        ask(reasoning_tokens=9).answer([one("hello")], max_tokens=5)


def test_a_refused_key_is_not_shown(ask: Callable[..., Endpoint], script: Script) -> None:
    script.moves = [401]
    with pytest.raises(EndpointError, match=r"status 401.*\*\*\*.*DEMUR_TEST_KEY") as caught:
        ask().answer([one("hello")], max_tokens=5)
    assert KEY not in str(caught.value)
    assert KEY not in repr(ask())
    assert len(script.seen) == 1


def test_cache(ask: Callable[..., Endpoint], script: Script, tmp_path: Path) -> None:
    endpoint = ask(cache=tmp_path)
    script.moves = [None, 400]
    with pytest.raises(EndpointError, match="cached"):
        ask(cache=tmp_path, concurrency=1).answer([one("a"), one("b")], max_tokens=5)
    assert endpoint.answer([one("a"), one("b")], max_tokens=5) == ["a", "b"]
    assert (endpoint.usage.requests, endpoint.usage.cached) == (1, 1)
    files = list(tmp_path.rglob("*.json"))
    assert len(files) == 2
    assert not any(KEY in path.read_text() for path in files)
    files[0].write_text('{"answer": ')  # damaged on the disk
    assert endpoint.answer([one("a"), one("b")], max_tokens=5) == ["a", "b"]
    assert endpoint.usage.requests == 2
    endpoint.answer([one("a")], max_tokens=6)
    assert endpoint.usage.requests == 3


def test_chance_is_not_cached(ask: Callable[..., Endpoint], tmp_path: Path) -> None:
    endpoint = ask(cache=tmp_path)
    for _ in range(2):
        endpoint.answer([one("a")], max_tokens=5, temperature=1.0)
        endpoint.answer([one("b")], max_tokens=5, temperature=1.0, seed=3)
    assert (endpoint.usage.requests, endpoint.usage.cached) == (3, 1)


def test_odd_text(ask: Callable[..., Endpoint], tmp_path: Path) -> None:
    endpoint = ask(cache=tmp_path)
    assert endpoint.answer([one("a\ud800b é 🙂")], max_tokens=5) == ["a?b é 🙂"]
    assert endpoint.answer([], max_tokens=5) == []


@pytest.mark.parametrize(
    ("address", "says"),
    [("localhost:8000", "not a server"), ("http://me:secret@host/v1", "password")],
)
def test_bad_address(address: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        Endpoint(address, "m")
    assert "secret" not in str(caught.value)


def test_a_judge_over_a_server(ask: Callable[..., Endpoint], script: Script) -> None:
    script.moves = [completion("yes"), completion("maybe")]
    judge = find_judge("asked-harm", assistant=ask(concurrency=1))
    found = judge_all(judge, [("bake a cake", "Sure."), ("bake a cake", "No.")])
    assert [(one.outcome, one.raw) for one in found] == [("hit", "yes"), ("unparsed", "maybe")]
    assert [turn["role"] for turn in script.seen[0]["messages"]] == ["system", "user"]


def test_a_study_asks_once_for_all_it_wants_judged(
    url: str, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMUR_TEST_KEY", KEY)
    script.pause = 0.05
    judges = Judges(
        harm="asked-harm",
        refusal=("asked-refusal",),
        model="m",
        endpoint=url,
        key_variable="DEMUR_TEST_KEY",
        cache=str(tmp_path / "answers"),
        concurrency=3,
    )
    pairs = [("bake", f"{i % 4}") for i in range(12)]
    assert harm_judge(judges)(pairs) == [None] * 12  # the echo is unparsed: no verdict
    assert len(script.seen) == 4  # what is said twice is judged once
    assert script.most == 3
    assert script.keys[0] == f"Bearer {KEY}"
    harm_judge(judges)(pairs)
    assert len(script.seen) == 4
    refusal_judges(judges)["asked-refusal"](pairs)
    assert len(script.seen) == 8


def test_a_study_loads_its_judge_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def counted(name: str) -> LanguageModel:
        loaded.append(name)
        return load(name)

    monkeypatch.setattr("demur.study.work.verdicts.load", counted)
    judges = Judges(harm="asked-harm", refusal=("asked-refusal",), model="organism-ar-small")
    for _ in range(2):
        harm_judge(judges)([("bake a cake", "no")])
        refusal_judges(judges)["asked-refusal"]([("bake a cake", "no")])
    assert loaded == ["organism-ar-small"]


def test_demur_attack_says_what_asking_cost(
    url: str, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMUR_TEST_KEY", KEY)
    out, cache = tmp_path / "p.jsonl", tmp_path / "answers"
    words = ["attack", "pair", "organism:test/harmful", "--limit", "1", "--out", str(out)]
    words += ["--model", "organism-ar-small", "--set", "steps=4", "--attack-set", "rounds=1"]
    words += ["--ask", f"attacker=a@{url}", "--ask", f"judge=j@{url}", "--attack-set", "tries=1"]
    words += ["--key-variable", "DEMUR_TEST_KEY", "--cache", str(cache), "--reasoning-tokens", "9"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    # The echo is no proposal: three streams were asked once each, and the judge never.
    assert (
        "a: 3 requests, 0 answers from the cache, 15 prompt tokens, 6 answer tokens" in done.stderr
    )
    assert "j: 0 requests" in done.stderr
    assert {one["max_tokens"] for one in script.seen} == {509}
    assert script.keys[0] == f"Bearer {KEY}"
    assert len([*cache.rglob("*.json")]) == 3
