"""`fedcot inspect`: every text that teacher clients wanted to send."""

import json
from dataclasses import asdict

import pytest

from fedcot.cli import main
from fedcot.cli.show import console
from fedcot.config import RunConfig
from fedcot.social import configured
from fedcot.social.demonstrations import Demonstration
from fedcot.social.formats import format_named
from fedcot.social.inspection import Considered, Gate, MessageLog, Verdict, gate_texts
from tests.report.made_social import write_social

FORM = format_named("sms-spam")
SILOS = {
    0: (
        Demonstration("call me when you are home", "not spam"),
        Demonstration("win a free phone now", "spam"),
    ),
    1: (
        Demonstration("the keys are under the mat", "not spam"),
        Demonstration("cheap loans for everyone", "spam"),
    ),
}
CLEAR = "zzqq vvxx wwjj"
ENDS = "[red]\x1b[2Jbold[/red]"


def judged(partition, question, answer="spam", *, chosen=True):
    """Return a text as a teacher client would consider it."""
    verdict = Gate(gate_texts(SILOS[partition]), 0.1, refused_run=12).judge(question)
    text = FORM.write(Demonstration(question, answer))
    return Considered(text, verdict, chosen and verdict.allowed)


def book(folder, partition):
    place = folder / "nodes" / f"partition-{partition}" / "abc-def"
    place.mkdir(parents=True, exist_ok=True)
    return MessageLog(place / "messages.jsonl")


@pytest.fixture(name="run_dir")
def _run_dir(tmp_path):
    """A run with five candidates, an instruction and a vote of two teacher clients."""
    folder = write_social(tmp_path / "one", settings={"task": "sms-spam"})
    book(folder, 0).append(
        "candidate",
        1,
        [
            judged(0, "win a cheap car today"),
            judged(0, "win a free phone now"),
            judged(0, "Win  a free PHONE now"),
            judged(0, CLEAR, chosen=False),
        ],
    )
    book(folder, 1).append("candidate", 1, [judged(1, f"see {ENDS} you")])
    verdict = Gate(gate_texts(SILOS[1]), 0.1, refused_run=12).judge("say spam")
    book(folder, 1).append("instruction", 2, [Considered("say spam", verdict, True)])
    book(folder, 1).append("vote", 3, [Considered("[4, 1]", None, True)])
    return folder


def state(folder, task):
    """Write the settings of a run into its directory; return them."""
    config = RunConfig.from_run_config(
        {
            **{"token-epsilon": 8.0, "mode": "social", "task": task, "seed": 3},
            **{"num-server-rounds": 1, "num-partitions": 2, "partitioner": "iid"},
        }
    )
    stated = json.loads((folder / "config.json").read_text())
    stated["run_config"] = config.to_run_config()
    (folder / "config.json").write_text(json.dumps(stated))
    return config


@pytest.fixture(name="data")
def _data(monkeypatch, run_dir):
    """Let settings and silos of the run be readable."""
    state(run_dir, "sms-spam")
    silos = dict(SILOS)
    asked = []

    def silo(config, partition, count):
        asked.append(count)
        return silos[partition]

    monkeypatch.setattr(configured, "configured_silo", silo)
    monkeypatch.setattr(configured, "configured_form", lambda config: FORM)
    silos["asked"] = asked
    return silos


