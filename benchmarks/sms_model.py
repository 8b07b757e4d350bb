"""A small language model trained on public messages of the SMS Spam Collection alone.

A run of `social` needs a client model that reads and writes examples, and no message of
a teacher client may have been in its training (`sms_messages.public_messages`).

It is trained on few-shot sequences in the format `sms-spam`. In some of them the two
classes have each other's name, so that the examples before a message tell more than the
message alone. Public spam is scarce: an example is often two halves of messages of one
class, with digits drawn anew.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from sms_messages import FORM, FewShot, Sequences, build_tokenizer, held_out
from transformers import LlamaConfig, LlamaForCausalLM

from fedcot.models.training_loop import Schedule, fit
from fedcot.models.weights import CPU_ATTENTION
from fedcot.seeding import derive_seed, numpy_generator
from fedcot.social.client_model import ClientModel
from fedcot.social.demonstrations import Demonstration, few_shot_prompt
from fedcot.social.formats import SPAM_LABELS
from fedcot.social.task_data import content_key

RECORD: Final = "training.json"
# Tokens that fit: a vote reads all messages that a client holds out.
CONTEXT: Final = 2048
HELD_OUT: Final = 24  # messages of each class

_Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Training:
    """How the model is trained.

    Attributes
    ----------
    steps, batch_size : int
        Optimizer steps, and sequences in each.
    learning_rate : float
        Peak.
    vocabulary : int
        Tokens at most.
    swapped_share : float
        Of the sequences, those whose classes have each other's name; none in the first
        fifth of the steps. At 0.5 a model can only guess without examples.
    hidden, layers : int
        Width and depth; a head has 32 numbers.
    seed : int
    """

    steps: int = 1200
    batch_size: int = 8
    learning_rate: float = 3e-3
    vocabulary: int = 2000
    swapped_share: float = 0.3
    hidden: int = 192
    layers: int = 4
    seed: int = 0


def train(
    public: Sequence[Demonstration],
    folder: Path,
    training: Training,
    *,
    report: Callable[[str], None] = print,
) -> None:
    """Train the model into a folder; go on where the same training stopped.

    A checkpoint holds the weights, not the memory of the optimizer, which begins anew.

    Parameters
    ----------
    public : sequence of Demonstration
        All public messages; `HELD_OUT` of each class are tested, not trained on.
    folder : Path
    training : Training
    report : callable
        Gets a line every 50 steps.
    """
    kept, tested = held_out(public, seed=training.seed, each=HELD_OUT)
    tokenizer = build_tokenizer(kept, training.vocabulary)
    done, curve = _done(folder, training, public)
    model = _model(folder if done else None, len(tokenizer), training)
    unseen = Sequences(tested, tokenizer)
    started = time.monotonic()

    def checkpoint(step: int, steps: int, loss: float) -> None:
        row = {"step": done + step, "loss": loss, **_shares(model, unseen)}
        curve.append(row)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _write_record(folder, training, public, curve)
        report(f"{json.dumps(row)} {time.monotonic() - started:.0f} s")

    fit(
        model,
        _batches(Sequences(kept, tokenizer), training, done),
        _loss,
        _Rest(Schedule(training.steps, learning_rate=training.learning_rate), done),
        report=checkpoint,
    )


def is_trained(
    folder: Path, training: Training, public: Sequence[Demonstration]
) -> bool:
    """Whether a folder holds this model of these messages, trained to its end."""
    return _done(folder, training, public)[0] == training.steps


def in_context_accuracy(
    model: ClientModel,
    public: Sequence[Demonstration],
    *,
    seed: int,
    counts: Sequence[int] = (0, 2, 4, 8),
    draws: int = 2,
) -> dict[int, float]:
    """Return how often a model names the class of a held-out message, by examples.

    As many examples of each class, of the held-out messages too; each message is asked
    `draws` times, behind other examples.
    """
    _, tested = held_out(public, seed=seed, each=HELD_OUT)
    found = {}
    for count in counts:
        asked = [
            (one, _shown(tested, one, count, numpy_generator(seed, "sms", place, draw)))
            for place, one in enumerate(tested)
            for draw in range(draws)
        ]
        found[count] = share_right(
            model,
            [few_shot_prompt(FORM, shown, one.question) for one, shown in asked],
            [one.answer for one, _ in asked],
        )
    return found


def share_right(
    model: ClientModel, prompts: Sequence[str], answers: Sequence[str]
) -> float:
    """Return how often a model greedily names the class that is asked for."""
    written = model.sample(
        prompts,
        temperature=0.0,
        max_new_tokens=6,
        stop=FORM.stop,
        seeds=[0] * len(prompts),
    )
    right = [
        FORM.read_answer(sampled.text) == answer
        for sampled, answer in zip(written, answers, strict=True)
    ]
    return sum(right) / len(right)


def _shown(
    tested: Sequence[Demonstration],
    asked: Demonstration,
    count: int,
    rng: np.random.Generator,
) -> list[Demonstration]:
    shown: list[Demonstration] = []
    for place, label in enumerate(SPAM_LABELS):
        rows = [one for one in tested if one.answer == label and one != asked]
        number = (count + place) // 2
        shown += [rows[int(row)] for row in rng.permutation(len(rows))[:number]]
    return [shown[int(place)] for place in rng.permutation(len(shown))]


@dataclass(frozen=True)
class _Rest:
    """What is left of a schedule after some steps."""

    schedule: Schedule
    done: int

    @property
    def steps(self) -> int:
        return self.schedule.steps - self.done

    def rate(self, step: int) -> float:
        return self.schedule.rate(self.done + step)


def _model(folder: Path | None, vocabulary: int, training: Training) -> Any:
    if folder is not None:
        return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    heads = training.hidden // 32
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=training.hidden,
        intermediate_size=training.hidden * 8 // 3,
        num_hidden_layers=training.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        # Tied to so narrow an embedding, logits of the usual width stay flat for long.
        initializer_range=0.05,
    )
    # Initial weights: transformers draws from the global generator.
    torch.manual_seed(derive_seed(training.seed, "sms-model"))
    return LlamaForCausalLM._from_config(config, attn_implementation=CPU_ATTENTION)


def _batches(drawn: Sequences, training: Training, done: int) -> Iterator[_Batch]:
    """Yield tokens and weights of each step, which hang on its number alone."""
    step = done
    while True:
        rng = numpy_generator(training.seed, "sms-training", step)
        share = training.swapped_share if step * 5 >= training.steps else 0.0
        yield _padded(
            [
                drawn.draw(rng, is_swapped=bool(rng.random() < share))
                for _ in range(training.batch_size)
            ]
        )
        step += 1


def _padded(rows: Sequence[FewShot]) -> _Batch:
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    weights = torch.zeros(len(rows), longest)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        weights[place, : len(row.ids)] = torch.tensor(row.weights)
    return ids, weights


def _loss(model: LlamaForCausalLM, batch: _Batch) -> torch.Tensor:
    """Return the weighted mean of the tokens' losses, in nats."""
    ids, weights = batch
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    kept = weights[:, 1:].flatten()
    return (losses * kept).sum() / kept.sum()


