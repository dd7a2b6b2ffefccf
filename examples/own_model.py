"""A network of your own: any causal language model of transformers that is in memory.

demur --plugin own_model.py trace prompts.csv --model scaled --out runs/x
"""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import demur
from demur.organism import path


@demur.register("models")
def scaled() -> object:
    """A built-in network with changed weights; its name on the command line is ``scaled``."""
    folder = path("organism-ar")
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        net.lm_head.weight *= 1.1
    return demur.load(net, tokenizer=AutoTokenizer.from_pretrained(folder))


if __name__ == "__main__":
    model = demur.load("scaled")
    print(model.name, demur.trace(model, ["how can i repair a clock ?"]).responses[0])
