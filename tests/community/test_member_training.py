"""What a member trains on its own traces, one adapter at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedcot.community import member_training
from fedcot.community.member_training import MemberTraining
from fedcot.community.pool import trace_examples
from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.errors import ConfigError
from fedcot.node_training import first_adapter
from fedcot.privacy.ledger import Ledger
from fedcot.student.training import TrainingOutcome
from fedcot.tasks.registry import configured_task
from tests.communities import (
    adding_provider,  # noqa: F401
    community_config,
)
from tests.fakes import fake_partition
from tests.tiny import tiny_base


def of(tmp_path: Path, *, partition: int = 0, **more: Any) -> MemberTraining:
    config = community_config(tmp_path / "run", num_server_rounds=2, **more)
    return MemberTraining(
        config,
        partition_id=partition,
        folder=tmp_path / f"state-{partition}",
        records=fake_partition(config, partition, 3).train,
        open_ledger=lambda: Ledger(tmp_path / "ledger", record_epsilon=500.0),
        run="run",
    )


def traces_of(training: MemberTraining, count: int = 3) -> list[Trace]:
    return [
        Trace(
            question=record.question,
            reasoning=f"{n} + 2 = {n + 2}",
            answer=str(n + 2),
            trace_class=TraceClass.FULL,
            scope=Scope.COALITION,
        )
        for n, record in enumerate(training.records[:count])
    ]


def train(training: MemberTraining, traces: Sequence[Trace], **more: Any):
    config = training.config
    given: dict[str, Any] = {"arm": "federated.library", "number": 1, "rounds": 2}
    given |= more
    return training.train(
        given.pop("arm"),
        given.pop("number"),
        traces,
        examples=lambda some: trace_examples(
            some, configured_task(config), label_share=config.label_share
        ),
        **given,
    )


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(name="calls")
def listen(provider, monkeypatch) -> list[dict[str, Any]]:
    """Keep what trainings were given; the result depends on nothing."""
    found: list[dict[str, Any]] = []

    def plainly(base, examples, settings, *, seed, adapter):
        found.append({"examples": examples, "settings": settings, "seed": seed,
                      "start": adapter})  # fmt: skip
        return TrainingOutcome(dict(adapter), [0.5], [0.25], 1, 0.0, 0)

    def privately(base, records, settings, *, privacy, source, seed, adapter):
        found.append({"records": records, "settings": settings, "seed": seed,
                      "privacy": privacy, "source": source,
                      "start": adapter})  # fmt: skip
        return TrainingOutcome(dict(adapter), [], [], 0, 0.0, 0)

    monkeypatch.setattr(member_training, "train_adapter", plainly)
    monkeypatch.setattr(member_training, "train_adapter_privately", privately)
    return found


def test_all_members_start_from_one_adapter_and_learn_from_their_own(
    tmp_path, provider
):
    more = {"local_epochs": 3, "learning_rate": 1e-2}
    first, other = of(tmp_path, **more), of(tmp_path, partition=1, **more)
    adapter, loss = train(first, traces_of(first))
    assert loss > 0
    again, _ = train(first, traces_of(first))
    assert same(adapter, again)
    elsewhere, _ = train(other, traces_of(other, 5)[3:])
    assert not same(adapter, elsewhere)
    # It moved from what every member starts from.
    assert not same(adapter, first_adapter(tiny_base(), first.config))


def test_it_goes_on_from_what_it_is_given(tmp_path, calls):
    training = of(tmp_path)
    public = first_adapter(tiny_base(), training.config)
    train(training, traces_of(training))
    given = {name: value + 1 for name, value in public.items()}
    train(training, traces_of(training), number=2, start=given)
    assert same(calls[0]["start"], public)
    assert same(calls[1]["start"], given)
    assert calls[0]["seed"] != calls[1]["seed"]
    other = of(tmp_path, partition=1)
    train(other, traces_of(other))
    assert same(calls[2]["start"], public)


@pytest.mark.parametrize("number", [0, -1, 3])
def test_only_rounds_that_were_charged_train(tmp_path, calls, number):
    training = of(tmp_path)
    with pytest.raises(ConfigError, match="`num-server-rounds` must cover"):
        train(training, traces_of(training), number=number)
    assert calls == []


def test_other_traces_make_another_adapter_unless_they_were_paid_for(tmp_path, calls):
    """After a withdrawal nothing may be sent that learnt from what is gone."""
    for noise, trainings in ((0.0, 2), (2.0, 1)):
        calls.clear()
        training = of(tmp_path / str(noise), noise_multiplier=noise, test_tape=False)
        for _ in range(2):
            train(training, traces_of(training))
            train(training, traces_of(training)[1:])
        assert len(calls) == trainings


def test_another_start_makes_another_adapter(tmp_path, calls):
    """The mean that the others' adapters begin from may have held what is gone."""
    training = of(tmp_path)
    public = first_adapter(tiny_base(), training.config)
    moved = {name: value.clone() for name, value in public.items()}
    next(iter(moved.values())).view(-1)[0] += 1e-6
    for start in (public, moved, None, public, moved, None):
        adapter, _ = train(training, traces_of(training), number=2, start=start)
        assert same(adapter, start or public)
    assert len(calls) == 3


