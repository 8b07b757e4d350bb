"""The formats of table 5 and the world's: fixtures, round trips, what is refused."""

import json

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fedcot.data.schema import Rationale
from fedcot.errors import ConfigError
from fedcot.models.in_context_data import example_pieces
from fedcot.plain_text import cut
from fedcot.seeding import numpy_generator
from fedcot.social.demonstrations import Demonstration, few_shot_prompt
from fedcot.social.formats import FORMATS, format_named
from fedcot.world.hidden_rules import KINDS, draw_rule

NAMES = (
    "sms-spam",
    "sms-spam-classes",
    "lambada",
    "boolq",
    "gsm8k",
    "random-insertion",
    "world",
)

FIXTURES = {
    "sms-spam": (
        "Text: Free entry, call now!\nClass: spam",
        Demonstration("Free entry, call now!", "spam"),
        "Text: Free entry, call now!\nClass:",
    ),
    "sms-spam-classes": (
        'Text: see you at 5\nClass ("spam" or "not spam"): not spam',
        Demonstration("see you at 5", "not spam"),
        'Text: see you at 5\nClass ("spam" or "not spam"):',
    ),
    "lambada": (
        "Fill in blank:\nShe gave the ring to her ____ -> husband",
        Demonstration("She gave the ring to her ____", "husband"),
        "Fill in blank:\nShe gave the ring to her ____ ->",
    ),
    "boolq": (
        "Persian is spoken in Iran.\nQuestion: is it spoken in iran\nAnswer: yes",
        Demonstration("Persian is spoken in Iran.\nis it spoken in iran", "yes"),
        "Persian is spoken in Iran.\nQuestion: is it spoken in iran\nAnswer:",
    ),
    "gsm8k": (
        """Question: Tom has 2 bags of 3 nails. How many?
Answer: He has 2*3 nails.
2*3=6
#### 6""",
        Demonstration(
            "Tom has 2 bags of 3 nails. How many?",
            "6",
            "He has 2*3 nails.\n2*3=6",
        ),
        "Question: Tom has 2 bags of 3 nails. How many?\nAnswer:",
    ),
    "random-insertion": (
        "s.u!c/c=e s.s  = success",
        Demonstration("s.u!c/c=e s.s ", "success"),
        "s.u!c/c=e s.s  =",
    ),
    "world": (
        "question: ann trades 2 gold for salt rationale: 2 * 3 = 6 answer: 6",
        Demonstration("ann trades 2 gold for salt", "6", "2 * 3 = 6"),
        "question: ann trades 2 gold for salt",
    ),
}

# No line break and no marker of a format can come of these.
LETTERS = st.text(
    st.characters(categories=("Lu", "Ll", "Lo", "Nd"), include_characters=" .,!?'é"),
    min_size=1,
    max_size=30,
)
LINES = LETTERS.filter(lambda text: text == text.strip())
WORDS = st.text(st.characters(categories=("Lu", "Ll")), min_size=1, max_size=8)
SMALL = st.lists(WORDS, min_size=1, max_size=5).map(" ".join)
HELD = {
    "sms-spam": st.builds(Demonstration, LINES, st.sampled_from(["spam", "not spam"])),
    "lambada": st.builds(
        lambda left, right, word: Demonstration(f"{left} ____{right}", word),
        LINES,
        LINES.map(lambda line: f" {line}") | st.just(""),
        WORDS,
    ),
    "boolq": st.builds(
        lambda context, question, answer: Demonstration(
            f"{context}\n{question}", answer
        ),
        LINES,
        LINES,
        st.sampled_from(["yes", "no"]),
    ),
    "gsm8k": st.builds(
        Demonstration,
        LINES,
        st.integers(-999, 10**7).map(str) | st.sampled_from(["1,200", "2.50", "$3"]),
        st.lists(LINES, min_size=1, max_size=3).map("\n".join),
    ),
    "random-insertion": st.builds(
        lambda pairs, word: Demonstration("".join(a + b for a, b in pairs), word),
        st.lists(
            st.tuples(
                st.sampled_from("abcdwxyz"),
                st.sampled_from(" !\"#$%&'()*+,-./:;<=>?@[]^_`{|}~"),
            ),
            min_size=1,
            max_size=8,
        ),
        WORDS,
    ),
    "world": st.builds(Demonstration, SMALL, WORDS, SMALL | st.just("")),
}
HELD["sms-spam-classes"] = HELD["sms-spam"]


