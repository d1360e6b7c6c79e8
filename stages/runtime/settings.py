"""Strict settings: ``params.yaml`` in, frozen pydantic models out, every mistake a sentence."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from stages.runtime.errors import UserError, summarise

LONGEST_NUMBER = 80
"""Characters of a number: of 64 binary digits there are more than of any other."""


class Settings(BaseModel):
    """Base of all settings: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_values_as_numbers(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, (bool, str)) and info.field_name is not None:
            options = set(_options(cls.model_fields[info.field_name].annotation))
            if isinstance(value, bool) and options & {int, float} and bool not in options:
                raise ValueError("input should be a number")
            if isinstance(value, str) and options <= {int, float} and len(value) > LONGEST_NUMBER:
                raise ValueError("input should be a number")  # of hundreds of digits, which no float holds
        if isinstance(value, str) and not _is_plain(value):
            raise ValueError("a text that can name a file was expected: no null character, no half of a character, at "
                             "most 255 bytes between slashes")
        return value


def _finite(value: Any) -> Any:
    """The value, if no number in it, however deep, is infinite or none."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("input should be a finite number")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _finite(item)
    return value


Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Arguments = Annotated[dict[str, Any], AfterValidator(_finite)]
"""Keyword arguments of a library's function."""


def _is_plain(text: str) -> bool:
    """Whether the file system can be asked for a text: most are paths, and no other is so long."""
    try:
        return "\0" not in text and len(text) < 4096 and all(len(part.encode()) <= 255 for part in text.split("/"))
    except UnicodeEncodeError:
        return False


class RuntimeSettings(Settings):
    """How the work is run; of all this the precision alone decides what comes out, and what trains or asks a network
    depends on it.

    Another device, or another number of threads or processes, may differ in the last bits, as sums are ordered anew.
    """

    device: str = Field("auto", description="torch device: auto, cpu, cuda, cuda:1, mps (not in the papers)")
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = Field(
        "32-true", description="number format of networks in training and inference, as Lightning Fabric names it; "
                   "the walks, CRFs and clusterings behind them are in single precision (not in the papers)")
    processes: int = Field(1, ge=1, description="training processes (DDP), one per GPU [processes] (not in the papers)")
    workers: int = Field(0, ge=0, description="processes for per-image work; 0 = one per core (not in the papers)")
    threads: int = Field(0, ge=0, description="threads of one process that trains or infers on the CPU; 0 = one per "
                                              "core; small networks are often as fast with 1 (not in the papers)")
    backend: Literal["loky", "dask", "ray"] = Field(
        "loky", description="joblib backend of the per-image work; dask and ray are extras (not in the papers)")
    checkpoint_seconds: float = Field(
        60.0, gt=0, description="longest training time between two checkpoints [s] (not in the papers)")


class TrainingSettings(Settings):
    """What every training has; methods override defaults and say where theirs come from."""

    epochs: int = Field(10, ge=1, description="passes over the training samples (not in the papers)")
    steps: int = Field(0, ge=0, description="training steps; 0 = `epochs` passes over the samples [steps] "
                                            "(not in the papers)")
    batch_size: int = Field(16, ge=1, description="samples per step, over all processes (not in the papers)")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="optimizer (not in the papers)")
    schedule: Literal["polynomial", "one_cycle", "cosine", "thirds", "last_third", "constant"] = Field(
        "polynomial", description="how the rate changes: polynomial (power 0.9), one_cycle, cosine, thirds (a tenth "
                                  "after each third of the steps), last_third (a tenth in the last third) or constant "
                                  "(not in the papers)")
    learning_rate: float = Field(0.01, gt=0, description="highest rate (not in the papers)")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd (not in the papers)")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay (not in the papers)")
    warmup_steps: int = Field(0, ge=0, description="linear rise of the rate from a thousandth [steps] "
                                                   "(not in the papers)")
    floor: float = Field(0.0, ge=0, lt=1, description="what the schedule falls to [share of the highest rate] "
                                                     "(not in the papers)")
    clip_norm: float = Field(0.0, ge=0, description="largest L2 norm of the whole gradient, 0 = no clipping "
                                                    "(not in the papers)")
    sync_batch_norm: bool = Field(False, description="batch statistics over all processes instead of each process's "
                                                     "own, on GPUs (not in the papers)")

    def passes(self, samples: int) -> float:
        """How often the training sees each of so many samples."""
        return self.steps * self.batch_size / max(1, samples) if self.steps else self.epochs


MOST_VALUES = 100_000
"""Values of a settings file."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice: YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            # Sections are keyed by plain words; "<<" takes a mapping in, which what stands beside it may override.
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} appears twice", key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)

    def construct_int(self, node: yaml.ScalarNode) -> int:
        """A whole number that can be printed: of hexadecimal digits Python reads any number, and prints 4300."""
        if len(self.construct_scalar(node)) > LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of more than {LONGEST_NUMBER} characters", node.start_mark)
        value = self.construct_yaml_int(node)
        if abs(value) >= 2**63:
            raise yaml.constructor.ConstructorError(None, None, "a whole number beyond 64 bits", node.start_mark)
        return value

    def content(self) -> Any:
        """The document.

        Aliases are references, and so lists of lists of them are small in the file and without end when they are
        written out: what they stand for counts each time.
        """
        node = self.get_single_node()
        if node is None:
            return None
        if _written_out(node, {}, set()) > MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"aliases (*) stand for more than {MOST_VALUES} values, or for themselves", node.start_mark)
        return self.construct_document(node)


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:int", _UniqueKeyLoader.construct_int)


def _written_out(node: yaml.Node, known: dict[int, float], above: set[int]) -> float:
    """How many values a node has with all aliases written out; infinite where one stands within itself."""
    if id(node) in above:
        return math.inf
    if id(node) not in known:
        items = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for item in items for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_written_out(part, known, above | {id(node)}) for part in parts)
    return known[id(node)]


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        UserError: missing, not YAML, a key twice, or not a mapping; file and line are named.
    """
    path = Path(path)
    try:
        content = _UniqueKeyLoader(path.read_text(encoding="utf-8")).content()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; copy one from pipelines/presets/") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a UTF-8 text file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise UserError(f"{path}{place}: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        # PyYAML lets through what its values raise: a date of month 13, a number of thousands of digits.
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply or no value that YAML has"
        raise UserError(f"{path}: a value cannot be read ({reason}); put texts into quotes") from None
    if not isinstance(content, dict):
        found = "an empty file" if content is None else type(content).__name__
        raise UserError(f"{path}: a mapping of sections was expected, found {found}")
    return content


