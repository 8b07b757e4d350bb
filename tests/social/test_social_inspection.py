"""The gate against brute force, and what the book of messages holds."""

import hashlib
import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.errors import ConfigError
from fedcot.evaluation.copying import plain, substring_distance
from fedcot.social.demonstrations import Demonstration
from fedcot.social.inspection import (
    KINDS,
    REFUSALS,
    Considered,
    CopiedRun,
    Gate,
    MessageLog,
    Verdict,
    gate_texts,
    longest_copied,
)

SECRET = "meet me at the old mill on friday with the red envelope"
SOURCES = ("the weather is fine today", SECRET)
WORDS = st.lists(st.sampled_from(["an", "ann", "bo", "7"]), max_size=7)
TEXTS = st.text("abA ", max_size=6)


def runs_by_definition(words: list[str], sources: list[list[str]]) -> CopiedRun:
    """Every run of the text, the longest first, against every place of every source."""
    for size in range(len(words), 0, -1):
        runs = [words[at : at + size] for at in range(len(words) - size + 1)]
        for index, source in enumerate(sources):
            places = range(len(source) - size + 1)
            if any(source[at : at + size] in runs for at in places):
                return CopiedRun(size, index)
    return CopiedRun(0, None)


@given(WORDS, st.lists(WORDS, max_size=4))
def test_the_longest_run_is_the_longest_of_all(words, sources):
    found = longest_copied(" ".join(words), [" ".join(source) for source in sources])
    wanted = runs_by_definition(words, sources)
    assert found.num_words == wanted.num_words
    # Several runs can be the longest: the index is that of a source with one of them.
    if found.index is None:
        assert wanted.index is None
    else:
        alone = runs_by_definition(words, [sources[found.index]])
        assert alone.num_words == found.num_words


@pytest.mark.parametrize(
    ("text", "num_words", "index"),
    [
        (f"A note: {SECRET.upper()}!", 12, 1),
        ("Meet... me,\nAT the; OLD mill", 6, 1),
        ("the weather was fine today", 2, 0),
        # A run never reaches from one source into the next.
        ("fine today meet me", 2, 0),
        # Nor does a part of a word count.
        ("weathers", 0, None),
        ("", 0, None),
        ("...", 0, None),
    ],
)
def test_known_runs(text, num_words, index):
    assert longest_copied(text, SOURCES) == CopiedRun(num_words, index)


@given(
    TEXTS,
    st.lists(TEXTS, min_size=1, max_size=4),
    st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    st.none() | st.integers(1, 3),
)
def test_a_verdict_follows_from_its_definition(text, sources, threshold, size):
    verdict = Gate(sources, threshold, refused_run=size).judge(text)
    distances = [substring_distance(text, source) for source in sources]
    assert verdict.distance == min(distances)
    assert verdict.nearest_index == distances.index(min(distances))
    assert verdict.verbatim == (text in sources)
    assert verdict.normalised == any(plain(text) == plain(source) for source in sources)
    run = longest_copied(text, sources).num_words
    assert verdict.longest_run == (None if size is None else run)
    holds = {
        "verbatim": verdict.verbatim,
        "normalised": verdict.normalised,
        "near": min(distances) < threshold,
        "run": size is not None and run >= size,
    }
    reasons = [reason for reason in REFUSALS if holds[reason]]
    assert verdict.reason == (reasons[0] if reasons else "")
    assert verdict.allowed == (not reasons)


def test_copies_are_refused_whatever_the_threshold():
    gate = Gate(SOURCES, 0.0)
    assert gate.judge(SECRET).reason == "verbatim"
    assert gate.judge(f"  {SECRET.upper()}").reason == "normalised"
    # A part of one is no copy of it; only a threshold refuses that.
    part = gate.judge("the old mill")
    assert (part.allowed, part.distance, part.nearest_index) == (True, 0.0, 1)
    assert Gate(SOURCES, 0.01).judge("the old mill").reason == "near"


def test_the_distance_has_to_reach_the_threshold():
    # One letter of four is inserted: a distance of exactly a quarter.
    assert Gate(["xxabcxx"], 0.25).judge("abzc").allowed
    assert Gate(["xxabcxx"], 0.26).judge("abzc").reason == "near"


def test_a_planted_message_within_a_long_text_is_found_by_its_run():
    text = f"{'Sort each letter by its tone and say so. ' * 6}Example: {SECRET}."
    loose = Gate(SOURCES, 0.3).judge(text)
    assert loose.allowed
    assert loose.distance > 0.3
    strict = Gate(SOURCES, 0.3, refused_run=12).judge(text)
    assert (strict.reason, strict.longest_run) == ("run", 12)
    assert Gate(SOURCES, 0.3, refused_run=13).judge(text).allowed


def test_short_steps_beside_a_text_are_searched_for_runs_alone():
    gate = Gate([*SOURCES, "2 * 3 = 6"], 0.3, refused_run=4)
    assert gate.judge("zzzzzzz", beside="2 * 3 = 6").allowed
    beside = gate.judge("zzzzzzz", beside=f"so {SECRET}")
    assert (beside.reason, beside.longest_run) == ("run", 12)


