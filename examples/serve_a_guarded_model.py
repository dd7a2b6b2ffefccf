"""Serve a model behind OpenAI's API, in this process, and ask it; the guard reads every token."""

import threading
import time

import httpx

import demur
from demur.organism import world
from demur.serve.app import Server, create_app, listen
from demur.serve.host import host

model = demur.load("organism-ar")
traces = {
    (split, kind): demur.trace(model, world.prompts(split, kind, n=40), batch_size=40)
    for split, kind in [("anchors", "harmless"), ("anchors", "harmful"), ("guard", "harmless")]
}
known = [*traces["anchors", "harmless"], *traces["anchors", "harmful"]]
anchors = demur.fit_anchors(known, ["cannot" in t.response or "sorry" in t.response for t in known])
benign = demur.trace(model, world.prompts("calibration", "harmless", n=40), batch_size=40)
guard = demur.fit_streaming_guard(traces["guard", "harmless"], benign, anchors=anchors, alpha=0.05)

hosting = host([model], [guard])
server = Server(create_app(hosting), hosting)
socket = listen("127.0.0.1", 0)
threading.Thread(target=server.run, args=([socket],)).start()
while not server.started:
    time.sleep(0.01)

for prompt in world.prompts("test", "harmless", n=2) + world.prompts("test", "harmful", n=2):
    body = {"model": model.name, "messages": [{"role": "user", "content": prompt.text}]}
    url = f"http://127.0.0.1:{socket.getsockname()[1]}/v1/chat/completions"
    choice = httpx.post(url, json=body, timeout=60).json()["choices"][0]
    print(choice["finish_reason"], choice["demur"]["p_value"], choice["message"]["content"][:60])
server.should_exit = True
