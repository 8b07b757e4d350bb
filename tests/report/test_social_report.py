"""The report on social learning, against numbers that can be followed by hand."""

import io
import json
import math
import re

import pytest
from rich.console import Console

from fedcot.cli import commands
from fedcot.cli.show import console
from fedcot.launch import Outcome
from fedcot.report.html import write_report
from fedcot.report.reader import privacy_of, read_run
from fedcot.report.social import (
    deciding_test,
    fates,
    is_social,
    repeats_of,
    scored_students,
    traffic_ratio,
    visible,
)
from fedcot.report.social_figures import curves_of, social_figures
from fedcot.report.social_lines import closing_lines
from fedcot.report.social_sections import (
    balance_section,
    bytes_section,
    protocol_section,
    run_sections,
    students_section,
    texts_section,
)
from fedcot.report.social_view import accuracy_sheet, social_table
from fedcot.report.terminal import accuracy_table, conversation_lines, privacy_lines
from tests.report.made_social import (
    balance,
    protocol,
    social,
    student,
    students,
    summary_of,
    test_of,
    write_social,
)

PNG = b"\x89PNG"
EVIL = "<script>alert(1)</script>[red]\x1b[2Jzib"


@pytest.fixture(name="summary")
def _summary():
    return summary_of(social())


def printed(renderable, width=110):
    out = Console(file=io.StringIO(), width=width, highlight=False)
    out.print(renderable)
    return out.file.getvalue()


# The table.


def test_students_stand_by_kind_in_rows_and_by_examples_in_columns(summary):
    sheet = accuracy_sheet([summary])
    assert sheet.headings == ("student", "0", "1", "8")
    assert [row[0] for row in sheet.rows] == [
        "original (private, for comparison only)",
        "random",
        "voting",
        "instruction",
        "instruction+random",
        "manual",
        "zero-shot",
    ]
    rows = {row[0]: row[1:] for row in sheet.rows}
    assert rows["random"] == ("-", "0.58 ± 0.03", "0.80 ± 0.03")
    assert rows["zero-shot"] == ("0.40 ± 0.03", "-", "-")
    assert rows["instruction"][0] == "0.55 ± 0.03"
    assert sheet.title.endswith(": labels")


def test_several_runs_are_a_mean_with_the_error_over_runs():
    runs = [
        summary_of(social(students=students(shift)), seed=seed)
        for seed, shift in enumerate((-0.1, 0.0, 0.1))
    ]
    found = {(s.kind, s.num_examples): s.accuracy for s in scored_students(runs)}
    assert found["random", 8].mean == pytest.approx(0.8)
    # s = 0.1, over three runs.
    assert found["random", 8].stderr == pytest.approx(0.1 / math.sqrt(3))
    assert found["random", 8].n == 3
    assert found["original", 8].stderr == pytest.approx(0.0)
    sheet = accuracy_sheet(runs)
    assert "0.80 ± 0.06" in dict.fromkeys(cell for row in sheet.rows for cell in row)
    assert "Mean over 3 runs (seeds 0, 1, 2)" in sheet.note


def test_only_runs_that_differ_in_their_seed_are_repeats(tmp_path):
    other = {"gate-distance": 0.3}
    folders = [
        write_social(tmp_path / "a", seed=0),
        write_social(tmp_path / "b", seed=1),
        write_social(tmp_path / "c", seed=0, settings=other),
    ]
    groups = repeats_of([read_run(folder) for folder in folders])
    assert [[run.name for run in group] for group in groups] == [["a", "b"], ["c"]]


def test_the_terminal_shows_the_table_and_a_line_for_each_fact(summary):
    text = printed(accuracy_table(summary))
    assert "original (private, for comparison only)" in text
    assert "0.80 ± 0.03" in text
    lines = list(conversation_lines(summary))
    assert lines[0] == (
        "Generated against original: random.8 minus original.8 -0.10, p = 0.013 "
        "(10,000 permutations, paired by question)"
    )
    # The test was of voting against random, and is turned round.
    assert lines[1].startswith("Random against voting: random.8 minus voting.8 +0.10")
    assert lines[2] == (
        "Kept back by the gate: 16 (12 verbatim, 4 near) of 256 sampled examples"
    )
    assert lines[3] == "Instructions: 2 sent, 1 (1 run) kept back by the gate"
    # 1,000,000 bytes of weights against 5,000 of text.
    assert lines[4] == (
        "Bytes per teacher client: 3.0 kB up, 2.0 kB down; one round of FedAvg with "
        "LoRA of the same student: 500.0 kB up, 500.0 kB down, 200 times as much"
    )
    assert lines[5].startswith("Privacy: texts: no finite guarantee; votes counted")
    assert "voting favours the label zib (p = 0.011)" in lines[6]
    assert len(lines) == 7


