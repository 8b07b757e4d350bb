"""What a student of a coalition learns: weights, tokens, controls."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcot.community.pool import (
    by_partition,
    checks_steps,
    community_settings,
    count_tokens,
    shuffled_answers,
    trace_examples,
    valid_traces,
    within_tokens,
)
from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.student.base import TrainingSettings, adapted
from fedcot.student.examples import Example
from fedcot.student.loss import multi_task_loss
from fedcot.student.training import train_adapter
from fedcot.tasks.world import WorldTask
from tests.communities import community_config
from tests.tiny import tiny_base

TASK = WorldTask()


@pytest.fixture(scope="module")
def base():
    return tiny_base()


def trace(first: int, second: int = 2, *, reasoned: bool = True) -> Trace:
    total = first + second
    return Trace(
        question=f"{first} books {second} come back how many books remain",
        reasoning=f"{first} + {second} = {total}" if reasoned else "",
        answer=str(total),
        trace_class=TraceClass.FULL if reasoned else TraceClass.ABSENT,
        scope=Scope.COALITION,
    )


TRACES = [trace(n, n % 3 + 1) for n in range(9)]
EXAMPLES = trace_examples(TRACES, TASK, label_share=0.5)


# Examples and the loss --------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "tasks"),
    [(1.0, ["predict"]), (0.5, ["predict", "explain"]), (0.0, ["explain"])],
)
def test_a_share_decides_which_examples_there_are(share, tasks):
    examples = trace_examples([trace(3)], TASK, label_share=share)
    assert [example.task for example in examples] == tasks
    written = {
        "predict": (TASK.predict_prompt(trace(3).question), "5"),
        "explain": (TASK.explain_prompt(trace(3).question), "3 + 2 = 5 answer: 5"),
    }
    for example in examples:
        prompt, target = written[example.task]
        assert example.prompt == prompt
        assert example.target.split() == target.split()


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_trace_without_reasoning_gives_its_answer_alone(share):
    (example,) = trace_examples([trace(3, reasoned=False)], TASK, label_share=share)
    assert (example.task, example.target) == ("predict", "5")


def test_a_trace_without_reasoning_gives_nothing_where_answers_have_no_weight():
    assert trace_examples([trace(3, reasoned=False)], TASK, label_share=0.0) == ()


def settings_of(share: float, **more) -> TrainingSettings:
    settings = TrainingSettings(
        lora_r=2, lora_alpha=4, local_epochs=1, batch_size=4, **more
    )
    return replace(settings, label_weight=share, rationale_weight=1 - share)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_weights_of_a_run_add_up_to_one(tmp_path, share):
    settings = community_settings(community_config(tmp_path, label_share=share))
    assert settings.label_weight == share
    assert settings.label_weight + settings.rationale_weight == pytest.approx(1)


def test_both_weights_multiply_their_loss():
    for label, rationale in ((1.0, 1.0), (0.25, 0.75), (0.0, 2.0)):
        total = multi_task_loss(
            torch.tensor(3.0),
            torch.tensor(5.0),
            rationale_weight=rationale,
            label_weight=label,
        )
        assert total.item() == pytest.approx(3 * label + 5 * rationale)


def trained(base, examples, settings):
    return train_adapter(base, examples, settings, seed=3)


def differs(first, second) -> float:
    return max(float((first[k] - second[k]).abs().max()) for k in first)


def test_a_share_of_one_is_the_label_only_loss(base):
    """The adapter too: no gradient comes from reasoning."""
    labels = trained(
        base,
        [
            e
            for e in trace_examples(TRACES, TASK, label_share=0.5)
            if e.task == "predict"
        ],
        TrainingSettings(lora_r=2, lora_alpha=4, local_epochs=1, batch_size=4),
    )
    shared = trained(
        base, trace_examples(TRACES, TASK, label_share=1.0), settings_of(1.0)
    )
    assert shared.rationale_loss == []
    assert shared.label_loss == pytest.approx(labels.label_loss, abs=1e-6)
    assert differs(shared.adapter, labels.adapter) < 1e-6


def test_a_share_of_zero_gives_no_gradient_from_labels(base):
    """Whatever the labels are: also of those traces that have nothing else."""
    mixed = [*TRACES, trace(20, reasoned=False)]

    def learnt(answer: str):
        changed = [
            *TRACES,
            replace(trace(20, reasoned=False), answer=answer),
        ]
        return trained(
            base, trace_examples(changed, TASK, label_share=0.0), settings_of(0.0)
        )

    first, second = learnt("22"), learnt("7")
    assert first.label_loss == second.label_loss == []
    assert differs(first.adapter, second.adapter) == 0
    # The reasoning does have a gradient.
    other = trained(
        base,
        trace_examples([trace(8), *mixed[1:]], TASK, label_share=0.0),
        settings_of(0.0),
    )
    assert differs(first.adapter, other.adapter) > 0


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_one_step_follows_the_weighted_sum_of_the_gradients(base, share):
    """The gradient of the mixed loss, by hand, against that of each part."""
    from fedcot.models.sequences import training_batch
    from fedcot.student.loss import example_losses, supervised_logits
    from fedcot.student.training import _total, tokenised

    examples = trace_examples(TRACES[:4], TASK, label_share=share)
    with adapted(base, settings_of(share), seed=1) as model:
        losses = {}
        for name in ("predict", "explain"):
            rows = [tokenised(base, e) for e in examples if e.task == name]
            batch = training_batch([(r.prompt, r.target) for r in rows], base)
            logits, labels = supervised_logits(model, base, batch)
            losses[name] = example_losses(logits, labels).mean()
        expected = share * losses["predict"] + (1 - share) * losses["explain"]
        assert _total(losses, settings_of(share)).item() == pytest.approx(
            expected.item(), abs=1e-6
        )


# The filter and the controls --------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "checked"),
    [
        ({"trace_filter": "steps"}, True),
        ({"trace_filter": "answer"}, True),
        ({"trace_filter": "none"}, False),
        # Other words than the provider's are not checked by its rules.
        ({"trace_filter": "steps", "granularity": 1}, False),
        ({"trace_filter": "steps", "provider_reasoning": "summary"}, False),
    ],
)
def test_steps_are_checked_as_the_provider_writes_them(tmp_path, settings, checked):
    config = community_config(tmp_path, **settings)
    assert checks_steps(config, TASK) is checked


def test_steps_are_checked_by_public_rules_and_missing_ones_are_none():
    wrong = replace(trace(3), reasoning="3 + 2 = 6", answer="6")
    other = replace(trace(3), answer="9")  # the steps lead elsewhere
    plain = trace(5, reasoned=False)
    kept, dropped = valid_traces([trace(1), wrong, plain, other, trace(2)], TASK)
    assert kept == [trace(1), plain, trace(2)]
    assert dropped == 2


@given(st.integers(0, 10**6), st.integers(1, len(TRACES)))
def test_shuffled_targets_keep_prompts_tasks_and_all_targets(seed, count):
    examples = trace_examples(TRACES[:count], TASK, label_share=0.5)
    mixed = shuffled_answers(examples, rng=np.random.default_rng(seed))
    assert [(e.prompt, e.task) for e in mixed] == [(e.prompt, e.task) for e in examples]
    for task in ("predict", "explain"):
        # A target of the other task would teach a format, not a wrong answer.
        targets = [
            Counter(e.target for e in some if e.task == task)
            for some in (examples, mixed)
        ]
        assert targets[0] == targets[1]


@given(st.integers(0, 10**6), st.integers(2, 12))
def test_every_example_gets_the_target_of_another_one(seed, count):
    examples = [Example(f"q{n}", f"t{n}", "predict") for n in range(count)]
    mixed = shuffled_answers(examples, rng=np.random.default_rng(seed))
    assert all(a.target != b.target for a, b in zip(examples, mixed, strict=True))


def test_targets_are_shuffled_by_the_seed():
    def drawn(seed: int):
        return shuffled_answers(EXAMPLES, rng=np.random.default_rng(seed))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert shuffled_answers((), rng=np.random.default_rng(0)) == ()


# Tokens -----------------------------------------------------------------------------


def cost(base, traces, share=0.5) -> int:
    return count_tokens(trace_examples(traces, TASK, label_share=share), base)


def test_tokens_are_those_of_prompts_and_targets(base):
    example = Example("1 books", "2 books", "predict")
    read = base.tokenizer("1 books", add_special_tokens=False)["input_ids"]
    # The end token belongs to the target.
    assert count_tokens([example], base) == 2 * len(read) + 1
    assert count_tokens([example] * 3, base) == 3 * count_tokens([example], base)
    assert count_tokens([], base) == 0


def taken(base, tokens: int, traces=TRACES, seed: int = 0, share: float = 0.5):
    return within_tokens(
        traces,
        tokens=tokens,
        base=base,
        task=TASK,
        label_share=share,
        rng=np.random.default_rng(seed),
    )


def test_a_budget_is_never_passed_but_by_one_trace_and_grows_step_by_step(base):
    whole = cost(base, TRACES)
    smallest = min(cost(base, [one]) for one in TRACES)
    chosen = [taken(base, tokens) for tokens in range(1, whole + 1)]
    for tokens, some in enumerate(chosen, 1):
        assert cost(base, some) <= tokens or len(some) == 1
        # In the order of the pool, each once.
        places = [TRACES.index(one) for one in some]
        assert places == sorted(set(places))
        # No more fits than one trace of those left, whichever comes next.
        if len(some) < len(TRACES):
            assert cost(base, some) + max(cost(base, [t]) for t in TRACES) > tokens
    for some, more in pairwise(chosen):
        assert set(map(id, some)) <= set(map(id, more))
    assert chosen[-1] == TRACES
    assert (
        len(chosen[smallest - 2]) == 1
    )  # too little for any: one is taken all the same


def test_no_budget_takes_all_and_an_empty_pool_gives_none(base):
    assert taken(base, 0) == TRACES
    assert taken(base, 1, traces=[]) == []


def test_the_seed_decides_which_traces_are_taken(base):
    budget = cost(base, TRACES) // 2
    first = [one.answer for one in taken(base, budget, seed=1)]
    assert [one.answer for one in taken(base, budget, seed=1)] == first
    assert any(
        [one.answer for one in taken(base, budget, seed=seed)] != first
        for seed in range(2, 6)
    )


@pytest.mark.parametrize("seed", range(6))
def test_one_more_trace_at_the_end_does_not_change_the_order_of_the_others(base, seed):
    """Or a pool that grows would change what was in it, and not only its size."""
    budget = cost(base, TRACES) // 2
    few = taken(base, budget, traces=TRACES[:-1], seed=seed)
    more = taken(base, budget, seed=seed)
    kept = [one for one in more if one is not TRACES[-1]]
    # The new one may take the place of the last that fitted, and of nothing else.
    assert set(map(id, kept)) <= set(map(id, few))
    assert len(few) - len(kept) <= 2


def test_traces_stand_in_the_order_of_the_partitions():
    pools = {10: [trace(1)], 2: [trace(2), trace(3)], 0: []}
    assert by_partition(pools) == [trace(2), trace(3), trace(1)]
    assert by_partition({}) == []
