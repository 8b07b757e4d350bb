"""The report on communities, against numbers that can be followed by hand."""

import json
import math
from dataclasses import replace

import pytest

from fedcot.report.community import (
    arms_of,
    chosen_arm,
    coalitions_of,
    communities_of,
    community_part,
    is_community,
    short,
    student_view,
    utility_table,
)
from fedcot.report.community_figures import (
    community_figures,
)
from fedcot.report.community_objectives import objectives_section
from fedcot.report.community_sections import all_sections, section
from fedcot.report.community_utility import (
    badly_served,
    gains_section,
    threshold_of,
    utility_section,
)
from fedcot.report.community_view import (
    Sheet,
    accuracy_cell,
    p_cell,
    partition_text,
    plain_number,
    rich_table,
    signed,
)
from fedcot.report.html import write_report
from fedcot.report.reader import read_run
from tests.report.made_communities import (
    AUDIT,
    BOTH,
    GRAND,
    NORTH,
    SOUTH,
    STUDENTS,
    community_summary,
    made,
    refused,
    rows_of,
    without,
    write_communities,
)


@pytest.fixture(name="run")
def _run(tmp_path):
    return read_run(write_communities(tmp_path / "one", audit=AUDIT))


# The table.


def test_the_table_holds_what_summary_and_metrics_say(run):
    table = utility_table(run)
    assert table.communities == BOTH
    assert table.coalitions == (NORTH, SOUTH, BOTH)
    assert table.student["south", BOTH] == 0.7
    assert table.student["north", SOUTH] == 0.3
    assert table.provider == {"north": 0.9, "south": 0.4}
    assert table.before == {"north": 0.1, "south": 0.1}
    assert table.label_only["south", BOTH] == 0.3
    assert table.hold_out == {NORTH: 0.3, SOUTH: 0.2, BOTH: 0.6}


def test_right_answers_stand_in_the_order_of_members(run):
    table = utility_table(run)
    assert table.student_correct["south", BOTH] == "1111111000"
    assert table.provider_correct["south"] == "1111000000"
    assert table.before_correct["north"] == "1000000000"
    assert table.label_only_correct["north", BOTH] == "1100000000"


def test_a_way_of_sharing_is_chosen(run):
    assert arms_of(run) == ("pooled", "federated")
    assert chosen_arm(run) == "pooled"
    assert chosen_arm(run, "federated") == "federated"
    assert utility_table(run, "federated").student["south", BOTH] == 0.5
    refused(lambda: chosen_arm(run, "synthetic"), "`--arm`", "pooled, federated")
    assert student_view(run, "federated", BOTH)["own"]["north"]["mean"] == 0.6
    assert student_view(run, "prompt", BOTH) == {}


def test_coalitions_without_a_student_are_left_out(tmp_path):
    run = made(tmp_path, students=without(f"pooled.{GRAND}"))
    assert utility_table(run).coalitions == (NORTH, SOUTH)
    assert coalitions_of(run) == (NORTH, SOUTH, BOTH)
    shown = utility_section(run)
    assert "grand" not in rows_of(shown)
    assert "No scored student, pooled: grand" in shown.lines
    assert shown.content["without_student"] == [GRAND]


def test_a_student_that_fewer_members_scored_is_not_paired(tmp_path):
    folder = write_communities(tmp_path / "one")
    lines = [json.loads(row) for row in (folder / "metrics.jsonl").open()]
    kept = [
        row
        for row in lines
        if not (row["student"] == f"pooled.{GRAND}" and row["partition"] == 2)
    ]
    text = "".join(json.dumps(row) + "\n" for row in kept)
    (folder / "metrics.jsonl").write_text(text)
    table = utility_table(read_run(folder))
    assert ("south", BOTH) not in table.student_correct
    assert table.student_correct["north", BOTH] == "1111111100"
    assert table.p_value("south", BOTH, "alone") is None


def test_without_metrics_there_are_no_paired_tests(tmp_path):
    folder = write_communities(tmp_path / "one")
    (folder / "metrics.jsonl").unlink()
    table = utility_table(read_run(folder))
    assert table.student["south", BOTH] == 0.7
    assert not table.student_correct


def test_a_run_without_any_student_says_so(tmp_path):
    run = made(tmp_path, students={})
    refused(lambda: utility_table(run), f"`{run.path}`", "nothing was offered")
    failed = replace(run, summary=run.summary | {"status": "failed"})
    refused(lambda: utility_table(failed), f"`fedcot resume {run.path}`")
    assert community_figures(run) == {}


def test_a_run_of_another_mode_is_refused(tmp_path):
    run = read_run(write_communities(tmp_path / "other", mode="fedcot"))
    assert not is_community(run.summary)
    assert community_figures(run) == {}
    refused(lambda: community_part(run), "`RUN_DIR`", "mode fedcot", "mode=community")


