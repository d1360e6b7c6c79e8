"""What loads what: starting up is quick, CPU-only work never loads torch, and imports stand at the top of a file."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What every start-up reads; torch, OpenCV and SciPy would cost seconds.
START = ["pipelines.check", "pipelines.settings", "pipelines.exits.costs", "pipelines.irnet.costs",
         "pipelines.panoptic.costs", "pipelines.wise.costs",
         "stages.detector.engines", "stages.detector.settings", "stages.evaluation.settings", "stages.cues.settings",
         "stages.prepare.kinds", "stages.prepare.settings", "stages.propagation.settings", "stages.proposals.costs",
         "stages.proposals.settings", "stages.runtime.errors",
         "stages.runtime.files", "stages.runtime.layout", "stages.runtime.settings", "stages.runtime.stage"]
# Work on arrays, in worker processes that import it anew.
ARRAYS = ["stages.detector.data", "stages.prepare.records", "stages.propagation.dense_crf",
          "stages.propagation.random_walk", *(f"stages.labels.{path.stem}" for path in
                                              sorted((ROOT / "stages/labels").glob("[a-z]*.py")))]
# `run_stage` decides how many threads torch gets, which it reads when it is first imported: no stage imports it before.
STAGES = [".".join(path.relative_to(ROOT).with_suffix("").parts) for folder in ("pipelines", "stages")
          for path in sorted((ROOT / folder).rglob("*.py")) if "run_stage(main" in path.read_text(encoding="utf-8")]
# Folders that are done with imports inside functions.
AT_THE_TOP = ["stages/detector", "stages/labels", "stages/prepare", "stages/propagation", "stages/proposals"]


@pytest.mark.parametrize(("modules", "heavy"), [
    pytest.param(START, ["torch", "cv2", "scipy", "PIL"], id="start"), pytest.param(ARRAYS, ["torch"], id="arrays"),
    pytest.param(STAGES, ["torch"], id="stages")])
def test_light_modules(modules, heavy):
    """In one process, so that the first of them that loads a heavy library is the one to blame."""
    code = ("import importlib, json, sys\n"
            "modules, heavy = json.loads(sys.argv[1])\n"
            "for module in modules:\n"
            "    importlib.import_module(module)\n"
            "    loaded = [name for name in heavy if name in sys.modules]\n"
            "    if loaded:\n"
            "        sys.exit(f'{module} loads {loaded}')\n")
    done = subprocess.run([sys.executable, "-c", code, json.dumps([modules, heavy])], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr


def test_stages_are_found():
    assert {"stages.prepare.prepare", "stages.prepare.annotate", "stages.detector.train", "pipelines.check"} < {*STAGES}


@pytest.mark.parametrize("folder", AT_THE_TOP)
def test_imports_stand_at_the_top(folder):
    """The `main` of a stage may import what is heavy."""
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) and function.name != "main":
                found += [f"{path.relative_to(ROOT)}:{item.lineno}" for item in ast.walk(function)
                          if isinstance(item, (ast.Import, ast.ImportFrom))]
    assert not found