def test_there_is_a_format_for_each_name():
    assert tuple(form.name for form in FORMATS) == NAMES
    assert all(format_named(name).name == name for name in NAMES)
    with pytest.raises(ConfigError, match="sms-spam, sms-spam-classes, lambada") as no:
        format_named("sms")
    assert "'sms'" in str(no.value)


@pytest.mark.parametrize("name", NAMES)
def test_fixtures_are_written_asked_and_read(name):
    text, demonstration, asked = FIXTURES[name]
    form = format_named(name)
    assert form.write(demonstration) == text
    assert form.read(text) == demonstration
    assert form.read(f"{text} \n") == demonstration
    assert form.ask(demonstration.question) == asked
    assert text.startswith(form.opening)
    assert form.has_reasoning == (name in ("gsm8k", "world"))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_what_a_text_can_hold_is_read_back(name, data):
    form = format_named(name)
    demonstration = data.draw(HELD[name])
    assert form.read(form.write(demonstration)) == demonstration
    assert form.ask(demonstration.question)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_model_that_goes_on_with_more_is_cut_at_the_end_of_the_first(name, data):
    form = format_named(name)
    first, second, third = (data.draw(HELD[name]) for _ in range(3))
    prompt = few_shot_prompt(form, [first])
    whole = form.separator.join(map(form.write, (first, second, third)))
    assert whole.startswith(prompt)
    written = cut(whole.removeprefix(prompt), form.stop)
    assert form.read(form.opening + written) == second


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_student_that_goes_on_is_read_up_to_its_answer(name, data):
    form = format_named(name)
    asked, more = data.draw(HELD[name]), data.draw(HELD[name])
    whole = form.separator.join([form.write(asked), form.write(more)])
    behind = whole.removeprefix(form.ask(asked.question))
    read = form.read_answer(behind)
    assert read is not None
    assert form.is_right(read, asked.answer)


PARTS = st.text(st.sampled_from("ab:#->=_ \n\r\u2028") | st.sampled_from("é1"))