def test_the_coalition_of_all_is_grand():
    assert short(BOTH, BOTH) == "grand"
    assert short(NORTH, BOTH) == "north"
    assert short(NORTH, NORTH) == "north"
    assert short(BOTH, (*BOTH, "west")) == GRAND


def test_of_deployed_members_only_the_hold_out_is_known(tmp_path):
    part = community_summary()
    for view in (part["provider"], part["before"], *part["students"].values()):
        view["own"] = {}
    folder = write_communities(tmp_path / "deployed")
    summary = json.loads((folder / "summary.json").read_text())
    summary |= {"community": part, "accuracy": {}}
    (folder / "summary.json").write_text(json.dumps(summary))
    run = read_run(folder)
    assert rows_of(utility_section(run))["grand"] == ("-", "-", "0.60 ± 0.15")
    line = "Badly served (provider below 0.5): not known for north, south"
    assert line in utility_section(run).lines
    for name in ("gains", "objectives", "incentives", "compatibility"):
        refused(lambda name=name: section(run, name), "deployed members keep theirs")
    assert community_figures(run).keys() == {"utility"}
    page = write_report([folder]).read_text()
    assert "0.60 ± 0.15" in page


# Cells.


def test_cells_never_flatter():
    assert p_cell(0.0001) == "< 0.001"
    assert p_cell(0.0494) == "0.050"
    assert p_cell(0.125) == "0.125"
    assert p_cell(None) == p_cell(math.nan) == "-"
    assert signed(-0.001) == "+0.00"
    assert signed(-0.25) == "-0.25"
    assert signed(None) == "-"
    assert plain_number(-math.inf) == "excluded"
    assert plain_number(1.23456) == "1.235"
    assert plain_number(math.nan) == "-"
    assert accuracy_cell({"mean": 0.5, "stderr": 0.125}, mark="*") == "0.50 ± 0.12*"
    assert accuracy_cell({"mean": 0.5, "stderr": None}) == "0.50"
    assert accuracy_cell(None) == "-"
    assert partition_text((NORTH, SOUTH), BOTH) == "north | south"


def test_a_terminal_reads_no_markup():
    from rich.console import Console

    console = Console(width=60)
    sheet = Sheet(title="t", headings=("[b]x", "y"), rows=(("[red]a", "1"),))
    with console.capture() as captured:
        console.print(rich_table(sheet))
    assert "[b]x" in captured.get()
    assert "[red]a" in captured.get()


# Utility and gains.


def test_the_matrix_has_both_views_and_its_marks(run):
    found = utility_section(run)
    assert found.sheets[0].headings == ("student of", "north", "south", "hold-out")
    rows = rows_of(found)
    assert list(rows) == ["provider", "before", "north", "south", "grand"]
    assert rows["provider"] == ("0.90 ± 0.09 ", "0.40 ± 0.15!", "0.80 ± 0.13")
    assert rows["north"] == ("0.50 ± 0.16*", "0.20 ± 0.13 ", "0.30 ± 0.14")
    assert rows["grand"] == ("0.80 ± 0.13*", "0.70 ± 0.14*", "0.60 ± 0.15")
    controls = rows_of(found, 1)
    assert controls["grand"][1] == "0.30 ± 0.14 "
    assert controls["grand, shuffled"][0].startswith("0.00")
    assert "Badly served (provider below 0.5): south" in found.lines
    assert f"grand: {GRAND}" in found.lines
    assert found.content["students"][GRAND]["own"]["south"]["mean"] == 0.7
    assert found.content["low_utility"] == {"threshold": 0.5, "communities": ["south"]}


def test_badly_served_is_strictly_below(tmp_path):
    assert badly_served(made(tmp_path, low_utility=0.4)) == ()
    run = read_run(write_communities(tmp_path / "more", low_utility=0.41))
    assert badly_served(run) == ("south",)
    assert threshold_of(run) == 0.41
    assert communities_of(run) == BOTH


def test_gains_stand_beside_their_p_values(run):
    found = gains_section(run)
    by_cell = {
        (one["coalition"], one["community"]): one for one in found.content["gains"]
    }
    south = by_cell[GRAND, "south"]
    assert south["gain"] == pytest.approx(
        {"provider": 0.3, "before": 0.6, "label-only": 0.4, "alone": 0.3}
    )
    # Nested answers: 3 questions differ, all in favour, so p is 2 ** -3.
    assert south["p"]["alone"] == pytest.approx(1 / 8)
    assert south["p"]["before"] == pytest.approx(1 / 64)
    assert by_cell[GRAND, "north"]["gain"]["provider"] == pytest.approx(-0.1)
    assert "alone" not in by_cell["north", "north"]["gain"]
    assert found.sheets[0].rows[-1] == (
        "grand",
        "south",
        "0.70",
        "+0.30",
        "0.125",
        "+0.30",
        "0.125",
    )
    # 2 ** -6 and 2 ** -4, rounded up.
    assert found.sheets[1].headings[3:] == ("before", "p", "label-only", "p")
    assert found.sheets[1].rows[-1][3:] == ("+0.60", "0.016", "+0.40", "0.063")
    # Alone there is no gain over alone, but one over what is no coalition's.
    assert found.sheets[0].rows[0][5:] == ("-", "-")
    assert found.sheets[1].rows[0][:3] == ("north", "north", "0.50")
    # Two coalitions of one and one of two: 4 over each of three, and 2 over alone.
    for sheet in found.sheets[:2]:
        assert "not corrected for the 14 tests of all gains shown" in sheet.note


