"""Train the built-in teacher, student base and public language model from a seed."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from fedcot.data.prompts import (
    explain_prompt,
    parse_completion,
)
from fedcot.models.architectures import (
    public_lm_config,
    student_config,
    teacher_config,
)
from fedcot.models.generation import generate_greedy
from fedcot.models.loading import CPU_ATTENTION, LoadedModel
from fedcot.models.pretraining_data import (
    Pair,
    SeenProblems,
    adaptation_pair,
    perturb_uniformly,
    question_pairs,
    student_pairs,
    teacher_pairs,
)
from fedcot.models.pretraining_scores import score_pair
from fedcot.models.public_lm import build_public_lm_tokenizer
from fedcot.models.sequences import Batch, causal_batch, token_ids
from fedcot.models.tokenizer import build_tokenizer
from fedcot.seeding import derive_seed, numpy_generator
from fedcot.student.loss import example_losses
from fedcot.world.families import GENERAL_NAMES
from fedcot.world.splits import draw_problems

RECORD_NAME = "training-record.json"
TRAINING_NAME = "training.json"
POOLED_BATCHES = 16
ADAPTATION_KEEP = (0.7, 0.98)
Report = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Schedule:
    """How one model is trained.

    Attributes
    ----------
    steps : int
        Optimizer steps.
    batch_size : int
        Pairs in a step.
    learning_rate : float
        Peak; 5 % linear warm-up, then half a cosine down to 2 % of the peak.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 2e-3

    def rate(self, step: int) -> float:
        """Return the learning rate of a step (0-based)."""
        warm_up = max(1, self.steps // 20)
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        share = (step - warm_up) / max(1, self.steps - warm_up)
        return self.learning_rate * (0.51 + 0.49 * math.cos(math.pi * share))


@dataclass(frozen=True)
class PretrainingPlan:
    """Steps of every model and the sizes of the test sets.

    Attributes
    ----------
    plain_steps : int
        The student's steps before the adaptation task joins in.
    num_adaptations : int
        Perturbed public questions for that task.
    """

    teacher: Schedule = field(
        default_factory=lambda: Schedule(steps=3600, learning_rate=2.5e-3)
    )
    student: Schedule = field(
        default_factory=lambda: Schedule(steps=4200, learning_rate=3e-3)
    )
    plain_steps: int = 2600
    public_lm: Schedule = field(default_factory=lambda: Schedule(steps=1500))
    num_adaptations: int = 6000
    test_per_family: int = 150


def train_model(
    config: LlamaConfig,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Iterator[Pair],
    schedule: Schedule,
    *,
    seed: int,
    report: Callable[[int, int, float], None] | None = None,
) -> tuple[LlamaForCausalLM, list[tuple[int, float]]]:
    """Train a Llama-type model on pairs of prompt and target.

    Returns
    -------
    model, curve
        The model in fp32, in evaluation mode; (step, mean loss in nats) every 50 steps.
    """
    torch.manual_seed(seed)  # Initial weights: transformers draws from the global one.
    model = LlamaForCausalLM._from_config(config, attn_implementation=CPU_ATTENTION)
    optimizer = _optimizer(model)
    batches = _batches(pairs, tokenizer, schedule.batch_size, seed=seed)
    curve: list[tuple[int, float]] = []
    recent: list[float] = []
    model.train()
    for step in range(schedule.steps):
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask
            ).logits
        loss = example_losses(logits, batch.labels).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == schedule.steps:
            curve.append((step + 1, round(sum(recent) / len(recent), 4)))
            recent.clear()
            if report is not None:
                report(step + 1, schedule.steps, curve[-1][1])
    return model.eval(), curve


