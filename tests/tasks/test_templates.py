"""A template sees exactly the names in it, and those are checked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.errors import ConfigError
from fedcot.tasks.templates import FILTERS, compile_template, is_template, letter

CHOICES = st.lists(st.text(max_size=4), max_size=26)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{% include '/etc/passwd' %}", "include"),
        ("{% import 'x' as y %}", "import"),
        ("{% from 'x' import y %}", "fromimport"),
        ("{% extends 'x' %}", "extends"),
        ("{% macro f() %}{% endmacro %}", "macro"),
        ("{% block b %}{{ super() }}{% endblock %}", "block"),
        ("{{ question.format(1) }}", "call"),
        ("{{ range(3) }}", "call"),
        ("{{ self._TemplateReference__context }}", "_TemplateReference__context"),
        ("{{ self }}", "self"),
        ("{{ question.__class__ }}", "__class__"),
        ("{{ question * 1000000000 }}", "mul"),
        ("{{ 9 ** 9 ** 9 }}", "pow"),
        ("{{ question | random }}", "the filter random"),
        ("{{ question | map('attr', 'x') }}", "the filter map"),
        ("{{ question | pprint }}", "the filter pprint"),
        ("{% filter upper %}x{% endfilter %}", "filterblock"),
        ("{% with a = 1 %}{% endwith %}", "with"),
    ],
)
def test_what_reaches_outside_is_refused(text: str, found: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compile_template(text, "file.toml: `user`", ["question"])
    message = str(raised.value)
    assert message.startswith("file.toml: `user` must")
    assert f"`{found}`" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    [
        "{{ answer }}",
        "{% if answer %}x{% endif %}",
        "{{ question ~ answer }}",
        "{% for x in answer %}{{ question }}{% endfor %}",
        "{% set copy = answer %}{{ copy }}",
        "{{ question if answer is defined }}",
        "{{ question | default(answer) }}",
        "{{ question[answer] }}",
        "{{ [question, [answer]] | join }}",
        "{{ question | replace('a', answer) }}",
    ],
)
def test_a_name_is_found_wherever_it_hides(text: str) -> None:
    assert compile_template(text, "x", ["question", "answer"])
    with pytest.raises(ConfigError, match="found `answer`; take it out"):
        compile_template(text, "x", ["question"])


def test_names_of_a_loop_and_of_jinja_itself_are_no_columns() -> None:
    text = "{% for x in facts %}{{ loop.index }} {{ x }}{% endfor %}"
    assert compile_template(text, "x").names == {"facts"}
    # Nothing is global here, so these would be columns of that name.
    assert compile_template("{{ range }}{{ dict }}", "x").names == {"range", "dict"}


@pytest.mark.parametrize("text", ["{{ question", "{% if %}", "{{ a b }}", "{{ 1 +"])
def test_what_is_no_template_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a jinja2 template") as raised:
        compile_template(text, "x")
    assert "\n" not in str(raised.value)


def test_every_filter_named_exists() -> None:
    from fedcot.tasks.templates import _ENVIRONMENT

    assert set(FILTERS) <= set(_ENVIRONMENT.filters)


def render(text: str, **values: object) -> str:
    return compile_template(text, "x").render(values)


@given(CHOICES)
def test_choices_keep_their_letter_when_others_are_empty(choices: list[str]) -> None:
    expected = "\n".join(
        f"({'abcdefghijklmnopqrstuvwxyz'[n]}) {choice}"
        for n, choice in enumerate(choices)
        if choice
    )
    assert render("{{ c | lettered }}", c=choices) == expected


def test_the_filters_for_marks() -> None:
    answer = "Half is 48/2 = <<48/2=24>>24.\n#### 1,024"
    assert render("{{ a | after('####') }}", a=answer) == "1,024"
    assert render("{{ a | before('####') }}", a=answer) == answer[:-11]
    steps = "Half is 48/2 = 24."
    assert render("{{ a | before('####') | without_marks }}", a=answer) == steps
    assert render("{{ a | after('@') }}|{{ a | before('@') }}", a="x") == "|x"
    assert render("{{ a | after('=') }}", a="1=2=3") == "3"
    assert render("{{ a | before('=') }}", a="1=2=3") == "1"


def test_nothing_is_escaped_and_none_is_nothing() -> None:
    assert render("{{ a }}", a="<b>&'\"") == "<b>&'\""
    assert render("[{{ a }}]", a=None) == "[]"


def test_a_value_that_is_missing_is_an_error_and_not_empty() -> None:
    with pytest.raises(ConfigError, match="must fit the values") as caught:
        render("{{ a }}")
    assert "UndefinedError" in str(caught.value)


@given(st.text(alphabet="{}%abc _.", max_size=30))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    try:
        compiled = compile_template(text, "x", [])
    except ConfigError:
        return
    assert compiled.names == frozenset()


def test_letters_and_templates_are_told() -> None:
    assert [letter(0), letter(25)] == ["a", "z"]
    assert is_template("{{ a }}")
    assert is_template("{% if a %}")
    assert not is_template("choices.text {a}")


@pytest.mark.parametrize("text", ["{{ a.format }}", "{{ a.title }}", "{{ a.b.c }}"])
def test_a_text_has_no_attributes_to_show(text: str) -> None:
    with pytest.raises(ConfigError, match="values only"):
        compile_template(text, "x", ["a"])


def test_a_loop_may_count_and_a_column_be_nested() -> None:
    counted = "{% for c in a %}{{ loop.index }}{{ c }}{% endfor %}"
    assert compile_template(counted, "x", ["a"]).render({"a": ["p", "q"]}) == "1p2q"
    assert compile_template("{{ a.b }}", "x").render({"a": {"b": "c"}}) == "c"
