"""Any settings file: what stands in it, or one sentence."""

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from stages.runtime.settings import RuntimeSettings, Settings, TrainingSettings, read_yaml, validate
from tests.fuzz.settings_files import BOMB
from tests.fuzz.strategies import promised, small, values

WORDS = st.sampled_from(["a", "b", "1", "0x1F", "1e3", ".nan", "2020-01-01", "2020-13-01", "*a", "&a", "<<",
                         "!!int x", "~",
                         "[", "]", "{", "}", ": ", "- ", "\n", "  ", '"', "'", "!!python/none", "yes", "|", "#", ","])


class Whole(Settings):
    """Sections as a params.yaml has them."""

    runtime: RuntimeSettings = RuntimeSettings()
    training: TrainingSettings = TrainingSettings()


@small(120)
@given(st.lists(WORDS, max_size=12).map("".join))
@example("a: 0x" + "f" * 5000)
@example(f"a: {BOMB}")
@example("a: &a [*a]")
@example("a: &a {b: *a}")
@example("a: 0b" + "1" * 20_000)
@example("a: " + "[" * 3000)
def test_yaml_is_read_or_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    content = promised(lambda: read_yaml(path))
    assert content is None or (isinstance(content, dict) and len(repr(content)) < 10**6)
    if content is not None:
        # What YAML itself reads; a key given twice was to be refused.
        assert repr(content) == repr(yaml.safe_load(text))


@small(120)
@given(st.sampled_from(["runtime", "training"]), st.data())
def test_sections_are_taken_or_refused(section, data):
    fields = Whole.model_fields[section].annotation.model_fields
    key = data.draw(st.one_of(st.sampled_from(sorted(fields)), st.text(max_size=4)))
    value = data.draw(values)
    sections = {section: Whole.model_fields[section].annotation}
    found = promised(lambda: validate("params.yaml", {section: {key: value}}, sections))
    if found is not None:
        kept = getattr(getattr(found, section), key)
        assert kept == value or float(kept) == float(value)


def test_long_values_are_shortened(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(f"runtime: {{workers: {'x' * 50_000}}}")
    try:
        validate(path, read_yaml(path), {"runtime": RuntimeSettings})
    except Exception as error:
        assert len(str(error)) < 1000 and "runtime.workers" in str(error)
    else:
        raise AssertionError("it was taken")
