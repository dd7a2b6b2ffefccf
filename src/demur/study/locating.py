"""Where the models of a study are, and what tells one from another before any is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.models.checkpoint import find
from demur.plugins import plugins
from demur.study.spec import Loading, ModelSpec, Study

#: Positions of a response under the samplers of a continuum, where the model's card names none.
_LENGTH = 128


@dataclass(frozen=True)
class Located:
    """A model of a study.

    Attributes:
        name: what tables call it.
        location: for ``demur.load``.
        identity: hash of its files or the hub's commit; empty where it was not found, which the cells
            that load it will say.
        options: for ``demur.load``: a hub revision to pin, a dtype and so on.
        family: its kind, as far as its config says.
        sampler: its default, where its config names one.
    """

    name: str
    location: str
    identity: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""
    sampler: Mapping[str, Any] | None = None

    @property
    def length(self) -> int:
        """Positions of a response."""
        return int((self.sampler or {}).get("gen_length", _LENGTH))


def locate_all(study: Study, folder: Path, *, here: bool = False) -> dict[str, Located]:
    """Every model of the study by name.

    Args:
        study: what to do.
        folder: of its relative paths.
        here: look on this machine alone, never on the hub.
    """
    return {
        spec.name: _locate(spec, folder, spec.loading or study.loading, here=here)
        for spec in study.models
    }


def _locate(spec: ModelSpec, folder: Path, loading: Loading, *, here: bool) -> Located:
    beside = folder / spec.model
    options = loading.options | ({"revision": spec.revision} if spec.revision else {})
    location = str(beside) if (beside / "config.json").is_file() else spec.model
    own = {plugin.name: plugin.identity for plugin in plugins("models")}
    if location in own:
        return Located(spec.name, location, identity=own[location], options=options)
    try:
        found = find(location, revision=spec.revision, here=here)
    except DemurError:
        return Located(spec.name, location, options=options)
    return Located(
        spec.name,
        location,
        identity=found.revision,
        options=options,
        family=str(found.card.get("family", found.config.get("model_type", ""))),
        sampler=found.card.get("sampler"),
    )