def _optimizer(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """Return AdamW that decays the linear layers, not the embedding and the norms.

    A decayed embedding would shrink words that are rare in pretraining.
    """
    embedding = model.get_input_embeddings().weight
    matrices: list[torch.Tensor] = []
    others: list[torch.Tensor] = []
    for parameter in model.parameters():
        plain = parameter.ndim < 2 or parameter is embedding
        (others if plain else matrices).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": 0.05},
            {"params": others, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )


def _batches(
    pairs: Iterator[Pair],
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
    *,
    seed: int,
) -> Iterator[Batch]:
    """Yield batches of sequences of like length, in random order."""
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    generator = torch.Generator().manual_seed(seed)
    while True:
        pool = [
            (token_ids(tokenizer, prompt), [*token_ids(tokenizer, target), end])
            for prompt, target in islice(pairs, POOLED_BATCHES * batch_size)
        ]
        pool.sort(key=lambda sequence: len(sequence[0]) + len(sequence[1]))
        for index in torch.randperm(POOLED_BATCHES, generator=generator).tolist():
            rows = pool[index * batch_size : (index + 1) * batch_size]
            yield causal_batch(rows, pad)


def _save(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> LlamaForCausalLM:
    """Save in bfloat16 and return what a user will load: the rounded weights."""
    rounded = model.bfloat16()
    rounded.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    restored: LlamaForCausalLM = rounded.float()
    return restored


def make_adaptations(
    teacher: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    *,
    seed: int,
) -> list[Pair]:
    """Let the teacher answer perturbed public questions of the general families.

    Raises
    ------
    ValueError
        If none of its answers can be parsed.
    """
    rng = numpy_generator(seed, "pretraining", "adaptations")
    problems = draw_problems(
        "pretraining", GENERAL_NAMES, count, seed=seed, purpose="adaptations"
    )
    perturbed = [
        perturb_uniformly(problem.question, rng, rng.uniform(*ADAPTATION_KEEP))
        for problem in problems
    ]
    texts = generate_greedy(
        teacher,
        LoadedModel("teacher", teacher, tokenizer),
        [explain_prompt(question) for question in perturbed],
        batch_size=128,
        max_new_tokens=80,
    )
    pairs = [
        adaptation_pair(problem, question, rationale)
        for problem, question, text in zip(problems, perturbed, texts, strict=True)
        if (rationale := parse_completion(text)) is not None
    ]
    if not pairs:
        raise ValueError(
            "the teacher must write rationales that can be read, found none of "
            f"{count}; train it for more steps."
        )
    return pairs


class _Workshop:
    """Trains one model after the other into a folder; keeps those that are done."""

    def __init__(self, output: Path, seed: int, report: Report | None) -> None:
        self.output = output
        self.seed = seed
        self.report = report
        self.records: dict[str, Any] = {}

    def build(
        self,
        name: str,
        config: LlamaConfig,
        tokenizer: PreTrainedTokenizerFast,
        pairs: Callable[[np.random.Generator, SeenProblems], Iterator[Pair]],
        schedule: Schedule,
    ) -> LlamaForCausalLM:
        folder = self.output / name
        done = folder / TRAINING_NAME
        identity = {"seed": self.seed, **asdict(schedule)}
        if done.is_file():
            self.records[name] = json.loads(done.read_text())
            if self.records[name]["settings"] == identity:
                kept: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(
                    folder, dtype=torch.float32
                )
                kept.eval()
                return kept
        seen = SeenProblems()
        started = time.perf_counter()
        model, curve = train_model(
            config,
            tokenizer,
            pairs(numpy_generator(self.seed, "pretraining", name), seen),
            schedule,
            seed=derive_seed(self.seed, "weights", name),
            report=partial(self.report, name) if self.report else None,
        )
        rounded = _save(model, tokenizer, folder)
        self.records[name] = {
            "settings": identity,
            "parameters": model.num_parameters(),
            "problems_drawn": seen.drawn,
            "distinct_problems": len(seen.hashes),
            "seconds": round(time.perf_counter() - started, 1),
            "loss_curve": curve,
        }
        done.write_text(json.dumps(self.records[name], indent=1) + "\n")
        return rounded


def pretrain(
    output: Path,
    *,
    seed: int = 0,
    plan: PretrainingPlan | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Train the three models and write them with their training record.

    Parameters
    ----------
    output : Path
        Folder that gets ``teacher/``, ``student/``, ``public_lm/`` and the record. A
        model that stands there already, trained from the same seed and schedule, is
        kept, so that a stopped call goes on where it stopped.
    seed : int
        Fixes initial weights and data; bit-equal only on the same machine and versions.
    report : callable, optional
        Called with (model, step, steps, loss in nats).

    Returns
    -------
    dict
        The training record: settings, data counts, loss curves and scores.
    """
    # More threads add in another order: one rebuilds the same numbers.
    torch.set_num_threads(1)
    plan = plan or PretrainingPlan()
    tokenizer = build_tokenizer()
    workshop = _Workshop(output, seed, report)
    teacher = workshop.build(
        "teacher",
        teacher_config(len(tokenizer)),
        tokenizer,
        teacher_pairs,
        plan.teacher,
    )
    student = workshop.build(
        "student",
        student_config(len(tokenizer)),
        tokenizer,
        partial(
            student_pairs,
            num_plain=plan.plain_steps * plan.student.batch_size,
            adaptations=lambda: make_adaptations(
                teacher, tokenizer, plan.num_adaptations, seed=seed
            ),
        ),
        plan.student,
    )
    words = build_public_lm_tokenizer()
    workshop.build(
        "public_lm", public_lm_config(len(words)), words, question_pairs, plan.public_lm
    )
    record = {
        "seed": seed,
        "torch": torch.__version__,
        "num_adaptations": plan.num_adaptations,
        "scores": score_pair(
            teacher, student, tokenizer, plan.test_per_family, seed=seed
        ),
        "models": workshop.records,
    }
    (output / RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n")
    return record