def test_counts_that_deployed_clients_keep_are_no_zeros():
    kept = {"sampled": 0, "kept": 12, "discarded": {"near": 0}}
    told = summary_of(social(generation=kept))
    assert list(closing_lines(told))[2] == (
        "Kept back by the gate: teacher clients did not tell"
    )


def test_a_run_ends_with_all_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(console, "_width", 110)
    folder = write_social(tmp_path / "one")
    summary = json.loads((folder / "summary.json").read_text())
    outcome = Outcome(0, "", folder, 12.0, summary)
    assert outcome.has_results
    commands._show_outcome(outcome, as_json=False)
    shown = capsys.readouterr().out
    assert "Generated against original: random.8" in shown
    assert "instruction+random" in shown
    assert "examples: epsilon inf nats per token" in shown


def test_other_modes_say_nothing_of_a_conversation():
    assert list(conversation_lines({"mode": "fedcot"})) == []
    assert not is_social({"mode": "community"})


def test_private_votes_have_the_only_epsilon():
    claims = {"epsilon": 4.00001, "num_votes": 8}
    chosen = {"private-voting": {"indices": [1], "epsilon": 4.00001}}
    told = summary_of(social(votes={"voters": 2, "claims": claims}, chosen=chosen))
    line = list(closing_lines(told))[5]
    assert line == (
        "Privacy: texts: no finite guarantee; private votes: epsilon 4.0001 nats per "
        "teacher client over 8 votes, candidates not covered"
    )
    # Null is how infinity goes through JSON.
    claims = {"epsilon": None, "num_votes": 8}
    told = summary_of(social(votes={"voters": 2, "claims": claims}, chosen=chosen))
    assert list(closing_lines(told))[5].endswith("private votes: no finite guarantee")


def test_what_privacy_leaves_out_is_infinite(summary):
    entry = privacy_of(summary)["examples"]
    assert entry["record_epsilon_max"] == math.inf
    assert "inf per record over all rounds" in "\n".join(privacy_lines(summary))
    finite = {"per_arm": {"private-voting": {"record_epsilon_max": 4.0}}}
    found = privacy_of(summary_of(social(), privacy=finite))["private-voting"]
    assert found["record_epsilon_max"] == 4.0
    assert found["token_epsilon"] == math.inf


# What lines are computed from.


def test_the_deciding_test_is_that_of_the_most_examples(summary):
    assert deciding_test(summary, "random", "original")["p_value"] == 0.0123
    turned = deciding_test(summary, "random", "voting")
    assert (turned["first"], turned["difference"]) == ("random.8", 0.10)
    assert deciding_test(summary, "random", "private-voting") is None


def test_the_ratio_counts_both_ways(summary):
    assert traffic_ratio(summary) == pytest.approx(1_000_000 / 5_000)
    assert traffic_ratio(summary_of(social(bytes={}))) is None
    nothing = {
        "per_teacher": {"uplink_bytes": 0, "downlink_bytes": 0},
        "fedavg": {"uplink_bytes": 1, "downlink_bytes": 1},
    }
    assert traffic_ratio(summary_of(social(bytes=nothing))) is None


def test_texts_are_visible_on_one_line():
    assert visible("a\x1b[2J\nb\u202e") == "a\\x1b[2J\\nb\\u202e"
    assert visible("größer [red]") == "größer [red]"


# Sections.


def test_texts_say_what_became_of_each(summary):
    (sheet,) = texts_section(summary).sheets
    assert sheet.title == "What became of 256 sampled examples"
    assert sheet.rows[0][:3] == ("kept", "64", "25%")
    rows = {row[0]: row[1] for row in sheet.rows}
    assert rows == {
        **{"kept": "64", "malformed": "3", "verbatim": "12", "near": "4"},
        **{"repeated": "9", "outranked": "164"},
    }
    # Every sampled text is in one row.
    assert sum(fates(summary).values()) == 256


