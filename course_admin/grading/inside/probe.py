"""Has a submission changed the machinery that runs it? Looked at inside the kernel, after every cell.

The answer is a reason to look closer, never a reason to trust: what decides a score is compared outside of the kernel.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from typing import Any

WATCHED = ("builtins", "json", "numpy.testing", "torch.testing", "IPython.core.display_functions", "IPython.display")
PACKAGE = "course_utils.checks"
CHANGED_BY_OTHERS = {"input", "getpass", "_", "display", "get_ipython"}  # ipykernel and IPython change these themselves
TRANSFORMS = ("cleanup_transforms", "line_transforms", "token_transformers")

_before: dict[str, Any] = {}


def install() -> None:
    """Remember how everything is before the first cell."""
    __import__(PACKAGE)
    _before.clear()
    _before.update(_state())


def problems() -> str:
    """'ok', or what has changed."""
    now = _state()
    changed = [label for label, value in _before.items() if label not in now or now[label] is not value]
    changed += [label for label in now if label not in _before and label.startswith("shell")]
    return "; ".join(_words(label) for label in sorted(set(changed))[:5]) or "ok"


def _words(label: str) -> str:
    kind, _, rest = label.partition(":")
    return {"shell": f"IPython's {rest} was changed", "environment": f"{rest} was changed"}.get(
        kind, f"{rest} was replaced"
    )


def _state() -> dict[str, Any]:
    found = dict(_shell())
    names = [name for name in sys.modules if name in WATCHED or name == PACKAGE or name.startswith(PACKAGE + ".")]
    for name in names:
        found.update(_module(name))
    found["environment:COURSE_CHECKS"] = sys.intern(str(os.environ.get("COURSE_CHECKS")))
    found["environment:sys.settrace"] = sys.gettrace()
    return found


def _shell() -> Iterator[tuple[str, Any]]:
    """What turns the source of a cell into outputs."""
    shell = sys.modules["IPython"].get_ipython()
    for item in shell.ast_transformers:
        yield f"shell:ast_transformers {type(item).__name__}", item
    for item in shell.input_transformers_post:
        yield f"shell:input_transformers_post {item!r}", item
    for name in TRANSFORMS:
        for number, item in enumerate(getattr(shell.input_transformer_manager, name)):
            yield f"shell:{name} {number}", getattr(item, "__func__", item)
    for event in ("pre_execute", "pre_run_cell"):
        for item in shell.events.callbacks[event]:
            if getattr(item, "__module__", "") == "__main__":
                yield f"shell:{event} callback", item
    for part in (shell, shell.display_pub, shell.kernel, shell.displayhook, shell.events, shell.compile):
        yield from _methods(part)


def _methods(part: Any) -> Iterator[tuple[str, Any]]:
    """The code of an object's methods, and what hides one of them in this object alone."""
    for cls in type(part).__mro__[:-1]:
        for name, value in vars(cls).items():
            if isinstance(value, types.FunctionType):
                yield f"code:{cls.__name__}.{name}", value.__code__
                if name in vars(part):
                    yield f"shell:{type(part).__name__}.{name}", vars(part)[name]


def _module(name: str) -> Iterator[tuple[str, Any]]:
    module = sys.modules[name]
    for key, value in list(vars(module).items()):
        expected = name == "builtins" and key in CHANGED_BY_OTHERS
        if expected or isinstance(value, types.ModuleType) or not callable(value):
            continue
        yield f"{name}:{name}.{key}", value
        if isinstance(value, types.FunctionType):
            yield f"code:the code of {name}.{key}", value.__code__
        elif isinstance(value, type) and value.__module__.startswith(PACKAGE):
            for attribute, member in vars(value).items():
                if isinstance(member, types.FunctionType):
                    yield f"code:{value.__name__}.{attribute}", member.__code__