def test_the_winner_is_badly_served_and_better_than_alone_and_provider(run):
    found = gains_section(run)
    assert found.sheets[2].rows == (
        ("south", "grand", "+0.30", "0.125", "+0.30", "0.125"),
    )
    assert "not corrected" in found.sheets[2].note
    assert [win["coalition"] for win in found.content["winners"]] == [GRAND]


def test_without_winners_there_is_a_line(tmp_path):
    found = gains_section(made(tmp_path, low_utility=0.3))
    assert len(found.sheets) == 2
    assert found.lines == ("No community is badly served (provider below 0.3).",)
    worse = {**STUDENTS, f"pooled.{GRAND}": (8, 4, 6)}
    run = read_run(write_communities(tmp_path / "worse", students=worse))
    assert gains_section(run).lines[0].startswith("No badly served community does")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"students": without(f"label-only.{GRAND}")}, "no label-only"),
        ({"students": without("pooled.south")}, "no alone"),
        ({"before": {"own": {}, "hold_out": None}}, "no before"),
        ({"provider": {"own": {}, "hold_out": None}}, "no provider"),
    ],
)
def test_no_gain_is_shown_without_all_four_baselines(changed, named, tmp_path):
    run = made(tmp_path, **changed)
    refused(lambda: gains_section(run), "`gain`", named)
    by_name = {one.name: one for one in all_sections(run)}
    assert named in by_name["gains"].problem
    assert not by_name["gains"].sheets
    assert by_name["utility"].sheets


# Objectives.


def test_the_best_coalition_and_division_under_each_objective(run):
    found = objectives_section(run)
    rows = rows_of(found)
    # Members: 0.8 + 0.7. Division: north stays with the provider in none better.
    assert rows["utilitarian"] == ("grand", "1.500", "grand", "1.500", "grand", "1.500")
    assert rows["mean"][:2] == ("grand", "0.750")
    assert rows["egalitarian"][4:] == ("grand", "0.700")
    # ln 0.7 + ln 0.6, above ln 0.4 of north alone.
    assert rows["nash"][:2] == ("grand", "-0.868")
    # South has two members, so that sums and means are also weighted.
    assert rows["utilitarian, by members"][:2] == ("grand", "2.200")
    assert rows["mean, by members"][:2] == ("grand", "0.733")
    worths = rows_of(found, 1)
    assert worths["south"] == ("0.400", "0.400", "0.400", "-1.204")
    assert found.content["utilitarian"]["division"]["considered"] == 2


def test_a_note_says_what_the_numbers_of_each_objective_are(run):
    best, worths = objectives_section(run).sheets
    for text in (
        "utilitarian: sum of accuracies",
        "mean: mean accuracy, 0 to 1",
        "egalitarian: smallest accuracy, 0 to 1",
        "nash: sum of the logarithms of gains over before, nats",
        "by members:",
        "everybody:",
        "division:",
    ):
        assert text in best.note
    assert "objectives above" in worths.note


def test_a_division_may_leave_everybody_outside(tmp_path):
    worse = {**STUDENTS, f"pooled.{GRAND}": (6, 5, 6)}
    found = objectives_section(made(tmp_path, students=worse))
    row = rows_of(found)["utilitarian"]
    # Together 1.1; apart 0.9 by the provider and 0.4.
    assert row[4:] == ("north | south", "1.300")


def test_nash_leaves_out_who_gains_nothing(tmp_path):
    worse = {**STUDENTS, f"pooled.{GRAND}": (8, 1, 6)}
    found = objectives_section(made(tmp_path, students=worse))
    assert rows_of(found, 1)["grand"][3] == "excluded"


def test_objectives_that_cannot_be_had_say_why(tmp_path):
    run = made(tmp_path, students=without("pooled.south"))
    found = objectives_section(run)
    rows = rows_of(found)
    assert rows["utilitarian"][:2] == ("grand", "1.500")
    assert rows["utilitarian"][4:] == ("-", "-")
    assert any("alone" in line for line in found.lines)
    assert rows["nash"] == ("-",) * 6


def test_nash_that_excludes_all_is_no_failure(tmp_path):
    nothing = {**STUDENTS}
    nothing |= {"pooled.north": (1, 1, 1), "pooled.south": (1, 1, 1)}
    nothing[f"pooled.{GRAND}"] = (1, 1, 1)
    found = objectives_section(made(tmp_path, students=nothing))
    assert rows_of(found)["nash"][:2] == ("none", "-")
    assert found.content["nash"]["problems"] == []
