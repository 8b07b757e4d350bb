"""Importers on small exports of every format."""

import json

import pytest

from fedcot.data.portability import FORMATS, Limits, import_traces
from fedcot.data.portability import import_report as reasons
from fedcot.data.portability.alpaca import split_marker
from fedcot.data.traces import Scope, TraceClass
from fedcot.errors import ConfigError
from tests.data.portability import portability_exports as made


def read(tmp_path, content, name="export.json", **options):
    path = tmp_path / name
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    path.write_bytes(content)
    traces, report = import_traces(path, **options)
    return list(traces), report


def seen(traces):
    return [(t.question, t.reasoning, t.answer, t.trace_class.value) for t in traces]


def test_chatgpt_follows_the_current_path_and_keeps_summaries_apart(tmp_path):
    traces, report = read(tmp_path, [made.CHATGPT])
    thoughts = "Adding\nTwo and two, COT.\n\nOnly COT heading"
    assert seen(traces) == [
        ("2+2?", thoughts, "4", "summary"),
        ("3+3?", "", "6", "recap-only"),
    ]
    first, second = traces
    assert (first.provider, first.model) == ("chatgpt", "o3")
    assert first.created == "2026-01-01T00:00:01Z"
    # A message with the time 0 has the conversation's time, and its model.
    assert (second.created, second.model) == ("2026-01-01T00:00:00Z", "gpt-5")
    assert report.skipped == {reasons.OFF_PATH: 1}
    assert report.notes[reasons.NULL_MESSAGE] == 1
    assert report.notes[reasons.HIDDEN] == 1
    assert report.notes[reasons.NOT_VISIBLE] == 3
    assert report.notes[reasons.NO_TEXT_PART] == 1


def test_chatgpt_ends_where_parents_go_in_a_circle(tmp_path):
    conversation = json.loads(json.dumps(made.CHATGPT))
    conversation["mapping"]["u1"]["parent"] = "a2"
    traces, _ = read(tmp_path, [conversation])
    assert [trace.answer for trace in traces] == ["4", "6"]


def test_chatgpt_without_a_current_node_takes_the_last_leaf(tmp_path):
    conversation = json.loads(json.dumps(made.CHATGPT)) | {"current_node": None}
    traces, _ = read(tmp_path, [conversation])
    assert [trace.answer for trace in traces] == ["4", "6"]


def test_claude_keeps_thinking_apart_and_takes_summaries_for_summaries(tmp_path):
    traces, report = read(tmp_path, [made.CLAUDE])
    assert seen(traces) == [
        ("2+2?", "Two and two, COT", "4", "full"),
        ("3+3?", "Summed COT", "6", "summary"),
    ]
    assert {t.created for t in traces} == {"2026-01-01T00:00:00Z"}
    assert report.skipped == {reasons.NO_ANSWER: 1}
    assert report.notes == {reasons.NULL_MESSAGE: 1, reasons.CUT_OFF: 1}


def test_claude_is_read_with_its_messages_under_the_other_name(tmp_path):
    conversation = dict(made.CLAUDE)
    conversation["messages"] = conversation.pop("chat_messages")
    traces, report = read(tmp_path, [conversation])
    assert report.files == {"claude": 1}
    assert [trace.answer for trace in traces] == ["4", "6"]


def test_claude_follows_the_parents_where_there_are_any(tmp_path):
    def message(name, parent, sender, text):
        return {
            "uuid": name,
            "parent_message_uuid": parent,
            "sender": sender,
            "text": text,
        }

    messages = [
        message("1", "00000000-0000-4000-8000-000000000000", "human", "2+2?"),
        message("2", "1", "assistant", "5"),
        message("3", "1", "assistant", "4"),
    ]
    conversation = {"chat_messages": messages}
    traces, report = read(tmp_path, [conversation])
    assert [trace.answer for trace in traces] == ["4"]
    assert report.skipped == {reasons.OFF_PATH: 1}
    conversation["current_leaf_message_uuid"] = "2"
    traces, _ = read(tmp_path, [conversation])
    assert [trace.answer for trace in traces] == ["5"]


def test_gemini_is_read_in_all_its_forms(tmp_path):
    events = [made.GEMINI_DETAILS, made.GEMINI_INTERACTIONS, made.GEMINI_HTML]
    traces, report = read(tmp_path, events)
    assert seen(traces) == [
        ("2+2?", "", "It is 4 and then ...", "absent"),
        ("3+3?", "", "6", "absent"),
        ("5+5?", "", "[not json", "absent"),
        ("4+4?", "", "It is 8 & more", "absent"),
    ]
    assert traces[0].created == "2026-01-01T00:00:00.123000Z"
    assert (report.first, report.last) == (traces[0].created, "2026-01-01T00:00:02Z")
    assert report.notes == {reasons.TRUNCATED: 1}


