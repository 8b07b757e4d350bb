"""Training by DP-SGD learns, follows the tape, and keeps what must stay where it is."""

import shutil

import pytest
import torch
from dp_accounting import (
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
)
from dp_accounting.pld import PLDAccountant

from fedcot import node_private, node_training
from fedcot.arms import exposes_by_adapter, trains_privately
from fedcot.config import RunConfig
from fedcot.data.schema import Rationale, Record
from fedcot.errors import ConfigError, FedcotError
from fedcot.node_state import PairStore
from fedcot.node_training import NodeTraining, first_adapter
from fedcot.privacy.sampler import SystemRandomSource, TapeRandomSource
from fedcot.records import DistillRequest
from fedcot.rows import SentRationale
from fedcot.settings import ARMS
from fedcot.student import dp
from fedcot.student.base import TrainingSettings, is_random_half
from fedcot.student.dp import train_adapter_privately
from fedcot.student.dp_settings import DpSettings
from fedcot.student.examples import Example, Pair, pair_examples
from fedcot.tasks.world import WorldTask
from tests.tiny import tiny_base

LORA = TrainingSettings(lora_r=4, lora_alpha=8, learning_rate=1e-2)
RECORDS = [
    [
        Example(f"predict: tom has {n} answer:", str(n), "predict"),
        Example(f"explain: tom has {n} rationale:", f"{n} answer: {n}", "explain"),
    ]
    for n in range(2, 8)
]


def privacy(**changes) -> DpSettings:
    given = {
        "noise_multiplier": 1.0,
        "max_grad_norm": 1.0,
        "num_records": 6,
        "expected_batch": 3,
        "steps": 3,
    }
    return DpSettings(**{**given, **changes})


def train(records=RECORDS, lora=LORA, tape=1, adapter=None, **changes):
    source = SystemRandomSource() if tape is None else TapeRandomSource(tape)
    return train_adapter_privately(
        tiny_base(),
        records,
        lora,
        privacy=privacy(**changes),
        source=source,
        seed=0,
        adapter=adapter,
    )


def test_without_noise_it_learns():
    quiet = {"noise_multiplier": 0.0, "expected_batch": 6, "steps": 40}
    outcome = train(**quiet)
    assert len(outcome.label_loss) == len(outcome.rationale_loss) == 40
    assert outcome.label_loss[-1] < 0.7 * outcome.label_loss[0]
    assert outcome.rationale_loss[-1] < 0.6 * outcome.rationale_loss[0]
    assert outcome.num_examples == 12


def test_every_trained_tensor_moves_and_the_base_does_not():
    base = tiny_base()
    before = {name: p.clone() for name, p in base.model.state_dict().items()}
    settings = privacy()
    outcome = train_adapter_privately(
        base, RECORDS, LORA, privacy=settings, source=SystemRandomSource(), seed=0
    )
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    halves = [t for n, t in outcome.adapter.items() if not is_random_half(n)]
    assert halves
    assert all(bool(half.abs().max() > 0) for half in halves)
    assert all(tensor.dtype == torch.float32 for tensor in outcome.adapter.values())


def test_the_tape_decides_every_number_and_the_system_repeats_none():
    first, again, other = train(tape=1), train(tape=1), train(tape=2)
    assert all(torch.equal(first.adapter[n], again.adapter[n]) for n in first.adapter)
    assert not any(
        torch.equal(first.adapter[n], other.adapter[n]) for n in first.adapter
    )
    drawn = [train(tape=None).adapter for _ in range(2)]
    assert not any(torch.equal(drawn[0][n], drawn[1][n]) for n in drawn[0])


def test_no_record_at_all_still_takes_the_planned_steps(monkeypatch):
    """Failure would tell how many records count."""
    calls = []
    plain = dp.noised_mean
    monkeypatch.setattr(
        dp, "noised_mean", lambda *args: calls.append(1) or plain(*args)
    )
    outcome = train(records=[[]] * 6, steps=5)
    assert len(calls) == 5
    assert outcome.label_loss == outcome.rationale_loss == []
    assert outcome.num_examples == 0
    assert all(
        bool(t.abs().max() > 0)
        for n, t in outcome.adapter.items()
        if not is_random_half(n)
    )


