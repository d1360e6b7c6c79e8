"""What code a stage runs, as one line: so that a mended line reruns what used it, and a mended comment reruns nothing.

A fingerprint is a digest of the tokens of every module of the project that a module imports, directly or not, also
inside functions. Comments, docstrings and layout do not count, nor does the version of Python. Two kinds of modules
count in part only: of another stage, which is imported for the paths that it makes, those paths; of settings, all but
the fields, because it is their values in a run that count. What a module loads by name it declares beside the loading,
at its top level::

    LOADED_BY_NAME = ("stages/evaluation/report.html.j2",)                       # files and modules, always
    LOADED_BY_NAME = {"detector.engine": {"torchvision": "stages.detector.torchvision_engine"}}   # by a setting
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

CODE = Path(__file__).resolve().parents[2]
"""The folder that holds ``stages`` and ``pipelines``."""
_PACKAGES = ("stages", "pipelines")
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
_MARKS = {tokenize.NEWLINE: "\n", tokenize.INDENT: "{", tokenize.DEDENT: "}"}


def module_of(file: str | Path) -> str:
    """Dotted name of the project's module that ``file`` is."""
    return ".".join(Path(file).resolve().relative_to(CODE).with_suffix("").parts)


def path_of(module: str) -> Path | None:
    """The file of a module or package of the project, or none."""
    if module.partition(".")[0] not in _PACKAGES:
        return None
    base = CODE.joinpath(*module.split("."))
    found = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in found if path.is_file()), None)


def tokens(source: str) -> list[str]:
    """The tokens that decide what Python source does.

    A statement of nothing but texts (a docstring) is left out. From Python 3.12 on an f-string comes in pieces, before
    that as one text: it is put together again as it stands in the source.
    """
    kept: list[str] = []
    statement: list[str] = []
    only_text = True
    for kind, text in _whole_strings(source):
        if kind in _LAYOUT:
            continue
        if kind in _MARKS and kind != tokenize.NEWLINE:
            kept.append(_MARKS[kind])
        elif kind == tokenize.NEWLINE:
            if not only_text:
                kept += [*statement, _MARKS[kind]]
            statement, only_text = [], True
        else:
            statement.append(text)
            only_text = only_text and kind == tokenize.STRING
    return kept + ([] if only_text else statement)


def _whole_strings(source: str) -> Iterator[tuple[int, str]]:
    """(kind, text) of the tokens of ``source``, every f-string as one text."""
    start_kind = getattr(tokenize, "FSTRING_START", None)
    end_kind = getattr(tokenize, "FSTRING_END", None)
    lines = source.splitlines(keepends=True)
    depth, start = 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if start_kind is not None and token.type == start_kind:
            start = token.start if depth == 0 else start
            depth += 1
        elif end_kind is not None and token.type == end_kind:
            depth -= 1
            if depth == 0:
                yield tokenize.STRING, _between(lines, start, token.end)
        elif depth == 0:
            yield token.type, token.string


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """The source from ``start`` to ``end``, (line from 1, column) each."""
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1]:end[1]]
    return "".join([lines[start[0] - 1][start[1]:], *lines[start[0]:end[0] - 1], lines[end[0] - 1][:end[1]]])


def is_stage(path: Path) -> bool:
    """Whether a module is a DVC stage: it has ``main(params)`` at its top level."""
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" and [
        argument.arg for argument in node.args.args] == ["params"] for node in _tree(path).body)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _digest_of_file(path: Path, paths_only: bool) -> bytes:
    if path.suffix != ".py":
        return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
    source, body = path.read_text(encoding="utf-8"), _tree(path).body
    if paths_only:
        source = _without(source, [node for node in body if not isinstance(node, (ast.Assign, ast.AnnAssign))])
    elif path.stem == "settings":
        source = _without(source, [field for node in body if isinstance(node, ast.ClassDef) for field in node.body
                                   if isinstance(field, ast.AnnAssign)])
    return hashlib.blake2b("\0".join(tokens(source)).encode(), digest_size=16).digest()


def _without(source: str, nodes: Sequence[ast.stmt]) -> str:
    """``source`` without some statements; a ``pass`` in their place keeps the blocks that they were in whole."""
    lines = source.splitlines()
    for node in nodes:
        first = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", []))])
        for number in range(first - 1, node.end_lineno or node.lineno):
            lines[number] = ""
        lines[first - 1] = " " * node.col_offset + "pass"
    return "\n".join(lines) + "\n"


@cache
def imported_by(path: Path) -> frozenset[str]:
    """Modules of the project that a file imports itself, their packages included."""
    names: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    whole = {".".join(name.split(".")[:count]) for name in names for count in range(1, name.count(".") + 2)}
    return frozenset(name for name in whole if path_of(name) is not None)


@cache
def loaded_by_name(path: Path) -> tuple[tuple[str | None, str | None, str], ...]:
    """(setting, value, module or file) of what a file declares in ``LOADED_BY_NAME``; no setting where it is always
    loaded."""
    for node in _tree(path).body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == "LOADED_BY_NAME" for target in targets):
            declared = ast.literal_eval(node.value)
            if isinstance(declared, Mapping):
                return tuple((setting, value, name) for setting, choices in declared.items()
                             for value, name in choices.items())
            return tuple((None, None, name) for name in declared)
    return ()


def choosing_settings() -> list[str]:
    """The settings by which something is loaded, wherever in the project."""
    files = [path for package in _PACKAGES for path in sorted((CODE / package).rglob("*.py"))]
    return sorted({setting for path in files for setting, _, _ in loaded_by_name(path) if setting is not None})


def modules_of(module: str, chosen: Mapping[str, str] | None = None) -> dict[str, Path]:
    """Every module (and declared file) of the project that ``module`` needs, itself included.

    Args:
        module: dotted name.
        chosen: value of each setting by which something is loaded; without it, all that may be loaded counts.

    Raises:
        LookupError: a declared module or file does not exist.
    """
    found: dict[str, Path] = {}
    parts = module.split(".")
    packages = [".".join(parts[:count]) for count in range(1, len(parts))]
    pending = [module, *(name for name in packages if path_of(name) is not None)]
    while pending:
        name = pending.pop()
        if name in found:
            continue
        path = path_of(name) if "/" not in name else CODE / name
        if path is None or not path.is_file():
            raise LookupError(f"{name} is loaded by a module of {module} and does not exist")
        found[name] = path
        if path.suffix != ".py" or (name != module and is_stage(path)):
            continue
        pending += imported_by(path)
        pending += [item for setting, value, item in loaded_by_name(path)
                    if chosen is None or setting is None or chosen.get(setting, value) == value]
    return found


def fingerprint(module: str, chosen: Mapping[str, str] | None = None) -> str:
    """32 hexadecimal digits of the code that ``module`` runs; arguments as for ``modules_of``."""
    digest = hashlib.blake2b(digest_size=16)
    for name, path in sorted(modules_of(module, chosen).items()):
        paths_only = name != module and path.suffix == ".py" and is_stage(path)
        digest.update(name.encode() + b"\0" + _digest_of_file(path, paths_only))
    return digest.hexdigest()