def test_a_favoured_label_is_warned_of(summary):
    section = balance_section(summary)
    (warning,) = section.warnings
    assert warning.startswith("Warning: voting favours the label zib (p = 0.011)")
    assert "voting amplifies a bias" in warning
    rows = {row[0]: row for row in section.sheets[0].rows}
    assert rows["voting"][4] == "inf"
    assert rows["random"][4] == "0"
    assert rows["random"][5:] == ("zib 6, dax 2", "zib 4.4, dax 3.6", "0.20", "0.400")
    # At the border, and for a draw, which amplifies nothing.
    chosen = {
        "voting": {"indices": [1], "balance": balance(0.05)},
        "random": {"indices": [1], "balance": balance(0.01)},
    }
    (warning,) = balance_section(summary_of(social(chosen=chosen))).warnings
    assert warning.startswith("Warning: random favours")
    assert "amplifies" not in warning


def test_bytes_stand_beside_those_of_federated_averaging(summary):
    section = bytes_section(summary)
    rows = {row[0]: row[1:] for row in section.sheets[0].rows}
    assert rows["each teacher client, mean"] == ("3.0 kB", "2.0 kB")
    assert rows["FedAvg"] == ("500.0 kB", "500.0 kB")
    assert "200 times the bytes" in section.lines[-1]


def test_the_protocol_has_one_hash_a_step(summary):
    section = protocol_section(summary)
    (sheet,) = section.sheets
    assert [row[:2] for row in sheet.rows] == [("0", "teach.examples"), ("1", "vote")]
    assert all(row[3:] == ("2 of 2", "2") for row in sheet.rows)
    (sent,) = summary["social"]["protocol"]["steps"][0]["sent"]
    assert sheet.rows[0][2] == sent[:12]
    assert section.warnings == ()
    assert "one message for all" in section.lines[0]


def test_departures_are_warned_of():
    log = protocol(extended=True, departs=True)
    section = protocol_section(summary_of(social(protocol=log)))
    assert section.warnings[0] == "This run was one of the extended protocol."
    assert any("gets another message" in one for one in section.warnings)
    assert len(section.sheets[0].rows) == 3
    assert section.lines == ()


def test_a_changed_log_does_not_pass():
    log = protocol()
    log["steps"][1]["sent"] = {"a" * 64: [0], "b" * 64: [1]}
    section = protocol_section(summary_of(social(protocol=log)))
    assert section.warnings == ("Step 1 of the log is not one message for everybody.",)
    log = protocol()
    del log["steps"][0]["sent"]
    section = protocol_section(summary_of(social(protocol=log)))
    assert section.warnings == ("The log of the conversation is not complete.",)


def test_students_are_listed_with_all_tests(summary):
    section = students_section(summary)
    listed, tests = section.sheets
    rows = {row[0]: row for row in listed.rows}
    assert rows["random.8"][4] == "0.75 ± 0.03"
    assert "original.8 (private, for comparison only)" in rows
    assert [row[3] for row in tests.rows] == ["0.900", "0.013", "0.040"]
    assert {row[5] for row in tests.rows} == {"paired"}


# Figures.


def test_curves_hold_what_was_measured(summary):
    curves = curves_of([summary])
    assert curves["original"].counts == (1, 8)
    assert curves["original"].means == (0.60, 0.90)
    assert curves["voting"].means == (0.62, 0.70)
    assert curves["random"].errors == (0.03, 0.03)
    assert curves["zero-shot"].means == (0.40,)
    figure = social_figures_of(summary)["accuracy"]
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "8"]
    drawn = {
        tuple(round(float(value), 2) for value in line.get_ydata())
        for line in axes.get_lines()
    }
    assert [
        text.get_text().split("\n")[0].strip() for text in axes.get_legend().get_texts()
    ] == [
        *("original", "random", "voting", "instruction+random"),
        *("instruction", "manual", "zero-shot"),
    ]
    # Lines over examples, and levels across.
    assert {(0.6, 0.9), (0.58, 0.8), (0.62, 0.7)} <= drawn
    assert {(0.55, 0.55), (0.4, 0.4), (0.45, 0.45), (0.5, 0.5)} <= drawn


def social_figures_of(summary):
    class Made:
        def __init__(self):
            self.summary, self.name, self.config = summary, "one", {}

    return social_figures([Made()])


