"""Read a study file. Errors name the line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import yaml
from pydantic import ValidationError

from demur.errors import InputError
from demur.study.plan.spec import Judges, Role, Study

#: Folder of the study files that ship with demur.
_SHIPPED = Path(__file__).parents[1]


def read_study(source: str | Path) -> tuple[Study, Path]:
    """Read a study file, or one that ships with demur (``organism``, ``paper``).

    Returns:
        The study and the folder of its relative paths.

    Raises:
        InputError: the file is missing, not YAML, or not a study. The message names line and field.
    """
    path = Path(source)
    shipped = _SHIPPED / f"{path.name.removesuffix('.yaml')}.yaml"
    if not path.is_file() and path.parent == Path() and shipped.is_file():
        path = shipped
    try:
        text = path.read_text("utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise InputError(
            f"No study at {str(source)!r}. Give a YAML file, or one of: {', '.join(shipped_names())}."
        ) from error
    except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {error}") from error
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        wrong = [
            f"line {_line(tree, e['loc'])}, {'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}"
            for e in error.errors()
        ]
        raise InputError(f"{path} is not a study. {'; '.join(wrong)}.") from error
    _check_names(study, path)
    return study, path.parent


def shipped_names() -> list[str]:
    """Names of the studies that ship with demur."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def _check_names(study: Study, path: Path) -> None:
    names = [model.name for model in study.models]
    if len(set(names)) < len(names):
        raise InputError(f"{path}: two models have the same name: {names}. Rename one.")
    for what, named in _named_models(study):
        if unknown := sorted(set(named) - set(names)):
            raise InputError(f"{path}: {what} names {unknown}, which is not a model of this study.")
    try:
        _check_known(study)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not {"anchors", "test"} <= set(study.sets):
        roles = ", ".join(get_args(Role))
        raise InputError(f"{path}: sets need at least anchors and test. The roles are {roles}.")


def _check_known(study: Study) -> None:
    """Raise InputError for an unknown judge, detector or defense."""
    from demur.defenses import known_defenses
    from demur.detectors import detection_method

    _check_judges(study.judges)
    for detector in study.detectors:
        detection_method(detector)
    known = known_defenses()
    for defense in study.defenses:
        if defense.name not in known:
            raise InputError(f"Unknown defense {defense.name!r}. Known: {', '.join(known)}.")


def _check_judges(judges: Judges) -> None:
    """Raise InputError for an unknown judge, or one whose model is not named."""
    from demur.judges import GuardForm, known_judges, needs_model

    if judges.endpoint and not judges.model:
        raise InputError(
            f"judges.endpoint is {judges.endpoint}, but judges.model is empty. Add judges.model."
        )
    for name in filter(None, (*judges.refusal, judges.harm)):
        if not needs_model(name):
            continue
        if not judges.model:
            raise InputError(
                f"The judge {name} needs a model. Set judges.model, and judges.endpoint if a server "
                "runs the model."
            )
        if judges.endpoint and isinstance(known_judges()[name], GuardForm):
            raise InputError(
                f"The judge {name} is a guard model that demur loads itself, but judges.endpoint is "
                f"{judges.endpoint}. Set judges.model to its folder and remove judges.endpoint."
            )


def _named_models(study: Study) -> Iterator[tuple[str, tuple[str, ...]]]:
    for what in ("ablation", "continuum", "adaptive", "quick"):
        if part := getattr(study, what):
            yield what, part.models
    for search in study.adaptive.searches if study.adaptive else ():
        yield "adaptive.searches", search.models
    if study.reader:
        yield "reader", (study.reader,)
    for pair in study.surrogates:
        yield "surrogates", (pair.white, pair.black)


def _line(tree: yaml.Node | None, place: tuple[int | str, ...]) -> int:
    """1-based line of a field, or of the innermost part of its path that exists."""
    node = tree
    line = 1 if node is None else node.start_mark.line + 1
    for step in place:
        found = None
        if isinstance(node, yaml.MappingNode):
            pairs = ((k, v) for k, v in node.value if k.value == str(step))
            key, found = next(pairs, (None, None))
            line = line if key is None else key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            found = node.value[step] if step < len(node.value) else None
            line = line if found is None else found.start_mark.line + 1
        if found is None:
            break
        node = found
    return line
