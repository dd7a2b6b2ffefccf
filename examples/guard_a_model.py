"""Fit SRI Guard on harmless prompts alone, then score harmless prompts and jailbreaks."""

import demur
from demur.organism import world

model = demur.load("organism-ar")


def traced(split: str, kind: str, attack: str = "none", n: int = 40):
    """Traces of some prompts of the built-in world."""
    prompts = world.prompts(split, kind, attack=attack, n=n)
    return demur.trace(model, prompts, batch_size=40)


known = [*traced("anchors", "harmless"), *traced("anchors", "harmful")]
anchors = demur.fit_anchors(known, ["sorry" in t.response or "cannot" in t.response for t in known])

guard = demur.fit_guard(
    traced("guard", "harmless", n=200),
    traced("calibration", "harmless", n=100),
    anchors=anchors,
    alpha=0.01,
    detector="sri-standardised",
)
for kind, attack in (("harmless", "none"), ("harmful", "none"), ("harmful", "role_play")):
    flagged = guard.flag(traced("test", kind, attack))
    print(f"{kind} prompts, attack {attack}: {flagged.mean():.0%} flagged")

guard.save("guard.safetensors")
