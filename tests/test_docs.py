"""What the documents name is there."""

import ast
import re
from pathlib import Path

import pytest

from fedcot.cli import main

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))
NAMED = re.compile(r"tests/[\w/]+\.py(?:::\w+)?")
CONSOLE = re.compile(r"^ *```console\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^ *(?:\$ )?fedcot ([a-z]+)(?: ([a-z]+))?", re.MULTILINE)


def functions_of(path):
    """Return the names of the functions of a test file, without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def missing_from(text, root=ROOT):
    """Return the tests that a text names and that are not there."""
    missing = []
    for named in sorted(set(NAMED.findall(text))):
        name, _, function = named.partition("::")
        path = root / name
        if not path.is_file() or (function and function not in functions_of(path)):
            missing.append(named)
    return missing


def test_there_are_documents():
    assert DOCUMENTS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_a_document_names_exists(document):
    assert missing_from(document.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_links_to_exists(document):
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    missing = [one for one in links if not (document.parent / one).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_a_document_exists(document, capsys):
    blocks = CONSOLE.findall(document.read_text(encoding="utf-8"))
    called = {tuple(words) for text in blocks for words in COMMAND.findall(text)}
    groups = {"traces", "export", "data", "privacy", "audit"}
    for first, second in sorted(called):
        named = [first, second] if first in groups else [first]
        with pytest.raises(SystemExit) as caught:
            main([*named, "--help"])
        assert caught.value.code == 0, named
    capsys.readouterr()


def test_a_test_that_is_not_there_is_noticed(tmp_path):
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_one.py").write_text("def test_this():\n    pass\n")
    text = "`tests/test_one.py::test_this` `tests/test_one.py::test_that` tests/no.py"
    assert missing_from(text, tmp_path) == [
        "tests/no.py",
        "tests/test_one.py::test_that",
    ]
