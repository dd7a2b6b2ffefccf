"""Every message that demur can stop with, read from its source: what the pages of errors are made from.

A message is found where an error is made, whether it is raised there, returned by a helper or kept in a
constant. Values become words in angle brackets; what a helper or its caller fills in is looked up.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import yaml

SOURCE = Path(__file__).parents[1] / "src" / "demur"

#: What to do, where a message says only what happened.
FIXES: Mapping[str, str] = yaml.safe_load(
    Path(__file__).with_name("error_fixes.yaml").read_text("utf-8")
)

#: Calls that end in a message without being an error of the tree.
SERVER, COMMAND = "Refusal", "_fail"

#: What is raised in the source without a message of its own, and why.
UNSEEN = {
    "typer.Exit": "an exit code",
    "kind": "what a worker met, raised again with its message",
    "type": "what a helper met, raised again with its message",
    "self._failed": "made by the helper, where it is read",
    "self._taken": "made by the helper, where it is read",
    "_damaged": "made by the helper, where it is read",
    "_cause": "what a job met, raised again",
    "_CutOffError": "caught where the answer was asked for, and told there",
    "BusyError": "becomes BUSY",
    "said": "what a process met, raised again",
    "RuntimeError": "tells Ray that a replica is not healthy",
    "FileNotFoundError": "caught inside the store",
    "TypeError": "caught where a file or an answer is read, which names it",
    "ValueError": "caught where a file or a setting is read, which names it",
    "AttributeError": "Python's own protocol for a missing name",
}

#: Requests are checked here: the text of these errors is the server's message.
VALIDATORS = ("serve/wire.py",)

#: Words for expressions that do not name their value well.
WORDS = {
    "self": "place",
    "str(self)": "place",
    "str(name)": "model",
    "error": "reason",
    "known": "known names",
    "there": "what there is",
    "n": "number",
    "bad": "number",
    "most": "number",
    "enough": "number",
    "kind": "kind",
    "phrase": "HTTP status in words",
    "HOW": "how",
    "FEWEST": "fewest",
    "FORMAT": "format",
    "SHORTEST": "shortest",
    "__version__": "version",
    "chr(0)": "zero byte",
    "first_line(error)": "reason",
    "text.index(chr(0))": "place",
    "str(error).strip().splitlines()[-1]": "reason",
    "socket.gethostname()": "machine",
    "num_cpus": "number",
    "num_gpus": "number",
    "_ADVICE.get(status, 'Try again later.')": "what to do",
    "_VERB.get(kind, kind)": "the command that makes it",
    "error.__cause__ or error": "reason",
    "self.retries + 1": "number",
    "sampler.new_tokens": "response length",
    "len(questions) * VARIANTS": "number",
    "number * gap": "place",
    "data[offset]": "byte",
}


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        kind: class of the error, ``Refusal`` for the server's and ``_fail`` for the command line's own.
        text: the message, values in angle brackets.
        room: module below ``demur`` in which it is made, such as ``store/local.py``.
        line: where in that file.
        code: of a refusal: HTTP status and code.
    """

    kind: str
    text: str
    room: str
    line: int
    code: str = ""

    @property
    def parts(self) -> tuple[str, str]:
        """What happened, and the rest, which says what to do."""
        if found := re.match(r"(.+?(?:[.!?]|reason›))\s+(?=[A-Z-])(.+)", self.text):
            return found[1], found[2]
        first, parted, rest = self.text.rpartition("; ")
        return (f"{first}.", f"{rest[0].upper()}{rest[1:]}") if parted else (self.text, "")

    @property
    def fix(self) -> str:
        """What to do: as the message says it, or as ``FIXES`` does where it says only what happened."""
        return self.parts[1] or FIXES.get(self.anchor, "")

    @property
    def anchor(self) -> str:
        """Kind and first words, values left out: stable while the message says the same."""
        plain = re.sub(r"‹[^›]*›", " ", self.text).casefold()
        words = re.findall(r"[a-z0-9]+", plain)[:12]
        return "-".join([self.kind.strip("_").removesuffix("Error").lower(), *words])


@cache
def messages() -> tuple[Message, ...]:
    """All of them, once for each place that makes them."""
    return tuple(one for path in sorted(SOURCE.rglob("*.py")) for one in Reader(path).messages())


