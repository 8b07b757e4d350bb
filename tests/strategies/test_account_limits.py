"""Prompts and noised training of one record have one limit, in whatever order."""

import pytest

from fedcot.errors import PrivacyBudgetExhausted
from strategies.accounting import PrivacyAccountant
from strategies.composition import gaussian_epsilon
from strategies.events import PromptsEvent, TrainingEvent

DELTA, ORDER, LIMIT = 1e-6, 8.0, 50.0
TRAINING = TrainingEvent(
    server_round=1, partition_id=0, noise_multiplier=2.0, sampling_rate=0.5, steps=4
)
TRAINED = gaussian_epsilon({(2.0, 0.5): 4}, delta=DELTA, order=ORDER)


def prompts(epsilon: float, *keys: str) -> PromptsEvent:
    return PromptsEvent(
        server_round=1,
        partition_id=0,
        prompt_epsilon=epsilon,
        channel_hash="c",
        record_keys=keys,
    )


@pytest.mark.parametrize("keys", [("a",), ("a", "b"), ()])
def test_prompts_after_training_have_only_what_it_left(tmp_path, keys):
    account = PrivacyAccountant(
        tmp_path / "book", record_epsilon=LIMIT, delta=DELTA, order=ORDER
    )
    assert account.grant(TRAINING)
    assert not account.would_exceed(prompts(LIMIT - TRAINED - 1e-6, *keys))
    over = prompts(LIMIT - TRAINED + 1e-6, *keys)
    assert account.would_exceed(over)
    if keys:
        with pytest.raises(PrivacyBudgetExhausted, match="Partition 0"):
            account.compose(over)
    else:
        assert not account.grant(over)
    assert account.get_epsilon() == pytest.approx(TRAINED, abs=1e-8)
