"""A provider that serves some domains of the built-in world well and others badly.

The built-in teacher knows every domain, so no community would want another model. This
one is the built-in student, trained on many public problems of some domains and on a
few of others, and merged: `fedcot run -c teacher=build/provider` asks it like any other
model. What it gets wrong is what a model gets wrong, not noise.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch

from fedcot.data.schema import Rationale
from fedcot.evaluation.evaluate import evaluate_student
from fedcot.models.merging import merge_adapter
from fedcot.models.sources import artefact_hash
from fedcot.student.base import TrainingSettings, load_base
from fedcot.student.examples import Example
from fedcot.student.training import save_adapter, train_adapter
from fedcot.tasks.world import WorldTask
from fedcot.world.families import CLIENT_NAMES
from fedcot.world.splits import draw_problems

SETTINGS = TrainingSettings(local_epochs=6)
MEASURED_ON = 200


def main() -> None:
    """Train, measure, merge and write what was made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/provider"))
    parser.add_argument("--served", default="library,bakery,colony")
    parser.add_argument("--underserved", default="harbor")
    parser.add_argument("--many", type=int, default=500, help="problems of each served")
    parser.add_argument("--few", type=int, default=16, help="of each underserved")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    counts = dict.fromkeys(asked.served.split(","), asked.many)
    counts |= dict.fromkeys(asked.underserved.split(","), asked.few)
    task, base = WorldTask(), load_base("builtin")
    # The bank is public: no member's question, test question or hold-out is in it.
    problems = [
        problem
        for domain, count in counts.items()
        for problem in draw_problems(
            "bank", (domain,), count, seed=asked.seed, purpose="provider"
        )
    ]
    examples = [
        Example(
            task.explain_prompt(problem.question),
            task.completion(Rationale(problem.rationale(), problem.answer)),
            "explain",
        )
        for problem in problems
    ]
    trained = train_adapter(base, examples, SETTINGS, seed=asked.seed)
    accuracy = {}
    for domain in CLIENT_NAMES:
        tests = draw_problems(
            "validation", (domain,), MEASURED_ON, seed=asked.seed, purpose="provider"
        )
        score = evaluate_student(
            base,
            [problem.record() for problem in tests],
            adapter=trained.adapter,
            settings=SETTINGS,
            prompt="explain",
            task=task,
            batch_size=128,
        )
        accuracy[domain] = score.exact_match / score.n
        print(f"{domain}: {accuracy[domain]:.3f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(base, trained.adapter, SETTINGS, Path(folder))
        merge_adapter(
            "builtin",
            Path(folder),
            asked.output,
            base_hash=artefact_hash("builtin", "student"),
            card=f"# A partial provider\n\n{__doc__}",
        )
    made = {"problems": counts, "seed": asked.seed, "accuracy": accuracy}
    (asked.output / "provider.json").write_text(json.dumps(made, indent=2) + "\n")
    print(f"Provider: {asked.output}")


if __name__ == "__main__":
    main()