@pytest.mark.parametrize("name", NAMES)
@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(text=PARTS, rest=PARTS, data=st.data())
def test_what_is_read_can_be_written_and_is_read_the_same_again(name, text, rest, data):
    form = format_named(name)
    fixture = FIXTURES[name][0]
    at = data.draw(st.integers(0, len(fixture)))
    read = form.read(fixture[:at] + text + rest + fixture[at:])
    assume(read is not None)
    assert form.read(form.write(read)) == read


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sms-spam", "Text: hi\nClass: ham"),
        ("sms-spam", "Text: hi\nClass: Spam"),
        ("sms-spam", "Text: hi\nClass: spam or not spam"),
        ("sms-spam", "Text: hi\nClass: spam\nClass: spam"),
        ("sms-spam", "Text: hi\nClass: spam\nBecause it is."),
        ("sms-spam", "Text: hi\nClass:"),
        ("sms-spam", "Text:\nClass: spam"),
        ("sms-spam", "Text: hi"),
        ("sms-spam", "Text: hi Class: spam"),
        ("sms-spam", "hi\nClass: spam"),
        ("sms-spam", "Text: hi\nthere\nClass: spam"),
        ("sms-spam", "Text: hi\u2028there\nClass: spam"),
        ("sms-spam", "Text: hi\n\nClass: spam"),
        ("sms-spam", 'Text: hi\nClass ("spam" or "not spam"): spam'),
        ("sms-spam", ""),
        ("sms-spam-classes", "Text: hi\nClass: spam"),
        ("sms-spam-classes", 'Text: hi\nClass ("spam" or "not spam"): ham'),
        ("lambada", "Fill in blank:\nno gap here -> word"),
        ("lambada", "Fill in blank:\ntwo ____ and ____ -> word"),
        ("lambada", "Fill in blank:\nher ____ -> two words"),
        ("lambada", "Fill in blank:\nher ____ -> one -> two"),
        ("lambada", "Fill in blank:\nher ____ ->"),
        ("lambada", "Fill in blank: her ____ -> husband"),
        ("lambada", "her ____ -> husband"),
        ("boolq", "Question: is it\nAnswer: yes"),
        ("boolq", "A context.\nQuestion: is it\nAnswer: maybe"),
        ("boolq", "A context.\nAnd more.\nQuestion: is it\nAnswer: yes"),
        ("boolq", "A context.\nQuestion: is it\nQuestion: is it\nAnswer: yes"),
        ("boolq", "A context.\nQuestion: is it\nAnswer: yes\nAnswer: yes"),
        ("gsm8k", "Question: How many?\nAnswer: 2+1=3"),
        ("gsm8k", "Question: How many?\nAnswer: #### 3"),
        ("gsm8k", "Question: How many?\nAnswer:\n#### 3"),
        ("gsm8k", "Question: How many?\nAnswer: 2+1=3\n#### three"),
        ("gsm8k", "Question: How many?\nAnswer: 2+1=3\n#### 3 nails"),
        ("gsm8k", "Question: How many?\nAnswer: 2+1=3\n#### 3\n#### 4"),
        ("gsm8k", "Question: How many?\nAnswer: so #### 3\n#### 3"),
        ("gsm8k", "Question: How many?\nAnswer: 3\nAnswer: 2+1=3\n#### 3"),
        ("gsm8k", "Question: How many?\nAnswer: 2+1=3\n \n3\n#### 3"),
        ("random-insertion", "w.o.r.d word"),
        ("random-insertion", "w.o.r.d ="),
        ("random-insertion", "= word"),
        ("random-insertion", "w.o.r.d = a word"),
        ("random-insertion", "w.o = r.d = word"),
        ("random-insertion", "w.o.r.d = word\nx.y = xy"),
        ("world", "question: two plus two"),
        ("world", "question: two plus two answer:"),
        ("world", "question: answer: 4"),
        ("world", "question: two rationale: answer: 4"),
        ("world", "question: two answer: 4 5"),
        ("world", "question: two answer: 4 answer: 4"),
        ("world", "question: two answer: 4 rationale: 2 + 2 = 4"),
        ("world", "question: two answer: 4 question: three"),
        ("world", "question: two answer: 4 hint: add"),
        ("world", "question: two hint: add answer: 4"),
        ("world", "question: two (answer: 4"),
        ("world", "question: two predict: answer: 4"),
        ("world", "two answer: 4"),
    ],
)
def test_what_is_malformed_is_not_read(name, text):
    assert format_named(name).read(text) is None


@pytest.mark.parametrize(
    ("name", "demonstration"),
    [
        ("sms-spam", Demonstration("a secret\nline", "spam")),
        ("sms-spam", Demonstration(" a secret", "spam")),
        ("sms-spam", Demonstration("", "spam")),
        ("sms-spam", Demonstration("a secret", "ham")),
        ("sms-spam", Demonstration("a secret", "spam", "steps that get lost")),
        ("lambada", Demonstration("a secret", "word")),
        ("boolq", Demonstration("a secret without a question", "yes")),
        ("gsm8k", Demonstration("a secret", "3")),
        ("gsm8k", Demonstration("a secret", "3", "so\n\nthree")),
        ("gsm8k", Demonstration("a secret", "3", "so\nQuestion: more")),
        ("random-insertion", Demonstration("s = t", "secret")),
        ("world", Demonstration("a  secret", "3")),
        ("world", Demonstration("a secret", "3 4")),
        ("world", Demonstration("a secret answer: 3", "4")),
    ],
)
def test_what_could_not_be_read_back_is_not_written(name, demonstration):
    with pytest.raises(ConfigError, match=f"`{name}`") as refused:
        format_named(name).write(demonstration)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("name", NAMES)
