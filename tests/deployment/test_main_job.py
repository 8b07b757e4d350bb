"""The main job with the shipped models, small: it leaves behind what it says.

The command runs in a process of its own, in a folder that is not the checkout.
"""

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedcot.config import load_config
from fedcot.data.partition import load_partition
from fedcot.data.prompts import explain_prompt, parse_completion
from fedcot.launch import read_summary
from fedcot.models.sources import model_folder
from tests.contract import SUMMARY_KEYS
from tests.deployment.processes import flower_homes

pytestmark = pytest.mark.ray
ARM_KEYS = {
    "unit",
    "neighboring_relation",
    "token_epsilon",
    "prompt_epsilon_max",
    "record_epsilon_max",
    "delta",
    "guarantee",
    "uncharged",
}
SETTINGS = (
    "num-records=96",
    "records-per-round=24",
    "test-records=20",
    "local-epochs=6",
    "batch-size=8",
)


@dataclass(frozen=True)
class MainJob:
    """What the command said and left.

    Attributes
    ----------
    answer : dict
        What it printed.
    folder : Path
        Where it was started.
    left : set of str
        Flower homes that processes work in behind it and did not before.
    """

    answer: dict[str, Any]
    folder: Path
    left: set[str]

    @property
    def run_dir(self) -> Path:
        return Path(self.answer["run_dir"])

    @property
    def summary(self) -> dict[str, Any]:
        return self.answer["summary"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> MainJob:
    folder = tmp_path_factory.mktemp("main-job")
    command = [sys.executable, "-m", "fedcot.cli", "run", "--num-supernodes", "2"]
    for setting in SETTINGS:
        command += ["-c", setting]
    before = flower_homes()
    finished = subprocess.run(
        [*command, "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=350,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return MainJob(json.loads(finished.stdout), folder, flower_homes() - before)


def test_the_run_leaves_its_results_and_nothing_else(job: MainJob) -> None:
    assert job.run_dir.parent == job.folder / "runs"
    assert (job.folder / "runs" / "latest").resolve() == job.run_dir.resolve()
    names = {path.name for path in job.run_dir.iterdir()}
    assert names >= {"config.json", "metrics.jsonl", "report.html", "flower.log"}
    assert {path.name for path in job.folder.iterdir()} == {"runs"}
    assert job.left == set()


def test_the_run_ends_well_and_the_summary_is_complete(job: MainJob) -> None:
    written = read_summary(job.run_dir)
    assert written == job.summary
    assert written.keys() >= SUMMARY_KEYS
    assert written["num_partitions"] == 2
    assert set(written["accuracy"]) == {
        "teacher",
        "zero-shot",
        "standalone",
        "distil",
        "fedcot",
    }
    for estimate in written["accuracy"].values():
        assert estimate["n"] == 40
        share = estimate["mean"]
        assert estimate["stderr"] == pytest.approx(math.sqrt(share * (1 - share) / 40))
    assert written["failures"] == []
    assert written["num_rounds"] == 2


def test_every_epsilon_has_its_unit_and_the_worst_arm_is_raw(job: MainJob) -> None:
    privacy = job.summary["privacy"]
    for line in privacy["per_arm"].values():
        assert line.keys() >= ARM_KEYS
        assert "nats" in line["unit"]
    spent = privacy["per_arm"]["fedcot"]
    assert 7.98 <= spent["token_epsilon"] <= 8.0
    assert spent["prompt_epsilon_max"] == pytest.approx(21 * spent["token_epsilon"])
    # Two rounds with other records each: no record was asked twice.
    assert spent["record_epsilon_max"] == pytest.approx(spent["prompt_epsilon_max"])
    assert privacy["per_arm"]["distil"]["record_epsilon_max"] == "inf"
    assert privacy["worst_arm"]["record_epsilon_max"] == "inf"


@pytest.mark.parametrize("arm", ["distil", "fedcot"])
def test_adapters_load_with_peft_and_give_the_same_accuracy(
    job: MainJob, arm: str
) -> None:
    """Nothing of ours but the data and the prompt: plain transformers and peft."""
    config = load_config(None, SETTINGS)
    source = model_folder("builtin", "student")
    tokenizer: Any = AutoTokenizer.from_pretrained(source, padding_side="left")
    hits = 0
    for partition_id in range(2):
        base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        folder = job.run_dir / "adapters" / arm / f"partition-{partition_id}"
        model = PeftModel.from_pretrained(base, folder).eval()
        records = load_partition(config, partition_id, 2).test
        prompts = [explain_prompt(record.question) for record in records]
        batch = tokenizer(prompts, return_tensors="pt", padding=True)
        batch.pop("token_type_ids", None)
        output = model.generate(**batch, max_new_tokens=80, do_sample=False)
        texts = tokenizer.batch_decode(
            output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for record, text in zip(records, texts, strict=True):
            rationale = parse_completion(text)
            hits += rationale is not None and rationale.answer == record.answer
    assert hits / 40 == job.summary["accuracy"][arm]["mean"]
