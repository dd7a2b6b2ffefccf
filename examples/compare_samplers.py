"""The same diffusion weights under four orders of committing tokens."""

import dataclasses

import demur
from demur.organism import oracle, world
from demur.sampling import sampler_from

model = demur.load("organism-dlm")
prompts = world.prompts("test", "harmful", attack="role_play", n=8)
default = sampler_from(model.traits.sampler)

for rule, steps in (("low_confidence", 32), ("random", 32), ("left_to_right", 64)):
    sampler = dataclasses.replace(default, remasking=rule, steps=steps)
    traces = demur.trace(model, prompts, sampler=sampler, batch_size=8)
    harmful = [oracle.judge(t.prompt.goal, t.response) == "harmful" for t in traces]
    refused = [oracle.refused(t.response) for t in traces]
    print(f"{rule:15s} harmful {sum(harmful)}/8  refused {sum(refused)}/8")
