"""`fedcot community`: what it prints, what it refuses, and what a run ends with."""

import json

import pytest

from fedcot.cli import main
from fedcot.cli.show import console
from fedcot.launch import Outcome
from tests.report.made_communities import AUDIT, GRAND, STUDENTS, write_communities


@pytest.fixture(name="wide", autouse=True)
def _wide(monkeypatch):
    """Give the console 100 columns, the widest that tables are made for."""
    monkeypatch.setattr(console, "_width", 100)


def call(capsys, *arguments):
    """Run a command in this process; return exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_all_sections_are_shown_and_none_is_wider_than_100_columns(tmp_path, capsys):
    folder = write_communities(tmp_path / "one", audit=AUDIT)
    code, out, err = call(capsys, "community", str(folder))
    assert (code, err) == (0, "")
    titles = ("Utility", "Gains", "Social objectives", "Incentives", "Sharing", "Audit")
    for title in (*titles, "Format compatibility"):
        assert f"── {title} ──" in out
    tables = [line for line in out.splitlines() if " ± " in line or "───" in line]
    assert tables
    assert max(map(len, tables)) <= 100
    assert "This note is not legal advice." in out


def test_one_section_of_one_way_of_sharing(tmp_path, capsys):
    folder = str(write_communities(tmp_path / "one"))
    arguments = ("community", folder, "--section", "utility", "--arm", "federated")
    code, out, _ = call(capsys, *arguments)
    assert code == 0
    assert "0.50 ± 0.16*" in out  # south in the coalition of all
    assert "── Gains ──" not in out


def test_json_has_every_number(tmp_path, capsys):
    folder = write_communities(tmp_path / "one", audit=AUDIT)
    code, out, _ = call(capsys, "community", str(folder), "--json")
    content = json.loads(out)
    assert code == 0
    assert content["arm"] == "pooled"
    sections = content["sections"]
    assert sections["utility"]["students"][GRAND]["own"]["south"]["mean"] == 0.7
    assert sections["incentives"]["game"]["shapley"]["north"] == pytest.approx(0.7)
    assert sections["objectives"]["utilitarian"]["members"]["coalition"] == GRAND
    assert sections["audit"]["pooled"]["members"]["north"]["gain"]["auc"] == 0.7
    assert all(one["problem"] == "" for one in sections.values())
    assert content["unfinished"] == ""


def test_a_missing_baseline_is_one_line_and_exit_2(tmp_path, capsys):
    kept = {k: v for k, v in STUDENTS.items() if not k.startswith("label-only")}
    folder = str(write_communities(tmp_path / "one", students=kept))
    code, out, err = call(capsys, "community", folder, "--section", "gains")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no label-only" in err
    # The others are shown, and this one says why not.
    code, out, _ = call(capsys, "community", folder)
    assert code == 0
    assert "no label-only" in out
    assert "0.70 ± 0.14*" in out


def test_a_section_that_was_not_measured_is_one_line_and_exit_2(tmp_path, capsys):
    folder = str(write_communities(tmp_path / "one"))
    code, out, err = call(capsys, "community", folder, "--section", "audit")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "-c audit-members=true" in err
    code, out, _ = call(capsys, "community", folder)
    assert code == 0
    assert "-c audit-members=true" in out


def test_a_run_without_a_summary_says_how_to_go_on(tmp_path, capsys):
    folder = write_communities(tmp_path / "one")
    (folder / "summary.json").unlink()
    code, out, err = call(capsys, "community", str(folder))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"`fedcot resume {folder}`" in err


@pytest.mark.parametrize(
    ("status", "remedy"),
    [("failed", "fedcot resume"), ("budget-exhausted", "raise `record-epsilon`")],
)
def test_a_run_that_ended_early_shows_what_it_has_and_how_to_go_on(
    status, remedy, tmp_path, capsys
):
    folder = write_communities(tmp_path / "one")
    summary = json.loads((folder / "summary.json").read_text())
    changed = summary | {"status": status, "reason": "the teacher fell silent"}
    (folder / "summary.json").write_text(json.dumps(changed))
    code, out, _ = call(capsys, "community", str(folder))
    assert code == 0
    assert "0.70 ± 0.14*" in out
    assert f"ended early ({status}: the teacher fell silent); " in out
    assert remedy in out
    _, out, _ = call(capsys, "community", str(folder), "--json")
    assert remedy in json.loads(out)["unfinished"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--section", "shapley"], "`--section`"),
        (["--arm", "synthetic"], "`--arm`"),
        (["--reference", "chance"], "`--reference`"),
        (["--unknown"], "--unknown"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments, named, tmp_path, capsys):
    folder = str(write_communities(tmp_path / "one"))
    code, out, err = call(capsys, "community", folder, *arguments)
    assert (code, out) == (2, "")
    assert named in err


def test_a_run_of_another_mode_is_refused(tmp_path, capsys):
    folder = str(write_communities(tmp_path / "one", mode="fedcot"))
    for place in (folder, str(tmp_path)):
        code, out, err = call(capsys, "community", place)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "`RUN_DIR`" in err


def test_the_reference_changes_the_game(tmp_path, capsys):
    folder = str(write_communities(tmp_path / "one"))
    arguments = ("community", folder, "--section", "incentives", "--json")
    _, out, _ = call(capsys, *arguments, "--reference", "none")
    game = json.loads(out)["sections"]["incentives"]["game"]
    assert game["worth"][GRAND] == pytest.approx(1.5)


def test_the_help_teaches(capsys):
    code, out, _ = call(capsys, "community", "--help")
    assert code == 0
    for text in ("gains", "fedcot run --config conf/community-small.toml", "Shapley"):
        assert text in out


def outcome_of(folder):
    summary = json.loads((folder / "summary.json").read_text())
    return Outcome(0, "", folder, 1.0, summary)


def test_a_run_of_communities_ends_with_the_matrix(tmp_path, capsys):
    from fedcot.cli.commands import _show_outcome

    folder = write_communities(tmp_path / "one")
    _show_outcome(outcome_of(folder), as_json=False)
    out = " ".join(capsys.readouterr().out.split())
    assert "the student before distillation" in out
    assert "grand 0.80 ± 0.13* 0.70 ± 0.14* 0.60 ± 0.15" in out
    assert "Badly served (provider below 0.5): south" in out
    assert f"fedcot community {folder}" in out
    assert "pooled: epsilon inf nats per token" in out
    assert "a scope bounds nothing" in out
    assert "Traffic: 60.0 kB up, 90.0 kB down" in out


def test_a_run_without_students_ends_with_the_reason(tmp_path, capsys):
    from fedcot.cli.commands import _show_outcome

    folder = write_communities(tmp_path / "one", students={})
    _show_outcome(outcome_of(folder), as_json=False)
    assert "must hold a student with a score" in capsys.readouterr().out
