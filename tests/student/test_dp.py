"""Clipping, sampling and noise of DP-SGD, each against a second way to get it."""

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from opacus.grad_sample import GradSampleHooks
from opacus.optimizers import DPOptimizer
from scipy import stats
from torch import nn

from fedcot.config import RunConfig
from fedcot.errors import ConfigError, FedcotError
from fedcot.models.sequences import training_batch
from fedcot.privacy.sampler import SystemRandomSource, TapeRandomSource
from fedcot.student.base import TrainingSettings, adapted
from fedcot.student.dp import noised_mean
from fedcot.student.dp_settings import DpSettings, training_schedule, used_counts
from fedcot.student.examples import Example
from fedcot.student.loss import example_losses
from fedcot.student.noise import (
    SLACK,
    ClippedSum,
    poisson_mask,
    standard_normals,
)
from fedcot.student.record_gradients import RecordGradients, Row, rows_of
from tests.tiny import tiny_base

LORA = TrainingSettings(lora_r=4, lora_alpha=8)


def records(count: int = 5) -> list[list[Example]]:
    """Return records with both examples, one without a rationale and one null."""
    made = [
        [
            Example(f"predict: tom has {n} marbles answer:", str(n), "predict"),
            Example(f"explain: tom has {n} rationale:", f"{n} answer: {n}", "explain"),
        ]
        for n in range(2, 2 + count)
    ]
    made[1] = made[1][:1]
    made[2] = []
    return made


def jitter(parameters: Sequence[nn.Parameter]) -> None:
    """Move both halves away from zero, where one would hide the other's gradient."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def looped(model: nn.Module, rows: Sequence[Row], trained: Sequence[nn.Parameter]):
    """Return one record's gradient by autograd alone, token by token."""
    total = torch.zeros(sum(p.numel() for p in trained))
    for row in rows:
        logits = model(input_ids=torch.tensor([row.prompt + row.target])).logits[0]
        logs = torch.log_softmax(logits, dim=-1)
        places = range(len(row.prompt), len(row.prompt) + len(row.target))
        wanted = [logs[i - 1, t] for i, t in zip(places, row.target, strict=True)]
        loss = -row.weight * sum(wanted) / len(row.target)
        found = torch.autograd.grad(loss, list(trained))
        total += torch.cat([part.flatten() for part in found])
    return total.numpy()


@pytest.mark.parametrize("freeze_a", [False, True])
def test_gradients_of_records_are_those_of_a_loop(freeze_a):
    base, own = tiny_base(), TrainingSettings(lora_r=4, lora_alpha=8, freeze_a=freeze_a)
    rows = [rows_of(base, examples, rationale_weight=0.7) for examples in records()]
    with adapted(base, own, seed=0) as model:
        gradients = RecordGradients(model, base)
        names = [n for n, p in model.named_parameters() if p.requires_grad]
        assert any("lora_embedding_A" in name for name in names)
        assert any("lora_embedding_B" in name for name in names) != freeze_a
        assert any("lora_A" in name for name in names) != freeze_a
        jitter(gradients.trained)
        found, losses = gradients.of(rows)
        expected = np.stack([looped(model, row, gradients.trained) for row in rows])
        start = 0
        for name, parameter in zip(names, gradients.trained, strict=True):
            part = slice(start, start + parameter.numel())
            scale = np.abs(expected[:, part]).max()
            assert scale > 0, name
            np.testing.assert_allclose(
                found[:, part], expected[:, part], rtol=0, atol=1e-5 * scale
            )
            start = part.stop
        assert not found[2].any()  # the null record
        assert (len(losses["predict"]), len(losses["explain"])) == (4, 3)
        gradients.check()
    assert all(p.grad is None for p in base.model.parameters())


def test_gradients_of_records_are_those_of_opacus():
    """Its hooks, a second way to get them, see linear layers only."""
    base, own = tiny_base(), TrainingSettings(lora_r=4, target_modules="all-linear")
    rows = [rows_of(base, e[:1], rationale_weight=1.0) for e in records() if e]
    with adapted(base, own, seed=0) as model:
        gradients = RecordGradients(model, base)
        jitter(gradients.trained)
        found, _ = gradients.of(rows)
        hooks = GradSampleHooks(model.train(), loss_reduction="sum", strict=False)
        batch = training_batch([(row.prompt, row.target) for (row,) in rows], base)
        with warnings.catch_warnings():
            # The first layer's input has no gradient, and needs none.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            logits = model(**batch.inputs("cpu")).logits
            example_losses(logits, batch.labels).sum().backward()
        theirs = torch.cat([p.grad_sample.flatten(1) for p in gradients.trained], dim=1)
        hooks.cleanup()
    scale = float(theirs.abs().max())
    np.testing.assert_allclose(found, theirs.numpy(), rtol=0, atol=1e-5 * scale)


