"""Train the built-in models from a seed: two pairs and the public language model."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
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
from fedcot.models.in_context_scores import score_in_context
from fedcot.models.in_context_training import (
    STARTS,
    InContextName,
    build_in_context,
)
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
from fedcot.models.tokenizer import build_in_context_tokenizer, build_tokenizer
from fedcot.models.training_loop import (
    Curve,
    Schedule,
    StepReport,
    TokenSchedule,
    fit,
)
from fedcot.models.workshop import Report, Trained, Workshop
from fedcot.seeding import derive_seed, numpy_generator
from fedcot.student.loss import example_losses
from fedcot.world.families import GENERAL_NAMES
from fedcot.world.splits import draw_problems

RECORD_NAME = "training-record.json"
POOLED_BATCHES = 16
ADAPTATION_KEEP = (0.7, 0.98)


@dataclass(frozen=True)
class PretrainingPlan:
    """Steps of every model and the sizes of the test sets.

    Attributes
    ----------
    plain_steps : int
        The student's steps before the adaptation task joins in.
    num_adaptations : int
        Perturbed public questions for that task.
    test_per_family : int
        Problems of the world.
    test_rules : int
        Held-out rules of each kind for the in-context pair.
    """

    teacher: Schedule = field(
        default_factory=lambda: Schedule(steps=3600, learning_rate=2.5e-3)
    )
    student: Schedule = field(
        default_factory=lambda: Schedule(steps=4200, learning_rate=3e-3)
    )
    plain_steps: int = 2600
    public_lm: Schedule = field(default_factory=lambda: Schedule(steps=1500))
    in_context_teacher: TokenSchedule = field(
        default_factory=lambda: TokenSchedule(steps=2800, learning_rate=2e-3)
    )
    in_context_student: TokenSchedule = field(
        default_factory=lambda: TokenSchedule(steps=3600, learning_rate=3e-3)
    )
    num_adaptations: int = 6000
    test_per_family: int = 150
    test_rules: int = 200

    def in_context_schedule(self, name: InContextName) -> TokenSchedule:
        """Return how a model of the in-context pair is trained."""
        if name == "in_context_teacher":
            return self.in_context_teacher
        return self.in_context_student


def train_model(
    config: LlamaConfig,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Iterator[Pair],
    schedule: Schedule,
    *,
    seed: int,
    report: StepReport | None = None,
) -> tuple[LlamaForCausalLM, Curve]:
    """Train a Llama-type model on pairs of prompt and target.

    Returns
    -------
    model, curve
        The model in fp32, in evaluation mode; (step, mean loss in nats) every 50 steps.
    """
    torch.manual_seed(seed)  # Initial weights: transformers draws from the global one.
    model = LlamaForCausalLM._from_config(config, attn_implementation=CPU_ATTENTION)
    batches = _batches(pairs, tokenizer, schedule.batch_size, seed=seed)
    curve = fit(model, batches, _loss, schedule, report=report)
    return model, curve


def _loss(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask
        ).logits
    return example_losses(logits, batch.labels).mean()


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


def pretrain_in_context(
    output: Path,
    name: InContextName,
    *,
    seed: int = 0,
    plan: PretrainingPlan | None = None,
    report: Report | None = None,
) -> LlamaForCausalLM:
    """Train one model of the in-context pair from the finished pair in a folder.

    Two processes may train the two models in one folder at the same time; `pretrain`
    then keeps them and writes the training record.

    Parameters
    ----------
    output : Path
        Holds ``teacher/`` or ``student/``, which it starts from; gets the new folder.
    name : str
        ``in_context_teacher`` or ``in_context_student``.
    seed, plan, report
        As in `pretrain`.

    Returns
    -------
    LlamaForCausalLM
        As a user will load it, in fp32.

    Raises
    ------
    ConfigError
        The model to start from is missing.
    """
    # More threads add in another order: one rebuilds the same numbers.
    torch.set_num_threads(1)
    plan = plan or PretrainingPlan()
    workshop = Workshop(output, seed, report)
    return build_in_context(workshop, name, plan.in_context_schedule(name))


def pretrain(
    output: Path,
    *,
    seed: int = 0,
    plan: PretrainingPlan | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Train the five models and write them with their training record.

    Parameters
    ----------
    output : Path
        Folder that gets ``teacher/``, ``student/``, ``public_lm/``,
        ``in_context_teacher/``, ``in_context_student/`` and the record. A model that
        stands there already, trained from the same settings, is kept, so that a stopped
        call goes on where it stopped.
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
    workshop = Workshop(output, seed, report)
    teacher = _build(
        workshop,
        "teacher",
        teacher_config(len(tokenizer)),
        tokenizer,
        teacher_pairs,
        plan.teacher,
    )
    student = _build(
        workshop,
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
    size = public_lm_config(len(words))
    _build(workshop, "public_lm", size, words, question_pairs, plan.public_lm)
    in_context = {
        name: build_in_context(workshop, name, plan.in_context_schedule(name))
        for name in STARTS
    }
    scores: dict[str, Any] = {
        **score_pair(teacher, student, tokenizer, plan.test_per_family, seed=seed)
    }
    wider = build_in_context_tokenizer()
    for name, model in in_context.items():
        scores[name] = score_in_context(model, wider, plan.test_rules, seed=seed)
    record = {
        "seed": seed,
        "torch": torch.__version__,
        "num_adaptations": plan.num_adaptations,
        "scores": scores,
        "models": workshop.records,
    }
    (output / RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n")
    return record


def _build(
    workshop: Workshop,
    name: str,
    config: LlamaConfig,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Callable[[np.random.Generator, SeenProblems], Iterator[Pair]],
    schedule: Schedule,
) -> LlamaForCausalLM:
    """Return a model that learns from pairs of prompt and target."""

    def train(report: StepReport | None) -> Trained:
        seen = SeenProblems()
        model, curve = train_model(
            config,
            tokenizer,
            pairs(numpy_generator(workshop.seed, "pretraining", name), seen),
            schedule,
            seed=derive_seed(workshop.seed, "weights", name),
            report=report,
        )
        counts = {"problems_drawn": seen.drawn, "distinct_problems": len(seen.hashes)}
        return Trained(model, curve, counts)

    return workshop.build(name, tokenizer, asdict(schedule), train)
