"""The main job with the shipped models, small: it leaves behind what it says."""

import json
import math
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedcot.config import load_config
from fedcot.data.partition import load_partition
from fedcot.data.prompts import explain_prompt, parse_completion
from fedcot.launch import Outcome, launch
from fedcot.models.sources import model_folder
from tests.contract import SUMMARY_KEYS

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


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("main-job") / "run"
    return launch(load_config(None, SETTINGS), num_supernodes=2, run_dir=folder)


def test_the_run_ends_well_and_the_summary_is_complete(outcome: Outcome) -> None:
    assert outcome.exit_code == 0, outcome.reason
    written = json.loads((outcome.run_dir / "summary.json").read_text())
    assert written.keys() >= SUMMARY_KEYS
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


def test_every_epsilon_has_its_unit_and_the_worst_arm_is_raw(outcome: Outcome) -> None:
    privacy = outcome.summary["privacy"]
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
    outcome: Outcome, arm: str
) -> None:
    """Nothing of ours but the data and the prompt: plain transformers and peft."""
    config = load_config(None, SETTINGS)
    source = model_folder("builtin", "student")
    tokenizer: Any = AutoTokenizer.from_pretrained(source, padding_side="left")
    hits = 0
    for partition_id in range(2):
        base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        folder = outcome.run_dir / "adapters" / arm / f"partition-{partition_id}"
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
    assert hits / 40 == outcome.summary["accuracy"][arm]["mean"]
