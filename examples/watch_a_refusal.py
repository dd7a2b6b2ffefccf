"""Watch one prompt step by step: what is committed, and whether the state complies or refuses."""

import demur
from demur.organism import world

model = demur.load("organism-dlm")

# Anchors: how answered harmless and refused harmful generations look from inside, step by step.
known = world.prompts("anchors", "harmless", n=24) + world.prompts("anchors", "harmful", n=24)
traces = demur.trace(model, known, batch_size=24)
refused = ["cannot" in trace.response or "sorry" in trace.response for trace in traces]
anchors = demur.fit_anchors(traces, refused)

prompt = world.prompts("test", "harmful", attack="role_play", n=1)[0]
trace = demur.trace(model, [prompt])[0]
sigma = demur.signal(trace.phi["last"], anchors)

print("prompt:", prompt.text)
for step in range(0, trace.n_steps, 4):
    words = [model.decode([token]) if token >= 0 else "_" for token in trace.committed[step]]
    print(f"step {step + 1:2d}  sigma {sigma[step]:.2f}  {' '.join(words)[:90]}")
print("response:", trace.response)
