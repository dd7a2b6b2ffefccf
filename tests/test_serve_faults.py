"""Bad input, bad clients and bad luck: a constant refusal each, and the next request is served."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import demur
from demur.cli import app as cli
from demur.errors import InputError
from demur.serve.app import is_loopback, listen
from demur.serve.hosted import Limits
from demur.serve.http_errors import HTTPError
from demur.serve.middleware import Keys, read_keys
from served import QUESTION, Served, serving, started, until, without_end

CHAT = "/v1/chat/completions"
TURN = [{"role": "user", "content": QUESTION}]
ASKED = {"model": "organism-ar", "messages": TURN}
#: Asked of a model without an end token, it takes its time.
ENDLESS = {**ASKED, "max_tokens": 400, "n": 8}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    limits = Limits(rows=16, queue=24, body=1 << 16, messages=100, choices=8)
    with serving([demur.load("organism-ar")], limits=limits) as found:
        yield found


@pytest.fixture(scope="module")
def endless() -> Iterator[Served]:
    """A server whose answers go on and on."""
    limits = Limits(rows=16, queue=24, choices=8)
    with serving([without_end(demur.load("organism-ar"))], limits=limits) as found:
        yield found


@pytest.fixture(autouse=True)
def _still_serves(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever happened, the next request is answered."""
    yield
    for name in {"server", "endless"} & set(request.fixturenames):
        found: Served = request.getfixturevalue(name)
        until(lambda found=found: busy(found) == 0)
        assert found.chat("organism-ar", max_tokens=2)["usage"]["completion_tokens"] == 2


def busy(server: Served) -> float:
    return server.figure("rows", model="organism-ar")


def error(answer: httpx.Response) -> tuple[int, Any, Any]:
    found = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert "Traceback" not in answer.text
    return answer.status_code, found["code"], found["param"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"tools": []}, "tools"),
        ({"messages": [{**TURN[0], "name": "x"}]}, "name"),
        ({"stream_options": {"include_obfuscation": True}}, "include_obfuscation"),
    ],
)
def test_fields_that_are_not_served_are_refused_by_name(
    server: Served, fields: dict[str, Any], param: str
) -> None:
    answer = server.post(CHAT, {**ASKED, **fields})
    assert error(answer) == (400, "unsupported_field", param)
    assert answer.json()["error"]["message"] == f"Unsupported field: {param}."


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 2**64}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, None),
        ({"messages": TURN * 101}, "messages"),
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
    ],
)
def test_values_that_cannot_be_used_are_refused(
    server: Served, fields: dict[str, Any], param: str | None
) -> None:
    status, _, found = error(server.post(CHAT, {**ASKED, **fields}))
    assert (status, found) == (400, param)


def test_a_huge_number_of_tokens_is_only_a_bound(server: Served) -> None:
    answer = server.chat("organism-ar", max_tokens=1 << 20)
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_prompt_that_is_too_long(server: Served) -> None:
    turn = [{"role": "user", "content": "puzzle " * 600}]
    answer = server.post(CHAT, {"model": "organism-ar", "messages": turn})
    assert error(answer) == (400, "context_length_exceeded", "messages")


def test_an_unknown_model(server: Served) -> None:
    assert error(server.post(CHAT, {**ASKED, "model": "gpt"})) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"\xff\xfe{}",
        b'{"model": "organism-ar", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "organism-ar", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "organism-ar", "temperature": NaN}',
        b'{"model": "organism-ar", "seed": ' + b"9" * 5000 + b"}",
        b"[" * 20_000,
        b"null",
    ],
)
def test_a_body_that_is_no_request(server: Served, body: bytes) -> None:
    answer = httpx.post(
        f"{server.url}{CHAT}", content=body, headers={"Content-Type": "application/json"}
    )
    assert error(answer)[0] == 400


def test_a_form_is_no_request(server: Served) -> None:
    """A page elsewhere can send a form or plain text without asking; it is not read as JSON."""
    answer = httpx.post(
        f"{server.url}{CHAT}", content=json.dumps(ASKED), headers={"Content-Type": "text/plain"}
    )
    assert error(answer)[0] == 400
    assert "access-control-allow-origin" not in answer.headers


def test_a_large_body(server: Served) -> None:
    def parts() -> Iterator[bytes]:
        yield from [b"x" * 60_000] * 170

    answer = httpx.post(f"{server.url}{CHAT}", content=b"x" * 10_000_000)
    assert error(answer) == (413, "body_too_large", None)
    # Without a length it is counted.
    answer = httpx.post(f"{server.url}{CHAT}", content=parts())
    assert error(answer) == (413, "body_too_large", None)


def test_unknown_places_and_methods(server: Served) -> None:
    assert error(httpx.get(f"{server.url}/nowhere"))[:2] == (404, "not_found")
    assert error(httpx.get(f"{server.url}{CHAT}"))[:2] == (405, "method_not_allowed")