def test_a_scaled_embedding_and_padding_inside_a_question_are_seen():
    """Failure would mean that the closed form fits the built-in student only."""
    base = tiny_base()
    with adapted(base, LORA, seed=0) as model:
        gradients = RecordGradients(model, base)
        layer = model.get_input_embeddings()
        layer.base_layer.embed_scale = torch.tensor(1.7)
        jitter(gradients.trained)
        row = [Row([5, 0, 7, 7], [9, 0, 1], "predict", 1.0)]
        found, _ = gradients.of([row])
        expected = looped(model, row, gradients.trained)
        np.testing.assert_allclose(found[0], expected, atol=1e-5 * expected.max())
        gradients.check()


def test_a_tensor_that_takes_no_part_is_refused():
    base = tiny_base()
    with adapted(base, LORA, seed=0) as model:
        gradients = RecordGradients(model, base)
        gradients.trained.append(nn.Parameter(torch.ones(3)))
        with pytest.raises(FedcotError, match="takes no part"):
            gradients.check()


def settings_of(**changes) -> DpSettings:
    given = {
        "noise_multiplier": 0.0,
        "max_grad_norm": 0.5,
        "num_records": 5,
        "expected_batch": 5,
        "steps": 1,
    }
    return DpSettings(**{**given, **changes})


def test_the_clipped_sum_is_that_of_opacus():
    base = tiny_base()
    rows = [
        rows_of(base, examples[:1], rationale_weight=1.0)
        for examples in records()
        if examples
    ]
    with adapted(base, LORA, seed=0) as model:
        gradients = RecordGradients(model, base)
        jitter(gradients.trained)
        found, _ = gradients.of(rows)
        clip = float(np.median(np.linalg.norm(found, axis=1)))
        ours = noised_mean(
            gradients,
            rows,
            settings_of(max_grad_norm=clip, num_records=4, expected_batch=4),
            TapeRandomSource(0),
        )
        start = 0
        for parameter in gradients.trained:
            part = torch.from_numpy(found[:, start : start + parameter.numel()])
            parameter.grad_sample = part.view(-1, *parameter.shape)
            start += parameter.numel()
        theirs = DPOptimizer(
            torch.optim.SGD(gradients.trained, lr=1.0),
            noise_multiplier=0.0,
            max_grad_norm=clip * (1 - SLACK),
            expected_batch_size=4,
        )
        theirs.pre_step()
        expected = torch.cat([p.grad.flatten() for p in gradients.trained]).numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5 * abs(expected).max())


vectors = arrays(np.float32, (4, 6), elements=st.floats(-1e6, 1e6, width=32))


@settings(max_examples=60, deadline=None)
@given(vectors, st.sampled_from([1e-3, 1.0, 50.0]))
def test_one_unit_changes_the_sum_by_at_most_the_norm(rows, clip):
    whole, without = ClippedSum(6, clip), ClippedSum(6, clip)
    for row in rows:
        whole.add(row)
    for row in rows[1:]:
        without.add(row)
    difference = whole.value() - without.value()
    assert np.linalg.norm(difference) <= clip
    single = ClippedSum(6, clip)
    single.add(rows[0])
    np.testing.assert_array_equal(difference, single.value())
    # Short vectors are left alone but for the grid; long ones keep their direction.
    scale = min(1.0, clip * (1 - SLACK) / max(np.linalg.norm(rows[0].astype(float)), 1))
    if np.linalg.norm(rows[0]) >= 1:
        np.testing.assert_allclose(difference, rows[0] * scale, atol=clip * 2.0**-29)


def test_neighbouring_data_sets_differ_by_at_most_the_norm():
    """With real gradients: both examples of a record are clipped once, together."""
    base, clip = tiny_base(), 0.01
    rows = [rows_of(base, examples, rationale_weight=1.0) for examples in records()]
    one = settings_of(max_grad_norm=clip)
    with adapted(base, LORA, seed=0) as model:
        gradients = RecordGradients(model, base)
        jitter(gradients.trained)
        whole = noised_mean(gradients, rows, one, TapeRandomSource(0)) * 5
        for index, record in enumerate(rows):
            null = [*rows[:index], [], *rows[index + 1 :]]
            without = noised_mean(gradients, null, one, TapeRandomSource(0)) * 5
            distance = np.linalg.norm(whole - without)
            assert distance <= clip
            if record:
                # Far longer gradients: the whole norm is used, and by two no more.
                assert distance > clip * (1 - 2 * SLACK)


