"""Settings from a budget: the answer fits, and the next larger one does not."""

import json
import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest

from fedcot.cli import main
from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.privacy.accounting import prompts_within
from fedcot.privacy.channels import Channel, build_channel
from fedcot.privacy.composition import compose_record, epsilon_at_delta
from fedcot.privacy.loss_distributions import DpTraining
from fedcot.privacy.planning import (
    largest_token_epsilon,
    largest_token_epsilon_at_delta,
    smallest_noise_multiplier,
)
from fedcot.privacy.vocabulary import Vocabulary
from fedcot.targets import solved

VOCABULARY = Vocabulary.of(["w" * (index + 1) for index in range(20)], 6)
SIMILARITY = np.random.default_rng(3).random((22, 22))
PHASES = ((0.25, 4), (0.125, 8))


def rank(epsilon: float) -> Channel:
    return build_channel("rank", VOCABULARY, epsilon)


@lru_cache
def exponential(epsilon: float) -> Channel:
    return build_channel("exponential", VOCABULARY, epsilon, similarity=SIMILARITY)


@pytest.mark.parametrize("budget", [6.0, 10.0, 47.0])
def test_the_token_epsilon_of_a_prompt_budget_is_the_largest(budget: float) -> None:
    found = largest_token_epsilon(rank, slots=6, prompt_epsilon=budget)
    assert rank(found).prompt_epsilon <= budget
    assert rank(found + 2e-6).prompt_epsilon > budget
    assert found == pytest.approx(budget / 6, abs=1e-6)


@pytest.mark.parametrize(
    ("build", "resolution"),
    [(rank, Fraction(1, 1000)), (exponential, Fraction(1))],
)
def test_the_token_epsilon_at_delta_is_the_largest(build, resolution) -> None:
    found = largest_token_epsilon_at_delta(
        build, slots=6, record_epsilon=5.0, delta=1e-4, resolution=resolution
    )
    step = float(resolution)
    assert epsilon_at_delta(build(found), delta=1e-4) <= 5.0
    assert epsilon_at_delta(build(found + step), delta=1e-4) > 5.0
    assert found > 5.0 / 6


def test_a_delta_never_allows_less_than_the_pure_budget() -> None:
    found = largest_token_epsilon_at_delta(
        rank, slots=6, record_epsilon=120.0, delta=1e-12
    )
    assert found >= 20.0 - 1e-3


def test_the_noise_is_the_least_for_training_alone_and_beside_a_prompt() -> None:
    def spent(noise: float, channel: Channel) -> float:
        training = DpTraining(noise_multiplier=noise, phases=PHASES)
        return compose_record(channel, dp=training, delta=1e-5).record_epsilon

    alone = smallest_noise_multiplier(PHASES, epsilon=3.0, delta=1e-5)
    training = DpTraining(noise_multiplier=alone, phases=PHASES)
    found = compose_record(rank(1.0), dp=training, delta=1e-5)
    assert 2.98 < found.training_epsilon <= 3.0

    channel = rank(0.3)
    both = smallest_noise_multiplier(PHASES, epsilon=3.0, delta=1e-5, channel=channel)
    assert both > alone
    assert spent(both, channel) <= 3.0 < spent(both - 0.001, channel)


def test_budgets_that_nothing_fits_are_refused() -> None:
    with pytest.raises(ConfigError, match="must leave something"):
        largest_token_epsilon(rank, slots=6, prompt_epsilon=1e-6)
    with pytest.raises(ConfigError, match="must leave something"):
        largest_token_epsilon_at_delta(rank, slots=6, record_epsilon=1e-4, delta=1e-6)
    with pytest.raises(ConfigError, match="what the prompt alone takes"):
        smallest_noise_multiplier(PHASES, epsilon=3.0, delta=1e-5, channel=rank(5.0))
    with pytest.raises(ConfigError, match="noise multiplier up to"):
        smallest_noise_multiplier(((1.0, 10**6),), epsilon=1e-3, delta=1e-9)
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="must be > 0"):
            largest_token_epsilon(rank, slots=6, prompt_epsilon=bad)
        with pytest.raises(ConfigError, match="must be > 0"):
            smallest_noise_multiplier(PHASES, epsilon=bad, delta=1e-5)


def test_a_channel_that_charges_more_than_its_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="must cover what 'rank' charges"):
        largest_token_epsilon(
            lambda epsilon: rank(2 * epsilon), slots=6, prompt_epsilon=6
        )


@pytest.mark.parametrize(
    ("limit", "charge", "allowed"),
    [
        (250.0, 84.0, 2),
        (252.0, 84.0, 3),
        (83.999, 84.0, 0),
        (10.0, math.inf, 0),
        (math.inf, 84.0, math.inf),
    ],
)
def test_prompts_that_a_record_limit_allows(
    limit: float, charge: float, allowed: float
) -> None:
    assert prompts_within(limit, charge) == allowed


def test_mechanisms_that_take_a_prompt_epsilon_are_given_it() -> None:
    config = RunConfig(token_epsilon=8.0, mechanism="selection")
    made, answer = solved(config, "prompt-epsilon", 6.5)
    assert (made.prompt_epsilon, answer.setting) == (6.5, "prompt-epsilon")
    with pytest.raises(ConfigError, match="`mechanism` must have a finite epsilon"):
        solved(RunConfig(token_epsilon=8.0, mechanism="none"), "prompt-epsilon", 6.5)


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["privacy", "plan", *arguments])
    printed = capsys.readouterr()
    code = caught.value.code
    return code if isinstance(code, int) else 1, printed.out, printed.err


def test_the_command_answers_with_a_token_epsilon(capsys) -> None:
    code, out, _ = call(capsys, "--mechanism", "rank", "--prompt-epsilon", "84")
    assert code == 0
    assert out.startswith("answer          token-epsilon = 4.0, the largest")
    assert "token epsilon   4.0000 nats" in out
    assert "within (2 different prompts)" in out


def test_the_command_answers_at_delta(capsys) -> None:
    code, out, _ = call(
        capsys, "--mechanism", "rank", "--record-epsilon-at-delta", "20", "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert found["answer"]["setting"] == "token-epsilon"
    assert 19.9 < found["record_epsilon_at_delta"] <= 20.0


def test_the_command_answers_with_noise_beside_the_prompt(capsys) -> None:
    shared = ["-c", "aggregation=fedavg", "-c", "pairing=original", "--rounds", "1"]
    question = ["--token-epsilon", "2", "--trained-record-epsilon", "30"]
    code, out, _ = call(
        capsys,
        *question,
        *shared,
        "-c",
        "num-partitions=5",
        "-c",
        "local-epochs=2",
        "--json",
    )
    found = json.loads(out)
    assert code == 0
    assert found["answer"]["setting"] == "noise-multiplier"
    assert 29.5 < found["trained_record_epsilon"] <= 30.0
    arm = found["per_arm"]["fedcot"]
    assert arm["record_epsilon_at_delta"] == found["trained_record_epsilon"]
    assert arm["record_epsilon"] == "inf"
    code, _, err = call(capsys, *question)
    assert code == 2
    assert "shares adapters" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--prompt-epsilon", "9", "--record-epsilon-at-delta", "9"],
        ["--prompt-epsilon", "9", "--token-epsilon", "2"],
        ["--trained-record-epsilon", "9", "-c", "noise-multiplier=1.0"],
        ["--prompt-epsilon", "-1"],
        ["--prompt-epsilon", "nan"],
        ["--mechanism", "none", "--prompt-epsilon", "9"],
    ],
)
def test_contradictory_questions_are_one_line_and_exit_2(arguments, capsys) -> None:
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
