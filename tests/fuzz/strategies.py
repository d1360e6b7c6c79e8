"""Hypothesis strategies of spoilt input, and the promise that is made for it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from stages.runtime.errors import UserError
from tests.fuzz.mutations import places

Result = TypeVar("Result")

numbers = st.one_of(st.integers(-3, 30), st.integers(), st.sampled_from([2**31, 2**63, 10**400, -(10**400)]),
                    st.floats(), st.floats(-40, 40))
texts = st.one_of(st.text(max_size=8), st.sampled_from(["\ud800", "\0", "a" * 300, "../x", "/etc/passwd", "\x1b[2J"]))
values = st.recursive(st.one_of(st.none(), st.booleans(), numbers, texts),
                      lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
                      max_leaves=6)
"""What JSON and YAML can hold, and some that only Python's readers take."""


def small(examples: int) -> settings:
    """Settings of the properties in the short suite: the same few examples in every run."""
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None,
                    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@st.composite
def spoilt(draw: st.DrawFn, tree: Any) -> Any:
    """A tree of dicts and lists with one or two of its values replaced, left out, or taken from elsewhere."""
    changed = {"": copy.deepcopy(tree)}
    for _ in range(draw(st.integers(1, 2))):
        found = places(changed)
        node, key = found[draw(st.integers(0, len(found) - 1))]
        way = draw(st.integers(0, 3))
        if way == 0 and node is not changed:
            del node[key]
        elif way == 1:
            other, other_key = found[draw(st.integers(0, len(found) - 1))]
            node[key] = copy.deepcopy(other[other_key])
        else:
            node[key] = draw(values)
    return changed[""]


def promised(function: Callable[[], Result]) -> Result | None:
    """The result of a function, or None where it refuses with a UserError that says something."""
    try:
        return function()
    except UserError as error:
        assert str(error).strip() and len(str(error)) < 20_000
        return None
