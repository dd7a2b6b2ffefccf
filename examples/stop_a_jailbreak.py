"""Fit a streaming guard on harmless prompts alone; it ends jailbreaks inside transformers' generate."""

import demur
from demur.organism import world

model = demur.load("organism-ar")


def traced(split: str, kind: str, n: int, attacks=world.ATTACKS):
    """Traces of n prompts under each attack."""
    prompts = [p for a in attacks for p in world.prompts(split, kind, attack=a, n=n)]
    return demur.trace(model, prompts, batch_size=64)


known = [*traced("anchors", "harmless", 40, ["none"]), *traced("anchors", "harmful", 40, ["none"])]
anchors = demur.fit_anchors(known, ["sorry" in t.response or "cannot" in t.response for t in known])
guard = demur.fit_streaming_guard(
    traced("guard", "harmless", 20),
    traced("calibration", "harmless", 20),
    anchors=anchors,
    alpha=0.05,
)

for kind, attack in (("harmless", "flip"), ("harmful", "flip")):
    prompts = world.prompts("test", kind, attack=attack, n=8)
    batch = model.encode(prompts)
    criterion = demur.stopping(guard, model)
    model.net.generate(
        batch.ids,
        attention_mask=batch.attention.long(),
        max_new_tokens=64,
        do_sample=False,
        stopping_criteria=[criterion],
    )
    both = zip(criterion.readings, criterion.released, strict=True)
    stopped = [released for reading, released in both if reading.flagged]
    print(f"{kind}, {attack}: {len(stopped)} of 8 stopped, after {stopped} tokens")
