"""The list of mutants is well formed, and the tests notice what it breaks."""

import ast
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def loaded() -> ModuleType:
    """Return the script; `benchmarks` is no package."""
    path = ROOT / "benchmarks" / "mutants.py"
    spec = importlib.util.spec_from_file_location("fedcot_mutants", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


mutants = loaded()
EVERY = mutants.load_mutants()


@cache
def named_in(file: str) -> frozenset[str]:
    """Return the names of a file's tests, those of classes with their class."""
    found = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}::{item.name}"
                for item in node.body
                if isinstance(item, ast.FunctionDef)
            }
    return frozenset(found)


def test_there_are_enough_and_each_has_a_name_of_its_own():
    names = [mutant.name for mutant in EVERY]
    assert len(names) >= 24
    assert len(set(names)) == len(names)
    changes = {(mutant.file, mutant.old, mutant.new) for mutant in EVERY}
    assert len(changes) == len(names)


@pytest.mark.parametrize("mutant", EVERY, ids=lambda mutant: mutant.name)
def test_a_mutant_is_one_replacement_that_compiles_and_names_real_tests(mutant):
    changed = mutants.mutated((ROOT / mutant.file).read_text(encoding="utf-8"), mutant)
    compile(changed, mutant.file, "exec")
    assert mutant.breaks.endswith(".")
    assert not mutant.file.startswith("tests")
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert name.partition("[")[0] in named_in(file), test


def test_a_text_that_stands_elsewhere_or_nowhere_is_refused():
    mutant = mutants.Mutant(
        name="x", breaks="X.", file="f", old="a", new="b", tests=("t",)
    )
    assert mutants.mutated("ca", mutant) == "cb"
    for text in ("", "aa"):
        with pytest.raises(ValueError, match="must replace a text that stands exactly"):
            mutants.mutated(text, mutant)


@pytest.mark.parametrize(
    ("code", "failed", "status"),
    [
        (0, {}, "SURVIVED"),
        (1, {"tests.test_x.test_y": "assert 1 == 2"}, "killed"),
        (1, {"tests.test_x.test_y": "NameError: name 'x' is not defined"}, "BROKEN"),
        (1, {}, "BROKEN"),  # an error of a fixture
        (2, {}, "BROKEN"),  # a file that cannot be collected
        (4, {}, "BROKEN"),  # no such test
        (-1, {}, "BROKEN"),  # it never ended
    ],
)
def test_only_a_failed_test_kills(code, failed, status):
    found, _ = mutants.verdict(mutants.TestRun(code, failed, {}, ""))
    assert found == status


def test_a_node_id_stands_for_its_cases_alone():
    for test, name, means in (
        ("tests/a/test_b.py::test_c", "tests.a.test_b.test_c", True),
        ("tests/a/test_b.py::test_c", "tests.a.test_b.test_c[1-x.y]", True),
        ("tests/a/test_b.py::test_c", "tests.a.test_b.test_cd", False),
        ("tests/a/test_b.py::test_c[1]", "tests.a.test_b.test_c[2]", False),
        ("tests/a/test_b.py::TestX::test_c", "tests.a.test_b.TestX.test_c", True),
        ("tests/a/test_b.py", "tests.a.test_b.test_c[1]", True),
        ("tests/a/test_b.py", "tests.a.test_bc.test_c", False),
    ):
        assert mutants.stands_for(test, name) == means, (test, name)


def test_the_list_is_printed_and_unknown_names_are_refused(capsys):
    assert mutants.main(["--list", "--only", "half-the-noise"]) == 0
    assert capsys.readouterr().out.startswith("half-the-noise  ")
    with pytest.raises(SystemExit, match="--only must name a mutant"):
        mutants.main(["--only", "nothing"])


def checkout(folder: Path) -> Path:
    """Make a checkout with one line of code and tests that see it or do not."""
    for name in ("fedcot", "tests"):
        (folder / name).mkdir(parents=True)
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (folder / "fedcot" / "__init__.py").write_text("LIMIT = 1\n")
    (folder / "tests" / "test_limit.py").write_text(
        "import pytest\n"
        "import fedcot\n\n"
        "def test_seen():\n    assert fedcot.LIMIT == 1\n\n"
        "def test_blind():\n    assert fedcot.LIMIT\n\n"
        "def test_bad():\n    assert fedcot.LIMIT == 3\n\n"
        "def test_left_out():\n    pytest.skip('no library')\n"
    )
    return folder


def test_survivors_are_told_from_the_killed_and_nothing_is_changed(
    tmp_path, monkeypatch
):
    root = checkout(tmp_path / "checkout")
    monkeypatch.setattr(mutants, "ROOT", root)
    monkeypatch.setattr(mutants, "LINKED", ())

    def mutant(test, new="LIMIT = 2"):
        return mutants.Mutant(
            name=f"{test} {new}",
            breaks="The limit is another one.",
            file="fedcot/__init__.py",
            old="LIMIT = 1",
            new=new,
            tests=(f"tests/test_limit.py::{test}",),
        )

    listed = [
        mutant("test_seen"),
        mutant("test_blind"),
        mutant("test_bad"),
        mutant("test_left_out"),
        mutant("test_seen", "LIMIT = missing"),
        mutant("test_seen", "LIMIT = 4"),
    ]
    copy = tmp_path / "copy"
    copy.mkdir()
    found = list(mutants.run_mutants(listed, copy))
    assert [outcome.status for outcome in found] == [
        "killed",
        "SURVIVED",
        "BROKEN",
        "BROKEN",
        "BROKEN",
        "killed",
    ]
    assert found[0].by == "tests.test_limit.test_seen"
    assert "without a mutant already" in found[2].by
    assert "no library" in found[3].by
    for folder in (root, copy):
        assert (folder / "fedcot" / "__init__.py").read_text() == "LIMIT = 1\n"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_mutant_is_killed(capsys):
    assert mutants.main([]) == 0, capsys.readouterr().out
