"""A sampled token follows the model's law and hangs on its prompt and seed alone."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from fedcot.models import sampling
from fedcot.models.generation import generate
from fedcot.models.sampling import (
    GumbelNoise,
    Sampling,
    gumbel_noise,
    prompt_digest,
    random_bits,
)
from fedcot.models.sequences import token_ids
from tests.models.kinds import tiny_kind

BASE = tiny_kind("llama")
PROMPTS = [
    token_ids(BASE.tokenizer, text)
    for text in (
        "explain: tom has 12 marbles rationale:",
        "explain: a rationale:",
        "explain: tom has 12 marbles finds 3 loses 4 how many marbles now rationale:",
        "predict: 7 answer:",
        "explain: a shelf rationale:",
    )
]
UNUSED = torch.zeros((1, 1), dtype=torch.long)


def test_random_bits_are_those_of_splitmix64() -> None:
    """The first five numbers for the seed 1234567, as published for the algorithm."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    found = random_bits(torch.tensor([1234567, -5]), 5)[0].tolist()
    assert [number % 2**64 for number in found] == published


def test_noise_follows_the_gumbel_law() -> None:
    keys = torch.arange(200) * 7919 - 300_000
    noise = gumbel_noise(keys, 500)
    assert noise.dtype == torch.float32
    assert torch.isfinite(noise).all()
    assert stats.kstest(noise.flatten().double().numpy(), "gumbel_r").pvalue > 0.01
    # One token's noise says nothing about the next one's, nor about another prompt's.
    for one, other in (
        (noise[:, :-1], noise[:, 1:]),
        (noise[:-1], noise[1:]),
    ):
        both = np.corrcoef(one.flatten().numpy(), other.flatten().numpy())
        assert abs(both[0, 1]) < 4 / math.sqrt(one.numel())


