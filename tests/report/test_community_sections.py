"""Incentives, sharing, audit, figures and the page, with numbers made by hand."""

import json
import re

import pytest

from fedcot.report.community_figures import (
    figure_name,
    frontier_figure,
    served_figure,
    utility_figure,
)
from fedcot.report.community_incentives import (
    compatibility_section,
    incentives_section,
)
from fedcot.report.community_sections import SECTIONS, all_sections, section
from fedcot.report.community_sharing import (
    audit_section,
    compared_ways,
    consent_lines,
    legal_note,
    recognition,
    shared_bytes,
    sharing_section,
)
from fedcot.report.html import write_report
from fedcot.report.reader import read_run
from tests.report.made_communities import (
    AUDIT,
    GRAND,
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


# Incentives and formats.


def test_who_adds_how_much_by_hand(run):
    found = incentives_section(run)
    game = found.content["game"]
    # v(north) 0.4, v(south) 0.3, v(all) 0.7 + 0.6.
    assert game["worth"] == pytest.approx({"north": 0.4, "south": 0.3, GRAND: 1.3})
    assert game["shapley"] == pytest.approx({"north": 0.7, "south": 0.6})
    assert game["leave_one_out"] == pytest.approx({"north": 1.0, "south": 0.9})
    assert game["least_core_epsilon"] == pytest.approx(-0.3)
    assert "Least core: epsilon -0.300, the core is not empty" in found.lines
    assert rows_of(found, 1)["north"][:3] == ("0.400", "1.000", "0.700")


def test_another_reference_gives_another_game(run):
    game = incentives_section(run, reference="none").content["game"]
    assert game["worth"][GRAND] == pytest.approx(1.5)
    alone = incentives_section(run, reference="alone").content["game"]
    assert alone["worth"] == pytest.approx({"north": 0, "south": 0, GRAND: 0.6})


def test_who_would_leave_and_which_divisions_hold(run):
    found = incentives_section(run)
    # North has 0.9 with the provider and 0.8 in the coalition of all.
    assert found.sheets[0].rows == (("grand", "no", "north (-0.10)"),)
    assert found.content["individually_rational"][GRAND]["leavers"] == ["north"]
    assert found.content["stable_divisions"] == {
        "core": [["north", "south"]],
        # North leaves the coalition of all, and south would join north.
        "nash": [],
    }
    assert any(line.endswith(": north | south") for line in found.lines)
    assert any(line.endswith(": none") for line in found.lines)


def test_values_need_all_coalitions(tmp_path):
    students = without("pooled.south")
    run = made(tmp_path, students=students, coalitions=["north", GRAND])
    found = incentives_section(run)
    reasons = [line for line in found.lines if "-c coalitions=all" in line]
    assert len(reasons) == 1
    assert "found 2 of 3" in reasons[0]
    assert "game" not in found.content
    assert any(line.startswith("Stable divisions: ") for line in found.lines)


def test_without_a_joint_coalition_nobody_can_leave(tmp_path):
    alone = without(f"pooled.{GRAND}", f"federated.{GRAND}", f"label-only.{GRAND}")
    run = made(tmp_path, students=alone, coalitions=["north", "south"])
    found = incentives_section(run)
    assert not found.sheets
    assert any("alone,grand" in line for line in found.lines)


def test_what_one_format_teaches_of_another(run):
    found = compatibility_section(run)
    assert found.content["trained_on_tested_on"] == ((0.5, 0.2), (0.3, 0.4))
    assert rows_of(found, 1) == {"north": ("1.00", "0.50"), "south": ("0.60", "1.00")}
    assert found.content["mean_transfer"] == pytest.approx(0.55)
    assert found.content["diagonal_dominance"] == 1.0
    assert found.content["incompatible_pairs"] == []
    weaker = compatibility_section(run, "federated").content
    # South's own records teach 0.3, those of north 0.2.
    assert weaker["relative"][0][1] == pytest.approx(2 / 3)


def test_formats_need_every_community_alone(tmp_path):
    run = made(tmp_path, students=without("pooled.south"))
    refused(lambda: compatibility_section(run), "`accuracy`", "south")


# Sharing and audit.


def test_traces_bytes_and_epsilon_of_each_way(run):
    found = sharing_section(run)
    assert rows_of(found)["south"] == ("2", "40", "1", "9", "2", "20", "19")
    ways = rows_of(found, 1)
    assert ways["pooled"][2:] == ("1.0 kB", "200 B", "inf")
    assert ways["federated"][2:] == ("50.0 kB", "40.0 kB", "3")
    assert ways["federated"][1] == "0.50 ± 0.16"
    assert rows_of(found, 2)["south"] == ("0.25", "0.75")
    assert "Legal note: This note is not legal advice." in found.lines
    assert found.content["bytes"]["pooled"]["uplink_bytes"] == 1000


def test_synthetic_traces_are_counted(tmp_path):
    written = {"num_trained": 30, "num_malformed": 4, "num_copied": 3, "num_sent": 5}
    found = sharing_section(made(tmp_path, written=written))
    rows = rows_of(found, 2)
    assert rows["written and sent"] == ("5",)
    assert rows["kept back: copies of own traces"] == ("3",)
    assert rows["kept back: repeated"] == ("0",)


def test_perturbed_questions_are_counted_from_the_lines(tmp_path):
    folder = write_communities(tmp_path / "one")
    row = {"phase": "perturb", "uplink_bytes": 70, "downlink_bytes": 5}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write((json.dumps(row) + "\n") * 2)
    run = read_run(folder)
    assert shared_bytes(run)["perturbed"] == {
        "uplink_bytes": 140,
        "downlink_bytes": 10,
    }
    assert compared_ways(run)["perturbed"]["accuracy"] is None


def test_consent_is_summed_up(run, tmp_path):
    first = consent_lines(run)[0]
    assert "scope coalition" in first
    assert "4 withdrawals" in first
    traces = community_summary()["traces"]
    deployed = {name: {**one, "asked": 0} for name, one in traces.items()}
    other = made(tmp_path, traces=deployed, settings={"scenario": "strike:north"})
    assert "the owner of each node" in consent_lines(other)[0]
    assert "Scenario: strike:north" in consent_lines(other)


def test_the_legal_note_asserts_no_right(tmp_path):
    note = legal_note(made(tmp_path, legal_note=""))
    assert "not legal advice" in note
    assert "argument" in note
    assert not re.search(r"you (have|are entitled)", note)


def test_the_audit_has_a_row_for_each_student_and_community(run):
    found = audit_section(run)
    assert found.sheets[0].rows[0] == (
        "pooled",
        "north",
        "10",
        "0.700",
        "0.040",
        "20.0%",
        "20.0%",
        "5.0%",
        "0.250",
    )
    assert [row[:2] for row in found.sheets[0].rows] == [
        ("pooled", "north"),
        ("", "south"),
        ("federated", "north"),
        ("", "south"),
    ]
    assert recognition(run, "pooled") == pytest.approx((0.65, 0.6, 0.7))
    assert recognition(run, "prompt") is None


def test_without_an_audit_it_says_how_to_get_one(tmp_path):
    run = made(tmp_path)
    refused(lambda: audit_section(run), "`RUN_DIR`", "audit-members=true")
    (shown,) = (one for one in all_sections(run) if one.name == "audit")
    assert "audit-members=true" in shown.problem
    assert not shown.sheets


# All together.


def test_every_section_is_had_by_its_name(run):
    for name in SECTIONS:
        assert section(run, name).name == name
    assert [one.name for one in all_sections(run)] == list(SECTIONS)
    assert not any(one.problem for one in all_sections(run))
    refused(lambda: section(run, "shapley"), "`--section`", "shapley")


def test_sheets_are_as_wide_as_their_headings(run):
    for one in all_sections(run):
        for sheet in one.sheets:
            assert {len(row) for row in sheet.rows} == {len(sheet.headings)}


# Figures and the page.


def test_the_heat_map_shows_every_accuracy(run):
    axes = utility_figure(run, "pooled").axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts[:3] == ["0.90", "0.40 !", "0.80"]
    assert texts[-3:] == ["0.80", "0.70", "0.60"]
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "grand"
    # Members: one in each coalition of one, two in that of all.
    assert len(axes.patches) == 4


def test_the_heat_map_leaves_out_what_was_not_run(tmp_path):
    part = community_summary()["students"]
    part["pooled.north"] = {"own": {"north": part["pooled.north"]["own"]["north"]}}
    run = made(tmp_path)
    run.summary["community"]["students"] = part
    axes = utility_figure(run, "pooled").axes[0]
    assert [text.get_text() for text in axes.texts].count("-") == 2


def test_bars_are_the_options_of_each_community(run):
    axes = served_figure(run, "pooled").axes[0]
    heights = {
        bars.get_label(): [bar.get_height() for bar in bars]
        for bars in axes.containers
        if hasattr(bars, "patches")
    }
    assert heights == {
        "before": [0.1, 0.1],
        "label-only, grand": [0.2, 0.3],
        "alone": [0.5, 0.4],
        "grand": [0.8, 0.7],
        "provider": [0.9, 0.4],
    }


def test_the_frontier_needs_an_audit(run, tmp_path):
    assert frontier_figure(made(tmp_path)) is None
    axes = frontier_figure(run).axes[0]
    points = [
        tuple(map(float, one.get_offsets()[0]))
        for one in axes.collections
        if hasattr(one, "get_sizes") and len(one.get_offsets())
    ]
    # Mean AUC and accuracy over all own tests.
    assert points[0] == pytest.approx((0.65, 0.7))
    assert points[1] == pytest.approx((0.55, 0.5))
    assert len(points) == 2
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["pooled: ε inf, 1.0 kB up", "federated: ε 3, 50.0 kB up"]


def test_figures_of_several_runs_do_not_collide():
    assert figure_name("utility", 0, 1) == "utility"
    assert figure_name("utility", 1, 2) == "utility-2"


def test_the_page_holds_matrix_figures_and_legal_note(tmp_path):
    folder = write_communities(tmp_path / "one", audit=AUDIT)
    page = write_report([folder]).read_text()
    assert "Heat map of accuracy" in page
    assert "Accuracy against membership AUC" in page
    assert "0.70 ± 0.14*" in page
    assert "This note is not legal advice." in page
    assert "a scope bounds nothing" in page
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    figures = {path.stem for path in folder.glob("figures/*.png")}
    assert {"utility", "served", "frontier"} <= figures


def test_a_page_of_a_run_without_students_says_why(tmp_path):
    page = write_report([write_communities(tmp_path / "one", students={})]).read_text()
    assert "must hold a student with a score" in page


def test_runs_of_communities_stand_side_by_side(tmp_path):
    runs = [
        write_communities(tmp_path / "one"),
        write_communities(tmp_path / "two", low_utility=0.1),
    ]
    page = write_report(runs)
    figures = {path.stem for path in (page.parent / "figures").glob("*.png")}
    assert {"utility-1", "utility-2", "served-1", "served-2"} <= figures
    assert "Communities: two" in page.read_text()


def test_texts_of_a_run_are_escaped(tmp_path):
    folder = write_communities(tmp_path / "one", legal_note="<script>x</script>")
    page = write_report([folder]).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
