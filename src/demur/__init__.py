"""demur: watch, measure and guard how a language model refuses, step by step."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from demur._version import __version__ as __version__

if TYPE_CHECKING:
    from demur.adapters import from_hidden_states as from_hidden_states
    from demur.anchors import fit_anchors as fit_anchors
    from demur.anchors import import_anchors as import_anchors
    from demur.detectors import DetectionMethod as DetectionMethod
    from demur.detectors import Detector as Detector
    from demur.errors import DemurError as DemurError
    from demur.generation import Steps as Steps
    from demur.generation import steps as steps
    from demur.generation import trace as trace
    from demur.guard import Guard as Guard
    from demur.guard import StreamingGuard as StreamingGuard
    from demur.guard import fit_guard as fit_guard
    from demur.guard import fit_streaming_guard as fit_streaming_guard
    from demur.guard import load_guard as load_guard
    from demur.guard.stopping import stopping as stopping
    from demur.integrations.notebook import show as show
    from demur.judges import Verdict as Verdict
    from demur.judges import refusal_judge as refusal_judge
    from demur.models import load as load
    from demur.plugins import register as register
    from demur.prompts import read_prompts as read_prompts
    from demur.sampling import Sampler as Sampler
    from demur.sri import Anchors as Anchors
    from demur.sri import signal as signal
    from demur.store import Store as Store
    from demur.types import Prompt as Prompt
    from demur.types import Record as Record
    from demur.types import Step as Step
    from demur.types import Trace as Trace
    from demur.types import Traces as Traces

#: Public name -> the module it lives in. Nothing is imported before it is used.
_HOMES = {
    "Anchors": "sri",
    "DemurError": "errors",
    "DetectionMethod": "detectors",
    "Detector": "detectors",
    "Guard": "guard",
    "Prompt": "types",
    "Record": "types",
    "Sampler": "sampling",
    "Step": "types",
    "Steps": "generation",
    "Store": "store",
    "StreamingGuard": "guard",
    "Trace": "types",
    "Traces": "types",
    "Verdict": "judges",
    "fit_anchors": "anchors",
    "fit_guard": "guard",
    "fit_streaming_guard": "guard",
    "from_hidden_states": "adapters",
    "import_anchors": "anchors",
    "load": "models",
    "load_guard": "guard",
    "read_prompts": "prompts",
    "refusal_judge": "judges",
    "register": "plugins",
    "show": "integrations.notebook",
    "signal": "sri",
    "steps": "generation",
    "stopping": "guard.stopping",
    "trace": "generation",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'demur' has no attribute {name!r}")
    return getattr(import_module(f"demur.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]


if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()):
    from demur.integrations import register_display

    register_display(shell, lambda value: __getattr__("show")(value))