def test_a_record_s_gradient_is_the_same_beside_any_other():
    base = tiny_base()
    rows = [rows_of(base, examples, rationale_weight=1.0) for examples in records()]
    long = [Row([5] * 90, [9] * 60, "explain", 1.0)]
    with adapted(base, LORA, seed=0) as model:
        gradients = RecordGradients(model, base)
        jitter(gradients.trained)
        alone, _ = gradients.of(rows)
        padded, _ = gradients.of([*rows, long])
    np.testing.assert_array_equal(padded[:-1], alone)


def test_a_gradient_that_is_not_finite_counts_as_zero():
    total = ClippedSum(3, 1.0)
    for value in (np.nan, np.inf, -np.inf):
        total.add(np.array([value, 1.0, 1.0], dtype=np.float32))
    assert not total.value().any()
    total.add(np.full(3, 3e38, dtype=np.float32))
    assert 0.99 < np.linalg.norm(total.value()) <= 1.0


def test_an_empty_draw_is_noise_alone(monkeypatch):
    base = tiny_base()
    null = settings_of(noise_multiplier=2.0, num_records=50, expected_batch=1)
    with adapted(base, LORA, seed=0) as model:
        gradients = RecordGradients(model, base)
        empty = next(
            seed
            for seed in range(50)
            if not poisson_mask(50, expected=1, source=TapeRandomSource(seed)).any()
        )
        row = rows_of(base, records()[0], rationale_weight=1.0)
        monkeypatch.setattr(RecordGradients, "of", None)  # nothing may be computed
        mean = noised_mean(gradients, [row] * 50, null, TapeRandomSource(empty))
    assert mean.shape == (gradients.size,)
    assert abs(mean.std() / (2.0 * 0.5) - 1) < 0.05


def test_sums_are_divided_by_a_public_number():
    """Failure would mean that the size of a step tells how many records were drawn."""
    base = tiny_base()
    rows = [rows_of(base, e, rationale_weight=1.0) for e in records() if e]
    with adapted(base, LORA, seed=0) as model:
        gradients = RecordGradients(model, base)
        jitter(gradients.trained)
        public = settings_of(num_records=4, expected_batch=2, max_grad_norm=1e-3)
        tapes = range(40)
        drawn = {
            seed: poisson_mask(4, expected=2, source=TapeRandomSource(seed))
            for seed in tapes
        }
        for size in (1, 3, 4):
            seed = next(s for s in tapes if drawn[s].sum() == size)
            found = noised_mean(gradients, rows, public, TapeRandomSource(seed))
            expected = ClippedSum(gradients.size, 1e-3)
            single, _ = gradients.of([rows[i] for i in np.flatnonzero(drawn[seed])])
            for gradient in single:
                expected.add(gradient)
            np.testing.assert_allclose(found, expected.value() / 2, atol=1e-8)


def test_each_record_is_drawn_alone_and_with_the_stated_probability():
    source, draws = TapeRandomSource(5), 20_000
    masks = np.stack([poisson_mask(6, expected=2, source=source) for _ in range(draws)])
    sizes = np.bincount(masks.sum(axis=1), minlength=7)
    expected = stats.binom.pmf(np.arange(7), 6, 1 / 3) * draws
    assert stats.chisquare(sizes, expected).pvalue > 1e-4
    # All 64 subsets, so that no two records are drawn together too often.
    subsets = np.bincount(masks @ (1 << np.arange(6)), minlength=64)
    law = np.array([(1 / 3) ** k * (2 / 3) ** (6 - k) for k in range(7)])
    ones = np.array([bin(subset).count("1") for subset in range(64)])
    assert stats.chisquare(subsets, law[ones] * draws).pvalue > 1e-4


def test_everyone_or_no_one_can_be_expected_and_more_cannot():
    source = SystemRandomSource()
    assert poisson_mask(7, expected=7, source=source).all()
    assert not poisson_mask(7, expected=0, source=source).any()
    for size, expected in ((7, 8), (7, -1), (0, 0)):
        with pytest.raises(ValueError, match="must lie in"):
            poisson_mask(size, expected=expected, source=source)


