"""Guards: calibrated readers of finished generations, and of generations as they are produced."""

from demur.guard.calibration import Method, threshold_rank
from demur.guard.finished import Guard, fit_guard
from demur.guard.opening import AnyGuard, load_guard
from demur.guard.streaming import Group, StreamingGuard
from demur.guard.streaming_fit import fit_streaming_guard
from demur.guard.watch import Watched
from demur.guard.watcher import Reading, Watcher

__all__ = [
    "AnyGuard",
    "Group",
    "Guard",
    "Method",
    "Reading",
    "StreamingGuard",
    "Watched",
    "Watcher",
    "fit_guard",
    "fit_streaming_guard",
    "load_guard",
    "threshold_rank",
]