@pytest.mark.parametrize("bits", [0, 1, -1, -2, 2**63 - 1, -(2**63)])
def test_no_bits_give_infinite_noise(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An infinite value would choose, or forbid, a token whatever its probability."""
    monkeypatch.setattr(
        sampling,
        "random_bits",
        lambda keys, count: torch.full((len(keys), count), bits),
    )
    (noise,) = gumbel_noise(torch.zeros(1, dtype=torch.long), 1)[0].tolist()
    uniform = ((bits % 2**64 >> 11) + 0.5) / 2**53
    # Single precision: from -2.81 on upwards.
    expected = -math.log(-math.log1p(-min(uniform, 1 - 2.0**-24)))
    assert noise == pytest.approx(expected, rel=1e-5)


def _draws(logits: torch.Tensor, how: Sampling, seeds: range) -> torch.Tensor:
    """Return one token for each seed, from the same logits."""
    drawn = []
    for seed in seeds:
        scores = how.processors([[1, 2, 3]], [seed])(UNUSED, logits[None].clone())
        drawn.append(int(scores.argmax()))
    return torch.tensor(drawn)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_draws_match_the_softmax_of_a_models_logits(temperature: float) -> None:
    """Chi-square over 4,000 fixed seeds; rare tokens are counted together."""
    with torch.inference_mode():
        logits = BASE.model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    logits = 2 * logits / logits.std()
    expected = 4000 * torch.softmax(logits.double() / temperature, dim=-1).numpy()
    drawn = _draws(logits, Sampling(temperature), range(4000))
    observed = np.bincount(drawn.numpy(), minlength=len(expected))
    often = expected >= 5
    pooled = [
        np.append(counts[often], counts[~often].sum())
        for counts in (observed, expected)
    ]
    assert often.sum() > 5
    assert stats.chisquare(*pooled).pvalue > 0.01


@pytest.mark.parametrize(
    ("top_p", "nucleus"), [(0.4, {1}), (0.5, {1}), (0.51, {1, 3}), (0.95, {0, 1, 3})]
)
def test_top_p_draws_from_exactly_the_nucleus(top_p: float, nucleus: set[int]) -> None:
    """The probabilities are 0.125, 0.5, 0.03125, 0.34375: sums are exact in binary."""
    logits = torch.tensor([0.125, 0.5, 0.03125, 0.34375]).log()
    drawn = _draws(logits, Sampling(1.0, top_p), range(400)).tolist()
    assert set(drawn) == nucleus
    if nucleus == {0, 1, 3}:
        kept = np.array([0.125, 0.5, 0.34375])
        observed = [drawn.count(token) for token in (0, 1, 3)]
        assert stats.chisquare(observed, 400 * kept / kept.sum()).pvalue > 0.01


def test_the_largest_noise_never_raises_an_excluded_token() -> None:
    noise = GumbelNoise([prompt_digest(seed, [1]) for seed in range(500)])
    scores = torch.full((500, 50), -math.inf)
    scores[:, 49] = -1e4
    assert (noise(UNUSED, scores).argmax(dim=-1) == 49).all()


def test_each_step_prompt_and_seed_has_noise_of_its_own() -> None:
    noise = GumbelNoise([prompt_digest(0, [1, 2]), prompt_digest(0, [12])])
    steps = [noise(UNUSED, torch.zeros(2, 40)) for _ in range(2)]
    other = GumbelNoise([prompt_digest(1, [1, 2])])(UNUSED, torch.zeros(1, 40))
    rows = [*steps[0], *steps[1], other[0]]
    assert len({tuple(row.tolist()) for row in rows}) == 5


def _sampled(order: list[int], batch_size: int, seed: int) -> list[str]:
    found = generate(
        BASE.model,
        BASE,
        [PROMPTS[index] for index in order],
        batch_size=batch_size,
        max_new_tokens=8,
        temperature=0.9,
        top_p=0.9,
        seed=seed,
    )
    return [found[order.index(index)].text for index in range(len(order))]


def test_a_sampled_completion_does_not_depend_on_batch_or_order() -> None:
    alone = _sampled([0, 1, 2, 3, 4], 1, 3)
    assert _sampled([0, 1, 2, 3, 4], 5, 3) == alone
    assert _sampled([4, 2, 0, 3, 1], 2, 3) == alone
    assert _sampled([0, 1, 2, 3, 4], 5, 4) != alone


def test_the_first_token_of_a_generation_follows_the_models_law() -> None:
    """Through `generate` itself: 300 seeds, the likeliest tokens against the rest."""
    ids = PROMPTS[1]
    with torch.inference_mode():
        logits = BASE.model(input_ids=torch.tensor([ids])).logits[0, -1]
    temperature = float(logits.std()) / 2
    law = torch.softmax(logits.double() / temperature, dim=-1)
    counts = np.zeros(len(law))
    for seed in range(300):
        (found,) = generate(
            BASE.model,
            BASE,
            [ids],
            batch_size=1,
            max_new_tokens=1,
            temperature=temperature,
            seed=seed,
        )
        written = token_ids(BASE.tokenizer, found.text)
        counts[written[0] if written else BASE.tokenizer.eos_token_id] += 1
    top = law.topk(8).indices.numpy()
    special = [BASE.tokenizer.pad_token_id, BASE.tokenizer.eos_token_id]
    top = [token for token in top if token not in special]
    observed = [*counts[top], 300 - counts[top].sum()]
    probable = law.numpy()[top]
    expected = 300 * np.append(probable, 1 - probable.sum())
    assert stats.chisquare(observed, expected).pvalue > 0.01


def test_no_temperature_is_greedy_whatever_the_seed() -> None:
    seeds = range(len(PROMPTS))
    assert len(Sampling(0.0, 0.5).processors(PROMPTS, seeds)) == 0
    found = {
        tuple(
            one.text
            for one in generate(
                BASE.model, BASE, PROMPTS, batch_size=5, max_new_tokens=4, seed=seed
            )
        )
        for seed in (0, 1)
    }
    assert len(found) == 1


def test_a_prompt_has_one_completion_for_each_of_its_seeds() -> None:
    def written(rows: list[list[int]], seeds: list[int], batch_size: int) -> list[str]:
        found = generate(
            BASE.model,
            BASE,
            rows,
            batch_size=batch_size,
            max_new_tokens=6,
            temperature=2.0,
            seeds=seeds,
        )
        return [one.text for one in found]

    prompt, other = PROMPTS[0], PROMPTS[1]
    together = written([prompt, other, prompt, prompt], [4, 4, 5, 4], 3)
    assert together[0] == together[3] != together[2]
    # A seed for each prompt is the same seed given for all.
    for place, (row, seed) in enumerate([(prompt, 4), (other, 4), (prompt, 5)]):
        (alone,) = generate(
            BASE.model,
            BASE,
            [row],
            batch_size=1,
            max_new_tokens=6,
            temperature=2.0,
            seed=seed,
        )
        assert together[place] == alone.text