def test_losses_of_the_last_epoch_are_those_of_reasoning_where_there_are_any(
    tmp_path, calls, monkeypatch
):
    training = of(tmp_path)
    assert train(training, traces_of(training))[1] == 0.25
    outcome = TrainingOutcome({}, [0.75, 0.5], [], 1, 0.0, 0)

    def without(base, examples, settings, *, seed, adapter):
        return TrainingOutcome(dict(adapter), [0.75, 0.5], [], 1, 0.0, 0)

    monkeypatch.setattr(member_training, "train_adapter", without)
    assert train(training, traces_of(training), number=2)[1] == outcome.label_loss[-1]


def test_a_training_that_drew_nothing_has_no_loss(tmp_path, calls):
    training = of(tmp_path, noise_multiplier=2.0, test_tape=False)
    for _ in range(2):
        adapter, loss = train(training, traces_of(training))
        assert np.isnan(loss)
        assert adapter


@pytest.mark.parametrize(
    ("share", "noise", "label", "reasoning"),
    [
        (0.5, 0.0, 0.5, 0.5),
        (0.25, 0.0, 0.25, 0.75),
        # Clipped gradients keep the ratio of the two only.
        (0.5, 2.0, 0.5, 1.0),
        (0.25, 2.0, 0.25, 3.0),
        (0.8, 2.0, 0.8, 0.25),
        (0.0, 2.0, 0.0, 1.0),
        (1.0, 2.0, 1.0, 0.0),
    ],
)
def test_the_weights_of_the_two_tasks(tmp_path, share, noise, label, reasoning):
    training = of(tmp_path, label_share=share, noise_multiplier=noise)
    settings = training.settings("federated.library")
    assert settings.label_weight == pytest.approx(label)
    assert settings.rationale_weight == pytest.approx(reasoning)


def test_a_generator_trains_for_its_own_epochs(tmp_path, calls):
    more = {"local_epochs": 2, "generator_epochs": 7, "batch_size": 3}
    for noise in (0.0, 2.0):
        training = of(tmp_path / str(noise), noise_multiplier=noise,
                      test_tape=False, **more)  # fmt: skip
        for arm, epochs in (("synthetic.0123", 7), ("federated.library", 2)):
            train(training, traces_of(training), arm=arm)
            assert calls[-1]["settings"].local_epochs == epochs
            if noise:
                # Nine records in batches of three.
                assert calls[-1]["privacy"].steps == 3 * epochs
    assert len(calls) == 4


def test_noise_comes_from_the_system_and_under_a_tape_from_place_and_round(
    tmp_path, calls
):
    real = of(tmp_path / "a", noise_multiplier=2.0, test_tape=False)
    train(real, traces_of(real))
    assert calls[-1]["source"].private
    drawn = []
    for partition, arm, number in (
        (0, "federated.library", 1),
        (0, "federated.library", 2),
        (0, "federated.library+bakery", 1),
        (1, "federated.library", 1),
    ):
        taped = of(tmp_path / "b", partition=partition, noise_multiplier=2.0)
        train(taped, traces_of(taped), arm=arm, number=number)
        assert not calls[-1]["source"].private
        numbers = calls[-1]["source"].below(np.full(4, 1 << 40, dtype=np.int64))
        drawn.append(tuple(map(int, numbers)))
    assert len(set(drawn)) == 4


def test_a_record_s_examples_are_those_of_its_own_traces(tmp_path, calls):
    training = of(tmp_path, noise_multiplier=2.0, test_tape=False, label_share=0.5)
    traces = traces_of(training)
    # A second exchange about the same question is the same record's.
    extra = Trace(
        question=traces[1].question,
        reasoning="2 + 1 = 3",
        answer="3",
        trace_class=TraceClass.FULL,
        scope=Scope.COALITION,
    )
    train(training, [*traces[1:], extra])
    sizes = [len(examples) for examples in calls[0]["records"]]
    assert sizes == [0, 4, 2] + [0] * 6
    for record, examples in zip(training.records, calls[0]["records"], strict=True):
        for one in examples:
            assert " ".join(record.question.split()) in " ".join(one.prompt.split())
