"""Train a model to read the rule of a task off the examples in front of a question.

It goes on from a finished model of the built-in pair, which knows the world already.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Final, Literal

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from fedcot.models.in_context_data import (
    QUESTION_WEIGHT,
    Piece,
    SeenTasks,
    described,
    in_context_sequences,
)
from fedcot.models.loading import CPU_ATTENTION
from fedcot.models.sequences import Batch, causal_batch, token_ids
from fedcot.models.sources import artefact_hash
from fedcot.models.tokenizer import build_in_context_tokenizer
from fedcot.models.training_loop import StepReport, TokenSchedule, fit
from fedcot.models.workshop import Trained, Workshop
from fedcot.seeding import derive_seed, numpy_generator
from fedcot.student.loss import token_losses
from fedcot.world.families import FAMILIES, GENERAL_NAMES

InContextName = Literal["in_context_teacher", "in_context_student"]
POOLED_SEQUENCES: Final = 512
# Of the end token: how many examples a sequence has is chance.
END_WEIGHT: Final = QUESTION_WEIGHT
# What a model goes on from, and whose problems of the world it reads. The student knows
# the general families only, as its start does.
STARTS: Final[dict[InContextName, Literal["teacher", "student"]]] = {
    "in_context_teacher": "teacher",
    "in_context_student": "student",
}
SEEN_FAMILIES: Final[dict[InContextName, tuple[str, ...]]] = {
    "in_context_teacher": tuple(FAMILIES),
    "in_context_student": GENERAL_NAMES,
}


@dataclass(frozen=True, slots=True)
class WeightedSequence:
    """Token ids of a sequence, and what the loss of each weighs.

    Attributes
    ----------
    ids : list of int
    weights : list of float
        In [0, 1], as many as ids.
    """

    ids: list[int]
    weights: list[float]


@dataclass(frozen=True, slots=True)
class WeightedBatch:
    """Right-padded sequences with the weights of their tokens.

    Attributes
    ----------
    tokens : Batch
        Every token is supervised, padding is not.
    weights : Tensor, shape (batch, length)
        0 on padding.
    """

    tokens: Batch
    weights: Tensor


def encode(
    pieces: Sequence[Piece], tokenizer: PreTrainedTokenizerBase
) -> WeightedSequence:
    """Return the pieces behind each other, and the end token."""
    ids: list[int] = []
    weights: list[float] = []
    for piece in pieces:
        found = token_ids(tokenizer, piece.text)
        ids += found
        weights += [piece.weight] * len(found)
    end: int = tokenizer.eos_token_id
    return WeightedSequence([*ids, end], [*weights, END_WEIGHT])


def token_batches(
    sequences: Iterator[WeightedSequence], batch_tokens: int, *, pad: int, seed: int
) -> Iterator[WeightedBatch]:
    """Yield batches of sequences of like length, in random order.

    Parameters
    ----------
    sequences : iterator of WeightedSequence
        `POOLED_SEQUENCES` of them are sorted by length at a time; the batches end where
        the iterator does.
    batch_tokens : int
        Sequences of a batch times the longest of them, at most.
    pad : int
        Id to pad with.
    seed : int
        Of the order.

    Raises
    ------
    ValueError
        A sequence alone is longer than a batch may be.
    """
    generator = torch.Generator().manual_seed(seed)
    while pool := list(islice(sequences, POOLED_SEQUENCES)):
        groups = _groups(pool, batch_tokens)
        for index in torch.randperm(len(groups), generator=generator).tolist():
            yield _padded(groups[index], pad)


def _groups(
    pool: Sequence[WeightedSequence], batch_tokens: int
) -> list[list[WeightedSequence]]:
    """Sort sequences by length and cut them where a batch is full."""
    groups: list[list[WeightedSequence]] = []
    for sequence in sorted(pool, key=lambda one: len(one.ids)):
        length = len(sequence.ids)
        if length > batch_tokens:
            raise ValueError(
                f"`batch_tokens` must be at least the longest sequence's {length} "
                f"tokens, found {batch_tokens}; raise it."
            )
        # The new one is the longest so far.
        if not groups or (len(groups[-1]) + 1) * length > batch_tokens:
            groups.append([])
        groups[-1].append(sequence)
    return groups


def _padded(rows: Sequence[WeightedSequence], pad: int) -> WeightedBatch:
    tokens = causal_batch([([], row.ids) for row in rows], pad)
    weights = torch.zeros(tokens.input_ids.shape)
    for number, row in enumerate(rows):
        weights[number, : len(row.weights)] = torch.tensor(row.weights)
    return WeightedBatch(tokens, weights)


def weighted_losses(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return each sequence's weighted mean of the cross-entropy of its tokens, in nats.

    The mean is taken inside each sequence first: a long one counts as much as a short
    one.

    Parameters
    ----------
    logits : Tensor, shape (batch, length, vocabulary)
        Place i predicts the token at i + 1.
    labels : Tensor, shape (batch, length)
        Token ids, `fedcot.models.sequences.IGNORE_INDEX` on padding.
    weights : Tensor, shape (batch, length)
        At least 0; that of a first token counts nothing, since no place predicts it.

    Returns
    -------
    Tensor, shape (batch,)

    Raises
    ------
    ValueError
        The weights of a sequence sum to 0: it would train on nothing.
    """
    losses, is_supervised = token_losses(logits, labels)
    counted = weights[:, 1:] * is_supervised
    totals = counted.sum(dim=1)
    if bool((totals == 0).any()):
        raise ValueError(
            "every sequence must have a token with a weight, found one without; leave "
            "it out."
        )
    return (losses * counted).sum(dim=1) / totals


