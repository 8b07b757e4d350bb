"""What a rounding or a strange student must not be able to do to a record's bound."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedcot.config import RunConfig
from fedcot.errors import ConfigError, FedcotError
from fedcot.privacy.sampler import SystemRandomSource, TapeRandomSource
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


def remembering(model, how_much: float):
    """Make a model carry something from one example to the next, as a buffer would."""
    layer, kept = model.get_output_embeddings(), []

    def change(_layer, _inputs, logits):
        moved = logits + how_much * kept[-1] if kept else logits
        kept.append(logits.detach().mean(dim=(0, 1)))
        return moved

    return layer.register_forward_hook(change)


@pytest.mark.parametrize("how_much", [0.0, 0.5])
def test_a_student_that_remembers_other_records_is_refused(how_much):
    base = tiny_base()
    with adapted(base, LORA, seed=0) as model:
        gradients = RecordGradients(model, base)
        handle = remembering(model, how_much)
        try:
            if not how_much:
                return gradients.check()
            with pytest.raises(FedcotError, match="wrong for this student"):
                gradients.check()
        finally:
            handle.remove()
    return None


SHORT = [[Example(f"ann has {n} cats", "7", "predict")] for n in range(2, 9)]
LONG = [
    Example("tom has 3 apples and buys 4 more then sells 2 of them", "7", "predict")
]


def poisoned(base, settings: TrainingSettings, tokens: slice) -> dict:
    """An adapter that a server made: finite, but some tokens overflow."""
    with adapted(base, settings, seed=0) as model:
        adapter = adapter_state(model)
    for name, tensor in adapter.items():
        if "lora_embedding_A" in name:
            tensor[:, tokens] = 3e38
        if "lora_embedding_B" in name:
            tensor.fill_(1e2)
    return adapter


def test_no_adapter_lets_one_record_take_away_what_others_add():
    base = load_base("builtin")
    pad = base.tokenizer.pad_token_id
    adapter = poisoned(base, LORA, slice(pad, pad + 1))
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
        with adapted(base, LORA, seed=0, adapter=adapter) as model:
            taken = RecordGradients(model, base)
            rows = [rows_of(base, record, rationale_weight=1.0) for record in records]
            mean = noised_mean(taken, rows, privacy, SystemRandomSource())
        sums.append(mean * len(records))
    assert np.linalg.norm(sums[0] - sums[1]) <= 1.0


def test_gradients_that_are_no_numbers_fail_the_check():
    base = load_base("builtin")
    with (
        adapted(base, LORA, seed=0, adapter=poisoned(base, LORA, slice(None))) as model,
        pytest.raises(FedcotError, match="wrong for this student"),
    ):
        RecordGradients(model, base).check()


def test_dropout_and_private_training_do_not_go_together():
    with pytest.raises(ConfigError, match="`lora-dropout` must be 0"):
        RunConfig(
            token_epsilon=8.0,
            aggregation="fedavg",
            noise_multiplier=1.0,
            lora_dropout=0.1,
        )


def with_dropout(rate: float):
    """A student whose layers drop half of what they attend to while they train."""
    base = tiny_base()
    for layer in base.model.model.layers:
        layer.self_attn.attention_dropout = rate
    return base


def test_private_training_draws_no_dropout():
    """Failure would mean that one record more shifts the masks of all others."""
    adapters = []
    for rate in (0.0, 0.5):
        outcome = train_adapter_privately(
            with_dropout(rate),
            [*SHORT, LONG],
            LORA,
            privacy=DpSettings(
                noise_multiplier=1.0,
                max_grad_norm=1.0,
                num_records=8,
                expected_batch=8,
                steps=2,
            ),
            source=TapeRandomSource(0),
            seed=0,
        )
        adapters.append(outcome.adapter)
    assert all(
        torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0]
    )


def test_chance_that_evaluation_mode_does_not_stop_is_refused():
    base = tiny_base()
    with adapted(base, LORA, seed=0) as model:
        gradients = RecordGradients(model, base)
        handle = model.get_output_embeddings().register_forward_hook(
            lambda _layer, _inputs, logits: logits + 0.01 * torch.rand_like(logits)
        )
        with pytest.raises(FedcotError, match="depend on chance"):
            gradients.check()
        handle.remove()


@pytest.mark.parametrize("norm", [0.0, 1e-310, 1e-101, 1e101, float("inf")])
def test_norms_whose_quotients_lose_digits_are_refused(norm):
    with pytest.raises(ValueError, match="`clip_norm` must be from"):
        ClippedSum(3, norm)


@pytest.mark.parametrize("noise", [1e-160, 1e-4])
def test_noise_that_accountants_cannot_see_is_refused(noise):
    with pytest.raises(ConfigError, match="`noise-multiplier` must be 0, or"):
        RunConfig(token_epsilon=8.0, aggregation="fedavg", noise_multiplier=noise)