def test_long_steps_that_copy_do_not_leave():
    steps = "3 + 4 = 7 apples so tom has seven"
    own = [Demonstration("how many apples does tom have", "7", steps)]
    for size in (None, 12):
        gate = Gate(gate_texts(own), 0.1, refused_run=size)
        told = gate.judge("zzzzzzz", beside=steps)
        assert (told.allowed, told.reason, told.verbatim) == (False, "verbatim", True)
        told = gate.judge("zzzzzzz", beside=f" {steps.upper()} ")
        assert (told.allowed, told.reason) == (False, "normalised")
        assert gate.judge("zzzzzzz", beside=f"{steps} and more").allowed
    # Five words are alike by chance.
    short = Gate(["a b c d e f", "1 + 2 = 3"], 0.1)
    assert short.judge("zzzzzzz", beside="a b c d e f").reason == "verbatim"
    assert short.judge("zzzzzzz", beside="1 + 2 = 3").allowed


def test_a_gate_compares_questions_and_steps():
    shown = [Demonstration("q1", "a1", "steps 1"), Demonstration("q2", "a2")]
    assert gate_texts(shown) == ["q1", "q2", "steps 1"]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ConfigError, match="`threshold`"):
        Gate(SOURCES, threshold)


def test_a_gate_needs_sources_and_runs_of_words():
    with pytest.raises(ConfigError, match="`sources`"):
        Gate([], 0.1)
    with pytest.raises(ConfigError, match="`refused_run`"):
        Gate(SOURCES, 0.1, refused_run=0)


VERDICT = Verdict(True, "", False, False, 0.75, 1, 2)
REFUSED = Verdict(False, "near", False, False, 0.05, 1, None)
SENT = (
    Considered("a text that leaves é", VERDICT, left=True),
    Considered("one that was outranked", VERDICT, left=False),
    Considered("one that was refused", REFUSED, left=False),
)


def test_what_the_gate_refused_cannot_be_marked_as_sent():
    with pytest.raises(ValueError, match="`left`") as refused:
        Considered("my text", REFUSED, left=True)
    assert "my text" not in str(refused.value)
    assert "my text" not in repr(Considered("my text", VERDICT, left=True))


def test_the_log_holds_only_what_left_and_numbers(tmp_path):
    log = MessageLog(tmp_path / "messages.jsonl")
    assert log.read() == []
    log.append("candidate", 1, SENT)
    log.append("vote", 2, [Considered("3", None, left=True)])
    content = log.path.read_text("ascii")
    assert "outranked" not in content
    assert "refused" not in content
    rows = [json.loads(line) for line in content.splitlines()]
    assert rows[0] == {
        "kind": "candidate",
        "round": 1,
        "sha256": hashlib.sha256("a text that leaves é".encode()).hexdigest(),
        "text": "a text that leaves é",
        "verdict": {
            "allowed": True,
            "reason": "",
            "verbatim": False,
            "normalised": False,
            "distance": 0.75,
            "nearest_index": 1,
            "longest_run": 2,
        },
    }
    read = log.read()
    assert [message.left for message in read] == [True, False, False, True]
    assert [message.verdict for message in read] == [VERDICT, VERDICT, REFUSED, None]
    assert [message.server_round for message in read] == [1, 1, 1, 2]
    assert read[2].sha256 == hashlib.sha256(b"one that was refused").hexdigest()
    assert "leaves" not in repr(read)


def test_the_log_is_for_its_owner_alone_and_repeats(tmp_path):
    first, second = (MessageLog(tmp_path / name) for name in ("one", "two"))
    for log in (first, second):
        log.append("candidate", 1, SENT)
        log.append("instruction", 1, SENT[:1])
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    assert first.path.read_bytes() == second.path.read_bytes()
    first.path.chmod(0o644)
    with pytest.raises(ConfigError, match="0644"):
        first.append("candidate", 2, SENT)
    assert first.path.read_bytes() == second.path.read_bytes()


def test_a_line_that_a_crash_cut_off_is_dropped(tmp_path):
    log = MessageLog(tmp_path / "messages.jsonl")
    log.append("candidate", 1, SENT[:1])
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + whole[:25])
    assert len(log.read()) == 1
    log.append("candidate", 1, SENT[1:2])
    assert log.path.read_bytes().startswith(whole)
    assert [message.left for message in log.read()] == [True, False]
    log.path.write_bytes(whole[:25])
    log.append("candidate", 1, SENT[:1])
    assert log.path.read_bytes() == whole


def test_a_foreign_line_is_named_and_not_quoted(tmp_path):
    log = MessageLog(tmp_path / "messages.jsonl")
    log.append("candidate", 1, SENT[:1])
    with log.path.open("a") as file:
        file.write('{"kind": "my secret"}\n')
    with pytest.raises(ConfigError, match="line 2") as refused:
        log.read()
    assert "secret" not in str(refused.value)


def test_the_log_refuses_other_kinds_and_texts_without_a_verdict(tmp_path):
    log = MessageLog(tmp_path / "messages.jsonl")
    with pytest.raises(ConfigError, match="`kind`"):
        log.append("gossip", 1, SENT)
    for kind in KINDS[:2]:
        with pytest.raises(ValueError, match="`verdict`"):
            log.append(kind, 1, [Considered("my text", None, left=True)])
    assert not log.path.exists()


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").touch(mode=0o600)
    (tmp_path / "messages.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        MessageLog(tmp_path / "messages.jsonl").append("candidate", 1, SENT)
