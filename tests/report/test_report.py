"""The report of a run: readable, self-contained, and never kinder than the numbers."""

import json
import math
import re

import pytest

from fedcot.errors import ConfigError
from fedcot.report.html import write_report
from fedcot.report.progress import ProgressView
from fedcot.report.reader import nats, read_run, size
from fedcot.report.terminal import accuracy_table, cost_lines, privacy_lines

PNG = b"\x89PNG"


def privacy_entry(epsilon, *, guarantee="pure local differential privacy"):
    return {
        "unit": "nats",
        "neighboring_relation": "REPLACE_SPECIAL",
        "token_epsilon": epsilon,
        "prompt_epsilon_max": epsilon,
        "record_epsilon_max": epsilon,
        "record_epsilon_at_delta": "inf" if epsilon == "inf" else 7.5,
        "delta": 1e-6,
        "guarantee": guarantee,
        "uncharged": ["losses", "accuracy"],
    }


def write_run(folder, *, seed=0, fedcot=0.41):
    """Write a run directory as the strategy does, with made-up numbers."""
    score = {"stderr": 0.02, "n": 500}
    summary = {
        "status": "completed",
        "mode": "fedcot",
        "mechanism": "rank",
        "seed": seed,
        "num_partitions": 2,
        "num_rounds": 2,
        "accuracy": {
            "teacher": {"mean": 0.98, **score},
            "distil": {"mean": 0.7, **score},
            "fedcot": {"mean": fedcot, **score},
        },
        "accuracy_by_prompt": {"fedcot": {"explain": {"mean": fedcot, **score}}},
        "rationale_validity": {"fedcot": 0.5},
        "privacy": {
            "worst_arm": {"arm": "distil"},
            "per_arm": {
                "distil": privacy_entry("inf", guarantee="none <raw>"),
                "fedcot": privacy_entry(7.99991),
            },
        },
        "traffic": {"uplink_bytes": 812345, "downlink_bytes": 1912345},
        "timing": {"perturb": 3.5, "distill": 100.0},
        "failures": [],
        "git_commit": "0" * 40,
        "versions": {"python": "3.11"},
    }
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.json").write_text(json.dumps({"seed": seed}))
    rows = [
        {
            "phase": "train.distill",
            "round": server_round,
            "partition": partition,
            "arm": "fedcot",
            "label_loss": [1.0 / server_round, 0.5],
            "rationale_loss": [2.0, None],
        }
        for server_round in (1, 2)
        for partition in (0, 1)
    ]
    rows.append({"phase": "query.perturb", "round": 1, "partition": 0, "epsilon": 8.0})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines)
    return folder


def test_a_page_fetches_nothing_and_escapes_what_it_shows(tmp_path):
    page = write_report([write_run(tmp_path / "one")]).read_text()

    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in page
    assert "none &lt;raw&gt;" in page
    assert "none <raw>" not in page


def test_figures_are_pictures_beside_the_page(tmp_path):
    folder = write_run(tmp_path / "one")
    write_report([folder])
    figures = {path.stem: path.read_bytes() for path in folder.glob("figures/*.png")}
    assert figures.keys() == {"accuracy", "losses", "cost"}
    assert all(content.startswith(PNG) for content in figures.values())


def test_runs_stand_side_by_side(tmp_path):
    runs = [write_run(tmp_path / "one"), write_run(tmp_path / "two", fedcot=0.123)]
    page = write_report(runs)
    assert page == tmp_path / "comparison" / "report.html"
    text = page.read_text()
    assert "0.410 ± 0.020 (500)" in text
    assert "0.123 ± 0.020 (500)" in text


def test_a_run_without_results_is_refused_and_nothing_is_written(tmp_path):
    good = write_run(tmp_path / "good")
    failed = tmp_path / "failed"
    failed.mkdir()
    (failed / "summary.json").write_text('{"status": "failed"}')
    for bad in (failed, tmp_path / "none"):
        with pytest.raises(ConfigError) as caught:
            write_report([good, bad])
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "comparison").exists()
    assert not (good / "report.html").exists()


def test_the_table_shows_every_arm_with_its_error(tmp_path):
    from rich.console import Console

    summary = read_run(write_run(tmp_path / "one")).summary
    console = Console(width=120)
    with console.capture() as captured:
        console.print(accuracy_table(summary))
    text = captured.get()
    for shown in ("teacher", "0.980 ± 0.020", "distil", "fedcot", "0.410 ± 0.020"):
        assert shown in text


def test_privacy_lines_carry_unit_relation_guarantee_and_what_is_not_covered(tmp_path):
    summary = read_run(write_run(tmp_path / "one")).summary
    text = "\n".join(privacy_lines(summary))
    assert "distil: epsilon inf nats per token, inf per prompt, inf per record" in text
    assert "fedcot: epsilon 8 nats per token, 8 per prompt, 8 per record" in text
    assert "(7.5 at delta 1e-06)" in text
    assert "neighbours REPLACE_SPECIAL" in text
    assert text.count("not covered by any epsilon: losses, accuracy") == 1
    assert "worst arm: distil" in text
    assert "812.3 kB up, 1.9 MB down" in next(iter(cost_lines(summary)))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (7.99991, "8"),
        (8.00001, "8.0001"),
        (7.2, "7.2"),
        ("inf", "inf"),
        (math.inf, "inf"),
        (1234567.00001, "1234567.0001"),
        (0.0, "0"),
        (None, "-"),
    ],
)
def test_an_epsilon_never_reads_smaller_than_it_is(value, shown):
    assert nats(value) == shown


def test_sizes_have_units():
    assert [size(n) for n in (0, 999, 1000, 5e6, None)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "5.0 MB",
        "-",
    ]


def test_progress_says_the_end_of_each_phase_and_little_between():
    view = ProgressView()
    row = {"phase": "query.perturb", "round": 1, "done": 0, "total": 9, "epsilon": 8.0}
    said = [view.plain({**row, "done": done}) for done in range(10)]
    assert said[-1] is not None
    assert "round 1 · query.perturb 9/9 epsilon 8 nats" in said[-1]
    assert sum(line is not None for line in said) <= 2
    for done in range(10):
        view.add({**row, "done": done})
    assert view.table().row_count == 1