def test_gemini_counts_activity_without_an_exchange(tmp_path):
    bare = {k: v for k, v in made.GEMINI_DETAILS.items() if k != "details"}
    omitted = made.GEMINI_DETAILS | {"details": [{"name": "Request", "value": "hi"}]}
    traces, report = read(tmp_path, [bare, omitted])
    assert traces == []
    assert report.skipped == {reasons.NO_QUESTION: 1, reasons.NO_ANSWER: 1}


def test_grok_unwraps_twice_and_takes_any_other_sender_for_the_model(tmp_path):
    traces, report = read(tmp_path, made.GROK)
    assert seen(traces) == [
        ("2+2?", "Two and two, COT\n\nAgent COT", "4", "full"),
        ("3+3?", "", "6", "absent"),
    ]
    assert [trace.model for trace in traces] == ["grok-4", "grok-3"]
    assert traces[0].created == "2026-01-01T00:00:00.500000Z"
    assert report.skipped == {reasons.OFF_PATH: 1}


def test_a_grok_export_that_is_longer_than_what_is_looked_at_is_known(tmp_path):
    padded = made.GROK | {"zzz": "x" * 2**21}
    traces, report = read(tmp_path, padded)
    assert (len(traces), report.files) == (2, {"grok": 1})


def test_sharegpt_takes_the_thinking_out(tmp_path):
    traces, report = read(tmp_path, [made.SHAREGPT])
    assert seen(traces) == [
        ("2+2?", "Two, COT", "4", "full"),
        ("3+3?", "never opened COT", "6", "full"),
    ]
    assert report.skipped == {reasons.UNFINISHED: 1}


def test_messages_have_reasoning_in_three_places(tmp_path):
    inline = {
        "messages": [
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "content": "<think>COT</think>2"},
        ]
    }
    content = "\n".join(
        json.dumps(row) for row in (made.MESSAGES, inline, made.MESSAGES)
    )
    traces, report = read(tmp_path, content.encode(), "m.jsonl")
    assert seen(traces)[:3] == [
        ("2+2?", "Two, COT", "4", "full"),
        ("3+3?", "Three, COT", "6", "full"),
        ("1+1?", "COT", "2", "full"),
    ]
    assert len(traces) == 5
    assert report.notes == {reasons.NULL_MESSAGE: 2}


def test_alpaca_splits_at_the_marker_only_where_an_answer_follows(tmp_path):
    traces, _ = read(tmp_path, made.ALPACA)
    assert seen(traces) == [
        ("Add.\n\n2 and 2", "COT.", "4", "full"),
        ("3+3?", "", "6", "absent"),
        ("4+4?", "COT", "8", "full"),
        ("5+5?", "", "The answer is 10 because five and five.", "absent"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "First 2. The answer is 3? No. The answer is: $5.50.",
            ("First 2. The answer is 3? No.", "$5.50"),
        ),
        ("the answer is (B)", ("", "(B)")),
        ("The answer is 4. It follows from a rule.", None),
        ("The answer is 4\nas a line shows", None),
        ("no marker", None),
        ("The answer is", None),
    ],
)
def test_the_marker_ends_the_reasoning(text, found):
    assert split_marker(text) == found


def test_openr1_gives_one_trace_for_each_finished_generation(tmp_path):
    traces, report = read(tmp_path, [made.OPENR1])
    assert seen(traces) == [("2+2?", "COT", "4", "full"), ("2+2?", "COT", "5", "full")]
    assert report.skipped == {reasons.UNFINISHED: 2}
    assert report.notes == {reasons.MARKED_CORRECT: 1, reasons.MARKED_WRONG: 2}
    traces, report = read(tmp_path, [made.OPENR1], only_correct=True)
    assert [trace.answer for trace in traces] == ["4"]
    assert report.skipped[reasons.WRONG] == 2


def test_the_second_verifier_of_openr1_counts_where_the_first_was_silent(tmp_path):
    row = made.OPENR1 | {
        "correctness_math_verify": [None, False, None],
        "correctness_llama": [True, True, None],
        "generations": ["a", "b", "c"],
    }
    _, report = read(tmp_path, [row])
    assert report.notes == {reasons.MARKED_CORRECT: 2, reasons.NOT_MARKED: 1}


def test_pam_knows_thoughts_and_branches(tmp_path):
    traces, report = read(tmp_path, made.PAM)
    assert seen(traces) == [("2+2?", "Two, COT", "4", "full")]
    assert (traces[0].provider, traces[0].model) == ("claude", "sonnet")
    assert report.skipped == {reasons.OFF_PATH: 1}


@pytest.mark.parametrize("content", [made.COPILOT_HISTORY, made.COPILOT_CHAT])
def test_copilot_is_read_in_both_forms(tmp_path, content):
    traces, report = read(tmp_path, content.encode(), "c.csv")
    assert seen(traces)[0] == ("2+2?", "", "4", "absent")
    assert traces[0].created == "2026-01-01T00:00:00Z"
    assert report.files == {"copilot": 1}
    if content is made.COPILOT_HISTORY:
        assert traces[1].answer == 'six,\n"or so"'


