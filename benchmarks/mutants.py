"""Breaks the privacy code in many ways, one at a time; a test must notice each.

A mutant is one exact text replacement in one production file. It is made in a copy of
the checkout, where the tests that should notice it have to fail, after they passed
there without it. The mutants stand in the TOML files of `mutants/`: each has the fields
of `Mutant`, and a node id of a test without its cases means all of them.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
LISTS = Path(__file__).with_suffix("")
COPIED = (
    "fedcot",
    "strategies",
    "tests",
    "conf",
    "server_app.py",
    "client_app.py",
    "pyproject.toml",
    "README.md",
)
# They are large, and no mutant changes them.
LINKED = ("fedcot_weights",)
SECONDS = 300
KILLED, SURVIVED, BROKEN = "killed", "SURVIVED", "BROKEN"
# What a mutant of its own making dies of, without any test having looked.
ACCIDENTS = ("NameError", "SyntaxError", "ImportError", "UnboundLocalError")


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One way to break the code.

    Attributes
    ----------
    name : str
        Names it on the command line.
    breaks : str
        What does not hold any more, in one sentence.
    file : str
        The production file, from the root of the checkout.
    old, new : str
        The text that stands there exactly once, and what it becomes.
    tests : tuple of str
        Node ids of the tests that must notice it.
    """

    name: str
    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one mutant: `status` is one of the three in capitals above."""

    name: str
    breaks: str
    file: str
    status: str
    by: str
    seconds: float


@dataclass(frozen=True)
class TestRun:
    """What pytest said.

    Attributes
    ----------
    code : int
        Its exit status; -1 if it had to be stopped.
    failed, unfit : dict of str to str
        Why each test failed; why others did not run or could not be collected. By the
        test's dotted name.
    text : str
        The end of what it printed.
    """

    __test__ = False
    code: int
    failed: dict[str, str]
    unfit: dict[str, str]
    text: str


def load_mutants(folder: Path = LISTS) -> tuple[Mutant, ...]:
    """Return the mutants of all lists in a folder.

    Raises
    ------
    TypeError
        One has a field that is missing or too much.
    """
    texts = [path.read_text("utf-8") for path in sorted(folder.glob("*.toml"))]
    entries = [entry for text in texts for entry in tomllib.loads(text)["mutant"]]
    return tuple(
        Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries
    )


def mutated(text: str, mutant: Mutant) -> str:
    """Return a file's text with the replacement made.

    Raises
    ------
    ValueError
        Unless the old text stands there exactly once: the list must not rot.
    """
    found = text.count(mutant.old)
    if found != 1 or mutant.old == mutant.new:
        raise ValueError(
            f"The mutant {mutant.name} must replace a text that stands exactly once "
            f"in {mutant.file}, found {found} times; bring its `old` up to date."
        )
    return text.replace(mutant.old, mutant.new)


def copy_checkout(folder: Path) -> None:
    """Copy what the tests need, with the times that compiled files go by."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        elif source.exists():
            shutil.copy2(source, folder / name)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)