def nearest(word: str, allowed: Sequence[str]) -> str:
    """A hint with the closest allowed spelling, or an empty string."""
    close = difflib.get_close_matches(str(word), [str(item) for item in allowed], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def shortened(value: object, most: int = 200) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _options(kind: object) -> list[object]:
    """What a type may be: the members of a union without None and without their constraints, or the type itself."""
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [option for member in get_args(kind) if member is not NoneType for option in _options(member)]
    return [kind]


def _item(kind: object, part: str | int) -> object:
    """Type of a field of a model, or of an item of a list, tuple or mapping."""
    fields = getattr(kind, "model_fields", {})
    if part in fields:
        return fields[part].annotation
    items = [item for item in get_args(kind) if item is not Ellipsis] or [object]
    if get_origin(kind) is dict:
        return items[-1]
    return items[part] if isinstance(part, int) and part < len(items) else items[0]


def _locate(kind: object, location: Sequence[str | int]) -> tuple[list[str], list[str]]:
    """The key path that a user knows, and the fields that are allowed where its last part stands.

    Pydantic's location also names the member of a union that it tried; nobody wrote that into a file.
    """
    path: list[str] = []
    fields: list[str] = []
    for part in location:
        options = _options(kind)
        if len(options) > 1:
            kind = next((option for option in options if getattr(option, "__name__", "") == part), object)
            continue
        fields = sorted(getattr(options[0], "model_fields", {}))
        path.append(str(part))
        kind = _item(options[0], part)
    return path, fields


def _message(error: ErrorDetails, path: Sequence[str], fields: Sequence[str]) -> str:
    """What is wrong with one value, without saying which value was found."""
    if error["type"] == "extra_forbidden":
        return f"unknown key{nearest(path[-1], fields)} (allowed: {', '.join(fields) or 'none'})"
    if error["type"] == "missing":
        return "missing; it is required"
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "a mapping of keys was expected"
    text = error["msg"].removeprefix("Value error, ")
    return text[0].lower() + text[1:]


def _hint(error: ErrorDetails) -> str:
    if error["type"] != "literal_error":
        return ""
    allowed = [item.strip(" '") for item in str(error["ctx"]["expected"]).replace(" or ", ", ").split(",")]
    return nearest(str(error["input"]), allowed)


def _sentences(path: Path, section: str, kind: object, errors: Sequence[ErrorDetails]) -> list[str]:
    """One sentence per wrong key; what the members of a union say of the same value is joined."""
    found: dict[str, tuple[list[str], str]] = {}
    wrong_items = {tuple(error["loc"][:-1]) for error in errors}
    for error in errors:
        if error["type"] == "too_short" and error["loc"] in wrong_items:
            continue  # pydantic counts only the items that are right
        location, fields = _locate(kind, error["loc"])
        silent = error["type"] in ("extra_forbidden", "missing") or (not location and isinstance(error["input"], dict))
        shown = "" if silent else f", found {'nothing' if error['input'] is None else shortened(error['input'])}"
        messages, _ = found.setdefault(".".join([section, *location]), ([], f"{shown}{_hint(error)}"))
        messages.append(_message(error, location, fields))
    return [f"{path}: {key}: {', or '.join(dict.fromkeys(messages))}{rest}" for key, (messages, rest) in found.items()]


def validate(path: str | Path, content: Mapping[str, object], sections: Mapping[str, Any]) -> SimpleNamespace:
    """Validate the named sections of ``content`` (read from ``path``) and collect every mistake in one message."""
    path = Path(path)
    problems: list[str] = []
    parsed: dict[str, object] = {}
    for section, kind in sections.items():
        if section not in content:
            problems.append(f"{path}: {section}: missing section{nearest(section, list(content))}")
            continue
        try:
            # A bare number is what it says; inside models YAML's 1e-4, which it takes for text, is a number too.
            parsed[section] = TypeAdapter(kind).validate_python(content[section], strict=kind is int or None)
        except ValidationError as error:
            problems += _sentences(path, section, kind, error.errors())
    if problems:
        raise UserError(problems[0] if len(problems) == 1 else summarise(problems, f"{path}: settings are wrong:"))
    return SimpleNamespace(**parsed)


def load_settings(path: str | Path, **sections: Any) -> SimpleNamespace:
    """Parse the named top-level sections of a ``params.yaml``, e.g. ``load_settings(path, seed=int, score=Score)``.

    Raises:
        UserError: with file, key path, the value found, what is allowed and the nearest spelling.
    """
    return validate(path, read_yaml(path), sections)
