"""Weighted losses, batches of tokens and the warm start of the in-context pair."""

import json
import math
from itertools import islice

import pytest
import torch

from fedcot.errors import ConfigError
from fedcot.models import in_context_training
from fedcot.models.in_context_data import Piece, SeenTasks, in_context_sequences
from fedcot.models.in_context_training import (
    WeightedSequence,
    build_in_context,
    encode,
    token_batches,
    weighted_losses,
    with_more_tokens,
)
from fedcot.models.sequences import IGNORE_INDEX
from fedcot.models.tokenizer import build_in_context_tokenizer, build_tokenizer
from fedcot.models.training_loop import TokenSchedule
from fedcot.models.workshop import Workshop
from fedcot.seeding import numpy_generator
from fedcot.world.families import FAMILIES, GENERAL_NAMES
from tests.tiny import tiny_base

OLD, NEW = build_tokenizer(), build_in_context_tokenizer()


def test_a_loss_is_the_weighted_mean_of_each_sequence() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5)
    labels = torch.tensor([[1, 4, 2, 3], [0, 3, 1, IGNORE_INDEX]])
    # The first token's weight and that of padding count nothing.
    weights = torch.tensor([[0.9, 0.1, 1.0, 0.5], [0.7, 1.0, 0.1, 0.8]])
    expected = []
    for row, last in ((0, 3), (1, 2)):
        top = bottom = 0.0
        for place in range(1, last + 1):
            scores = logits[row, place - 1].tolist()
            total = math.log(sum(map(math.exp, scores)))
            weight = weights[row, place].item()
            top += weight * (total - scores[labels[row, place].item()])
            bottom += weight
        expected.append(top / bottom)
    found = weighted_losses(logits, labels, weights)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_sequence_without_a_weight_is_refused() -> None:
    weights = torch.tensor([[1.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="a token with a weight"):
        weighted_losses(torch.zeros(1, 3, 5), torch.tensor([[1, 2, 3]]), weights)


def test_pieces_stay_in_order_and_keep_their_weights() -> None:
    pieces = [Piece("question: tom trades 12 gold", 0.1), Piece("answer: 36", 1.0)]
    found = encode(pieces, NEW)
    text = "question: tom trades 12 gold answer: 36"
    assert found.ids == [*NEW(text)["input_ids"], NEW.eos_token_id]
    assert found.weights == [0.1] * 6 + [1.0] * 3 + [0.1]


def rows_of(batch):
    lengths = batch.tokens.attention_mask.sum(dim=1).tolist()
    for row, length in enumerate(lengths):
        assert not batch.weights[row, length:].any()
        assert set(batch.tokens.labels[row, length:].tolist()) <= {IGNORE_INDEX}
        assert (
            batch.tokens.labels[row, :length].tolist()
            == batch.tokens.input_ids[row, :length].tolist()
        )
        yield (
            tuple(batch.tokens.input_ids[row, :length].tolist()),
            tuple(round(one, 3) for one in batch.weights[row, :length].tolist()),
        )


def test_every_sequence_comes_once_and_no_batch_is_too_large(monkeypatch) -> None:
    monkeypatch.setattr(in_context_training, "POOLED_SEQUENCES", 40)
    rng = numpy_generator(0, "x")
    given = []
    for number in range(100):
        length = int(rng.integers(2, 30))
        # The first id tells the sequences apart.
        ids = [number + 1, *range(200, 200 + length)]
        given.append(WeightedSequence(ids, [(i % 7 + 1) / 10 for i in range(len(ids))]))
    batches = list(token_batches(iter(given), 64, pad=0, seed=1))
    assert max(batch.weights.numel() for batch in batches) <= 64
    # One place more of the longest would not fit: no batch is cut too early. The last
    # of a pool may be smaller.
    assert sum(batch.weights.numel() for batch in batches) / len(batches) > 40
    rows = [row for batch in batches for row in rows_of(batch)]
    expected = [
        (tuple(one.ids), tuple(round(w, 3) for w in one.weights)) for one in given
    ]
    assert sorted(rows) == sorted(expected)
    longest = [batch.weights.shape[1] for batch in batches]
    assert longest != sorted(longest)
    again = list(token_batches(iter(given), 64, pad=0, seed=1))
    assert [batch.weights.tolist() for batch in again] == [
        batch.weights.tolist() for batch in batches
    ]


def test_a_sequence_longer_than_a_batch_is_refused() -> None:
    one = WeightedSequence([1] * 9, [1.0] * 9)
    with pytest.raises(ValueError, match="longest sequence's 9 tokens, found 8"):
        next(token_batches(iter([one]), 8, pad=0, seed=0))


def test_the_warm_start_says_of_old_texts_what_the_old_model_says() -> None:
    base = tiny_base().model
    grown = with_more_tokens(base, len(NEW), seed=3)
    text = "explain: tom has 12 marbles rationale: 12 - 5 = 7 answer: 7"
    ids = NEW(text, return_tensors="pt")["input_ids"]
    assert ids.tolist() == OLD(text, return_tensors="pt")["input_ids"].tolist()
    with torch.no_grad():
        before, after = base(input_ids=ids).logits, grown(input_ids=ids).logits
    assert before.shape[-1] == len(OLD)
    assert after.shape[-1] == len(NEW) == grown.config.vocab_size
    torch.testing.assert_close(after[..., : len(OLD)], before)


def test_new_rows_are_as_wide_as_the_old_ones_and_tied() -> None:
    base = tiny_base().model
    old = base.get_input_embeddings().weight.detach().clone()
    grown = with_more_tokens(base, len(NEW), seed=3)
    rows = grown.get_input_embeddings().weight
    assert grown.lm_head.weight is rows
    assert torch.equal(rows[: len(old)], old)
    assert torch.equal(base.get_input_embeddings().weight, old)
    new = rows[len(old) :].detach()
    # Of 100 rows with 32 entries: 2 % is more than one standard error.
    assert new.std().item() == pytest.approx(old.std().item(), rel=0.06)
    assert abs(new.mean().item()) < 0.06 * old.std().item()
    same = with_more_tokens(base, len(NEW), seed=3).get_input_embeddings().weight
    other = with_more_tokens(base, len(NEW), seed=4).get_input_embeddings().weight
    assert torch.equal(same, rows)
    assert not torch.equal(other[len(old) :], new)


def test_a_vocabulary_does_not_shrink() -> None:
    with pytest.raises(ValueError, match="must be at least the"):
        with_more_tokens(tiny_base().model, 10, seed=0)


def saved_start(folder, name, seed=0) -> None:
    base = tiny_base(seed)
    base.model.save_pretrained(folder / name)
    base.tokenizer.save_pretrained(folder / name)
    (folder / name / "training.json").write_text("{}")


@pytest.mark.parametrize(
    ("name", "start", "families"),
    [
        ("in_context_teacher", "teacher", tuple(FAMILIES)),
        ("in_context_student", "student", GENERAL_NAMES),
    ],
)
def test_a_model_of_the_pair_starts_from_its_own(
    tmp_path, monkeypatch, name, start, families
) -> None:
    saved_start(tmp_path, start)
    counted = []

    def listens(rng, seen, *, families):
        counted.append((seen, families))
        return in_context_sequences(rng, seen, families=families)

    monkeypatch.setattr(in_context_training, "in_context_sequences", listens)
    schedule = TokenSchedule(steps=2, batch_tokens=600)
    workshop = Workshop(tmp_path, 0)
    model = build_in_context(workshop, name, schedule)
    ((seen, seen_families),) = counted
    assert seen_families == families
    assert {rule.split for rule in seen.rules} == {"pretraining"}
    record = json.loads((tmp_path / name / "training.json").read_text())
    assert record == json.loads(json.dumps(workshop.records[name]))
    assert record["settings"]["batch_tokens"] == 600
    assert record["settings"]["families"] == list(families)
    assert record["parameters"] == model.num_parameters()
    assert record["sequences_drawn"] == seen.num_sequences >= 512
    assert [step for step, _ in record["loss_curve"]] == [2]
    # Kept from the same settings and start; a loss curve would be drawn again else.
    kept = build_in_context(Workshop(tmp_path, 0), name, schedule)
    assert len(counted) == 1
    assert torch.equal(
        kept.get_input_embeddings().weight, model.get_input_embeddings().weight
    )
    saved_start(tmp_path, start, seed=1)
    build_in_context(Workshop(tmp_path, 0), name, schedule)
    assert len(counted) == 2


def test_a_missing_start_is_one_clear_line(tmp_path) -> None:
    with pytest.raises(ConfigError, match="must hold the finished model `teacher`"):
        build_in_context(
            Workshop(tmp_path, 0), "in_context_teacher", TokenSchedule(steps=1)
        )


def test_a_few_steps_make_the_loss_of_public_sequences_fall() -> None:
    """Failure would mean that the weights or the labels are shifted."""
    model = with_more_tokens(tiny_base().model, len(NEW), seed=0).requires_grad_(True)
    sequences = in_context_sequences(
        numpy_generator(0, "x"), SeenTasks(), families=GENERAL_NAMES
    )
    encoded = [encode(pieces, NEW) for pieces in islice(sequences, 24)]

    def endless():
        while True:
            yield from token_batches(iter(encoded), 4096, pad=0, seed=0)

    curve = in_context_training.fit(
        model,
        endless(),
        in_context_training._loss,
        TokenSchedule(steps=100, learning_rate=1e-2),
    )
    assert curve[1][1] < 0.8 * curve[0][1]
