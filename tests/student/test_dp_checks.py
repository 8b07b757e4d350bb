"""What a rounding or a strange student must not be able to do to a record's bound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedcot.config import RunConfig
from fedcot.errors import ConfigError, FedcotError
from fedcot.privacy.sampler import SystemRandomSource
from fedcot.student.base import TrainingSettings, adapted, adapter_state, load_base
from fedcot.student.dp import noised_mean, train_adapter_privately
from fedcot.student.dp_settings import DpSettings
from fedcot.student.examples import Example
from fedcot.student.noise import ClippedSum
from fedcot.student.record_gradients import RecordGradients, rows_of
from tests.tiny import tiny_base

LORA = TrainingSettings(lora_r=4, lora_alpha=8)


@given(arrays(np.float64, 5, elements=st.floats(-3.0, 3.0)))
def test_rounding_to_the_grid_never_makes_a_vector_longer(steps):
    total = ClippedSum(5, 1.0)
    total.add(steps * total.step)
    assert (abs(total.value()) <= abs(steps) * total.step).all()


def test_a_record_that_moves_the_gradient_of_another_is_refused(monkeypatch):
    """Its own gradient is right, so that only the other's tells."""
    with (
        adapted(tiny_base(), LORA, seed=0) as model,
        RecordGradients(model.train(), pad=0) as gradients,
    ):
        gradients.check()
        take = RecordGradients._taken

        def copied(self, parameter, rows):
            found = take(self, parameter, rows)
            return found.sum(0, keepdim=True).expand_as(found)

        monkeypatch.setattr(RecordGradients, "_taken", copied)
        with pytest.raises(FedcotError, match="wrong for this student"):
            gradients.check()


SHORT = [[Example(f"ann has {n} cats", "7", "predict")] for n in range(2, 9)]
LONG = [
    Example("tom has 3 apples and buys 4 more then sells 2 of them", "7", "predict")
]


def poisoned(base, settings: TrainingSettings) -> dict:
    """An adapter that a server made: finite, but the pad token overflows."""
    with adapted(base, settings, seed=0) as model:
        adapter = adapter_state(model)
    for name, tensor in adapter.items():
        if "lora_embedding_A" in name:
            tensor[:, base.tokenizer.pad_token_id] = 3e38
        if "lora_embedding_B" in name:
            tensor.fill_(1e2)
    return adapter


def test_no_adapter_lets_one_record_take_away_what_others_add():
    base = load_base("builtin")
    adapter = poisoned(base, LORA)
    sums = []
    for present in (True, False):
        records = [*SHORT, LONG if present else []]
        privacy = DpSettings(
            noise_multiplier=0.0,
            max_grad_norm=1.0,
            num_records=len(records),
            expected_batch=len(records),
            steps=1,
        )
        with (
            adapted(base, LORA, seed=0, adapter=adapter) as model,
            RecordGradients(model.train(), pad=base.tokenizer.pad_token_id) as taken,
        ):
            rows = [rows_of(base, record, rationale_weight=1.0) for record in records]
            mean = noised_mean(taken, rows, privacy, SystemRandomSource())
        sums.append(mean * len(records))
    assert np.linalg.norm(sums[0] - sums[1]) <= 1.0


def test_gradients_that_are_no_numbers_fail_the_check():
    base = load_base("builtin")
    with (
        adapted(base, LORA, seed=0, adapter=poisoned(base, LORA)) as model,
        RecordGradients(model.train(), pad=base.tokenizer.pad_token_id) as gradients,
        pytest.raises(FedcotError, match="wrong for this student"),
    ):
        gradients.check()


def test_dropout_and_private_training_do_not_go_together():
    with pytest.raises(ConfigError, match="`lora-dropout` must be 0"):
        RunConfig(
            token_epsilon=8.0,
            aggregation="fedavg",
            noise_multiplier=1.0,
            lora_dropout=0.1,
        )
    base = tiny_base()
    base.model.config.attention_dropout = 0.1
    privacy = DpSettings(
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        num_records=1,
        expected_batch=1,
        steps=1,
    )
    with pytest.raises(ConfigError, match="no dropout under DP-SGD, found a rate of"):
        train_adapter_privately(
            base, [LONG], LORA, privacy=privacy, source=SystemRandomSource(), seed=0
        )


@pytest.mark.parametrize("norm", [0.0, 1e-310, 1e-101, 1e101, float("inf")])
def test_norms_whose_quotients_lose_digits_are_refused(norm):
    with pytest.raises(ValueError, match="`clip_norm` must be from"):
        ClippedSum(3, norm)


@pytest.mark.parametrize("noise", [1e-160, 1e-4])
def test_noise_that_accountants_cannot_see_is_refused(noise):
    with pytest.raises(ConfigError, match="`noise-multiplier` must be 0, or"):
        RunConfig(token_epsilon=8.0, aggregation="fedavg", noise_multiplier=noise)