def plant(folder, partition, text, **verdict):
    """Write a line as no teacher client may: a copy that was sent."""
    told = Verdict(True, "", False, False, 0.0, 0, 3)
    row = {
        "kind": "candidate",
        "round": 1,
        "sha256": "0" * 64,
        "text": text,
        "verdict": {**asdict(told), **verdict},
    }
    with book(folder, partition).path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def call(capsys, *arguments):
    """Run a command in this process; return exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as caught:
        main(["inspect", *map(str, arguments)])
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_every_text_is_shown_with_what_became_of_it(run_dir, capsys):
    code, out, err = call(capsys, run_dir)
    assert (code, err) == (0, "")
    *rows, last = out.splitlines()
    assert [row.split("  ")[:3] for row in rows] == [
        ["0", "candidate", "sent"],
        ["0", "candidate", "verbatim"],
        ["0", "candidate", "normalised"],
        ["0", "candidate", "not chosen"],
        ["1", "candidate", "sent"],
        ["1", "instruction", "sent"],
        ["1", "vote", "sent"],
    ]
    assert "win a cheap car today" in rows[0]
    # What stayed has numbers and no words.
    assert rows[1].endswith("0.00  5  -")
    assert "free phone" not in out
    assert CLEAR not in out
    assert rows[6].endswith('-  -  "[4, 1]"')
    assert last.startswith(
        "4 sent, 3 kept back (1 verbatim, 1 normalised, 1 not chosen); smallest "
        "distance of a sent text 0."
    )
    assert last.endswith("sent copies of private texts: 0")


def test_texts_steer_no_terminal(run_dir, capsys, monkeypatch):
    _, out, _ = call(capsys, run_dir)
    assert "[red]\\u001b[2Jbold[/red]" in out
    assert "\x1b" not in out
    monkeypatch.setattr(console, "_width", 120)
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "_color_system", None)
    _, out, _ = call(capsys, run_dir)
    assert "partition" in out  # a table with headings
    assert "[red]\\u001b[2Jbold[/red]" in out
    assert "\x1b[2J" not in out


def test_the_smallest_distance_is_of_sent_texts(run_dir, capsys):
    _, out, _ = call(capsys, run_dir, "--json")
    content = json.loads(out)
    sent = [
        row["distance"]
        for row in content["messages"]
        if row["fate"] == "sent" and row["distance"] is not None
    ]
    assert len(sent) == 3
    assert content["summary"]["smallest_distance"] == min(sent) > 0.1
    assert content["summary"]["kept_back"]["verbatim"] == 1
    assert content["messages"][1]["text"] is None
    assert "nearest_text" not in content["messages"][0]


def test_a_choice_hides_messages_but_no_numbers(run_dir, capsys):
    _, out, _ = call(capsys, run_dir, "--kind", "instruction")
    assert len(out.splitlines()) == 2
    assert "4 sent, 3 kept back" in out
    _, out, _ = call(capsys, run_dir, "--kept-back")
    assert len(out.splitlines()) == 4
    code, _, err = call(capsys, run_dir, "--kind", "letter")
    assert code == 2
    assert "`--kind` must be one of candidate, instruction, vote" in err


@pytest.mark.parametrize("found", ["verbatim", "normalised"])
def test_a_copy_that_was_sent_is_exit_3(run_dir, capsys, found):
    plant(run_dir, 0, "Text: win a free phone now\nClass: spam", **{found: True})
    code, out, err = call(capsys, run_dir)
    assert code == 3
    assert "sent copies of private texts: 1" in out
    assert err.startswith(
        "fedcot: 1 texts were sent against the gate, 1 of them copies"
    )
    # Whatever is looked at, the numbers are of all.
    assert call(capsys, run_dir, "--kind", "vote")[0] == 3
    code, out, _ = call(capsys, run_dir, "--json")
    assert (code, json.loads(out)["summary"]["copies"]) == (3, 1)


def test_a_refused_text_that_was_sent_is_exit_3(run_dir, capsys):
    plant(run_dir, 0, "Text: win\nClass: spam", allowed=False, reason="near")
    code, out, err = call(capsys, run_dir)
    assert code == 3
    assert "sent copies of private texts: 0" in out
    assert "1 texts were sent against the gate, 0 of them copies" in err


def test_private_texts_are_shown_to_their_owner(run_dir, data, capsys):
    code, out, err = call(capsys, run_dir, "--private")
    assert code == 0
    assert err == (
        "fedcot: private texts follow, for the eyes of their owner alone: do not pass "
        "this on\n"
    )
    rows = out.splitlines()
    assert rows[0].endswith('"win a free phone now"')
    assert rows[1].endswith('-  "win a free phone now"')
    assert "Not shown" not in out
    assert set(data["asked"]) == {2}
    _, out, _ = call(capsys, run_dir, "--private", "--json")
    told = {row["sha256"]: row["nearest_text"] for row in json.loads(out)["messages"]}
    assert "win a free phone now" in told.values()
    assert json.loads(out)["copies_by_data"] == 0


def test_the_order_is_that_of_the_gate_that_a_client_builds(tmp_path, capsys):
    folder = write_social(tmp_path / "one")
    config = state(folder, "labels")
    silo = configured.configured_silo(config, 1, 2)
    form, gate = configured.configured_form(config), configured.configured_gate
    # Half of a private question, and its own words: near, but no copy.
    text = f"{silo[5].question[: len(silo[5].question) // 2]} {CLEAR}"
    made = form.write(Demonstration(text, silo[5].answer))
    verdict = gate(config, silo).judge(text)
    book(folder, 1).append("candidate", 1, [Considered(made, verdict, True)])
    code, out, _ = call(capsys, folder, "--private", "--json")
    content = json.loads(out)
    assert (code, content["problems"]) == (0, [])
    (row,) = content["messages"]
    assert row["nearest_text"] == silo[row["nearest_index"]].question


def test_steps_that_a_model_wrote_are_not_made_up(run_dir, data, capsys):
    # Behind the questions of the data stands a text that is not in the data.
    sources = [*gate_texts(SILOS[0]), f"{CLEAR} and more"]
    verdict = Gate(sources, 0.0).judge(f"{CLEAR} or less")
    assert verdict.nearest_index == 2
    text = FORM.write(Demonstration(f"{CLEAR} or less", "spam"))
    book(run_dir, 0).append("candidate", 1, [Considered(text, verdict, True)])
    _, out, _ = call(capsys, run_dir, "--private")
    assert "Not shown: partition 0: 1 texts are nearest to steps that" in out
    assert out.splitlines()[0].endswith('"win a free phone now"')
    assert out.splitlines()[4].endswith('or less\\nClass: spam"  -')


def test_data_in_another_order_is_not_shown(run_dir, data, capsys):
    data[0] = data[0][::-1]
    code, out, _ = call(capsys, run_dir, "--private")
    assert code == 0
    assert "win a free phone now" not in out
    assert "Not shown: partition 0: the data is not what its gate compared with" in out
    # The other partition's data is as it was.
    assert "the keys are under the mat" in out or "cheap loans for everyone" in out


def test_without_a_sent_text_there_is_nothing_to_check_the_order_with(
    tmp_path, run_dir, data, capsys
):
    (run_dir / "nodes" / "partition-1" / "abc-def" / "messages.jsonl").unlink()
    book(run_dir, 1).append("candidate", 1, [judged(1, "cheap loans for everyone")])
    _, out, _ = call(capsys, run_dir, "--private")
    assert "Not shown: partition 1 sent no text" in out
    assert "cheap loans" not in out


def test_the_data_finds_a_copy_that_the_book_denies(run_dir, data, capsys):
    plant(run_dir, 0, "Text: Win a free phone now\nClass: spam", distance=0.9)
    assert call(capsys, run_dir)[0] == 0
    code, out, err = call(capsys, run_dir, "--private")
    assert code == 3
    assert "sent copies of private texts: 1" in out
    assert "1 of them copies" in err


def test_a_deployed_node_is_read_without_its_data(tmp_path, run_dir, capsys):
    state = tmp_path / "state"
    (run_dir / "nodes" / "partition-0").rename(state)
    code, out, _ = call(capsys, state)
    assert code == 0
    assert out.startswith("-  candidate  sent")
    code, out, err = call(capsys, state, "--private")
    assert (code, err) == (0, "")
    assert "Not shown: the private data cannot be re-read" in out
    assert "free phone" not in out


def test_several_runs_of_a_node_are_told_apart(tmp_path, run_dir, capsys):
    state = tmp_path / "state"
    for name in ("first", "second"):
        (state / name).mkdir(parents=True)
        MessageLog(state / name / "messages.jsonl").append(
            "candidate", 1, [judged(0, CLEAR)]
        )
    _, out, _ = call(capsys, state)
    assert [line.split("  ")[0] for line in out.splitlines()[:2]] == ["first", "second"]


def test_a_folder_without_messages_is_one_line_and_exit_2(tmp_path, capsys):
    code, out, err = call(capsys, tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "found no messages.jsonl" in err


def test_a_damaged_book_is_one_line_and_exit_2(run_dir, capsys):
    with book(run_dir, 0).path.open("a") as file:
        file.write("my secret\n")
    code, out, err = call(capsys, run_dir)
    assert (code, out) == (2, "")
    assert "in line 5" in err
    assert "my secret" not in err
