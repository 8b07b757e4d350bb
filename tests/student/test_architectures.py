"""Students of every architecture: what holds for one of them holds for all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel

from fedcot.models.generation import generate_greedy
from fedcot.models.loading import LoadedModel, load_model
from fedcot.models.sequences import prompt_ids, training_batch
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.student.base import (
    TrainingSettings,
    adapted,
    adapter_state,
    is_random_half,
    new_adapter,
)
from fedcot.student.dp import train_adapter_privately
from fedcot.student.dp_settings import DpSettings
from fedcot.student.examples import Example
from fedcot.student.record_gradients import RecordGradients, Row, rows_of
from fedcot.student.training import (
    TrainingOutcome,
    load_adapter,
    save_adapter,
    tokenised,
    train_adapter,
)
from tests.tiny_architectures import ARCHITECTURES, save_architecture

RECORDS = [
    [
        Example(f"predict: tom has {n} marbles answer:", str(n), "predict"),
        Example(f"explain: ann has {n} books rationale:", f"{n} + 1 = 9", "explain"),
    ]
    for n in range(2, 6)
]
EIGHT = [example for record in RECORDS for example in record]
LORA = TrainingSettings(
    lora_r=4, lora_alpha=16, learning_rate=2e-2, local_epochs=25, batch_size=4
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_student_of_each_architecture(architecture: str, tmp_path: Path) -> None:
    folder = save_architecture(architecture, tmp_path / "base", initializer_range=0.2)
    base = load_model(folder, "student")
    assert base.is_encoder_decoder == (architecture in ("t5", "bart"))
    before = {n: t.clone() for n, t in base.model.state_dict().items()}
    places = {n: t.data_ptr() for n, t in base.model.state_dict().items()}

    outcome = train_adapter(base, EIGHT, LORA, seed=0)
    it_learnt(outcome)
    its_adapters_moved(base, outcome)
    it_loads_elsewhere(base, outcome, tmp_path)
    it_writes_what_is_most_likely(base, outcome)
    its_records_have_gradients_of_their_own(base)
    it_trains_privately_and_with_one_half(base)

    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(places[name] == after[name].data_ptr() for name in before)


def it_learnt(outcome: TrainingOutcome) -> None:
    assert len(outcome.label_loss) == len(outcome.rationale_loss) == LORA.local_epochs
    assert outcome.label_loss[-1] < 0.6 * outcome.label_loss[0]
    assert outcome.rationale_loss[-1] < 0.6 * outcome.rationale_loss[0]
    assert outcome.num_truncated == 0


def its_adapters_moved(base: LoadedModel, outcome: TrainingOutcome) -> None:
    """Both kinds of modules are there, and nothing that starts at zero stays there."""
    assert any("lora_A" in name for name in outcome.adapter)
    assert any("lora_embedding_A" in name for name in outcome.adapter)
    # A matrix of positions is no vocabulary.
    assert not any("wpe" in n or "position" in n for n in outcome.adapter)
    assert not any("lm_head" in name for name in outcome.adapter)
    new = new_adapter(base, LORA, seed=0)
    for name, tensor in outcome.adapter.items():
        assert not torch.equal(tensor, new[name]), name


def it_loads_elsewhere(
    base: LoadedModel, outcome: TrainingOutcome, tmp_path: Path
) -> None:
    """With PEFT alone, as whoever downloads an adapter would load it."""
    save_adapter(base, outcome.adapter, LORA, tmp_path / "adapter")
    loaded = load_adapter(tmp_path / "adapter")
    assert all(torch.equal(loaded[n], t) for n, t in outcome.adapter.items())
    ids = tokenised(base, EIGHT[1])
    given = training_batch([(ids.prompt, ids.target)], base).inputs("cpu")
    with torch.no_grad():
        plain = base.model(**given).logits
        with adapted(base, LORA, seed=5, adapter=loaded) as model:
            ours = model(**given).logits
    kind = "Seq2SeqLM" if base.is_encoder_decoder else "CausalLM"
    fresh = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(
        base.source, attn_implementation="eager"
    )
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(fresh, tmp_path / "adapter")(**given).logits
    torch.testing.assert_close(ours, theirs)
    assert float((ours - plain).abs().max()) > 0.1


def it_writes_what_is_most_likely(base: LoadedModel, outcome: TrainingOutcome) -> None:
    """In a padded batch as token by token, each time with the whole text read anew."""
    prompts = [example.prompt for example in EIGHT[:3]]
    with adapted(base, LORA, seed=0, adapter=outcome.adapter) as model:
        together = generate_greedy(
            model.eval(), base, prompts, batch_size=3, max_new_tokens=6
        )
        alone = [greedy(model, base, prompt, 6) for prompt in prompts]
    assert together == alone


def greedy(model: Any, base: LoadedModel, prompt: str, steps: int) -> str:
    read = prompt_ids(base, prompt)
    start = base.model.config.decoder_start_token_id if base.is_encoder_decoder else 0
    written = [start] if base.is_encoder_decoder else []
    for _ in range(steps):
        given = {"input_ids": torch.tensor([read + written])}
        if base.is_encoder_decoder:
            given = {
                "input_ids": torch.tensor([read]),
                "decoder_input_ids": torch.tensor([written]),
            }
        with torch.no_grad():
            written.append(int(model(**given).logits[0, -1].argmax()))
        if written[-1] == base.tokenizer.eos_token_id:
            break
    text: str = base.tokenizer.decode(written, skip_special_tokens=True)
    return text


def its_records_have_gradients_of_their_own(base: LoadedModel) -> None:
    """Against autograd with the loss that transformers computes from labels."""
    for target_modules in ("all-linear", "embeddings"):
        own = TrainingSettings(lora_r=2, target_modules=target_modules)
        rows = [rows_of(base, record, rationale_weight=0.7) for record in RECORDS]
        rows[1] = []
        with adapted(base, own, seed=0) as model:
            gradients = RecordGradients(model, base)
            gradients.check()
            generator = torch.Generator().manual_seed(3)
            with torch.no_grad():
                for parameter in gradients.trained:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.add_(0.1 * noise)
            found, _ = gradients.of(rows)
            expected = [looped(model, base, row, gradients.trained) for row in rows]
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)
        assert scale > 0
        assert not found[1].any()


def looped(model: Any, base: LoadedModel, rows: list[Row], trained: Any) -> Any:
    total = torch.zeros(sum(parameter.numel() for parameter in trained))
    for row in rows:
        if base.is_encoder_decoder:
            read, labels = row.prompt, row.target
        else:
            read = row.prompt + row.target
            labels = [-100] * len(row.prompt) + row.target
        loss = model(input_ids=torch.tensor([read]), labels=torch.tensor([labels])).loss
        parts = torch.autograd.grad(row.weight * loss, trained)
        total += torch.cat([part.flatten() for part in parts])
    return total.numpy()


def it_trains_privately_and_with_one_half(base: LoadedModel) -> None:
    own = TrainingSettings(lora_r=2, learning_rate=1e-2, freeze_a=True)
    start = new_adapter(base, own, seed=1)
    outcome = train_adapter_privately(
        base,
        RECORDS,
        own,
        privacy=DpSettings(
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            num_records=4,
            expected_batch=2,
            steps=2,
        ),
        source=TapeRandomSource(0),
        seed=0,
        adapter=start,
    )
    plain = train_adapter(base, EIGHT[:2], own, seed=0, adapter=start)
    for found in (outcome.adapter, plain.adapter):
        for name, tensor in found.items():
            assert torch.equal(tensor, start[name]) == is_random_half(name), name
    with adapted(base, own, seed=0, adapter=start) as model:
        assert adapter_state(model).keys() == start.keys()
