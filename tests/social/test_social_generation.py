"""What a teacher is asked, what is discarded and why, and what is kept."""

import math
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.community.messages import LONGEST_TEXT
from fedcot.errors import ConfigError
from fedcot.social import generation
from fedcot.social.client_model import Sampled
from fedcot.social.demonstrations import Demonstration, draw_indices, few_shot_prompt
from fedcot.social.formats import format_named
from fedcot.social.generation import DISCARDED, GenerationSettings, perplexity
from fedcot.social.inspection import Gate, gate_texts

SPAM = format_named("sms-spam")
OWN = (
    Demonstration("meet me at the old mill", "not spam"),
    Demonstration("win a free cruise now", "spam"),
    Demonstration("lunch tomorrow at noon?", "not spam"),
    Demonstration("claim your prize of 500", "spam"),
)
GATE = Gate(gate_texts(OWN), 0.1)
SETTINGS = {
    "per_prompt": 2,
    "keep": 2,
    "num_prompts": 1,
    "samples_per_prompt": 3,
    "temperature": 0.8,
    "max_new_tokens": 40,
    "seed": 5,
}


@dataclass
class Stub:
    """Says what it is told to, in order, and writes down what it was asked."""

    says: list[tuple[str, float | None]]
    calls: list[dict] = field(default_factory=list)

    def sample(self, prompts, **settings):
        self.calls.append({"prompts": prompts, **settings})
        assert len(prompts) == len(self.says)
        return [Sampled(text, mean, len(text)) for text, mean in self.says]


def spam(text: str, label: str = "spam") -> str:
    return f" {text}\nClass: {label}"


def generate(model, form, own, *, gate, seed, check=None, **settings):
    return generation.generate(
        model,
        form,
        own,
        GenerationSettings(**settings),
        gate=gate,
        seed=seed,
        check=check,
    )


def generated(says, **more):
    model = Stub(says)
    settings = {"gate": GATE, **SETTINGS, **more}
    return generate(model, SPAM, OWN, **settings), model


def questions(result) -> list[str]:
    return [one.demonstration.question for one in result.candidates]


def test_the_model_gets_plain_few_shot_prompts_drawn_by_seed():
    says = [(spam(f"text number {i} of the kind"), -1.0) for i in range(6)]
    result, model = generated(says, num_prompts=2)
    (call,) = model.calls
    wanted = [draw_indices(4, 2, 5, prompt) for prompt in range(2)]
    prompts = [few_shot_prompt(SPAM, [OWN[i] for i in drawn]) for drawn in wanted]
    assert call["prompts"] == [prompts[0]] * 3 + [prompts[1]] * 3
    assert all(prompt.endswith("\n\nText:") for prompt in prompts)
    assert (call["temperature"], call["max_new_tokens"]) == (0.8, 40)
    assert call["stop"] == SPAM.stop
    assert len(set(call["seeds"])) == 6
    assert result.drawn == tuple(map(tuple, wanted))
    assert result.drawn_indices == {i for drawn in wanted for i in drawn}
    again, other = generated(says, num_prompts=2)
    assert again == result
    assert other.calls == model.calls
    different, _ = generated(says, num_prompts=2, seed=6)
    assert different.drawn != result.drawn


def test_candidates_stand_by_perplexity_and_ties_by_order():
    says = [
        (spam("aaaa one"), -2.0),
        (spam("bbbb two"), -0.5),
        (spam("cccc three"), -2.0),
        (spam("dddd four"), -1.0),
    ]
    result, _ = generated(says, keep=3, samples_per_prompt=4)
    assert questions(result) == ["bbbb two", "dddd four", "aaaa one"]
    found = [one.perplexity for one in result.candidates]
    assert found == pytest.approx([math.exp(0.5), math.exp(1), math.exp(2)])
    assert result.ranking == "perplexity"
    assert result.counts["outranked"] == 1


def test_without_log_probabilities_the_order_of_sampling_decides():
    says = [(spam("aaaa one"), -3.0), (spam("bbbb two"), None), (spam("cccc"), -1.0)]
    result, _ = generated(says)
    assert questions(result) == ["aaaa one", "bbbb two"]
    assert [one.perplexity for one in result.candidates] == [None, None]
    assert result.ranking == "order"
    # A text that cannot be read needs no perplexity.
    told, _ = generated([says[0], ("", None), says[2]])
    assert questions(told) == ["cccc", "aaaa one"]
    assert told.ranking == "perplexity"


