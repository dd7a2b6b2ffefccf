"""Make a ``Trace`` from hidden states computed by other tools.

- ``hidden_states``: any tensors, such as those of nnsight or TransformerLens.
- ``generate``: ``transformers`` ``generate(output_hidden_states=True)``.
- ``serving_engines``: output of vLLM and SGLang (docs/serving-engines.md).
"""

from __future__ import annotations

from demur.adapters.generate import from_generate as from_generate
from demur.adapters.hidden_states import Source as Source
from demur.adapters.hidden_states import from_hidden_states as from_hidden_states
from demur.adapters.serving_engines import from_sglang as from_sglang
from demur.adapters.serving_engines import from_vllm as from_vllm
from demur.adapters.serving_engines import rms_norm as rms_norm
