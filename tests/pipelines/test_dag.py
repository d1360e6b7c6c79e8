"""The graph of stages as the dvc.yaml files and the code give it: who reads what, and whether all of it is there."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import check, code
from pipelines.settings import IRNET_FIELDS, METHODS, SEMANTIC_MAPS
from stages.runtime.errors import UserError
from stages.runtime.settings import read_yaml

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted((ROOT / "pipelines" / "presets").glob("*.yaml"))
# The only stages that may know the truth of an image.
KNOW_TRUTH = {"prepare", "annotate", "score", "evaluate", "report"}
MADE = ("data/", "models/", "metrics/")
# How a stage walks over images with a network. WISE's find_points is left out: peaks are traced in single precision.
WALKS = re.compile(r"\b(walk_stage|walk_images|detection_stage|infer_all)\b")


def _common() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def _stages(method: str) -> dict[str, dict[str, Any]]:
    """Stages of the common chain and of one method, by name."""
    common = _common()
    own = yaml.safe_load((ROOT / "pipelines" / method / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert not set(common) & set(own)
    return {**common, **own}


# Not a method: a stage that the methods share that want it.
SHARED = {"proposals": ["propose"]}
CASES = [*((method, name) for method in METHODS for name in _stages(method)),
         *((folder, name) for folder, names in SHARED.items() for name in names)]
each_stage = pytest.mark.parametrize(("method", "name"), CASES)


def _value(params: dict[str, Any], path: str) -> Any:
    """What a preset holds at a dotted path; KeyError if nothing."""
    found: Any = params
    for part in path.split("."):
        found = found[part]
    return found


def _filled(text: str, params: dict[str, Any]) -> str:
    return re.sub(r"\$\{([\w.]+)\}", lambda match: str(_value(params, match[1])), text)


def _names(entries: list[Any], params: dict[str, Any]) -> list[str]:
    """Paths or parameters of a list in dvc.yaml, with the preset's values in their templates."""
    return [_filled(next(iter(entry)) if isinstance(entry, dict) else entry, params) for entry in entries]


def _params(preset: Path, method: str) -> dict[str, Any]:
    return {**read_yaml(preset), "method": method}


def _outputs(stage: dict[str, Any], params: dict[str, Any]) -> list[str]:
    return [name for kind in ("outs", "metrics", "plots") for name in _names(stage.get(kind, []), params)]


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _module(stage: dict[str, Any]) -> str:
    words = stage["cmd"].split()
    assert words[:2] == ["python", "-m"]
    assert len(words) == 3
    return words[2]


