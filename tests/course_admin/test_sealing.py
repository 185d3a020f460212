"""What of a graded cell reaches a student's kernel, and what of course_utils."""

from __future__ import annotations

import ast

import nbformat
import pytest

from course_admin.build.lab import Targets
from course_admin.grading.sealing import modules_imported, seal
from course_admin.paths import Repository
from course_admin.stubs import write_package

REPOSITORY = Repository.find()
LABS = REPOSITORY.all_labs()

CELL = '''
check = Checks("f")
check.close("literal", lambda: f(2), 4.0, atol=1e-9, hint="it is 4.0")
check.equal("keyword", lambda: f(3), expected=[9, 9], dtype=True)
check.at_least("bound", lambda: g(f), 0.75)
check.at_most("bound by keyword", lambda: g(f), bound=123)
check.raises("kind", lambda: f("x"), TypeError, hint="TypeError")
np.equal(a, b, out)
### BEGIN HIDDEN TESTS
from course_utils import topic as reference
import torch.nn.utils.prune as oracle_module
SECRET = 987654
table = [SECRET + 1, 2]


def oracle(x):
    return table[0] * x


def helper(x):
    return x + 1


v = rng.normal(size=3)
w, unused = 1, 2
for k in (1, 2):
    check.close(f"hidden {k}", lambda k=k: f(helper(v), k), lambda k=k: reference.f(v, k) + oracle(k), rtol=1e-9)
### END HIDDEN TESTS
check.score(points=3)
'''


def test_nothing_that_knows_the_answer_is_left():
    sealed = seal({"check_f": CELL}, ["import numpy as np", "def g(f): pass"])["check_f"]
    for word in ("4.0", "[9, 9]", "0.75", "123", "TypeError", "reference", "oracle", "SECRET", "987654", "table", "hint"):
        assert word not in sealed, word
    for word in ("helper", "rng.normal", "f(helper(v), k)", "rtol=1e-09", "dtype=True", "np.equal(a, b, out)", "points=3"):
        assert word in sealed, word
    ast.parse(sealed)


def test_what_a_later_cell_reads_stays():
    first = "check = Checks('a')\n### BEGIN HIDDEN TESTS\nkept = 1\ngone = 2\n### END HIDDEN TESTS\ncheck.score(points=1)"
    second = "check = Checks('b')\ncheck.equal('x', lambda: kept, 1)\ncheck.score(points=1)"
    sealed = seal({"a": first, "b": second}, [])
    assert "kept = 1" in sealed["a"]
    assert "gone" not in sealed["a"]


def test_modules_to_import_beforehand():
    cells = ["import numpy as np\nfrom course_utils import plots", "%matplotlib inline\nimport torch.nn as nn", "def f(:"]
    found = modules_imported(cells)
    assert found == ["numpy", "course_utils", "course_utils.plots", "torch.nn"]


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)
def test_no_sealed_cell_of_a_lab_mentions_the_reference(lab):
    notebook = nbformat.read(Targets.of(REPOSITORY).instructor(lab), as_version=4)
    code = {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "code"}
    checks = {name: source for name, source in code.items() if name.startswith("check_")}
    sealed = seal(checks, [source for name, source in code.items() if name not in checks])
    assert sealed.keys() == checks.keys()
    for name, source in sealed.items():
        names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        assert "reference" not in names, name


def test_the_sandboxs_copy_imports_and_has_no_answer(tmp_path):
    write_package(REPOSITORY, [REPOSITORY.lab("lab1")], tmp_path)
    text = (tmp_path / "course_utils" / "sparse_linear" / "solvers.py").read_text()
    assert text.count("Lab 1, soft_threshold: its solution is not part of this copy") == 1
    assert (tmp_path / "course_utils" / "checks" / "core.py").read_text() == (
        REPOSITORY.root / "course_utils" / "checks" / "core.py"
    ).read_text()


def test_a_measured_check_keeps_its_measure_and_loses_its_bound():
    cell = "check = Checks('f')\ncheck.measured('size', lambda: f(1), size_of, at_least=2.5, hint='more')\ncheck.score(points=1)"
    sealed = seal({"check_f": cell}, [])["check_f"]
    assert "check.measured('size', lambda: f(1), size_of, at_least=None)" in sealed
