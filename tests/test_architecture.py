"""The shape of the code: who imports whom, who prints, how long things are."""

import ast
from pathlib import Path

import pytest

PACKAGES = ("fedcot", "strategies")
WIRE = {"fedcot/records.py"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80


def sources(repository: Path) -> list[Path]:
    files = [path for name in PACKAGES for path in (repository / name).rglob("*.py")]
    files += [repository / "server_app.py", repository / "client_app.py"]
    assert len(files) > 20
    return sorted(files)


def imported(path: Path) -> set[str]:
    """Return the top-level names of all imports, wherever in the file they stand."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_the_library_knows_neither_flower_nor_the_strategies(repository):
    for path in (repository / "fedcot").rglob("*.py"):
        name = path.relative_to(repository).as_posix()
        forbidden = {"strategies", "server_app", "client_app"}
        if name not in WIRE:
            forbidden.add("flwr")
        assert not imported(path) & forbidden, name


def test_strategies_know_no_app(repository):
    for path in (repository / "strategies").rglob("*.py"):
        assert not imported(path) & {"server_app", "client_app"}, path.name


def test_only_the_command_line_prints(repository):
    for path in sources(repository):
        if path.parent.name == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path.name}:{node.lineno}"


def test_files_and_functions_are_short(repository):
    for path in sources(repository):
        text = path.read_text()
        assert len(text.splitlines()) <= MAX_FILE_LINES, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                assert lines <= MAX_FUNCTION_LINES, f"{path.name}:{node.name}"


def test_no_assert_and_no_bare_except_outside_tests(repository):
    for path in sources(repository):
        for node in ast.walk(ast.parse(path.read_text())):
            place = f"{path.name}:{getattr(node, 'lineno', 0)}"
            assert not isinstance(node, ast.Assert), place
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, place


def test_privacy_draws_never_come_from_a_seeded_library_generator(repository):
    # The sampler is the only file that makes randomness, and it asks the system. NumPy
    # is imported everywhere, so its generators are looked for by name.
    for path in (repository / "fedcot" / "privacy").glob("*.py"):
        tree = ast.parse(path.read_text())
        if path.name == "sampler.py":
            # The tape of the tests is seeded, and says so.
            assert generators(tree) == {"TapeRandomSource"}
            continue
        assert not imported(path) & {"random", "torch"}, path.name
        assert not generators(tree), path.name


def generators(tree: ast.Module) -> set[str]:
    """Return the classes and functions that reach a seeded generator."""
    found = set()
    for outer in tree.body:
        name = getattr(outer, "name", "module")
        for node in ast.walk(outer):
            text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if text in {"np.random", "numpy.random"}:
                found.add(name)
            if isinstance(node, ast.ImportFrom) and node.module in (
                "numpy.random",
                "fedcot.seeding",
            ):
                found.add(name)
            if isinstance(node, ast.ImportFrom) and node.module == "numpy":
                found |= {name for alias in node.names if alias.name == "random"}
            if isinstance(node, ast.Import):
                found |= {name for a in node.names if a.name == "numpy.random"}
    return found


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\n\ndef draw():\n    return np.random.default_rng(0)",
        "from numpy import random",
        "import numpy.random as chance",
        "from numpy.random import default_rng",
        "from fedcot.seeding import numpy_generator",
    ],
)
def test_a_seeded_generator_is_found_however_it_is_reached(text):
    assert generators(ast.parse(text))


def test_nothing_runs_what_it_reads(repository):
    forbidden = {"eval", "exec", "pickle.load", "pickle.loads", "torch.load"}
    for path in sources(repository):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in forbidden, path.name
