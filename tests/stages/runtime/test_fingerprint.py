import subprocess
import sys
from pathlib import Path

import pytest

from stages.runtime import fingerprint

FILES = {
    "stages/__init__.py": "",
    "stages/room/__init__.py": "",
    "stages/room/score.py": '"""A stage."""\n\nfrom stages.room import ap\nfrom stages.room.settings import Score\n\n\n'
                            "def main(params):\n    from stages.room import late\n    late.f(ap.g, Score)\n",
    "stages/room/ap.py": "def g(x):\n    return x + 1\n",
    "stages/room/late.py": "import numpy as np\n\n\ndef f(a, b):\n    return a, b\n",
    "stages/room/settings.py": "class Score:\n    limit: int = 3\n\n    def f(self):\n        return 2 * self.limit\n",
    "stages/room/engines.py": 'LOADED_BY_NAME = {"engine": {"one": "stages.room.one", "two": "stages.room.two"}}\n',
    "stages/room/one.py": "ONE = 1\n",
    "stages/room/two.py": "TWO = 2\n",
    "stages/room/page.py": 'LOADED_BY_NAME = ("stages/room/page.html",)\n',
    "stages/room/page.html": "<p>\n",
    "pipelines/__init__.py": "",
    "pipelines/m/__init__.py": "",
    "pipelines/m/first.py": "from stages.room import ap\n\nOUT = 'data/m/first'\n\n\ndef main(params):\n    ap.g(1)\n",
    "pipelines/m/second.py": "from pipelines.m.first import OUT\n\n\ndef main(params):\n    print(OUT)\n",
}


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """``edit(file, old, new)`` changes a file of a small project; without arguments it gives all fingerprints."""
    monkeypatch.setattr(fingerprint, "CODE", tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def prints():
        for function in (fingerprint._tree, fingerprint._digest_of_file, fingerprint.imported_by,
                         fingerprint.loaded_by_name):
            function.cache_clear()
        return {name: fingerprint.fingerprint(name, {"engine": "one"}) for name in (
            "stages.room.score", "stages.room.engines", "stages.room.page", "pipelines.m.first", "pipelines.m.second")}

    def edit(name, old, new):
        before, path = prints(), tmp_path / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        after = prints()
        return {key.rpartition(".")[2] for key in before if before[key] != after[key]}

    return edit


@pytest.mark.parametrize(("name", "old", "new", "changed"), [
    ("stages/room/ap.py", "x + 1", "x + 2", {"score", "first"}),
    ("stages/room/ap.py", "x + 1", "x  +  1  # more", set()),
    ("stages/room/ap.py", "def g(x):\n", "def g(x):\n    '''Text,\n    on two lines.'''\n\n", set()),
    ("stages/room/score.py", "A stage", "Another text", set()),
    ("stages/room/late.py", "return a, b", "return b, a", {"score"}),
    ("stages/room/settings.py", "= 3", "= 4", set()),  # the value counts where it is used, see pipelines/code.py
    ("stages/room/settings.py", "2 *", "3 *", {"score"}),
    ("stages/room/one.py", "1", "3", {"engines"}),
    ("stages/room/two.py", "2", "3", set()),  # not chosen
    ("stages/room/page.html", "<p>", "<b>", {"page"}),
    ("pipelines/m/first.py", "g(1)", "g(2)", {"first"}),
    ("pipelines/m/first.py", "data/m/first", "data/m/other", {"first", "second"}),
    ("stages/__init__.py", "", "X = 1\n", {"score", "engines", "page", "first"}),
])
def test_what_an_edit_changes(clone, name, old, new, changed):
    assert clone(name, old, new) == changed


def test_what_is_declared_must_be_there(clone, tmp_path):
    (tmp_path / "stages/room/page.html").unlink()
    with pytest.raises(LookupError, match="stages/room/page.html is loaded by a module of stages.room.page"):
        fingerprint.fingerprint("stages.room.page")


def test_indentation_and_strings_are_not_layout():
    def same(one, two):
        return fingerprint.tokens(one) == fingerprint.tokens(two)

    assert same("f(1,\n  2)\n", "f(1, 2)\n")
    assert not same("if a:\n    b()\nc()\n", "if a:\n    b()\n    c()\n")
    assert not same("x = 'a  b'\n", "x = 'a b'\n")
    assert not same("x = f'{a}  b'\n", "x = f'{a} b'\n")
    assert same("x = f'{a + 1:{w}} b'  # c\n", "x = f'{a + 1:{w}} b'\n")
    assert not same("x = 'a' 'b'\n", "x = 'a'\n")


def test_f_strings_are_one_text_in_every_python():
    """Before 3.12 the tokenizer gives them so; after it they come in pieces."""
    source = "x = f'a{b!r:>{w}}' + rf\"{c['d']}\\n\" + f'''{e}\nf'''\n"
    pieces = ["f'a{b!r:>{w}}'", "rf\"{c['d']}\\n\"", "f'''{e}\nf'''"]
    assert fingerprint.tokens(source) == ["x", "=", pieces[0], "+", pieces[1], "+", pieces[2], "\n"]


def test_every_stage_of_this_project_has_one():
    root = Path(__file__).resolve().parents[3]
    script = "from pipelines.check import main; from stages.runtime.fingerprint import *\n" \
             "assert 'stages.evaluation.average_precision' in modules_of('stages.evaluation.score')\n" \
             "print(fingerprint('pipelines.irnet.train_irnet'))"
    found = {subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True).stdout
             for _ in range(2)}
    assert len(found) == 1
