"""The rules of the house: what may import what, one statement per option, one name per thing."""

import ast
import re
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import pytest

from utils.options import Options, options_of

WORKFLOW = Path(__file__).resolve().parents[2] / "workflow"
# Each imports only what stands before it, lazily too.
ORDER = ["utils", "numerics", "preprocessing", "integration", "clustering", "evaluation",
         "explorer", "plan"]  # fmt: skip
MODULES = [path for path in WORKFLOW.glob("*/**/*.py") if path.parts[-2] != "__pycache__"]
# Algorithms, not what writes command lines from options, or is a command line.
ALGORITHMS = [
    path
    for path in MODULES
    if path.relative_to(WORKFLOW).parts[0] not in ("utils", "plan")
    and "scripts" not in path.parts
    and path.name not in ("options.py", "steps.py")
]


def name_of(path: Path) -> str:
    return path.relative_to(WORKFLOW).as_posix()


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it, but for types."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: a relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way(path):
    stage = path.relative_to(WORKFLOW).parts[0]
    stages = {name.partition(".")[0] for name in imports(path)} & set(ORDER)
    allowed = ORDER[: ORDER.index(stage) + 1]
    assert stages <= set(allowed), f"{name_of(path)} imports {sorted(stages - set(allowed))}"


@pytest.mark.parametrize("path", ALGORITHMS, ids=name_of)
def test_algorithms_know_no_command_line(path):
    assert not imports(path) & {"argparse", "utils.cli"}
    assert "Namespace" not in path.read_text()


def test_a_public_name_occurs_once():
    places = defaultdict(set)
    for path in MODULES:
        if "scripts" in path.parts or path.name == "steps.py":  # STEPS and STORES of each
            continue
        for node in ast.parse(path.read_text()).body:
            targets = getattr(node, "targets", [])
            names = [getattr(node, "name", None), *(getattr(t, "id", None) for t in targets)]
            for name in names:
                if name and not name.startswith("_") and len(name) > 1:  # a type variable
                    places[name].add(name_of(path))
    twice = {name: sorted(found) for name, found in places.items() if len(found) > 1}
    assert not twice


def option_defaults() -> dict[str, set]:
    defaults = defaultdict(set)
    for path in WORKFLOW.glob("*/options.py"):
        for cls in vars(import_module(f"{path.parent.name}.options")).values():
            if isinstance(cls, type) and issubclass(cls, Options):
                for name, option in options_of(cls).items():
                    if isinstance(option.default, int | float | str) and option.default not in (
                        True,
                        False,
                    ):
                        defaults[name].add(option.default)
    return defaults


# `numerics` is below all options and knows none.
STATED = [p for p in MODULES if p.name != "options.py" and p.parent.name != "numerics"]


@pytest.mark.parametrize("path", STATED, ids=name_of)
def test_no_default_is_stated_twice(path):
    """Neither as the default of an argument nor in a mapping of options to values."""
    defaults = option_defaults()
    stated = []

    def state(name, value):
        if isinstance(value, ast.Constant) and value.value in defaults.get(name, ()):
            stated.append(f"line {value.lineno}: {name}={value.value!r}")

    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            with_default = positional[len(positional) - len(node.defaults) :]
            pairs = [*zip(with_default, node.defaults, strict=True)]
            pairs += [*zip(node.kwonlyargs, node.kw_defaults, strict=True)]
            for argument, value in pairs:
                state(argument.arg, value)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if getattr(key, "value", None) != "method":  # in the record of a result
                    state(getattr(key, "value", None), value)
    assert not stated, f"{name_of(path)}: {stated}; take it from the stage's options.py"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_file_is_longer_than_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


def test_every_place_that_the_guide_names_exists():
    guide = (WORKFLOW.parent / "CONTRIBUTING.md").read_text()
    page = guide[guide.index("## Where things are") :]
    paths = re.findall(r"`([\w/]+\.py)`", page)
    assert len(paths) > 15
    assert not [path for path in paths if not list(WORKFLOW.glob(f"**/{path}"))]