def test_a_full_queue_says_when_to_come_back(endless: Served) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(lambda _: endless.post(CHAT, {**ENDLESS, "max_tokens": 40}), range(12))
        )
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    told = answers[statuses.index(429)]
    assert error(told)[1] == "queue_full"
    assert int(told.headers["retry-after"]) >= 1


def raw(server: Served, body: dict[str, Any]) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    found = socket.create_connection((host, int(port)), timeout=30)
    data = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    found.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return found


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["close", "half"])
def test_a_client_that_goes_frees_its_rows(endless: Served, stream: bool, how: str) -> None:
    found = raw(endless, {**ENDLESS, "stream": stream})
    until(lambda: busy(endless) == 8)
    gone = endless.figure("answers_total", model="organism-ar", outcome="cancelled")
    if how == "close":
        found.close()
    else:
        found.shutdown(socket.SHUT_WR)
    until(lambda: busy(endless) == 0)
    found.close()
    after = endless.figure("answers_total", model="organism-ar", outcome="cancelled")
    assert after == gone + 8


def test_a_slow_reader_is_dropped_and_holds_up_nobody() -> None:
    model = without_end(demur.load("organism-ar"))
    with serving([model], limits=Limits(send_seconds=0.5), send_buffer=4096) as server:
        slow = [raw(server, {**ENDLESS, "stream": True}) for _ in range(4)]
        until(lambda: busy(server) == 32)
        assert server.chat("organism-ar", max_tokens=4)["usage"]["completion_tokens"] == 4
        until(lambda: busy(server) == 0)
        assert server.figure("answers_total", model="organism-ar", outcome="cancelled") == 32
        for each in slow:
            each.close()


def test_what_takes_too_long_ends() -> None:
    model = without_end(demur.load("organism-ar"))
    with serving([model], limits=Limits(rows=2, seconds=0.3)) as server:
        done = server.chat("organism-ar", n=2, max_tokens=400)
        assert {choice["finish_reason"] for choice in done["choices"]} == {"length"}
        assert done["usage"]["completion_tokens"] < 800
        # Two have a row, and two wait until it is too late.
        assert error(server.post(CHAT, {**ENDLESS, "n": 4}))[:2] == (503, "timeout")


def test_a_model_that_fails_is_an_error_and_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret inside")

    model = demur.load("organism-ar")
    with serving([model]) as other:
        with monkeypatch.context() as patched:
            patched.setattr(model.net.base_model, "forward", fails)
            answer = other.post(CHAT, ASKED)
            assert error(answer)[:2] == (500, "failed")
            assert "secret" not in answer.text
            events = other.stream(CHAT, {**ASKED, "stream": True})
            assert "error" in events[-2]
            assert events[-1] == "[DONE]"
        assert other.chat("organism-ar")["choices"][0]["finish_reason"] == "stop"


def test_coming_down_finishes_or_filters_streams() -> None:
    ended: list[list[Any]] = []
    short = {**ENDLESS, "stream": True, "n": 1, "max_tokens": 8}
    with serving([without_end(demur.load("organism-ar"))], grace=0.3) as server:
        threads = [
            threading.Thread(target=lambda b=body: ended.append(server.stream(CHAT, b)))
            for body in (short, {**short, "max_tokens": 450}, {**short, "max_tokens": 450})
        ]
        for thread in threads:
            thread.start()
        until(lambda: busy(server) >= 2)
    for thread in threads:
        thread.join()
    assert all(events[-1] == "[DONE]" for events in ended)
    reasons = [events[-2]["choices"][0]["finish_reason"] for events in ended]
    assert sorted(reasons) == ["content_filter", "content_filter", "length"]


