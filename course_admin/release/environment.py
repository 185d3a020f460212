"""What students install: pyproject.toml, environment.yml and README.md of the bundle.

The list of dependencies is the course's own, without what nothing in the bundle imports.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

ALWAYS = {"ipywidgets", "jupyterlab", "nbclient"}  # to open notebooks, move sliders and run the checks
IMPORT_NAMES = {"scikit-learn": "sklearn"}  # where the package is called differently from what is imported
CONDA_NAMES = {"torch": "pytorch"}

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}-labs"
version = "{version}"
description = "Labs of the course and what their notebooks import"
readme = "README.md"
requires-python = "{python}"
license = "{license}"
license-files = ["LICENSE", "LICENSE-text"]
dependencies = [
{dependencies}
]

[tool.setuptools.packages.find]
include = ["course_utils*"]
"""

ENVIRONMENT = """\
# For conda users: conda env create -f environment.yml
name: {name}-labs
channels:
  - conda-forge
dependencies:
  - python{python}
  - pip
{dependencies}
  - pip:
      - --editable .
"""

README = """\
# Labs

{table}

## Set up, once

You need Python {python} or newer. In this folder:

```bash
python3 -m venv .venv
source .venv/bin/activate            # Windows: .venv\\Scripts\\activate
python -m pip install -c constraints.txt -e .
```

With conda: `conda env create -f environment.yml`, then `conda activate {name}-labs`. Afterwards no network is needed.

## Work

`jupyter lab labs` opens the labs. Replace each `raise NotImplementedError(...)` by your code, keep the lines above it,
and do not change the cells with checks. **Run the checks as often as you like**: in the notebook, or all of them at
once, in a fresh kernel, as they will be run when your work is graded:

```bash
python -m course_utils.check {example}
```

It prints a table for each exercise and ends with exit code 0 when every check passes, 1 when some fail, and 2 when the
notebook cannot be run. When your work is graded, the same properties are checked on other inputs too.

`course_utils/` is what the notebooks import: data, models, training, plots, checks. Do look inside. The functions that
you will write in a lab are there by name only.

The labs run on the data in `data/`. Only the full profile (`COURSE_PROFILE=full`: the published settings, hours without
a GPU) needs CIFAR-10; this fetches it, once, with a network:

```bash
python -c "from course_utils.data import fetch_cifar10; fetch_cifar10()"
```

## Hand in

Save the notebook, run the line above once more, and hand in the `.ipynb` file alone, under its own name.

Code is under the BSD 3-Clause licence (LICENSE), teaching text under CC BY 4.0 (LICENSE-text), data under the licences
that `data/README.md` names.
"""


def project_of(home: Path) -> dict:
    """The [project] table of the course's own pyproject.toml."""
    return tomllib.loads((home / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def dependencies_for(project: dict, sources: Iterable[str]) -> list[str]:
    """The course's dependencies that the given source texts import, and those that every student needs."""
    imported = {name for source in sources for name in _imported(source)}
    return [line for line in project["dependencies"] if _name(line) in ALWAYS or _import_name(line) in imported]


def _imported(source: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(source)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in names}


def _name(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9_.-]+", requirement)[0]


def _import_name(requirement: str) -> str:
    name = _name(requirement)
    return IMPORT_NAMES.get(name, name.replace("-", "_"))


def pyproject(project: dict, dependencies: list[str]) -> str:
    """The bundle's pyproject.toml: course_utils can be installed, there is no `course` command."""
    listed = "\n".join(f'    "{line}",' for line in dependencies)
    fields = {key: project[key] for key in ("name", "version", "license")}
    return PYPROJECT.format(**fields, python=project["requires-python"], dependencies=listed)


def environment(project: dict, dependencies: list[str]) -> str:
    """The same for conda."""
    renamed = (CONDA_NAMES.get(_name(line), _name(line)) + line[len(_name(line)) :] for line in dependencies)
    listed = "\n".join(f"  - {line}" for line in renamed)
    return ENVIRONMENT.format(name=project["name"], python=project["requires-python"], dependencies=listed)


def readme(project: dict, titles: dict[str, str]) -> str:
    """The students' README.

    Args:
        project: the course's [project] table.
        titles: heading of each lab's notebook, by the lab's name.

    Returns:
        Markdown text.
    """
    table = "\n".join(f"- [{title}](labs/{name}/{name}.ipynb)" for name, title in titles.items())
    first = next(iter(titles))
    python = project["requires-python"].lstrip(">=")
    return README.format(table=table, example=f"labs/{first}/{first}.ipynb", python=python, name=project["name"])
