"""An adapter of ours in the Language Model Evaluation Harness, as it stands."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.models.test_merging import save_base, save_random_adapter

ROWS = (
    {"question": "What does she play with?", "choices": ["a ball", "a park"]},
    {"question": "Who went home?", "choices": ["Tom", "the sea", "a story"]},
)
TASK = """\
task: two_questions
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_choice: choices
doc_to_target: 0
metric_list: [{{metric: acc}}]
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed"
)
def test_its_log_likelihoods_are_those_of_base_and_adapter(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "tied")
    adapter = save_random_adapter(base, tmp_path / "adapter", "all-linear,embeddings")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "two.yaml").write_text(TASK.format(rows=rows))
    subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu"),
            *("--model_args", f"pretrained={base},peft={adapter},dtype=float32"),
            *("--tasks", "two_questions", "--include_path", str(tmp_path)),
            *("--output_path", str(tmp_path / "out"), "--log_samples"),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        capture_output=True,
        timeout=240,
        check=True,
    )
    samples = next((tmp_path / "out").rglob("samples_*.jsonl"))
    lines = samples.read_text().splitlines()
    found = {line["doc_id"]: line["resps"] for line in map(json.loads, lines)}
    tokenizer = AutoTokenizer.from_pretrained(base)
    plain = AutoModelForCausalLM.from_pretrained(base)
    model = PeftModel.from_pretrained(plain, adapter).eval()
    for number, row in enumerate(ROWS):
        prompt = f"Q: {row['question']}\nA:"
        for place, choice in enumerate(row["choices"]):
            ids = tokenizer(f"{prompt} {choice}")["input_ids"]
            start = len(tokenizer(prompt)["input_ids"])
            with torch.inference_mode():
                shares = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            expected = sum(
                float(shares[at - 1, ids[at]]) for at in range(start, len(ids))
            )
            assert float(found[number][place][0][0]) == pytest.approx(
                expected, abs=1e-3
            )
