"""Social learning on the real SMS Spam Collection, behind an endpoint on this machine.

Private are the messages that `load_task_data("sms-spam", num_train=..., num_test=...)`
gives to teacher clients; tested are those of its test. Public is every other message of
the file, by `content_key`, and the client model is trained on public messages alone. A
model of another split or seed is not used.

1. Train the model, if the folder does not hold it yet (15 minutes on one core).
2. Serve it on 127.0.0.1 by the OpenAI protocol.
3. Run `fedcot run --config conf/social-sms-spam.toml` against it, or with `--library`
   the same steps in this process, without Flower.
4. Print what the inspector counted, and compare what left with all private messages.

No private text is printed or written anywhere but where a run keeps it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from completion_server import serving
from sms_messages import FORM, public_messages
from sms_model import Training, in_context_accuracy, is_trained, share_right, train

from fedcot.comparison import write_comparison
from fedcot.errors import FedcotError
from fedcot.evaluation.copying import plain
from fedcot.launch import read_summary
from fedcot.report.social_messages import inspected, read_messages
from fedcot.runs import read_config
from fedcot.seeding import derive_seed
from fedcot.social.aggregation import pool_candidates
from fedcot.social.ballots import held_out_split
from fedcot.social.choice import chosen_demonstrations
from fedcot.social.client_model import ClientModel, EndpointSettings
from fedcot.social.conversation import ConversationSettings
from fedcot.social.demonstrations import Demonstration, few_shot_prompt
from fedcot.social.endpoint_model import EndpointModel
from fedcot.social.generation import Generated, GenerationSettings, generate
from fedcot.social.inspection import Gate, gate_texts, longest_copied
from fedcot.social.local_model import LocalModel
from fedcot.social.split import Silo, split_demonstrations
from fedcot.social.task_data import TaskData, load_task_data

CONFIGURATION = "conf/social-sms-spam.toml"
GATE_DISTANCE, GATE_RUN = 0.1, 12
# A vote reads all that is held out at once: the model was trained on 512 tokens.
HELD_OUT_SHARE = 0.1
NEW_TOKENS = 96
COUNTS = (0, 2, 4, 8)
GENERATION = GenerationSettings(
    per_prompt=8,
    keep=1,
    num_prompts=8,
    samples_per_prompt=4,
    temperature=0.7,
    max_new_tokens=NEW_TOKENS,
)


def main() -> None:
    """Train, serve, run and print."""
    given = _arguments()
    torch.set_num_threads(1)
    try:
        data = load_task_data(
            "sms-spam",
            seed=given.seed,
            data_dir=given.data_dir,
            num_train=given.num_records,
            num_test=given.hold_out,
        )
        result = trial(given, data)
    except FedcotError as error:
        sys.exit(str(error))
    print(json.dumps(result, indent=2))
    if given.output:
        write_comparison(result, given.output)


def trial(given: argparse.Namespace, data: TaskData) -> dict[str, Any]:
    """Return the numbers of one trial.

    Raises
    ------
    FedcotError
        A model or a setting cannot be used.
    """
    public = public_messages(given.data_dir, [*data.train, *data.test])
    result: dict[str, Any] = {
        "messages": {
            name: dict(Counter(one.answer for one in messages))
            for name, messages in (
                ("private", data.train),
                ("tested", data.test),
                ("public", public),
            )
        }
    }
    print(f"messages: {result['messages']}", flush=True)
    training = Training(steps=given.steps, seed=given.seed)
    if not is_trained(given.model, training, public):
        train(
            public,
            given.model,
            training,
            report=lambda line: print(line, flush=True),
        )
    result["in_context_accuracy"] = in_context_accuracy(
        LocalModel(str(given.model)), public, seed=given.seed, counts=COUNTS
    )
    print(f"accuracy by examples: {result['in_context_accuracy']}", flush=True)
    if given.train_only:
        return result
    if given.library:
        with serving(str(given.model)) as url:
            model = EndpointModel(url, EndpointSettings(api="completions"))
            return result | in_process(model, data, given.clients, seed=given.seed)
    if not given.gather:
        with serving(str(given.model)) as url:
            run_protocol(given, url)
    return result | gathered(given.run_dir, data)


def gathered(run_dir: Path, data: TaskData) -> dict[str, Any]:
    """Return what a run measured, and what its inspector says of every message."""
    told = dict(read_summary(run_dir)["social"])
    # The address of an endpoint says nothing about the model.
    del told["models"]
    stated = read_config(run_dir)
    messages = read_messages(run_dir)
    distances = sorted(
        one.logged.verdict.distance
        for one in messages
        if one.logged.left and one.logged.verdict is not None
    )
    return {
        "command": "python benchmarks/sms_spam.py",
        "git_commit": stated["git_commit"],
        "code_hash": stated["code_hash"],
        "versions": stated["versions"],
        "run": told,
        "inspected": asdict(inspected(messages)),
        "distances": {
            name: round(distances[int(share * (len(distances) - 1))], 4)
            for name, share in (("lowest", 0.0), ("median", 0.5), ("highest", 1.0))
        },
        "copied": copied(shared_in_prompts(run_dir), data.train),
    }


def run_protocol(given: argparse.Namespace, url: str) -> None:
    """Run mode `social` with the model behind an endpoint for clients and student."""
    settings = {
        "client-model": url,
        "prompted-student": url,
        "raw-to-endpoint": "true",
        "teacher-api": "completions",
        "seed": given.seed,
        "num-records": given.num_records,
        "hold-out": given.hold_out,
        "held-out-share": HELD_OUT_SHARE,
    }
    if given.data_dir:
        settings["data-dir"] = given.data_dir
    command = [sys.executable, "-m", "fedcot.cli", "run", "--config", CONFIGURATION]
    command += ["--run-dir", str(given.run_dir), "--num-supernodes", str(given.clients)]
    for key, value in settings.items():
        command += ["-c", f"{key}={value}"]
    for setting in given.settings:
        command += ["-c", setting]
    subprocess.run(command, check=True)


def in_process(
    model: ClientModel, data: TaskData, clients: int, *, seed: int
) -> dict[str, Any]:
    """Let all clients write, vote and teach a student, without Flower.

    Parameters
    ----------
    model : ClientModel
        Of all clients and of the student.
    data : TaskData
    clients : int
    seed : int
    """
    silos = split_demonstrations(data, clients, seed=seed)
    written: dict[int, Generated] = {}
    held_out: dict[int, Silo] = {}
    for partition, silo in enumerate(silos):
        own_seed = derive_seed(seed, "teacher", partition)
        own, held_out[partition] = held_out_split(silo, HELD_OUT_SHARE, own_seed)
        gate = Gate(gate_texts(silo), GATE_DISTANCE, refused_run=GATE_RUN)
        written[partition] = generate(
            model, FORM, own, GENERATION, gate=gate, seed=own_seed
        )
        print(f"client {partition}: {counted(written[partition])}", flush=True)
    shared = {
        partition: [one.demonstration for one in own.candidates]
        for partition, own in written.items()
    }
    pool = pool_candidates(shared)
    settings = ConversationSettings(
        generation=GENERATION,
        aggregators=("random", "voting"),
        num_chosen=max(COUNTS),
        held_out_share=HELD_OUT_SHARE,
    )
    chosen = chosen_demonstrations(
        held_out,
        pool,
        FORM,
        dict.fromkeys(written, model),
        settings,
        seed,
        None,
    )
    sent = [one for own in shared.values() for one in own]
    return {
        "clients": {partition: counted(own) for partition, own in written.items()},
        "candidates": dict(Counter(pool.labels)),
        "chosen": {
            name: dict(Counter(one.answer for one in own))
            for name, own in chosen.items()
        },
        "copied": copied(sent, data.train),
        "accuracy": student_accuracy(
            model, {"original": data.train[:8], **chosen}, data.test
        ),
    }


def counted(generated: Generated) -> dict[str, Any]:
    """Return what became of the texts of one client, in numbers."""
    passed = [one.verdict.distance for one in generated.candidates]
    values = [one.perplexity for one in generated.candidates if one.perplexity]
    return {
        "sampled": generated.num_sampled,
        "kept": len(generated.candidates),
        **{why: count for why, count in generated.counts.items() if count},
        "nearest": round(min(passed), 3) if passed else None,
        "best_perplexity": round(min(values), 1) if values else None,
    }


def copied(
    sent: Sequence[Demonstration], private: Sequence[Demonstration]
) -> dict[str, int]:
    """Compare all that left with the private messages of all clients.

    Returns
    -------
    dict of str to int
        ``texts``; ``verbatim`` and ``normalised``: those that are a private message,
        sign by sign, or but for case and spacing; ``longest_run``: the most words in a
        row of a private message.
    """
    questions = {one.question for one in private}
    plain_questions = set(map(plain, questions))
    sources = sorted(questions)
    runs = [longest_copied(one.question, sources).num_words for one in sent]
    return {
        "texts": len(sent),
        "verbatim": sum(one.question in questions for one in sent),
        "normalised": sum(plain(one.question) in plain_questions for one in sent),
        "longest_run": max(runs, default=0),
    }


def student_accuracy(
    model: ClientModel,
    examples: Mapping[str, Sequence[Demonstration]],
    test: Sequence[Demonstration],
) -> dict[str, float]:
    """Return how often a student is right, by what stands in its prompt."""
    shown: dict[str, Sequence[Demonstration]] = {"zero-shot": ()}
    for name, own in examples.items():
        counts = [count for count in COUNTS if 0 < count <= len(own)]
        shown |= {f"{name}.{count}": own[:count] for count in counts}
    return {
        name: share_right(
            model,
            [few_shot_prompt(FORM, own, one.question) for one in test],
            [one.answer for one in test],
        )
        for name, own in shown.items()
    }


def shared_in_prompts(run_dir: Path) -> list[Demonstration]:
    """Return the examples in the prompts of a run's students, each once.

    Only what left clients stands there: the prompts of the private originals stay with
    the clients.
    """
    found: dict[Demonstration, None] = {}
    for path in sorted((run_dir / "prompts").glob("*.txt")):
        for part in path.read_text(encoding="utf-8").split(FORM.separator):
            read = FORM.read(part)
            if read is not None:
                found[read] = None
    return list(found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("build/sms-model"))
    parser.add_argument("--run-dir", type=Path, default=Path("runs/social-sms-spam"))
    parser.add_argument("--data-dir", default="", help="empty: $FEDCOT_DATA")
    parser.add_argument("--steps", type=int, default=Training.steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--num-records", type=int, default=800)
    parser.add_argument("--hold-out", type=int, default=200)
    parser.add_argument("--library", action="store_true", help="without Flower")
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument(
        "--gather", action="store_true", help="run nothing, read the run of --run-dir"
    )
    parser.add_argument("--output", type=Path, help="of the numbers, as JSON")
    parser.add_argument(
        "-c", dest="settings", action="append", default=[], help="KEY=VALUE of the run"
    )
    given = parser.parse_args()
    given.model, given.run_dir = given.model.absolute(), given.run_dir.absolute()
    return given


if __name__ == "__main__":
    main()