def test_a_question_that_does_not_fit_is_not_asked(name):
    with pytest.raises(ConfigError, match="`question`") as refused:
        format_named(name).ask("my\n\nsecret\n\n")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("sms-spam", " spam", "spam"),
        ("sms-spam", " Not spam.\nText: more", "not spam"),
        ("sms-spam", " ham", None),
        ("sms-spam", " it is spam", None),
        ("sms-spam", "", None),
        ("boolq", " Yes", "yes"),
        ("boolq", " true", None),
        ("lambada", " husband.", "husband"),
        ("lambada", " her husband", None),
        ("lambada", " ...", None),
        ("gsm8k", " 2+1=3\n#### 3\n\nQuestion: x", "3"),
        ("gsm8k", " #### $1,200", "1200"),
        ("gsm8k", " 2+1=3, so 3.", None),
        ("gsm8k", " 2+1=3. The answer is 3.", None),
        ("gsm8k", " so\n\n#### 3", None),
        ("random-insertion", " word\n", "word"),
        ("world", " answer: 4", "4"),
        ("world", " rationale: 2 + 2 = 4 answer: 4 question: more", "4"),
        ("world", " answer: 4 hint: add", "4"),
        ("world", " today answer: 4", None),
        ("world", " rationale: 2 + 2 = 4", None),
        ("world", " answer: 4 5", None),
        ("world", " 4", None),
    ],
)
def test_a_students_answer_is_read(name, text, answer):
    assert format_named(name).read_answer(text) == answer


@pytest.mark.parametrize(
    ("name", "answer", "gold", "right"),
    [
        ("gsm8k", "1200", "1,200", True),
        ("gsm8k", "1200.0", "$1,200", True),
        ("gsm8k", "[invalid]", "[invalid]", False),
        ("gsm8k", "120", "1200", False),
        ("sms-spam", "spam", "spam", True),
        ("sms-spam", "not spam", "spam", False),
        ("lambada", "Husband", "husband.", True),
        ("lambada", "wife", "husband", False),
        ("world", "4", "4", True),
        ("world", "4", "4.0", False),
        ("world", "[invalid]", "[invalid]", False),
    ],
)
def test_answers_are_compared_by_their_kind(name, answer, gold, right):
    assert format_named(name).is_right(answer, gold) is right


def test_the_world_takes_the_labels_of_its_task():
    form = format_named("world", labels=("zib", "dax"))
    assert form.labels == ("zib", "dax")
    assert form.read("question: the drum answer: dax") is not None
    assert form.read("question: the drum answer: wug") is None
    assert form.read_answer(" answer: wug") is None
    assert form.ask("the drum") == "question: the drum"
    with pytest.raises(ConfigError):
        form.write(Demonstration("the drum", "wug"))
    assert format_named("world").labels == ()
    assert format_named("boolq", labels=("yes", "no")).labels == ("yes", "no")
    with pytest.raises(ConfigError, match="`labels`"):
        format_named("boolq", labels=("zib", "dax"))


def test_the_world_writes_what_its_models_were_trained_on():
    rng = numpy_generator(0, "rules")
    form = format_named("world")
    for kind in KINDS:
        rule = draw_rule("held-out", kind, rng)
        question = rule.question(rng)
        rationale = rule.rationale(question) or Rationale("", "")
        shown = Demonstration(question, rationale.answer, rationale.text)
        pieces = [piece.text for piece in example_pieces(question, rationale)]
        assert form.write(shown) == form.separator.join(pieces)
        assert form.ask(question) == pieces[0]


def test_a_missing_blank_behind_the_opening_is_forgiven():
    world, spam = format_named("world"), format_named("sms-spam")
    assert world.read("question:two answer: 4") == Demonstration("two", "4")
    assert spam.read("Text:hi\nClass:spam") == Demonstration("hi", "spam")


def test_real_problems_are_held_but_for_blank_lines(data_folder):
    form = format_named("gsm8k")
    lines = (data_folder / "gsm8k" / "train.jsonl").read_text().splitlines()[:500]
    held = 0
    for row in map(json.loads, lines):
        question, (steps, _, answer) = (
            row["question"],
            row["answer"].partition("\n#### "),
        )
        read = form.read(f"Question: {question}\nAnswer: {row['answer']}")
        if "\n\n" in steps:
            assert read is None
            continue
        assert read == Demonstration(question.strip(), answer, steps.strip())
        assert form.write(read).endswith(f"\n#### {answer}")
        held += 1
    assert held > 490