def test_the_frozen_half_stays_and_the_other_moves():
    frozen = TrainingSettings(lora_r=4, lora_alpha=8, learning_rate=1e-2, freeze_a=True)
    start = train(noise_multiplier=0.0, records=[[]] * 6, steps=1).adapter
    after = train(lora=frozen, adapter=start, tape=4).adapter
    for name, tensor in after.items():
        assert torch.equal(tensor, start[name]) == is_random_half(name), name
    assert any("lora_embedding_A" in n and bool(t.any()) for n, t in after.items())


def test_training_goes_on_from_an_adapter():
    quiet = {"noise_multiplier": 0.0, "expected_batch": 6}
    first = train(**quiet, steps=30)
    second = train(**quiet, steps=1, adapter=first.adapter)
    assert second.rationale_loss[0] < 0.8 * first.rationale_loss[0]


def test_another_number_of_records_than_was_accounted_for_is_refused():
    with pytest.raises(ValueError, match="6 records that are accounted for, found 5"):
        train(records=RECORDS[:5])


def test_an_adapter_that_does_not_follow_is_refused(monkeypatch):
    """What opacus reported as issue 820: the optimizer moved other tensors."""
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    with pytest.raises(FedcotError, match="did not follow its gradients: 0 of"):
        train()


def test_examples_know_their_pairs():
    good = Rationale("2 + 3 = 5", "5")
    pairs = [
        Pair(Record(f"question {n}", "5", "library"), f"asked {n}", rationale)
        for n, rationale in enumerate([good, None, good])
    ]
    pairing = pair_examples(
        pairs, pairing="original", task=WorldTask(), base=tiny_base()
    )
    assert len(pairing.examples) == len(pairing.owners)
    for example, owner in zip(pairing.examples, pairing.owners, strict=True):
        assert f"question {owner}" in example.prompt
    assert 1 not in pairing.owners
    assert pairing.owners


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("pairing", ["perturbed", "original", "adapted"])
def test_an_adapter_that_leaves_is_free_trained_privately_or_exposes(arm, pairing):
    leaves = arm in ("fedcot", "distil", "random-bank")
    free = arm == "random-bank" or (arm == "fedcot" and pairing == "perturbed")
    for noise in (0.0, 1.0):
        given = {"pairing": pairing, "noise_multiplier": noise}
        private = trains_privately(arm, aggregation="fedavg", **given)
        exposed = exposes_by_adapter(arm, aggregation="fedavg", **given)
        # Questions that are sent as they are have nothing left to protect.
        assert private == (arm == "fedcot" and not free and noise > 0)
        assert exposed == (leaves and not free and not private)
        assert not trains_privately(arm, aggregation="none", **given)
        assert not exposes_by_adapter(arm, aggregation="none", **given)


def node(tmp_path, monkeypatch, **changes) -> NodeTraining:
    config = RunConfig(
        token_epsilon=8.0,
        **{
            "aggregation": "fedavg",
            "pairing": "original",
            "noise_multiplier": 1.0,
            "records_per_round": 4,
            "num_records": 4,
            "batch_size": 2,
            "local_epochs": 1,
            "lora_r": 4,
            "arms": "fedcot",
            "test_tape": True,
            **changes,
        },
    )
    base = tiny_base()
    monkeypatch.setattr(node_training, "load_base", lambda *_: base)
    return NodeTraining(
        config, partition_id=0, folder=tmp_path / "node", adapter_root=tmp_path / "out"
    )


def own_records() -> dict[str, Record]:
    return {f"key{n}": Record(f"tom has {n} + 1", str(n + 1), "m") for n in range(4)}


def distil(trainer: NodeTraining, server_round: int = 1, **changes):
    records = own_records()
    sent = tuple(
        SentRationale(
            source="fedcot",
            key=key,
            text=f"{n} + 1 = {n + 1}",
            answer=str(n + 1),
            parsed=n != 2,
        )
        for n, key in enumerate(records)
    )
    request = DistillRequest(
        server_round=server_round,
        arms=("fedcot",),
        run_key="0" * 16,
        run_dir="",
        rationales=sent,
        adapters={},
    )
    store = PairStore(trainer.folder, "fedcot")
    for key, record in records.items():
        store.put_question(key, record.question)
    store.save()
    trainer.pairs.store(request, records)
    return trainer.train(request, records, **changes)