@cache
def _imports(module: str) -> frozenset[str]:
    """Modules of the project that a module imports, directly or not, wherever in its code; itself included."""
    found: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        path = ROOT / f"{name.replace('.', '/')}.py"
        if name in found or not path.exists():
            continue
        found.add(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                pending += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                pending += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return frozenset(found)


@cache
def _tracked() -> frozenset[str]:
    result = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip("no Git here")
    return frozenset(result.stdout.splitlines())


@each_stage
def test_only_those_that_may_depend_on_the_truth(method, name):
    for preset in PRESETS:
        params = _params(preset, method)
        deps = _names(_stages(method)[name]["deps"], params)
        knows = [dep for dep in deps if dep.endswith("_truth.json") or _below("data/dataset/train_truth.json", dep)]
        assert not knows or name in KNOW_TRUTH or method == "masks", f"{name} depends on {', '.join(knows)}"


@each_stage
def test_the_code_of_the_others_does_not_mention_the_truth(method, name):
    """The modules that a stage imports, however deep; only the layout itself says where the truth lies."""
    if name in KNOW_TRUTH or method == "masks":
        return
    assert _mentioning_truth(_imports(_module(_stages(method)[name]))) == []


def _mentioning_truth(modules: frozenset[str]) -> list[str]:
    return [module for module in sorted(modules - {"stages.runtime.layout"}) if re.search(
        r"\bTRUTH\b|_truth\b", (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))]


def test_the_search_sees_imports_inside_functions_and_finds_those_who_know():
    found = _imports("stages.evaluation.score")
    for knows in ("stages.evaluation.score", "stages.prepare.annotate", "pipelines.masks.take_masks"):
        assert _mentioning_truth(_imports(knows))
    assert {"stages.evaluation.score", "stages.evaluation.measure", "stages.runtime.files"} <= found
    assert "stages.labels.coco" in _imports("pipelines.masks.take_masks")


@each_stage
def test_a_stage_is_named_after_its_module(method, name):
    stage = _stages(method)[name]
    module = _module(stage)
    path = f"{module.replace('.', '/')}.py"
    assert module.rpartition(".")[2] == name
    if name != "check":
        code = name if name in _common() else f"{method}/{name}"
        assert f"data/code/{code}" in stage["deps"], "a stage depends on its own code"
        assert not [dep for dep in stage["deps"] if dep.endswith(".py")], "and on no list of files"
    text = (ROOT / path).read_text(encoding="utf-8")
    assert "def main(params: Path) -> None:" in text
    assert "run_stage(main, __doc__)" in text


@each_stage
def test_everything_waits_for_check(method, name):
    stage = _stages(method)[name]
    assert ("data/check" in stage["deps"]) == (name != "check")
    assert "always_changed" not in stage
    assert "frozen" not in stage


def test_methods_run_in_the_root_and_write_below_their_own_names():
    for method in METHODS:
        own = yaml.safe_load((ROOT / "pipelines" / method / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        for name, stage in own.items():
            assert stage["wdir"] == "../..", name
            assert _module(stage).startswith(f"pipelines.{method}.")
            for path in _outputs(stage, {}):
                assert _below(path, f"data/{method}") or _below(path, f"models/{method}") or (
                    path.startswith(f"metrics/{method}_")), path
        outputs = [path for stage in own.values() for path in _outputs(stage, {})]
        assert f"data/{method}/pseudo_labels.json" in outputs
        assert f"data/{method}/gallery" in outputs


def test_every_method_has_its_files_and_nothing_else_is_a_method():
    folders = {path.parent.name for path in ROOT.glob("pipelines/*/dvc.yaml")}
    assert folders == {*METHODS, *SHARED}
    for folder, names in SHARED.items():
        assert {*_stages(folder)} == {*_common(), *names}
        assert [path.name for path in (ROOT / "pipelines" / folder).iterdir() if path.suffix == ".py"] == []
    for method in METHODS:
        assert (ROOT / "pipelines" / method / "__init__.py").exists()


@each_stage
def test_every_dependency_is_in_git_or_made_by_a_stage(method, name):
    for preset in PRESETS:
        params = _params(preset, method)
        stages = _stages(method)
        # A method may build on another, whose chain DVC then runs too.
        made = [path for other in [*METHODS, *SHARED] for stage in _stages(other).values()
                for path in _outputs(stage, params)]
        for dep in _names(stages[name]["deps"], params):
            if dep == str(check.REFERENCE):  # nobody's output: `check` makes an empty one where there is none
                continue
            if dep.startswith(MADE):
                assert any(_below(dep, path) or _below(path, dep) for path in made), f"nothing makes {dep}"
            elif dep != "params.yaml" and dep != params["dataset"]["root"]:
                assert any(_below(path, dep) for path in _tracked()), f"{dep} is not in Git"


def test_bestie_runs_the_method_whose_maps_are_taken_and_nothing_of_it_otherwise():
    deps = {name: stage["deps"] for name, stage in _stages("bestie").items() if name not in _common()}
    users = [name for name, names in deps.items() if "${bestie.maps.folder}" in names]
    assert users == ["train_segmenter", "infer_semantic"]
    assert not [dep for names in deps.values() for dep in names for method in SEMANTIC_MAPS.values() if method in dep]
    for folder, method in SEMANTIC_MAPS.items():
        params = _params(PRESETS[0], method)
        made = {name: _outputs(stage, params) for name, stage in _stages(method).items()}
        assert [name for name, paths in made.items() if str(folder) in paths] == ["synthesize"]


def test_who_runs_the_proposals():
    wanting = [method for method in METHODS if check.wants_proposals(method)]
    assert wanting == ["panoptic", "wise"]
    assert "data/proposals" not in {dep for stage in _common().values() for dep in stage["deps"]}
    assert _outputs(_stages("proposals")["propose"], {}) == ["data/proposals"]
    made = _params(PRESETS[0], "wise")
    made["proposals"]["source"] = "elsewhere/sharpmask.json"
    assert "elsewhere/sharpmask.json" in _names(_stages("proposals")["propose"]["deps"], made), "DVC watches the file"


def test_proposals_run_irnet_if_its_boundaries_are_taken_and_nothing_of_it_otherwise():
    params = _params(PRESETS[0], "wise")
    deps = _stages("proposals")["propose"]["deps"]
    assert not [dep for dep in _names(deps, params) if "irnet" in dep]
    params["proposals"]["maps"] = {"features": "elsewhere/features", "boundary": str(IRNET_FIELDS)}
    assert {"elsewhere/features", "data/irnet/fields"} <= set(_names(deps, params)), "DVC watches the maps"
    made = {name: _outputs(stage, params) for name, stage in _stages("irnet").items()}
    assert [name for name, paths in made.items() if str(IRNET_FIELDS) in paths] == ["infer_fields"]


def test_what_shapes_are_rendered_by_is_in_git():
    root = read_yaml(ROOT / "pipelines/presets/shapes.yaml")["dataset"]["root"]
    assert root in _tracked()


@each_stage
def test_every_parameter_is_in_every_preset(method, name):
    """DVC stops at a parameter that params.yaml leaves out, even where it has a default."""
    for preset in PRESETS:
        params = _params(preset, method)
        for path in _names(_stages(method)[name].get("params", []), params):
            try:
                _value(params, path)
            except (KeyError, TypeError):
                pytest.fail(f"{preset.name} lacks {path}, which the stage {name} names")


@each_stage
def test_settings_that_change_nothing_rerun_nothing(method, name):
    """Of how a run is done, the number format of networks alone changes what comes out, of what trains or asks one."""
    named = [entry for entry in _stages(method)[name].get("params", []) if str(entry).startswith("runtime")]
    trains = name.startswith(("train", "retrain")) or (method, name) == ("panoptic", "refine")
    text = (ROOT / f"{_module(_stages(method)[name]).replace('.', '/')}.py").read_text(encoding="utf-8")
    assert named == (["runtime.precision"] if trains or WALKS.search(text) else [])


def test_check_sees_every_change_of_the_code():
    deps = _common()["check"]["deps"]
    assert deps == ["params.yaml", "stages", *code.code_files(ROOT / "pipelines", ROOT)]
    assert "__pycache__" in (ROOT / ".dvcignore").read_text(encoding="utf-8").split()


def test_a_module_that_nobody_listed_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (Path("dvc.yaml"), *(Path(name) for name in code.code_files(ROOT / "pipelines", ROOT))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / path).read_bytes())
    code.check_dependencies()
    Path("pipelines/irnet/mine.py").write_text("")
    with pytest.raises(UserError, match=r"leave out pipelines/irnet/mine.py.* add the line: - pipelines/irnet/mine.py"):
        code.check_dependencies()


@pytest.mark.parametrize("method", METHODS)
def test_no_output_is_made_twice_and_there_is_no_circle(method):
    params = _params(PRESETS[0], method)
    stages = _stages(method)
    outputs = [path for stage in stages.values() for path in _outputs(stage, params)]
    for path in outputs:
        assert [other for other in outputs if _below(path, other)] == [path]
    makers = {path: name for name, stage in stages.items() for path in _outputs(stage, params)}
    done: set[str] = set()
    while len(done) < len(stages):
        ready = {name for name, stage in stages.items() if name not in done and all(
            maker in done for path, maker in makers.items()
            for dep in _names(stage["deps"], params) if _below(dep, path) or _below(path, dep))}
        assert ready, f"circle among {sorted(set(stages) - done)}"
        done |= ready


def test_metrics_are_outside_the_cache_so_that_git_can_compare_them():
    for name, stage in _stages("irnet").items():
        for entry in stage.get("metrics", []):
            if name in KNOW_TRUTH:
                assert isinstance(entry, dict)
                assert next(iter(entry.values())) == {"cache": False}
