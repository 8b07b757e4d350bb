"""Estimated against measured peak memory of a client's training, by model.

    python benchmarks/memory.py [--json]

Each model is trained in a process of its own by the code of a run; the peak is what
the kernel counted (`ru_maxrss`). The estimate must be 0.8 to 2 times that.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve()
LOWEST: Final = 0.8
HIGHEST: Final = 2.0
# Kibibytes on Linux, bytes on macOS.
RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024


@dataclasses.dataclass(frozen=True)
class Case:
    """One model and how it is trained.

    Attributes
    ----------
    source : str
        ``builtin``, or empty for a random model of the sizes beside it.
    words, target_words : int
        Length of prompts and targets; a word of the built-in world is one token.
    """

    name: str
    source: str = ""
    hidden: int = 0
    layers: int = 0
    inner: int = 0
    vocabulary: int = 0
    batch_size: int = 16
    words: int = 150
    target_words: int = 80
    gradient_checkpointing: bool = False
    tuning: str = "lora"
    steps: int = 3


CASES: Final = (
    Case("built-in student", source="builtin"),
    Case("built-in student, long", source="builtin", words=400, target_words=100),
    Case(
        "random Llama, 34 million",
        hidden=512,
        layers=8,
        inner=1408,
        vocabulary=8000,
        batch_size=8,
    ),
    Case(
        "random Llama, 34 million, checkpointing",
        hidden=512,
        layers=8,
        inner=1408,
        vocabulary=8000,
        batch_size=8,
        gradient_checkpointing=True,
    ),
    Case(
        "random Llama, 34 million, tuned in full",
        hidden=512,
        layers=8,
        inner=1408,
        vocabulary=8000,
        batch_size=8,
        tuning="full",
    ),
)


def compared(case: Case, folder: Path) -> dict[str, Any]:
    """Return the estimated and the measured peak of a case, in bytes.

    Parameters
    ----------
    folder : Path
        Where a random model may be written.
    """
    source = case.source or str(random_model(case, folder))
    measured = _in_its_own_process(case, source)
    estimated = sum(_estimated(case, source).values())
    return {
        "name": case.name,
        "estimated": estimated,
        "measured": measured,
        "ratio": round(estimated / measured, 2),
    }


def _estimated(case: Case, source: str) -> dict[str, int]:
    from fedcot.memory import client_need
    from fedcot.models.sources import model_folder
    from fedcot.models.weights import ModelKind
    from fedcot.text_lengths import Lengths

    folder = model_folder(source, "student")
    kind = ModelKind.of_folder(folder, source=source, role="student")
    lengths = Lengths(case.words, case.target_words + 1, 2, 0)
    need = client_need(_config(case, source), kind, lengths, "cpu", phase="training")
    return need.host


def _config(case: Case, source: str) -> Any:
    from fedcot.config import RunConfig

    return RunConfig(
        token_epsilon=8.0,
        student=source,
        device="cpu",
        batch_size=case.batch_size,
        max_sequence_tokens=1024,
        gradient_checkpointing=case.gradient_checkpointing,
        tuning=case.tuning,
    )


def random_model(case: Case, folder: Path) -> Path:
    """Write a model of a case's sizes with the tokenizer of the built-in world."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from fedcot.models.tokenizer import build_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=case.vocabulary,
        hidden_size=case.hidden,
        intermediate_size=case.inner,
        num_hidden_layers=case.layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    place = folder / case.name.replace(" ", "-").replace(",", "")
    LlamaForCausalLM(config).save_pretrained(place)
    build_tokenizer().save_pretrained(place)
    return place


def _in_its_own_process(case: Case, source: str) -> int:
    """Return the peak resident set of a process that trains, in bytes."""
    done = subprocess.run(
        [
            sys.executable,
            str(HERE),
            "--measure",
            json.dumps({**dataclasses.asdict(case), "source": source}),
        ],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), *sys.path]),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{case.name}: {done.stderr.strip()[-2000:]}")
    return int(done.stdout.strip().splitlines()[-1])


def measure(case: Case) -> int:
    """Train as a client does, and return this process's peak in bytes."""
    # What an actor has loaded beside the model.
    import flwr.clientapp  # noqa: F401
    import ray  # noqa: F401

    from fedcot.student.training import train_adapter

    base, examples, settings = training_of(case, case.source)
    train_adapter(base, examples, settings, seed=0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def training_of(case: Case, source: str) -> tuple[Any, list[Any], Any]:
    """Return base, examples and settings of a case's training, one epoch."""
    from fedcot.node_training import student_base, training_settings
    from fedcot.privacy.vocabulary import world_vocabulary
    from fedcot.student.examples import Example

    config = _config(case, source)
    word = next(word for word in world_vocabulary().words if word.isalpha())
    prompt = " ".join([word] * case.words)
    target = " ".join([word] * case.target_words)
    both = [Example(prompt, word, "predict"), Example(prompt, target, "explain")]
    examples = both * (case.batch_size * case.steps)
    settings = dataclasses.replace(training_settings(config), local_epochs=1)
    return student_base(config), examples, settings


def main() -> None:
    """Compare every case and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.measure:
        print(measure(Case(**json.loads(asked.measure))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [compared(case, Path(folder)) for case in CASES]
    if asked.json:
        print(json.dumps(rows, indent=2))
    for row in [] if asked.json else rows:
        print(
            f"{row['name']:<42} estimated {row['estimated'] / 1e9:5.2f} GB, "
            f"measured {row['measured'] / 1e9:5.2f} GB, ratio {row['ratio']:.2f}"
        )
    if not all(LOWEST <= row["ratio"] <= HIGHEST for row in rows):
        sys.exit(f"a ratio is outside {LOWEST} to {HIGHEST}")


if __name__ == "__main__":
    main()
