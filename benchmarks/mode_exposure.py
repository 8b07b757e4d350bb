"""Ranks of the canaries of one run of mode social, as in the audits of adapters.

`fedcot audit memorization` replays a conversation for each canary, which few can be
paid for. Here the canaries that the run itself held are ranked once, under the prompt
that its student read and under the student that was trained on its examples: the same
design as for adapters, so that modes can be compared.
"""

import json
from pathlib import Path

from mode_measures import DISTILLED, ONE_RUN, ZERO_SHOT, longest

from fedcot.community.pool import community_settings
from fedcot.config import RunConfig

# Its prompts for canaries are those that the adapters of the other modes get.
from fedcot.evaluation.adapter_audit import _by_prompt
from fedcot.evaluation.canaries import PATTERNS, CanaryTrial, draw_trials
from fedcot.evaluation.exposure import rank_of
from fedcot.evaluation.memorization import audit
from fedcot.evaluation.spans import model_scores
from fedcot.launch import read_summary
from fedcot.node_training import student_base
from fedcot.runs import write_json
from fedcot.seeding import derive_seed
from fedcot.social.configured import configured_form, configured_silo, prompted_student
from fedcot.social.planted import has_steps, social_trial
from fedcot.social.settings import RANDOM
from fedcot.student.training import load_adapter
from fedcot.tasks.registry import configured_task
from fedcot.tasks.world import WorldTask

PROMPT = "prompt"


def rank_one_run(place: Path, config: RunConfig, *, size: int, clients: int) -> None:
    """Rank the canaries of a run and write `ONE_RUN` into it, unless it is there.

    Parameters
    ----------
    size : int
        Canary and references together (N), >= 2.
    """
    path = place / ONE_RUN
    plan = {"size": size, "canaries": config.canaries}
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if {key: stored[key] for key in plan} == plan:
            return
    students = read_summary(place)["social"]["students"]
    random = longest(students, RANDOM)
    ranks = {
        name: {PROMPT: prompt_ranks(state, config, size=size, clients=clients)}
        for name, state in (
            (ZERO_SHOT, ""),
            (random, (place / "prompts" / f"{random}.txt").read_text(encoding="utf-8")),
        )
    }
    adapter = place / "adapters" / DISTILLED / "global"
    path.parent.mkdir(exist_ok=True)
    write_json(
        path,
        {
            **plan,
            "students": {**ranks, DISTILLED: adapter_ranks(adapter, config, size=size)},
        },
    )


def prompt_ranks(
    state: str, config: RunConfig, *, size: int, clients: int
) -> list[int]:
    """Return the rank of each canary behind what the student read."""
    form, student = configured_form(config), prompted_student(config)
    with_steps = has_steps(config, configured_silo(config, 0, clients))
    found = []
    for number in range(config.canaries):
        trial = social_trial(
            config,
            form,
            number,
            num_partitions=clients,
            size=size,
            with_steps=with_steps,
        )
        first, *others = student.score(trial.pairs(form, state))
        found.append(rank_of(first, others))
    return found


def adapter_ranks(
    folder: Path, config: RunConfig, *, size: int
) -> dict[str, list[int]]:
    """Return the rank of each canary under a trained student, behind each prompt."""
    score = model_scores(
        student_base(config),
        adapter=load_adapter(folder),
        settings=community_settings(config),
        batch_size=config.evaluation_batch_size,
    )
    task = configured_task(config)
    found: dict[str, list[int]] = {}
    for number in range(config.canaries):
        for prompt, trial in _by_prompt(trial_of(config, number, size), task).items():
            found.setdefault(prompt, []).append(audit(score, [trial]).ranks[0])
    return found


def trial_of(config: RunConfig, number: int, size: int) -> CanaryTrial:
    """Return the canary that `social_trial` writes as a demonstration, as it is."""
    (trial,) = draw_trials(
        PATTERNS[config.canary_pattern],
        WorldTask(),
        trials=1,
        size=size,
        seed=derive_seed(config.seed, "social-canary", number),
    )
    return trial