def entries() -> dict[str, list[Message]]:
    """Anchor -> the places that make this message; one that is another's words alone is left out."""
    found = dict[str, list[Message]]()
    for one in messages():
        if "-" in one.anchor:
            found.setdefault(one.anchor, []).append(one)
    return found


@cache
def tree(path: Path) -> ast.Module:
    """A file's syntax, each node with its parent in ``above``."""
    module = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(module):
        for below in ast.iter_child_nodes(node):
            below.above = node  # type: ignore[attr-defined]
    return module


@cache
def calls(path: Path) -> dict[str, list[ast.Call]]:
    """A file's calls by the last part of what is called."""
    found = dict[str, list[ast.Call]]()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            found.setdefault(name, []).append(node)
    return found


@cache
def kinds() -> dict[str, str]:
    """Classes of errors and what each stands for."""
    classes = [n for n in tree(SOURCE / "errors.py").body if isinstance(n, ast.ClassDef)]
    return {node.name: ast.get_docstring(node) or "" for node in classes}


class Reader:
    """Reads one file."""

    def __init__(self, path: Path) -> None:
        self.path, self.module = path, tree(path)
        self.room = path.relative_to(SOURCE).as_posix()
        self.bound = dict[str, list[str]]()

    def messages(self) -> Iterator[Message]:
        """Every message made in the file."""
        for call in (n for n in ast.walk(self.module) if isinstance(n, ast.Call)):
            kind = getattr(call.func, "id", "")
            known = kind in kinds() or kind == SERVER or (kind == COMMAND and "cli" in self.room)
            if self.room == "errors.py" or not (known and call.args):
                continue
            yield from self.made(kind, call)
        if self.room in VALIDATORS:
            for node in ast.walk(self.module):
                if isinstance(node, ast.Raise) and getattr(node.exc.func, "id", "") == "ValueError":
                    text = f"{ast.literal_eval(node.exc.args[0]).capitalize()}."
                    yield Message(SERVER, text, self.room, node.lineno, "400 invalid_field")

    def made(self, kind: str, call: ast.Call) -> Iterator[Message]:
        """The messages of one call that makes an error, for each caller that fills them in."""
        for bound in self.callers(call):
            self.bound = bound
            place, code = (2, self.code(call)) if kind == SERVER else (0, "")
            for text in self.texts(call.args[place]):
                if kind == "MissingExtraError":
                    extra = self.texts(call.args[1])[0]
                    text = f"{text} needs an optional part. Run: pip install 'demur[{extra}]'"
                yield Message(kind, " ".join(text.split()), self.room, call.lineno, code)

    def code(self, call: ast.Call) -> str:
        """HTTP status and code of a refusal."""
        return " ".join(" or ".join(self.texts(part)) for part in call.args[:2])

    def callers(self, call: ast.Call) -> list[dict[str, list[str]]]:
        """What each caller of the function passes for ``what`` and ``fix``; one empty case if none."""
        function = around(call)
        if not isinstance(function, ast.FunctionDef):
            return [{}]
        places = [a.arg for a in function.args.args if a.arg != "self"]
        names = {*places, *(a.arg for a in function.args.kwonlyargs)} & {"what", "fix", "kind"}
        private = function.name.startswith("_")
        found = []
        for path in [self.path] if private else sorted(SOURCE.rglob("*.py")):
            reader = Reader(path)
            for use in calls(path).get(function.name, ()) if names else ():
                passed = {k.arg: k.value for k in use.keywords if k.arg in names}
                passed |= {n: v for n, v in zip(places, use.args, strict=False) if n in names}
                if passed.keys() == names:
                    found.append({n: reader.texts(v) for n, v in passed.items()})
        return found or [{}]

    def texts(self, node: ast.expr, deep: int = 0) -> list[str]:
        """What an expression can say: each way of filling in what the source itself fills in."""
        if isinstance(node, ast.Constant):
            return [str(node.value)]
        if isinstance(node, ast.JoinedStr):
            values = [v.value if isinstance(v, ast.FormattedValue) else v for v in node.values]
            return joined([self.texts(value, deep) for value in values])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            sides = [self.texts(side, deep) for side in (node.left, node.right)]
            if not any(side[0].startswith("‹") and len(side) == 1 for side in sides):
                return joined(sides)
        if isinstance(node, ast.IfExp):
            return self.texts(node.body, deep) + self.texts(node.orelse, deep)
        if deep < 3 and (known := self.known(node, deep + 1)):
            return known
        return [f"‹{word(node)}›"]

    def known(self, node: ast.expr, deep: int) -> list[str]:
        """Texts behind a constant, a variable, an argument or a call of a helper."""
        if isinstance(node, ast.Name):
            if node.id in self.bound:
                return self.bound[node.id]
            said = [text for value in self.assigned(node) for text in self.texts(value, deep)]
            return list(dict.fromkeys(said)) if said and not any(map(bare, said)) else []
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "format":
            return [
                whole.replace("{}", part)
                for whole in self.texts(node.func.value, deep)
                for part in self.texts(node.args[0], deep)
            ]
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "explain":
            told = Reader(SOURCE / "files.py")
            body = next(n for n in ast.walk(told.module) if getattr(n, "name", "") == "explain")
            returns = [n.value for n in ast.walk(body) if isinstance(n, ast.Return)]
            return [text for value in returns for text in told.texts(value, deep)]
        return []

    def assigned(self, name: ast.Name) -> list[ast.expr]:
        """Texts that a variable of the function, or a constant of the file, is set to."""
        for scope in (around(name), self.module):
            found = [
                n.value
                for n in (ast.walk(scope) if scope is not self.module else scope.body)
                if isinstance(n, ast.Assign)
                and isinstance(n.targets[0], ast.Name)
                and n.targets[0].id == name.id
            ]
            if found and all(isinstance(n, TEXTUAL) for n in found):
                return found
        return []