def test_a_node_trains_privately_what_it_sends(tmp_path, monkeypatch):
    seen = []
    plain = node_private.train_adapter_privately

    def watched(base, records, settings, **given):
        seen.append((records, given["privacy"]))
        return plain(base, records, settings, **given)

    monkeypatch.setattr(node_private, "train_adapter_privately", watched)
    trainer = node(tmp_path, monkeypatch)
    (outcome,), adapters = distil(trainer, granted={"key0", "key1", "key2"})
    ((records, used),) = seen
    assert (used.num_records, used.expected_batch, used.steps) == (4, 2, 2)
    # One record per question, its label and rationale together; one without a
    # rationale and one that the ledger refused are still there.
    tasks = sorted([example.task for example in record] for record in records)
    assert tasks == [[], ["predict"], ["predict", "explain"], ["predict", "explain"]]
    for record in records:
        numbers = {example.prompt.split("has ")[1][0] for example in record}
        assert len(numbers) <= 1
    assert outcome.num_examples == 5
    assert "fedcot" in adapters
    assert trainer.exposed_keys(["fedcot"]) == []
    assert list(trainer.private_trainings(["standalone", "fedcot"])) == ["fedcot"]
    # A message that is delivered again gets what was kept, not a second draw.
    again, same = distil(trainer)
    assert len(seen) == 1
    assert again == (outcome,)
    assert all((same["fedcot"][n] == a).all() for n, a in adapters["fedcot"].items())


def test_without_noise_the_node_counts_the_records_as_exposed(tmp_path, monkeypatch):
    trainer = node(tmp_path, monkeypatch, noise_multiplier=0.0)
    distil(trainer)
    assert set(trainer.exposed_keys(["fedcot"])) == own_records().keys()
    assert trainer.private_trainings(["fedcot"]) == {}


def test_a_round_that_no_charge_covers_is_refused(tmp_path, monkeypatch):
    trainer = node(tmp_path, monkeypatch, num_server_rounds=1)
    with pytest.raises(ConfigError, match="num-server-rounds"):
        distil(trainer, server_round=2)


def test_clients_of_a_frozen_half_start_together(tmp_path, monkeypatch):
    """Failure would mean that the mean of B halves belongs to no A half."""
    sent = []
    for partition in range(2):
        trainer = node(tmp_path / str(partition), monkeypatch, freeze_lora_a=True)
        trainer.partition_id = trainer.private.partition_id = partition
        sent.append(distil(trainer)[1]["fedcot"])
        public = first_adapter(tiny_base(), trainer.config)
    for name, tensor in public.items():
        same = [bool((adapter[name] == tensor.numpy()).all()) for adapter in sent]
        assert same == [is_random_half(name)] * 2


def test_a_store_that_was_lost_is_another_training(tmp_path, monkeypatch):
    """Failure would send two differently noised trainings for one charge."""
    trainer = node(tmp_path, monkeypatch)
    first = trainer.private_trainings(["fedcot"])
    distil(trainer)
    assert trainer.private_trainings(["fedcot"]) == first
    shutil.rmtree(tmp_path / "node")
    assert trainer.private_trainings(["fedcot"]) != first


def test_a_training_costs_what_all_its_rounds_compose_to(tmp_path, monkeypatch):
    given = {"num_records": 12, "records_per_round": 6, "num_server_rounds": 3}
    trainer = node(tmp_path, monkeypatch, **given, local_epochs=4, noise_multiplier=2.0)
    accountant = PLDAccountant(NeighboringRelation.REPLACE_SPECIAL)
    # 6 records, then all 12, then those of the next permutation as well: 12.
    for rate, steps in ((2 / 6, 12), (2 / 12, 24), (2 / 12, 24)):
        step = PoissonSampledDpEvent(rate, GaussianDpEvent(2.0))
        accountant.compose(step, steps)
    expected = accountant.get_epsilon(trainer.config.delta)
    found = trainer.private.epsilon(12)
    assert expected * 0.99 <= found <= expected * 1.02
