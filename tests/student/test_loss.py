"""The loss against closed forms and against a loop over examples."""

import math

import pytest
import torch

from fedcot.models.sequences import IGNORE_INDEX, causal_batch
from fedcot.student.loss import (
    example_losses,
    multi_task_loss,
    supervised_logits,
    token_losses,
)
from tests.tiny import tiny_base


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary() -> None:
    labels = torch.tensor([[IGNORE_INDEX, 3, 4], [IGNORE_INDEX, IGNORE_INDEX, 1]])
    losses = example_losses(torch.zeros(2, 3, 7), labels)
    assert losses.tolist() == pytest.approx([math.log(7)] * 2)


def test_position_i_predicts_token_i_plus_one() -> None:
    """Failure would mean that the model learns to copy its input."""
    logits = torch.zeros(1, 3, 5)
    logits[0, 0, 2] = logits[0, 1, 4] = 50.0
    assert example_losses(logits, torch.tensor([[0, 2, 4]])).item() < 1e-6
    assert example_losses(logits, torch.tensor([[2, 4, 0]])).item() > 10


def test_each_example_is_averaged_by_itself() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 6, 9)
    labels = torch.randint(0, 9, (4, 6))
    for row, prompt in enumerate((1, 2, 3, 5)):
        labels[row, :prompt] = IGNORE_INDEX
    batched = example_losses(logits, labels)
    for row in range(4):
        logs = torch.log_softmax(logits[row, :-1], dim=-1)
        targets = labels[row, 1:]
        kept = [-logs[i, t] for i, t in enumerate(targets.tolist()) if t >= 0]
        assert batched[row].item() == pytest.approx(float(sum(kept)) / len(kept), 1e-5)


def test_prompt_logits_do_not_matter() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([[IGNORE_INDEX, IGNORE_INDEX, 3, 4]])
    logits = torch.randn(1, 4, 6)
    changed = logits.clone()
    changed[0, 0] += 100 * torch.randn(6)
    changed[0, 3] += 100 * torch.randn(6)
    torch.testing.assert_close(
        example_losses(logits, labels), example_losses(changed, labels)
    )


def test_an_example_without_supervised_token_is_refused() -> None:
    with pytest.raises(ValueError, match="supervised"):
        example_losses(torch.zeros(1, 2, 3), torch.full((1, 2), IGNORE_INDEX))


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_weight_multiplies_the_rationale_loss(weight: float) -> None:
    total = multi_task_loss(
        torch.tensor(3.0), torch.tensor(5.0), rationale_weight=weight
    )
    assert total.item() == 3.0 + 5.0 * weight


def test_a_decoder_s_labels_are_not_shifted_again() -> None:
    logits = torch.zeros(1, 3, 5)
    logits[0, 0, 2] = logits[0, 1, 4] = 50.0
    labels = torch.tensor([[2, 4, IGNORE_INDEX]])
    assert example_losses(logits, labels, shift=False).item() < 1e-6
    losses, supervised = token_losses(torch.zeros(1, 3, 5), labels, shift=False)
    assert losses[0].tolist() == pytest.approx([math.log(5), math.log(5), 0.0])
    assert supervised.tolist() == [[True, True, False]]


ROWS = [([5, 6, 7, 8], [9, 1]), ([5] * 9, [3, 4, 1]), ([5] * 7, [1])]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], [([], [7, 8, 1])]])
def test_logits_before_the_first_label_are_left_out_and_change_nothing(rows) -> None:
    base = tiny_base()
    batch = causal_batch(rows, 0)
    with torch.no_grad():
        whole = base.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask
        ).logits
        logits, labels = supervised_logits(base.model, base, batch)
    shortest = min(len(prompt) for prompt, _ in rows)
    places = batch.labels.shape[1] - max(shortest - 1, 0)
    assert logits.shape[1] == labels.shape[1] == places
    torch.testing.assert_close(
        example_losses(logits, labels), example_losses(whole, batch.labels)
    )