def test_every_format_is_told_from_its_content_and_can_be_named(tmp_path):
    found = made.exports()
    assert set(found) == set(FORMATS)
    for name, (file, content) in found.items():
        told, report = read(tmp_path, content, file)
        assert report.files == {name: 1}
        assert report.traces == len(told) > 0
        assert sum(report.trace_classes.values()) == len(told)
        named, _ = read(tmp_path, content, file, format=name)
        assert named == told


def test_no_reasoning_stands_in_an_answer_or_a_question(tmp_path):
    for file, content in made.exports().values():
        for trace in read(tmp_path, content, file)[0]:
            assert "COT" not in trace.answer + trace.question
            assert ("COT" in trace.reasoning) == bool(trace.reasoning)


def test_a_folder_gives_all_its_exports_in_the_order_of_their_names(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    for file, content in made.exports().values():
        (inner / file).write_bytes(content)
    (inner / "user.json").write_text('{"email": "x"}')
    (inner / "chat.html").write_text("<html>")
    traces, report = import_traces(tmp_path)
    providers = [trace.provider for trace in traces if trace.provider]
    expected = ["chatgpt"] * 2 + ["claude"] * 2 + ["copilot"] * 2 + ["gemini"] * 4
    assert providers == [*expected, "grok", "grok", "claude"]
    assert report.files == dict.fromkeys(FORMATS, 1)
    assert report.files_left == {reasons.NOT_AN_EXPORT: 2}


def test_subject_and_scope_are_the_callers(tmp_path):
    traces, _ = read(tmp_path, made.PAM, subject="ann", scope=Scope.COMMUNITY)
    assert {(trace.subject, trace.scope) for trace in traces} == {("ann", "community")}
    traces, _ = read(tmp_path, made.PAM)
    assert {trace.scope for trace in traces} == {Scope.OWN}


def test_limits_leave_out_what_is_too_long_and_nothing_else(tmp_path):
    rows = [
        {"instruction": "a", "output": "b"},
        {"instruction": "a" * 200, "output": "b"},
        {"instruction": "c", "output": "d"},
    ]
    for limits in (Limits(conversation_bytes=100), Limits(text_characters=100)):
        traces, report = read(tmp_path, rows, limits=limits)
        assert [trace.question for trace in traces] == ["a", "c"]
        assert report.skipped == {reasons.TOO_LONG: 1}
    with pytest.raises(ConfigError, match="conversation_bytes"):
        Limits(conversation_bytes=0)


def test_half_of_a_surrogate_pair_is_replaced_and_counted(tmp_path):
    content = b'[{"instruction": "a\\ud800", "output": "\\ud83d\\ude00"}]'
    traces, report = read(tmp_path, content)
    assert (traces[0].question, traces[0].answer) == ("a\ufffd", "\U0001f600")
    assert report.notes == {reasons.REPAIRED: 1}


def test_numbers_that_no_json_has_do_no_harm(tmp_path):
    row = '{"instruction": "a", "output": "b", "x": %s}'
    rows = [row % value for value in ("NaN", "-Infinity", "1e999", "9" * 400)]
    rows += [
        row % ("9" * 5000),
        row % ("[" * 3000 + "]" * 3000),
        row % '1, "output": "z"',
    ]
    traces, report = read(tmp_path, f"[{','.join(rows)}]".encode())
    assert [trace.answer for trace in traces][-1] == "z"
    assert len(traces) + report.skipped[reasons.MALFORMED] == 7
    assert report.skipped[reasons.MALFORMED] >= 1


def test_an_unknown_path_format_or_content_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="`PATH` must be a file"):
        import_traces(tmp_path / "none")
    with pytest.raises(ConfigError, match="`--format` must be auto"):
        read(tmp_path, made.PAM, format="gpt")
    for content in (b"", b"secret text", b"[1, 2]", b'{"a": 1}', b"{"):
        with pytest.raises(ConfigError, match="found none at") as error:
            read(tmp_path, content)
        assert "secret" not in str(error.value)


def test_the_time_span_is_in_order_within_a_second(tmp_path):
    times = ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00Z")
    events = [made.GEMINI_DETAILS | {"time": time} for time in times]
    _, report = read(tmp_path, events)
    assert report.first == "2026-01-01T00:00:00Z"
    assert report.last == "2026-01-01T00:00:00.500000Z"


def test_the_class_of_a_trace_is_the_weakest_of_its_reasoning(tmp_path):
    conversation = {
        "chat_messages": [
            {"sender": "human", "text": "q"},
            {
                "sender": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "", "summaries": ["s"]},
                    {"type": "thinking", "thinking": "full"},
                    {"type": "text", "text": "a"},
                ],
            },
        ]
    }
    traces, _ = read(tmp_path, [conversation])
    assert traces[0].trace_class is TraceClass.SUMMARY
