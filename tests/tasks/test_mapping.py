"""A mapping file is read as documented, and what is wrong is named in one line."""

from pathlib import Path

import pytest

from fedcot.errors import ConfigError
from fedcot.tasks.mapping import Mapping, load_mapping, shipped_mappings
from tests.tasks.writing import CHOICES, SUMS, write_mapping

ALL = {
    "arc",
    "boolq",
    "commonsense-qa",
    "commonsense-qa-recorded",
    "e-snli",
    "gsm8k",
    "gsm8k-recorded",
    "openbookqa",
    "strategyqa",
    "strategyqa-recorded",
    "svamp",
    "svamp-recorded",
}


def load(folder: Path, text: str) -> Mapping:
    return load_mapping(write_mapping(folder, text))


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load(folder, text)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith("mapping 'mapping.toml': ")
    return message


def test_the_shipped_mappings_load_and_are_documented() -> None:
    assert set(shipped_mappings()) == ALL
    for name in shipped_mappings():
        mapping = load_mapping(name)
        assert mapping.name == name
        assert mapping.description
        assert mapping.licence
        assert mapping.origin.startswith("https://")
    assert len({load_mapping(name).hash for name in ALL}) == len(ALL)


def test_the_documented_mapping_works(tmp_path: Path) -> None:
    from fedcot.tasks import mapping as module

    lines = str(module.__doc__).split("::\n\n", 1)[1].splitlines()
    text = "\n".join(line[4:] for line in lines[: lines.index("Top level")])
    mapping = load(tmp_path, text)
    assert mapping.parts == (("question", "q", 24),)
    assert mapping.columns == {"answer": "a"}
    assert mapping.source.test_share == 0.1
    assert mapping.source.test_split == ""


def test_every_key_of_the_format_is_documented() -> None:
    from fedcot.tasks import mapping as module

    text = str(module.__doc__)
    keys = (
        "name description origin licence stop max-characters steps train test hub "
        "config revision train-split test-split max-rows test-share encoding delimiter "
        "answer choices labels rationale completion domain natural-id kind first cut "
        "count slots question instruction user predict explain adapt prediction"
    )
    for key in keys.split(" "):
        assert key in text, key


def test_a_hash_is_of_the_content_and_of_the_order_of_the_slots(tmp_path: Path) -> None:
    first = load(tmp_path, CHOICES).hash
    (tmp_path / "elsewhere").mkdir()
    assert load(tmp_path / "elsewhere", "# a comment\n" + CHOICES).hash == first
    swapped = CHOICES.replace("question = 8\n", "") + "question = 8\n"
    assert load(tmp_path, swapped).order == ("choices", "question")
    assert load(tmp_path, swapped).hash != first
    assert load(tmp_path, CHOICES.replace("= 8", "= 9")).hash != first


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[source]", "[sources]", ["`sources`", "did you mean `source`?"]),
        ("kind =", "kinds =", ["[answer] `kinds`", "did you mean `kind`?"]),
        ('"numeric"', '"number"', ["[answer] `kind`", "multiple-choice", "`number`"]),
        ("question = 12", "question = 0", ["[slots] `question`", "from 1", "found 0"]),
        ("question = 12", "question = true", ["[slots] `question`", "found true"]),
        ("question = 12", 'question = "x"', ["[slots] `question`", "`x`"]),
        ("question = 12", "", ["`question`", "[slots]", "`question = 24`"]),
        ("question = 12", "question = 12\nextra = 3", ["[slots] `extra`"]),
        ('answer = "a"', "", ["[fields] `answer` must be given"]),
        ('answer = "a"', "answer = 3", ["[fields] `answer`", "be text", "found 3"]),
        ('answer = "a"', 'answer = " "', ["[fields] `answer`", "a column"]),
        ('answer = "a"', 'anwser = "a"', ["[fields] `anwser`", "mean `answer`?"]),
        ('"a"', '"a"\nrationle = "r"', ["`rationle`", "did you mean `rationale`?"]),
        ('"a"', '"a"\nchoices = "c"', ["`choices`"]),
        ('"a"', '"a"\nlabels = "c"', ["[fields] `labels`", "without `choices`"]),
        ('"a"', '"{{ a "', ["[fields] `answer`", "must be a jinja2 template"]),
        ('"a"', '"{{ a | tojson }}"', ["[fields] `answer`", "the filter tojson"]),
        ('name = "sums"', "", ["`name`", "found nothing"]),
        ('"sums"', '"My Sums"', ["`name`", "`My Sums`"]),
        ('test = "test.jsonl"', "", ["[source] `test`", "test-share"]),
        ('test = "test.jsonl"', "test-share = 1.0", ["`test-share`", "found 1.0"]),
        ('test = "test.jsonl"', "test-share = 1", ["`test-share`", "found 1"]),
        ("[fields]", 'hub = "a/b"\n[fields]', ["[source] `hub`", "left out"]),
        ("[fields]", "test-share = 0.5\n[fields]", ["`test-share`", "test split"]),
        ("[fields]", 'delimiter = ";;"\n[fields]', ["`delimiter`", "one character"]),
        ("[fields]", "max-rows = -1\n[fields]", ["`max-rows`", "found -1"]),
        ("[fields]", 'encodng = "x"\n[fields]', ["`encodng`", "mean `encoding`?"]),
        ("[slots]", 'labels = ["x"]\n[slots]', ["[answer] `labels`"]),
        ("[slots]", "first = 2\n[slots]", ["[answer] `first`", "found 2"]),
        ("[slots]", "[recorded]\ntest='x'\n[slots]", ["[recorded] `train`"]),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    assert old in SUMS
    message = refusal(tmp_path, SUMS.replace(old, new))
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("choices = { count = 4, slots = 2 }\n", "", ["[slots] `choices`", "count"]),
        ("count = 4", "count = 27", ["[slots.choices] `count`", "1 to 26"]),
        ("slots = 2", "slot = 2", ["[slots.choices] `slot`", "mean `slots`?"]),
        ("slots = 2", "slots = 0", ["[slots.choices] `slots`", "found 0"]),
        ('choices = "c"', "", ["[slots] `choices`"]),
        ('choices = "c"', 'choices = ["c", "d"]', ["`count`", "found 4"]),
        ('choices = "c"', 'choices = "{{ c }}"', ["[fields] `choices`"]),
        ('choices = "c"', "choices = []", ["[fields] `choices`"]),
        ("multiple-choice", "numeric", ["[fields] `choices`", "only there"]),
    ],
)
def test_choices_that_are_wrong_are_named(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    assert old in CHOICES
    message = refusal(tmp_path, CHOICES.replace(old, new))
    for word in words:
        assert word in message, message


def with_template(key: str, text: str, base: str = SUMS) -> str:
    return f"{base}\n[templates]\n{key} = '''{text}'''\n"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("question", "a"),
        ("question", "answer"),
        ("question", "q"),
        ("question", "rationale"),
        ("instruction", "question"),
        ("user", "answer"),
        ("user", "record"),
        ("user", "perturbed"),
        ("predict", "answer"),
        ("explain", "choices"),
        ("adapt", "answer"),
        ("completion", "question"),
        ("prediction", "rationale"),
    ],
)
def test_a_template_that_names_a_raw_field_is_refused(
    tmp_path: Path, key: str, name: str
) -> None:
    message = refusal(tmp_path, with_template(key, "x {{ " + name + " }}"))
    assert f"[templates] `{key}` must use nothing but" in message
    assert f"found `{name}`" in message


