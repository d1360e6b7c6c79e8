from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from stages.runtime.errors import UserError
from stages.runtime.settings import (
    Arguments,
    Count,
    Positive,
    RuntimeSettings,
    Settings,
    load_settings,
    nearest,
    read_yaml,
    validate,
)


class Inner(Settings):
    rate: float = Field(0.1, gt=0, le=1, description="rate")
    kind: Literal["sgd", "adamw"] = Field("sgd", description="kind")


class Outer(Settings):
    epochs: int = Field(3, ge=1, description="epochs")
    flip: bool = Field(True, description="flip")
    inner: Inner = Field(Inner(), description="inner")
    maybe: Inner | None = Field(None, description="inner, or nothing")
    limit: int | None = Field(None, ge=1, description="limit")
    split: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="split")
    pair: tuple[int, int] = Field((1, 2), description="two numbers")
    sides: tuple[Annotated[int, Field(ge=16)], ...] = Field((32,), min_length=1, description="sides")
    layers: list[Inner] = Field([], description="layers")
    arguments: Arguments = Field({}, description="arguments")
    scales: tuple[Positive, ...] = Field((1.0,), description="scales")
    strides: tuple[Count, ...] = Field((1,), description="strides")
    named: dict[str, Inner] = Field({}, description="by name")

    @model_validator(mode="after")
    def _agree(self) -> "Outer":
        if self.limit is not None and self.split is not None:
            raise ValueError("limit and split exclude each other; remove one")
        return self