def test_every_reason_is_counted_and_every_text_accounted_for():
    says = [
        (spam("hello", "ham"), -0.1),
        ("", -0.1),
        (spam("bad dddd"), -0.1),
        (spam("win a free cruise now", "not spam"), -0.1),
        (spam("Win a FREE  cruise now"), -0.1),
        (spam("win a free cruise nowz"), -0.1),
        (spam("zzzz so lunch tomorrow at xxxxxxxxxxxxxxxxxxxx"), -0.1),
        (spam("fresh text"), -0.3),
        (spam("FRESH  text", "not spam"), -0.2),
        (spam("other words"), -0.4),
        (spam("last of them"), -0.5),
    ]
    result, _ = generated(
        says,
        gate=Gate(gate_texts(OWN), 0.1, refused_run=3),
        samples_per_prompt=len(says),
        check=lambda one: "bad" not in one.question,
    )
    assert dict(result.counts) == {
        "malformed": 2,
        "invalid": 1,
        "verbatim": 1,
        "normalised": 1,
        "near": 1,
        "run": 1,
        "repeated": 1,
        "outranked": 1,
    }
    assert tuple(result.counts) == DISCARDED
    # The better of two that repeat each other stays.
    assert questions(result) == ["FRESH  text", "other words"]
    assert result.num_sampled == len(says)
    assert sum(result.counts.values()) + len(result.candidates) == len(says)
    sent = [one.text for one in result.considered if one.left]
    assert sent == [
        "Text: FRESH  text\nClass: not spam",
        "Text: other words\nClass: spam",
    ]
    assert len(result.considered) == 9


def test_a_planted_canary_never_becomes_a_candidate():
    says = [(spam(one.question, one.answer), -0.01) for one in OWN]
    result, _ = generated(says, samples_per_prompt=4)
    assert result.candidates == ()
    assert result.counts["verbatim"] == 4
    assert not any(one.left for one in result.considered)
    assert "mill" not in repr(result)


def test_copied_steps_are_refused_by_their_run():
    form = format_named("gsm8k")
    own = [Demonstration("tom?", "3", "the code of my safe is 1 plus 2")]
    says = [(" ann?\nAnswer: oh the code of my safe is 9\n#### 9", -1.0)]
    settings = {**SETTINGS, "per_prompt": 1, "keep": 1, "samples_per_prompt": 1}
    for size, reason in ((6, "run"), (7, "")):
        gate = Gate(gate_texts(own), 0.0, refused_run=size)
        result = generate(Stub(says), form, own, gate=gate, **settings)
        assert [one.verdict.reason for one in result.considered] == [reason]


def test_at_most_n_gen_times_k_candidates_and_k_of_each_prompt():
    says = [(spam(f"{word * 6} of it"), -i / 10) for i, word in enumerate("abcdefghi")]
    # n_gen = 1 and k = 2, so that the two best of the three prompts stay.
    capped, _ = generated(says, per_prompt=1, num_prompts=3)
    assert questions(capped) == ["aaaaaa of it", "bbbbbb of it"]
    assert capped.counts["outranked"] == 7
    full, _ = generated(says, per_prompt=3, num_prompts=3)
    assert [one.prompt for one in full.candidates] == [0, 0, 1, 1, 2, 2]


def test_another_prompt_may_say_what_an_earlier_one_did_not_keep():
    settings = {"num_prompts": 2, "keep": 1, "samples_per_prompt": 2}
    says = [
        (spam("aaaa kept"), -0.1),
        (spam("bbbb not"), -0.2),
        (spam("aaaa kept"), -0.1),
        (spam("bbbb not"), -0.4),
    ]
    result, _ = generated(says, **settings)
    assert questions(result) == ["aaaa kept", "bbbb not"]
    assert (result.counts["repeated"], result.counts["outranked"]) == (1, 1)