#: Expressions that are texts.
TEXTUAL = (ast.Constant, ast.JoinedStr, ast.BinOp, ast.IfExp)


def bare(text: str) -> bool:
    """Whether a text is one value and nothing else."""
    return bool(re.fullmatch(r"‹[^›]*›", text))


def around(node: ast.AST) -> ast.AST:
    """The function that a node is in."""
    while not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
        node = node.above  # type: ignore[attr-defined]
    return node


def joined(parts: Sequence[list[str]]) -> list[str]:
    """Every way to say the parts one after another; at most a handful, or else the first of each."""
    ways = ["".join(way) for way in product(*parts)]
    return ways if len(ways) <= 8 else ["".join(part[0] for part in parts)]


def word(node: ast.expr) -> str:
    """A value's name in words."""
    written = ast.unparse(node)
    if written in WORDS:
        return WORDS[written]
    if isinstance(node, ast.Name):
        return node.id.strip("_").replace("_", " ").lower()
    if isinstance(node, ast.Attribute):
        owner = word(node.value)
        if node.attr == "name" and owner in ("model", "checkpoint"):
            return "model"
        if node.attr in ("strerror", "message"):
            return "reason"
        if node.attr == "__name__":
            return "kind of error" if "error" in written else "type"
        named = node.attr.strip("_").replace("_", " ")
        return (
            f"{owner} {named}" if named in ("id", "name", "shape") and owner != "place" else named
        )
    if isinstance(node, ast.Call):
        called = getattr(node.func, "id", getattr(node.func, "attr", ""))
        inner = word(node.args[0]) if node.args else "value"
        words = {"len": f"number of {inner}", "type": "type", "get_args": f"known {inner}"}
        if called == "get" and isinstance(node.args[0], ast.Constant):
            return str(node.args[0].value).replace("_", " ")
        return words.get(called, inner)
    if isinstance(node, ast.Subscript):
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            return WORDS.get(node.slice.value, node.slice.value.replace("_", " "))
        if isinstance(node.slice, ast.Constant):
            return f"first of {word(node.value)}"
        return word(node.value)
    if isinstance(node, ast.List | ast.Starred | ast.GeneratorExp | ast.ListComp):
        return "known names"
    if isinstance(node, ast.BinOp | ast.BoolOp):
        return word(node.left if isinstance(node, ast.BinOp) else node.values[0])
    return "value"
