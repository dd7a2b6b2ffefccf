"""Hidden states that something else computed, as ``Trace``: one source a file.

- ``hidden_states``: any tensors, such as those of nnsight or TransformerLens.
- ``generate``: ``transformers`` ``generate(output_hidden_states=True)``.
- ``vllm``, ``sglang``: what the serving engines return (docs/serving-engines.md).
"""

from __future__ import annotations

from demur.adapters.generate import from_generate
from demur.adapters.hidden_states import Source, from_hidden_states
from demur.adapters.sglang import from_sglang
from demur.adapters.vllm import from_vllm, rms_norm

__all__ = [
    "Source",
    "from_generate",
    "from_hidden_states",
    "from_sglang",
    "from_vllm",
    "rms_norm",
]