def test_bars_are_as_long_as_texts_were_many(summary):
    (axes,) = social_figures_of(summary)["texts"].axes
    lengths = [round(bar.get_width()) for bar in axes.patches]
    assert lengths == [64, 3, 12, 4, 9, 164]
    assert round(max(bar.get_x() + bar.get_width() for bar in axes.patches)) == 256


def test_figures_are_written_and_stand_in_the_page(tmp_path):
    page = write_report([write_social(tmp_path / "one")])
    for name in ("social-accuracy", "social-texts"):
        assert (page.parent / "figures" / f"{name}.png").read_bytes()[:4] == PNG
    assert not (page.parent / "figures" / "accuracy.png").exists()
    text = page.read_text()
    assert 'alt="Accuracy of the student over examples' in text
    assert "<h2>Social learning</h2>" in text
    assert "<h2>Accuracy</h2>" not in text
    assert re.search(r'<p class="bad">Warning: voting favours', text)
    assert "teacher clients builtin" in text
    assert '<td class="number">inf</td>' in text


def test_several_runs_are_one_section(tmp_path):
    folders = [write_social(tmp_path / name, seed=i) for i, name in enumerate("ab")]
    page = write_report(folders, tmp_path / "both").read_text()
    assert page.count("<h2>Social learning") == 1
    assert "Mean over 2 runs (seeds 0, 1)" in page
    assert page.count("What the student said to teacher clients") == 2


# Texts from data, and what is missing.


def test_texts_from_data_are_escaped(tmp_path):
    evil = social(
        task=EVIL,
        labels=[EVIL, "dax"],
        hint=EVIL,
        models={"clients": [EVIL], "student": EVIL},
        students={**students(), EVIL: student(EVIL, 2, 0.5)},
        tests=[test_of(EVIL, EVIL, 0.1, 0.5)],
        chosen={
            EVIL: {
                "indices": [1],
                "partitions": [EVIL],
                "balance": {**balance(0.01, EVIL), "counts": {EVIL: 1}},
            }
        },
        pool={"candidates": 1, "labels": {EVIL: 1}, "by_partition": {EVIL: 1}},
        generation={"sampled": 2, "kept": 1, "discarded": {EVIL: 1}},
    )
    page = write_report([write_social(tmp_path / "one", evil)]).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    body = page.split("<h2>Social learning")[1].split("<h2>Privacy")[0]
    assert "\x1b" not in body
    told = summary_of(evil)
    text = printed(social_table(told))
    assert "\x1b" not in text
    assert "[red]\\x1b" in "".join(text.split())
    assert not any("\x1b" in line for line in closing_lines(told))


@pytest.mark.parametrize("part", [{}, None, "none", {"students": None}])
def test_a_run_that_measured_nothing_has_a_report(tmp_path, part):
    page = write_report([write_social(tmp_path / "one", part or {})]).read_text()
    assert "The run scored no student." in page
    told = summary_of(part)
    assert next(closing_lines(told)) == "Generated against original: not tested"
    assert "student" in printed(social_table(told))


def test_each_missing_value_is_a_dash_at_most(tmp_path):
    for place, key in enumerate(social()):
        for value in (None, {}, []):
            told = summary_of({**social(), key: value})
            assert run_sections_of(told)
            assert list(closing_lines(told))
            printed(social_table(told))
        folder = write_social(tmp_path / str(place), {**social(), key: None})
        assert len(run_sections(read_run(folder))) == 5
    hollow = {
        **{"students": {"random.8": {}, "x": None}, "tests": [None, {}]},
        **{"chosen": {"voting": None}, "bytes": {"fedavg": {}, "examples": None}},
        **{"protocol": {"steps": [None], "flow": 3}, "generation": {"kept": None}},
    }
    told = summary_of({**social(), **hollow})
    assert run_sections_of(told)
    assert list(closing_lines(told))
    assert scored_students([told]) == ()


def run_sections_of(summary):
    makers = (students_section, texts_section, balance_section, bytes_section)
    return [maker(summary) for maker in (*makers, protocol_section)]


def test_a_score_without_an_error_has_none():
    told = summary_of(social(students={"random.2": {"accuracy": {"mean": 0.5}}}))
    (found,) = scored_students([told])
    assert (found.kind, found.num_examples) == ("random", 2)
    assert accuracy_sheet([told]).rows == (("random", "0.50"),)
    assert curves_of([told])["random"].errors == (0.0,)
