"""Anchors, guards and runs to and from the Hugging Face hub (extra ``hub``).

A file of anchors or a guard becomes a model repository, a run folder a dataset repository, both with a
generated card (``demur.hub.card``). What is pulled is checked before it is put in place; only the files
that demur writes are fetched, by their exact names. ``huggingface_hub`` reads the access token from its
usual places; it appears in no message.
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
from demur.hub.card import card
from demur.hub.contents import FILES, Contents, read_contents

__all__ = ["Contents", "card", "pull", "push", "read_contents"]

_ADDRESS = re.compile(r"hub:(datasets/)?(\w[\w.-]*/\w[\w.-]*)")


def push(
    path: str | Path, address: str, *, licence: str, data: str = "", public: bool = False
) -> str:
    """Push anchors, a guard or a finished run, as one commit. Returns the repository's page.

    Args:
        path: a file made by ``demur anchors`` or ``demur guard fit``, or a run folder.
        address: ``hub:org/name``; the repository is made when it is not there.
        licence: of what is pushed, such as ``"apache-2.0"``.
        data: what the prompts were, for the card.
        public: whether a new repository can be read by everyone. A run holds every prompt and response.

    Raises:
        InputError: not something that demur made, a wrong address, or the hub refused.
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
        adds = [CommitOperationAdd("README.md", text.encode())]
        adds += [CommitOperationAdd(name, str(file)) for name, file in contents.files.items()]
        stale = [
            CommitOperationDelete(name)
            for name in api.list_repo_files(repo, repo_type=kind)
            if FILES.fullmatch(name) and name not in contents.files
        ]
        api.create_commit(
            repo, [*adds, *stale], commit_message=f"Push {contents.kind}", repo_type=kind
        )
    return str(page)


def pull(address: str, out: str | Path, *, revision: str | None = None) -> Contents:
    """Pull anchors or a guard into the file ``out``, or a run into the folder ``out``.

    Args:
        address: ``hub:org/name``; a model repository of that name goes before a dataset, unless the
            address is ``hub:datasets/org/name``.
        out: must not be there yet.
        revision: commit, tag or branch; the main branch when None.

    Raises:
        InputError: ``out`` is there already, no such repository, or nothing of demur's in it.
        StoreError, SignalError: what was pulled is damaged; nothing is put in place.
        MissingExtraError: ``huggingface_hub`` is not installed.
    """
    out = Path(out)
    if out.exists():
        raise InputError(f"{out} is there already. Choose another --out.")
    repo, kinds = _parsed(address)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=".pull-") as temporary:
        folder = Path(temporary) / "files"
        with _hub() as api:
            _fetch(api, repo, kinds, revision, folder)
        found = list(folder.glob("*.safetensors"))
        if len(found) > 1 or (found and (folder / "manifest.json").exists()):
            raise InputError(f"{address} holds more than one thing of demur's. Pull an older one.")
        got = found[0] if found else folder
        read_contents(got)
        shutil.move(got, out)
    return read_contents(out)


def _parsed(address: str) -> tuple[str, tuple[str, ...]]:
    """Repository id, and the kinds of repository it may be."""
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise InputError(f"{address!r} is no address on the hub. Write hub:org/name.")
    return match[2], ("dataset",) if match[1] else ("model", "dataset")


def _fetch(api: Any, repo: str, kinds: tuple[str, ...], revision: str | None, folder: Path) -> None:
    """Download the files that demur writes, all of one commit."""
    from huggingface_hub.errors import RepositoryNotFoundError

    for kind in kinds:
        try:
            commit = api.repo_info(repo, repo_type=kind, revision=revision).sha
        except RepositoryNotFoundError:
            continue
        names = api.list_repo_files(repo, repo_type=kind, revision=commit)
        chosen = [name for name in names if FILES.fullmatch(name)]
        if not chosen:
            raise InputError(f"hub:{repo} holds no anchors, guard or run of demur's.")
        for name in chosen:
            api.hf_hub_download(repo, name, repo_type=kind, revision=commit, local_dir=folder)
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        return
    raise InputError(
        f"No repository {repo!r} on the hub that you may read. Check the name, and for a private one "
        "run: hf auth login"
    )


@contextmanager
def _hub() -> Iterator[Any]:
    """The hub's client; its failures as one sentence, without what the server said."""
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
        raise InputError("That is no repository name on the hub. Write hub:org/name.") from error
    except Exception as error:
        # The client speaks through requests, httpx or httpx2, depending on its version.
        raise InputError(
            f"The hub at {api.endpoint} was not reached ({type(error).__name__}). Check the network, "
            "and that HF_HUB_OFFLINE is not set."
        ) from error


_ADVICE = {
    401: "Log in with: hf auth login",
    403: "Your token may not write there: make one with write access, then run: hf auth login",
    404: "There is no such repository or revision that you may read.",
    409: "The repository changed meanwhile: run the same command again.",
    429: "Too many requests: wait a little and run the same command again.",
}