@torch.inference_mode()
def _shares(model: LlamaForCausalLM, unseen: Sequences) -> dict[str, float]:
    """Return how often classes are right in sequences of held-out messages.

    With their own names (``own``) and with each other's (``swapped``), behind no
    example, 1 to 3, and at least 4; and the loss of all other tokens in nats.
    """
    rng = np.random.default_rng(0)
    right: dict[str, list[bool]] = {}
    losses = []
    model.eval()
    for name, is_swapped in (("own", False), ("swapped", True)):
        rows = [
            unseen.draw(rng, is_swapped=is_swapped, is_varied=False) for _ in range(6)
        ]
        ids, weights = _padded(rows)
        chosen = model(input_ids=ids).logits.argmax(-1)
        losses.append(_loss(model, (ids, (weights == 1.0).float())).item())
        for row, drawn in enumerate(rows):
            for shown, place in enumerate(drawn.places):
                behind = "0" if shown == 0 else "1-3" if shown < 4 else "4+"
                is_right = int(chosen[row, place - 1]) == drawn.ids[place]
                right.setdefault(f"{name} {behind}", []).append(is_right)
    model.train()
    shares = {name: round(float(np.mean(found)), 2) for name, found in right.items()}
    return shares | {"text loss": round(float(np.mean(losses)), 3)}


def _record(training: Training, public: Sequence[Demonstration]) -> dict[str, Any]:
    keys = json.dumps(sorted(content_key(one) for one in public))
    return {
        "training": asdict(training),
        "num_public_messages": len(public),
        "public_messages": hashlib.sha256(keys.encode()).hexdigest(),
    }


def _done(
    folder: Path, training: Training, public: Sequence[Demonstration]
) -> tuple[int, list[dict[str, Any]]]:
    """Return how many steps of this very training a folder has, and its curve."""
    path = folder / RECORD
    if not path.is_file():
        return 0, []
    record = json.loads(path.read_text(encoding="utf-8"))
    curve: list[dict[str, Any]] = record.pop("curve")
    if record != _record(training, public):
        return 0, []
    return int(curve[-1]["step"]), curve


def _write_record(
    folder: Path,
    training: Training,
    public: Sequence[Demonstration],
    curve: list[dict[str, Any]],
) -> None:
    record = _record(training, public) | {"curve": curve}
    text = json.dumps(record, indent=2) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")