@contextlib.contextmanager
def applied(mutant: Mutant, folder: Path) -> Iterator[None]:
    """Have a mutant in a copy of the checkout, and the original again afterwards."""
    path = folder / mutant.file
    original, times = path.read_text(encoding="utf-8"), path.stat()
    try:
        path.write_text(mutated(original, mutant), encoding="utf-8")
        # A compiled file is told by time and size of its source; no file is this old.
        os.utime(path, (1, 1))
        yield
    finally:
        path.write_text(original, encoding="utf-8")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def run_tests(
    tests: Collection[str], folder: Path, *, is_mutant: bool, seconds: float = SECONDS
) -> TestRun:
    """Run some tests in a copy of the checkout; with a mutant, up to a failure."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command.append(f"--junitxml={report}")
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    if is_mutant:
        command.append("-x")
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        ended = subprocess.run(
            [*command, *tests],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return TestRun(-1, {}, {}, f"no end within {seconds} s")
    failed, unfit = {}, {}
    cases = ElementTree.parse(report).iter("testcase") if report.exists() else ()
    for case in cases:
        name = f"{case.get('classname')}.{case.get('name')}"
        for kind in case:
            reason = (kind.get("message") or kind.tag).splitlines()[0]
            if kind.tag == "failure":
                failed[name] = reason
            elif kind.tag in ("error", "skipped"):
                unfit[name] = reason
    text = (ended.stdout[-3000:] + ended.stderr[-2000:]).strip()
    return TestRun(ended.returncode, failed, unfit, text)


def verdict(run: TestRun) -> tuple[str, str]:
    """Return what a run with a mutant says of it: a status, and by what."""
    if run.code == 0:
        return SURVIVED, "no test failed"
    if run.code != 1 or not run.failed:
        return BROKEN, run.text
    name, reason = next(iter(run.failed.items()))
    if reason.startswith(ACCIDENTS):
        return BROKEN, f"{name} - {reason}"
    return KILLED, name


def stands_for(test: str, name: str) -> bool:
    """Whether a node id, which may leave out its cases, means a test that was run."""
    file, _, rest = test.partition("::")
    dotted = file.removesuffix(".py").replace("/", ".")
    dotted = ".".join([dotted, *rest.split("::")]) if rest else dotted
    return name == dotted or name.startswith((f"{dotted}[", f"{dotted}."))


def run_mutants(mutants: Sequence[Mutant], folder: Path) -> Iterator[Outcome]:
    """Yield the outcome of each mutant, after one run of all tests without any."""
    copy_checkout(folder)
    for mutant in mutants:
        mutated((folder / mutant.file).read_text(encoding="utf-8"), mutant)
    where = subprocess.run(
        [sys.executable, "-P", "-c", "import fedcot; print(fedcot.__file__)"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if not Path(where).resolve().is_relative_to(folder.resolve()):
        raise RuntimeError(f"The tests would see {where} and not the copy.")
    every = sorted({test for mutant in mutants for test in mutant.tests})
    whole = run_tests(every, folder, is_mutant=False, seconds=4 * SECONDS)
    if whole.code not in (0, 1):
        raise RuntimeError(f"The tests do not run without a mutant:\n{whole.text}")
    bad = {**whole.failed, **whole.unfit}
    for mutant in mutants:
        started = time.perf_counter()
        spoilt = [n for n in bad if any(stands_for(t, n) for t in mutant.tests)]
        if spoilt:
            why = f"without a mutant already: {spoilt[0]} - {bad[spoilt[0]]}"
            status, by = BROKEN, why
        else:
            with applied(mutant, folder):
                status, by = verdict(run_tests(mutant.tests, folder, is_mutant=True))
        yield Outcome(
            name=mutant.name,
            breaks=mutant.breaks,
            file=mutant.file,
            status=status,
            by=by,
            seconds=round(time.perf_counter() - started, 1),
        )


def shown(outcome: Outcome) -> str:
    """Return an outcome as one line of the table."""
    by = outcome.by
    if outcome.status == KILLED:
        by = "test_" + by.partition("[")[0].rpartition(".test_")[2]
    return (
        f"{outcome.name:<34} {outcome.status:<8} {outcome.seconds:>5.1f} s  "
        f"{outcome.breaks} [{by}]"
    )


def chosen(mutants: Sequence[Mutant], only: Sequence[str]) -> Sequence[Mutant]:
    """Return the mutants of these names, or all if none is given."""
    known = {mutant.name: mutant for mutant in mutants}
    unknown = [name for name in only if name not in known]
    if unknown:
        sys.exit(f"--only must name a mutant that --list shows, found {unknown[0]!r}.")
    return [known[name] for name in only] if only else mutants


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants, print a table, and return 1 unless all were killed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--list", action="store_true", help="name them and stop")
    parser.add_argument("--json", action="store_true", help="print JSON, no table")
    given = parser.parse_args(arguments)
    mutants = chosen(load_mutants(), given.only)
    if given.list:
        for mutant in mutants:
            print(f"{mutant.name:<34} {mutant.breaks}")
        return 0
    started, outcomes = time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="fedcot-mutants-") as folder:
        for outcome in run_mutants(mutants, Path(folder)):
            outcomes.append(outcome)
            if not given.json:
                print(shown(outcome), flush=True)
    killed = sum(outcome.status == KILLED for outcome in outcomes)
    seconds = round(time.perf_counter() - started, 1)
    if given.json:
        rows = [asdict(outcome) for outcome in outcomes]
        print(json.dumps({"killed": killed, "seconds": seconds, "mutants": rows}))
    else:
        print(f"{killed} of {len(outcomes)} mutants killed in {seconds} s")
    return 0 if killed == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