def test_normals_are_normal_and_independent():
    count = 200_001
    normals = standard_normals(count, TapeRandomSource(1))
    assert normals.shape == (count,)
    assert stats.kstest(normals, "norm").pvalue > 1e-3
    scaled = (normals**2).sum()
    assert 1e-3 < stats.chi2.cdf(scaled, count) < 1 - 1e-3
    half = count // 2
    together = normals[:half], normals[half + 1 :]
    assert abs(np.corrcoef(*together)[0, 1]) < 4 / half**0.5
    # Both numbers of a pair share a radius; their squares must not be related either.
    assert abs(np.corrcoef(together[0] ** 2, together[1] ** 2)[0, 1]) < 4 / half**0.5
    for bound in (3.0, 4.0):
        expected = 2 * stats.norm.sf(bound) * count
        assert abs((abs(normals) > bound).sum() - expected) < 5 * expected**0.5


class Words:
    """A source whose every draw is the same word."""

    private = False

    def __init__(self, word: int) -> None:
        self.word = word

    def below(self, bounds):
        return np.minimum(np.full(bounds.shape, self.word, dtype=np.int64), bounds - 1)


@pytest.mark.parametrize("word", [0, 1, 2**54 - 1, 2**54 - 2])
def test_the_rarest_words_give_finite_numbers(word):
    normals = standard_normals(4, Words(word))
    assert np.isfinite(normals).all()
    assert abs(normals).max() < 12.2


def test_the_noise_has_the_stated_size_and_lies_on_the_grid():
    total = ClippedSum(100_000, 0.25)
    vector = np.zeros(100_000, dtype=np.float32)
    vector[0] = 100.0
    total.add(vector)
    noised = total.noised(3.0, TapeRandomSource(0))
    steps = noised / total.step
    assert 2.0**-31 <= total.step / 0.25 <= 2.0**-30
    np.testing.assert_array_equal(steps, np.rint(steps))
    assert abs(noised[1:].std() / 0.75 - 1) < 0.01
    assert stats.kstest(noised[1:] / 0.75, "norm").pvalue > 1e-3
    np.testing.assert_allclose(
        noised[0] - total.value()[0],
        ClippedSum(100_000, 0.25).noised(3.0, TapeRandomSource(0))[0],
        atol=1e-12,
    )


def test_a_norm_that_bounds_nothing_is_refused():
    for clip in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="clip_norm"):
            ClippedSum(1, clip)


def run_config(**changes) -> RunConfig:
    return RunConfig(
        token_epsilon=8.0,
        aggregation="fedavg",
        **{"noise_multiplier": 1.5, "max_grad_norm": 0.3, **changes},
    )


def test_the_settings_follow_from_public_numbers():
    config = run_config(batch_size=16, local_epochs=3)
    one = DpSettings.of(config, 100)
    assert (one.noise_multiplier, one.max_grad_norm) == (1.5, 0.3)
    assert one.sample_rate == 0.16
    assert one.steps == 19  # three epochs of 6.25 steps, rounded up
    few = DpSettings.of(config, 10)
    assert (few.expected_batch, few.sample_rate, few.steps) == (10, 1.0, 3)


def test_the_schedule_has_every_round_with_the_records_used_so_far():
    config = run_config(
        num_server_rounds=3, records_per_round=40, num_records=100, batch_size=10
    )
    counts = used_counts(config, 0, 100)
    assert counts[:2] == [40, 80]
    assert 80 <= counts[2] <= 100
    schedule = training_schedule(config, counts)
    assert [one.num_records for one in schedule] == counts
    assert [one.steps for one in schedule][:2] == [32, 64]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("noise-multiplier", {"noise_multiplier": -1.0}),
        ("noise-multiplier", {"noise_multiplier": float("nan")}),
        ("max-grad-norm", {"max_grad_norm": 0.0}),
        ("num-records", {"num_records": 0}),
        ("batch-size", {"expected_batch": 6}),
        ("batch-size", {"expected_batch": 0}),
        ("local-epochs", {"steps": 0}),
    ],
)
def test_a_bad_setting_is_named(name, changes):
    with pytest.raises(ConfigError, match=f"`{name}` must be"):
        settings_of(**changes)


def test_no_records_are_refused():
    with pytest.raises(ConfigError, match="num-records"):
        DpSettings.of(run_config(), 0)