@pytest.fixture
def load(tmp_path):
    def call(text, **sections):
        (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
        return load_settings(tmp_path / "params.yaml", **(sections or {"outer": Outer}))

    return call


@pytest.fixture
def message(load, tmp_path):
    """The error that a text gives, the folder's name taken out."""

    def call(text, **sections):
        with pytest.raises(UserError) as caught:
            load(text, **sections)
        assert "params.yaml" in str(caught.value)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return call


def test_what_is_given_and_what_is_left_out(load):
    outer = load("outer: {epochs: 5, inner: {rate: 1e-4}, sides: [16, 64], split: 0.2, maybe: {kind: adamw}}").outer
    assert outer.epochs == 5
    assert outer.inner.rate == 1e-4  # YAML 1.1 takes 1e-4 for text
    assert outer.sides == (16, 64)
    assert outer.split == 0.2
    assert outer.maybe == Inner(kind="adamw")
    assert outer.pair == (1, 2)
    with pytest.raises(ValueError, match="frozen"):
        outer.epochs = 6


def test_only_the_named_sections_are_read(load):
    found = load("seed: 7\nmethod: irnet\nouter: {}\nother: {nonsense: 1}\n", seed=int, method=str, outer=Outer)
    assert vars(found) == {"seed": 7, "method": "irnet", "outer": Outer()}


@pytest.mark.parametrize(("text", "expected"), [
    ("outer: {epoch: 3}", "params.yaml: outer.epoch: unknown key; did you mean 'epochs'?"),
    ("outer: {inner: {rat: 3}}", "params.yaml: outer.inner.rat: unknown key; did you mean 'rate'?"),
    ("outer: {inner: {rat: 3}}", " (allowed: kind, rate)"),
    ("outer: {maybe: {rat: 3}}", "params.yaml: outer.maybe.rat: unknown key; did you mean 'rate'?"),
    ("outer: {layers: [{}, {rat: 3}]}", "params.yaml: outer.layers.1.rat: unknown key; did you mean 'rate'?"),
    ("outer: {named: {first: {rat: 3}}}", "params.yaml: outer.named.first.rat: unknown key; did you mean 'rate'?"),
    ("outer: {zzz: 3}", "params.yaml: outer.zzz: unknown key (allowed: arguments, epochs, flip, inner, layers, limit"),
    ("outer: {epochs: many}", "params.yaml: outer.epochs: input should be a valid integer"),
    ("outer: {epochs: many}", "found 'many'"),
    ("outer: {epochs: 0}", "params.yaml: outer.epochs: input should be greater than or equal to 1, found 0"),
    ("outer: {epochs: true}", "params.yaml: outer.epochs: input should be a number, found True"),
    ("outer: {split: false}", "params.yaml: outer.split: input should be a number, found False"),
    ("outer: {flip: 3}", "params.yaml: outer.flip: input should be a valid boolean"),
    ("outer: {inner: {rate: .nan}}", "params.yaml: outer.inner.rate: input should be a finite number, found nan"),
    ("outer: {arguments: {widths: [8, {a: .nan}]}}", "params.yaml: outer.arguments: input should be a finite number"),
    ("outer: {arguments: {width: -.inf}}", "params.yaml: outer.arguments: input should be a finite number"),
    ("outer: {scales: [1, 0]}", "params.yaml: outer.scales.1: input should be greater than 0, found 0"),
    ("outer: {strides: [0]}", "params.yaml: outer.strides.0: input should be greater than or equal to 1, found 0"),
    ("outer: {inner: {kind: adam}}", "params.yaml: outer.inner.kind: input should be 'sgd' or 'adamw', found 'adam'"),
    ("outer: {inner: {kind: adam}}", "did you mean 'adamw'?"),
    ("outer: {inner: 5}", "params.yaml: outer.inner: a mapping of keys was expected, found 5"),
    ("outer: {inner: }", "params.yaml: outer.inner: a mapping of keys was expected, found nothing"),
    ("outer:", "params.yaml: outer: a mapping of keys was expected, found nothing"),
    ("outer: [1]", "params.yaml: outer: a mapping of keys was expected, found [1]"),
    ("outer: {split: -3}", "params.yaml: outer.split: input should be greater than or equal to 1, or input should be "
                           "greater than 0, found -3"),
    ("outer: {pair: [1]}", "params.yaml: outer.pair.1: missing; it is required"),
    ("outer: {sides: [32, 8]}", "params.yaml: outer.sides.1: input should be greater than or equal to 16, found 8"),
    ("outer: {sides: []}", "params.yaml: outer.sides: tuple should have at least 1 item"),
    ("outer: {5: 1}", "params.yaml: outer.5: keys should be strings"),
    ("outer: {limit: 3, split: 2}", "params.yaml: outer: limit and split exclude each other; remove one"),
    ("outr: {}", "params.yaml: outer: missing section; did you mean 'outr'?"),
    ("something: {}", "params.yaml: outer: missing section"),
])
def test_a_mistake_is_a_sentence(message, text, expected):
    found = message(text)
    assert expected in found
    assert "\n" not in found
    assert "constrained" not in found


def test_wrong_items_are_not_said_to_be_missing(message):
    found = message("outer: {sides: [3]}")
    assert "outer.sides.0" in found
    assert "at least 1 item" not in found


def test_numbers_at_the_top_are_taken_as_they_are(message):
    for text in ("seed: true", "seed: x", "seed: 1.5", "seed: '1'", "seed:"):
        assert "params.yaml: seed: input should be a valid integer, found" in message(text, seed=int)
    assert "method: input should be a valid string, found 3" in message("method: 3", method=str)


def test_every_mistake_at_once(message):
    found = message("seed: x\nouter: {epoch: 3, inner: {rate: 2, kind: adam}}\n", seed=int, outer=Outer, method=str)
    assert found.startswith("params.yaml: settings are wrong:\n")
    for part in ("seed: input", "outer.epoch: unknown", "outer.inner.rate: input", "outer.inner.kind: input",
                 "method: missing section"):
        assert part in found
    assert len(found.splitlines()) == 6


def test_very_many_mistakes_are_counted(message):
    found = message("outer: {" + ", ".join(f"k{number}: 1" for number in range(25)) + "}")
    assert found.endswith("... and 15 more")


BOMB = "[&a [x,x,x,x,x,x,x,x,x], " + ", ".join(
    f"&{after} [{','.join([f'*{before}'] * 9)}]" for before, after in zip("abcdefg", "bcdefgh", strict=True)) + "]"


@pytest.mark.parametrize("value", ["a" * 300, "x/" + "ü" * 130, "a\0b", "\ud800", "a/" * 3000])
def test_texts_that_no_file_can_be_named_by(value):
    with pytest.raises(UserError, match="runtime.device: a text that can name a file was expected.*found '") as error:
        validate("params.yaml", {"runtime": {"device": value}}, {"runtime": RuntimeSettings})
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(("text", "expected"), [
    ("", "params.yaml: a mapping of sections was expected, found an empty file"),
    ("# only a comment\n", "found an empty file"),
    ("- 1\n", "a mapping of sections was expected, found list"),
    ("text", "a mapping of sections was expected, found str"),
    ("day: 2024-13-45\n", "params.yaml: a value cannot be read (month must be in 1..12); put texts into quotes"),
    ("x: " + "[" * 3000 + "]" * 3000, "params.yaml: a value cannot be read"),
    ("seed: !!python/object:os.system x\n", "params.yaml (line 1, column 7): could not determine a constructor"),
    ("seed: " + "9" * 5000 + "\n", "params.yaml (line 1, column 7): a number of more than 80 characters"),
    ("seed: 0x" + "f" * 5000 + "\n", "params.yaml (line 1, column 7): a number of more than 80 characters"),
    ("seed: 9223372036854775808\n", "params.yaml (line 1, column 7): a whole number beyond 64 bits"),
    ("a: &a [*a]\n", "params.yaml (line 1, column 1): aliases (*) stand for more than 100000 values, or"),
    (f"a: {BOMB}\n", "aliases (*) stand for more than 100000 values"),
    ("seed: 1\nseed: 2\n", "params.yaml (line 2, column 1): key 'seed' appears twice"),
    ("outer:\n  epochs: 1\n  flip: true\n  epochs: 2\n", "params.yaml (line 4, column 3): key 'epochs' appears twice"),
    ("outer: [1\n", "params.yaml (line 2, column 1):"),
    ("outer:\n\tepochs: 1\n", "params.yaml (line 2, column 1):"),
    ("? [a, b]\n: 3\n", "params.yaml (line 1, column 3): a key must be a word"),
    ("outer: !!python/object:os.system {}\n", "could not determine a constructor"),
    ("a\x01: 3\n", "special characters are not allowed"),
])
def test_bad_yaml(message, text, expected):
    assert expected in message(text)


def test_merged_mappings_may_be_overridden(tmp_path):
    (tmp_path / "p.yaml").write_text("base: &base {a: 1, b: 2}\nother:\n  <<: *base\n  b: 3\n")
    assert read_yaml(tmp_path / "p.yaml")["other"] == {"a": 1, "b": 3}


def test_unreadable_files(tmp_path):
    with pytest.raises(UserError, match=r"absent.yaml: no such file; copy one from pipelines/presets/"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(UserError, match="not a UTF-8 text file"):
        read_yaml(tmp_path / "latin.yaml")


def test_nearest():
    assert nearest("irnte", ["irnet", "wise"]) == "; did you mean 'irnet'?"
    assert nearest("xyz", ["irnet", "wise"]) == ""
    assert nearest("irnet", []) == ""


def test_runtime_settings_refuse_what_no_machine_has():
    for wrong in ({"workers": -1}, {"processes": 0}, {"backend": "threads"}, {"precision": "64"},
                  {"checkpoint_seconds": 0}):
        with pytest.raises(ValueError, match="nput should be"):
            RuntimeSettings(**wrong)
