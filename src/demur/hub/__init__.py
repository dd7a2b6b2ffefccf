"""Push anchors, guards and runs to the Hugging Face hub, and pull them (extra ``hub``).

Anchors and guards are stored as model repositories and runs as dataset repositories, with a generated
card (``demur.hub.card``). ``pull`` only fetches files with the exact names that demur writes, and
checks them before moving them into place. ``huggingface_hub`` finds the access token in its usual
places; no message shows it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from demur.errors import DemurError, InputError, MissingExtraError
from demur.hub.card import FILES, Contents, card, read_contents

__all__ = ["Contents", "card", "pull", "push", "read_contents"]

_ADDRESS = re.compile(r"hub:(datasets/)?(\w[\w.-]*/\w[\w.-]*)")


def push(
    path: str | Path, address: str, *, licence: str, data: str = "", public: bool = False
) -> str:
    """Push anchors, a guard or a finished run as one commit. Returns the repository's URL.

    Args:
        path: a file made by ``demur anchors`` or ``demur guard fit``, or a run folder.
        address: ``hub:org/name``; a missing repository is created.
        licence: licence of the pushed data, such as ``"apache-2.0"``.
        data: description of the prompts, for the card.
        public: create a new repository as public. A run contains every prompt and response.

    Raises:
        InputError: not anchors, a guard or a run; a wrong address; or the hub refused.
        StoreError: the run is unfinished or damaged.
        MissingExtraError: ``huggingface_hub`` is not installed.
    """
    contents = read_contents(path)
    repo, _ = _parsed(address)
    kind = "dataset" if contents.kind == "run" else "model"
    with _hub() as api:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        page = api.create_repo(repo, repo_type=kind, private=not public, exist_ok=True)
        text = card(contents, address=address, licence=licence, data=data)
        names = api.list_repo_files(repo, repo_type=kind)
        stale = {name for name in names if FILES.fullmatch(name)} - contents.files.keys()
        changes: list[Any] = [CommitOperationAdd("README.md", text.encode())]
        changes += [CommitOperationAdd(name, str(file)) for name, file in contents.files.items()]
        changes += [CommitOperationDelete(name) for name in sorted(stale)]
        api.create_commit(repo, changes, commit_message=f"Push {contents.kind}", repo_type=kind)
    return str(page)


def pull(address: str, out: str | Path, *, revision: str | None = None) -> Contents:
    """Pull anchors or a guard into the file ``out``, or a run into the folder ``out``.

    Args:
        address: ``hub:org/name``, first looked up as a model repository, then as a dataset; or
            ``hub:datasets/org/name``.
        out: must not exist yet.
        revision: commit, tag or branch; the main branch when None.

    Raises:
        InputError: ``out`` exists, or there is no such repository or nothing from demur in it.
        StoreError, SignalError: the downloaded files are damaged; ``out`` is not created.
        MissingExtraError: ``huggingface_hub`` is not installed.
    """
    out = Path(out)
    if out.exists():
        raise InputError(f"{out} exists already. Choose another --out.")
    repo, kinds = _parsed(address)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=".pull-") as temporary:
        folder = Path(temporary) / "files"
        with _hub() as api:
            _fetch(api, repo, kinds, revision, folder)
        found = list(folder.glob("*.safetensors"))
        if len(found) > 1 or (found and (folder / "manifest.json").exists()):
            raise InputError(
                f"{address} has more than one object made by demur. Pull an older --revision."
            )
        got = found[0] if found else folder
        read_contents(got)
        shutil.move(got, out)
    return read_contents(out)


def _parsed(address: str) -> tuple[str, tuple[str, ...]]:
    """Repository id, and the repository types to look it up as."""
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise InputError(f"{address!r} is not a hub address. Write hub:org/name.")
    return match[2], ("dataset",) if match[1] else ("model", "dataset")


def _fetch(api: Any, repo: str, kinds: tuple[str, ...], revision: str | None, folder: Path) -> None:
    """Download the files that demur writes, all from one commit."""
    from huggingface_hub.errors import RepositoryNotFoundError

    for kind in kinds:
        try:
            commit = api.repo_info(repo, repo_type=kind, revision=revision).sha
        except RepositoryNotFoundError:
            continue
        names = api.list_repo_files(repo, repo_type=kind, revision=commit)
        chosen = [name for name in names if FILES.fullmatch(name)]
        if not chosen:
            raise InputError(
                f"hub:{repo} has no anchors, guard or run made by demur. Check the name."
            )
        for name in chosen:
            api.hf_hub_download(repo, name, repo_type=kind, revision=commit, local_dir=folder)
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        return
    raise InputError(
        f"No repository {repo!r} on the hub, or it is private. Check the name, and for a private one "
        "run: hf auth login"
    )


@contextmanager
def _hub() -> Iterator[Any]:
    """The hub's client; its errors become one sentence without the server's text."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise MissingExtraError("The hub", "hub") from error
    api = HfApi(library_name="demur")
    try:
        yield api
    except (DemurError, MemoryError):
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise InputError(
            f"The hub at {api.endpoint} answered {status}. {_ADVICE.get(status, 'Try again later.')}"
        ) from error
    except HFValidationError as error:
        raise InputError("Not a valid repository name. Write hub:org/name.") from error
    except Exception as error:  # of requests, httpx or httpx2, depending on the client's version
        raise InputError(
            f"Cannot reach the hub at {api.endpoint} ({type(error).__name__}). Check the network, "
            "and that HF_HUB_OFFLINE is not set."
        ) from error


_ADVICE = {
    401: "Log in with: hf auth login",
    403: "Your token has no write access: create one that has, then run: hf auth login",
    404: "The repository or revision does not exist, or you cannot read it.",
    409: "The repository changed meanwhile: run the same command again.",
    429: "Too many requests: wait, then run the same command again.",
}