def test_a_template_may_use_the_parts_that_are_perturbed(tmp_path: Path) -> None:
    text = with_template("question", "{{ question }} {{ choices | lettered }}", CHOICES)
    assert "lettered" in load(tmp_path, text).templates["question"]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("completion", "{{ rationale }} #: {{ answer }}"),
        ("completion", "The answer is {{ answer }}."),
        ("completion", "{{ rationale }}\nQ: The answer is {{ answer }}."),
        ("prediction", "The answer is {{ answer }}."),
        ("prediction", "42"),
    ],
)
def test_what_a_student_could_never_get_right_is_refused(
    tmp_path: Path, key: str, text: str
) -> None:
    assert f"`{key}` must write" in refusal(tmp_path, with_template(key, text))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('question = "q"\nanswer = "12"', "`rationale`"),
        ('question = "q"\nrationale = "r"\nanswer = "many"', "number 1"),
        ('question = "q"\nrationale = ""\nanswer = "12"', "number 1"),
        ('question = "q"\nrationale = "r"\nanswer = 12', "`answer` must be text"),
        ('question = "q"\nrationale = "r"\nanswer = "1"\nchoices = ["x"]', "`choices`"),
    ],
)
def test_a_demonstration_that_is_wrong_is_refused(
    tmp_path: Path, row: str, words: str
) -> None:
    assert words in refusal(tmp_path, f"{SUMS}\n[[demonstrations]]\n{row}\n")


def test_one_source_of_rationales(tmp_path: Path) -> None:
    both = SUMS.replace('"a"', '"a"\nrationale = "r"\ncompletion = "c"')
    assert "only source of rationales" in refusal(tmp_path, both)
    recorded = SUMS.replace('"a"', '"a"\nrationale = "r"') + "[recorded]\ntrain = 'x'"
    assert "only source of rationales" in refusal(tmp_path, recorded)


def test_steps_are_checked_for_numbers_only(tmp_path: Path) -> None:
    steps = 'steps = "arithmetic"\n'
    assert load(tmp_path, steps + SUMS).checks_arithmetic
    assert "`steps`" in refusal(tmp_path, steps + CHOICES)
    assert "`steps`" in refusal(tmp_path, 'steps = "logic"\n' + SUMS)


def test_a_name_that_is_no_mapping_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean `gsm8k`"):
        load_mapping("gsm8")
    with pytest.raises(ConfigError, match="see `fedcot data list`"):
        load_mapping("/nowhere/at/all.toml")


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="readable TOML") as raised:
        load(tmp_path, "name = \n")
    assert "\n" not in str(raised.value)
    other = tmp_path / "mapping.yaml"
    other.write_text(SUMS)
    with pytest.raises(ConfigError, match="found no such"):
        load_mapping(str(other))