def with_more_tokens(
    model: LlamaForCausalLM, vocabulary_size: int, *, seed: int
) -> LlamaForCausalLM:
    """Return a copy of a model that knows more tokens than before.

    Parameters
    ----------
    model : LlamaForCausalLM
        Its embedding is its output layer too (tied). Stays as it is.
    vocabulary_size : int
        At least that of the model; what is new has the last ids.
    seed : int
        Of the new rows of the embedding: normal with mean 0 and the standard deviation
        of the old entries. The old rows are kept.

    Raises
    ------
    ValueError
        The model knows more tokens, or its embedding is not tied.
    """
    old = model.model.embed_tokens.weight.detach()
    if vocabulary_size < len(old) or not model.config.tie_word_embeddings:
        raise ValueError(
            f"`vocabulary_size` must be at least the {len(old)} tokens of a model with "
            f"a tied embedding, found {vocabulary_size}; pass the size of an extended "
            "vocabulary."
        )
    grown = copy.deepcopy(model)
    grown.set_attn_implementation(CPU_ATTENTION)
    grown.resize_token_embeddings(vocabulary_size, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    count = vocabulary_size - len(old)
    new = torch.randn((count, old.shape[1]), generator=generator) * old.std()
    with torch.no_grad():
        grown.model.embed_tokens.weight[len(old) :] = new
    return grown


def build_in_context(
    workshop: Workshop, name: InContextName, schedule: TokenSchedule
) -> LlamaForCausalLM:
    """Return a model of the in-context pair, trained if it does not stand there.

    Parameters
    ----------
    workshop : Workshop
        Its folder holds the finished model to start from (`STARTS`). Two processes may
        build the two models in one folder at the same time.
    name : str
    schedule : TokenSchedule

    Raises
    ------
    ConfigError
        The model to start from is missing.
    """
    start = workshop.finished(STARTS[name])
    tokenizer = build_in_context_tokenizer()
    families = SEEN_FAMILIES[name]
    seed = workshop.seed

    def train(report: StepReport | None) -> Trained:
        seen = SeenTasks()
        rng = numpy_generator(seed, "pretraining", name)
        sequences = in_context_sequences(rng, seen, families=families)
        model = with_more_tokens(
            start, len(tokenizer), seed=derive_seed(seed, "weights", name)
        )
        curve = fit(
            model,
            token_batches(
                map(partial(encode, tokenizer=tokenizer), sequences),
                schedule.batch_tokens,
                pad=tokenizer.pad_token_id,
                seed=derive_seed(seed, "batches", name),
            ),
            _loss,
            schedule,
            report=report,
        )
        return Trained(model, curve, seen.counts)

    settings = {
        **asdict(schedule),
        # A model is rebuilt where the one that it starts from is another.
        "start": artefact_hash(str(workshop.output / STARTS[name]), STARTS[name]),
        "families": list(families),
        "data": described(),
    }
    return workshop.build(name, tokenizer, settings, train)


def _loss(model: LlamaForCausalLM, batch: WeightedBatch) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(
            input_ids=batch.tokens.input_ids, attention_mask=batch.tokens.attention_mask
        ).logits
    return weighted_losses(logits, batch.tokens.labels, batch.weights).mean()