def test_killed_in_the_middle_it_starts_again(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# one\na-key-that-is-long-enough\n")
    keys.chmod(0o600)
    shown = {"x-api-key": "a-key-that-is-long-enough"}
    with listen("127.0.0.1", 0) as probe:
        port = str(probe.getsockname()[1])
    arguments = ("--model", "organism-ar", "--keys", str(keys), "--port", port)
    body = {**ASKED, "n": 16, "temperature": 2, "max_tokens": 400, "stream": True}
    with started(*arguments) as (process, url):
        with httpx.stream("POST", url + CHAT, json=body, headers=shown, timeout=60) as open_:
            lines = open_.iter_lines()
            next(lines)
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(httpx.HTTPError):
                list(lines)
        process.wait()
    with started(*arguments) as (process, url):
        answer = httpx.post(url + CHAT, json=ASKED, headers=shown, timeout=60)
        assert answer.json()["choices"][0]["finish_reason"] == "stop"
        assert httpx.get(url).status_code == 404  # no page where keys are set
        for host, status in (("evil.example", 400), ("localhost:1", 200), ("[::1]:1", 200)):
            found = httpx.get(f"{url}/healthz", headers={"Host": host})
            assert found.status_code == status
            assert status == 200 or found.json()["error"]["code"] == "unknown_host"
        process.terminate()
        assert process.wait() in (0, -signal.SIGTERM)


def test_a_body_that_never_comes() -> None:
    with serving([demur.load("organism-ar")], limits=Limits(send_seconds=0.2)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as half:
            half.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
            assert b"408" in half.recv(1 << 16).splitlines()[0]


def test_other_machines_need_keys(tmp_path: Path) -> None:
    refused = CliRunner().invoke(cli, ["serve", "--model", "organism-ar", "--host", "0.0.0.0"])
    assert isinstance(refused.exception, InputError)
    assert "--keys" in str(refused.exception)
    unknown = CliRunner().invoke(cli, ["serve", "--model", "organism-ar", "--mode", "off"])
    assert unknown.exit_code == 2
    assert "'hold', 'buffer', 'audit'" in unknown.output


def test_keys_are_kept_from_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_API_KEYS", "a-key-that-is-long-enough, another-key-of-some-length")
    found = read_keys(None)
    assert found.owner("another-key-of-some-length") == "key-1"
    assert found.owner("a-key-that-is-long-enoug") is None
    assert not Keys([])
    with pytest.raises(InputError, match="16"):
        Keys(["short"])
    path = tmp_path / "keys"
    with pytest.raises(InputError, match="No key file"):
        read_keys(path)
    path.write_text("a-key-that-is-long-enough")
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        read_keys(path)


def test_addresses() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(InputError, match="--port"):
            listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match="above 0"):
        Limits(rows=0)


def test_a_connection_that_says_nothing_is_closed() -> None:
    with serving([demur.load("organism-ar")], limits=Limits(send_seconds=0.2)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        for sent in (b"", b"GET /heal"):
            with socket.create_connection((host, int(port)), timeout=30) as silent:
                silent.sendall(sent)
                assert silent.recv(1) == b""


def test_a_key_is_asked_for_before_a_body_is_read() -> None:
    with serving([demur.load("organism-ar")], keys=["a-key-that-is-long-enough"]) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as half:
            half.sendall(f"PUT {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
            assert b"401" in half.recv(1 << 16).splitlines()[0]
        assert httpx.get(f"{server.url}/openapi.json").status_code == 401


def test_more_connections_than_there_may_be() -> None:
    with serving([demur.load("organism-ar")], limits=Limits(connections=3)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        held = [socket.create_connection((host, int(port)), timeout=30) for _ in range(3)]
        assert httpx.get(f"{server.url}/healthz").status_code == 503
        for each in held:
            each.close()
        until(lambda: httpx.get(f"{server.url}/healthz").status_code == 200)


@pytest.mark.parametrize("asked", [True, False])
def test_prompts_are_logged_only_where_asked_for(
    asked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with serving([demur.load("organism-ar")], log_prompts=asked) as server:
        server.chat("organism-ar", max_tokens=1)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("demur")]
    assert any("puzzle" in line for line in said) == asked


#: What some clients send with every request.
NOTHING_ASKED = {
    "logprobs": False,
    "top_logprobs": None,
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "logit_bias": {},
    "n": 1,
    "tools": None,
    "response_format": {"type": "text"},
    "stream_options": None,
    "user": "somebody",
}


def test_fields_that_ask_for_nothing_are_taken(server: Served) -> None:
    plain = server.chat("organism-ar")["choices"]
    assert server.chat("organism-ar", **NOTHING_ASKED)["choices"] == plain
    asked = {"model": "organism-ar", "prompt": "sure", "max_tokens": 2}
    neutral = {"best_of": 1, "echo": False, "suffix": None, "logprobs": None}
    assert server.post("/v1/completions", {**asked, **neutral}).status_code == 200


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        (CHAT, "frequency_penalty", 0.5),
        (CHAT, "frequency_penalty", False),
        (CHAT, "logit_bias", {"3": 1}),
        (CHAT, "tools", []),
        ("/v1/completions", "logprobs", 0),
        ("/v1/completions", "best_of", 2),
    ],
)
def test_fields_that_ask_for_something_are_refused(
    server: Served, path: str, name: str, value: Any
) -> None:
    body = ASKED if path == CHAT else {"model": "organism-ar", "prompt": "sure"}
    assert error(server.post(path, {**body, name: value})) == (400, "unsupported_field", name)


def test_stream_options_need_a_stream(server: Served) -> None:
    answer = server.post(CHAT, {**ASKED, "stream_options": {"include_usage": True}})
    assert error(answer)[0] == 400
    assert "stream_options" in answer.json()["error"]["message"]


def test_a_refused_request_leaves_nothing_behind(server: Served) -> None:
    """An exception that is raised again and again keeps the stack and body of every request."""

    def kept() -> list[object]:
        gc.collect()
        found = [each for each in gc.get_objects() if issubclass(type(each), HTTPError)]
        return [each for each in found if each.status == 413]

    long = {**ASKED, "messages": [{"role": "user", "content": "a" * (1 << 17)}]}
    assert server.post(CHAT, long).status_code == 413
    until(lambda: not kept())