def test_what_no_message_can_hold_is_malformed():
    long = "aaaa " * (LONGEST_TEXT // 5)
    says = [
        (spam(f"{long}bbbb"), -1.0),
        (spam("cccc three"), -1.0),
        (spam("dddd four"), -2.0),
    ]
    result, _ = generated(says)
    assert questions(result) == ["cccc three", "dddd four"]
    assert (result.counts["malformed"], len(result.considered)) == (1, 2)
    fits, _ = generated([(spam(long.strip()), -1.0), *says[1:]], keep=3)
    assert fits.counts["malformed"] == 0


def test_wrong_reasoning_is_dropped_or_only_counted():
    says = [
        (spam("aaaa right"), -1.0),
        (spam("bbbb wrong"), -0.5),
        (spam("win a free cruise now wrong"), -0.5),
    ]

    def check(one):
        return "wrong" not in one.question

    gate = Gate(gate_texts(OWN), 0.3)
    checked, _ = generated(says, check=check, gate=gate)
    unfiltered, _ = generated(says, check=check, gate=gate, drops_wrong=False)
    assert questions(checked) == ["aaaa right"]
    assert checked.counts["invalid"] == 2
    assert questions(unfiltered)[0] == "bbbb wrong"
    assert unfiltered.counts["invalid"] == 0
    assert [one.is_valid for one in unfiltered.candidates] == [False, True]
    # The rate is of what the model wrote, the same in both arms.
    for result in (checked, unfiltered):
        assert (result.num_wrong, result.num_checked) == (2, 3)
    unknown, _ = generated(says)
    assert unknown.num_checked == 0
    assert [one.is_valid for one in unknown.candidates] == [None, None]


LINES = st.tuples(
    st.sampled_from(["aaaa", "bbbb", "cccc", "dddd", "meet me at the old mill"]),
    st.sampled_from(["spam", "not spam", "ham"]),
    st.sampled_from([-3.0, -2.0, -1.0]),
)


@given(st.lists(LINES, min_size=6, max_size=6), st.integers(1, 3), st.integers(1, 3))
def test_ranking_is_that_of_the_definition(lines, keep, per_prompt):
    """Prompt by prompt: read, gate, sort, one of each question, the first k."""
    says = [(spam(text, label), mean) for text, label, mean in lines]
    result, _ = generated(
        says, num_prompts=2, samples_per_prompt=3, keep=keep, per_prompt=per_prompt
    )
    known: list[str] = []
    kept: list[tuple[float, int]] = []
    for prompt in range(2):
        usable = [
            (-mean, order)
            for order, (text, label, mean) in enumerate(lines)
            if order // 3 == prompt and label != "ham" and "mill" not in text
        ]
        fresh: list[tuple[float, int]] = []
        for one in sorted(usable):
            text = lines[one[1]][0]
            if text not in known and text not in [lines[i][0] for _, i in fresh]:
                fresh.append(one)
        kept += fresh[:keep]
        known += [lines[order][0] for _, order in fresh[:keep]]
    wanted = [lines[order][0] for _, order in sorted(kept)[: keep * per_prompt]]
    assert questions(result) == wanted
    assert sum(result.counts.values()) + len(wanted) == 6
    assert Counter(one.left for one in result.considered)[True] == len(wanted)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"per_prompt": 0}, "per_prompt"),
        ({"per_prompt": 5}, "per_prompt"),
        ({"keep": 0}, "keep"),
        ({"num_prompts": 0}, "num_prompts"),
        ({"samples_per_prompt": 1}, "samples_per_prompt"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": 0.0}, "temperature"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_asked(changed, name):
    model = Stub([])
    with pytest.raises(ConfigError, match=f"^`{name}`"):
        generate(model, SPAM, OWN, gate=GATE, **{**SETTINGS, **changed})
    assert model.calls == []


def test_one_greedy_sample_is_allowed():
    settings = {"temperature": 0.0, "samples_per_prompt": 1, "keep": 1}
    result, _ = generated([(spam("aaaa one"), -1.0)], **settings)
    assert questions(result) == ["aaaa one"]


def test_a_client_whose_texts_do_not_fit_is_refused_without_them():
    own = [replace(OWN[0], question="my\nsecret")]
    with pytest.raises(ConfigError) as refused:
        generate(Stub([]), SPAM, own, gate=GATE, **{**SETTINGS, "per_prompt": 1})
    assert "secret" not in str(refused.value)


def test_perplexity_is_the_exponential_of_the_mean_surprise():
    # A uniform choice of eight words has the perplexity eight.
    assert perplexity(math.log(1 / 8)) == pytest.approx(8)
    assert perplexity(0.0) == 1
    assert perplexity(1e-9) == 1
    assert perplexity(-1e5) == math.inf
    for wrong in (math.nan, 0.1):
        with pytest.raises(ValueError, match="`mean_log_probability`"):
            perplexity(wrong)
