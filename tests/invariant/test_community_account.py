"""What a member's ledger says of its private trainings, whatever a server asks for."""

import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcot import node as node_module
from fedcot.budget import plan_run
from fedcot.community import member_training
from fedcot.community.costs import sharing_epsilons
from fedcot.community.member import Member
from fedcot.community.messages import (
    TRAIN_COALITION,
    CoalitionTrainRequest,
    SyntheticRequest,
)
from fedcot.config import RunConfig
from fedcot.data.partition import partition_sizes
from fedcot.data.schema import Partition
from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.errors import ConfigError
from fedcot.mechanism import configured_channel
from fedcot.node_state import Owner
from fedcot.privacy.composition import training_epsilon
from fedcot.privacy.loss_distributions import DpTraining
from fedcot.student.training import TrainingOutcome
from strategies.community_requests import CommunityRequests
from strategies.state import Member as Met
from strategies.state import RoundState
from tests.communities import (
    NAMES,
    adding_provider,  # noqa: F401
    community_config,
    fill_store,
    gather,
    owner_config,
    put_in_place,
)
from tests.fakes import fake_partition, owner, summary_of

RUN, OTHER = "ab" * 8, "cd" * 8
RECORDS, BATCH, NOISE, DELTA = 9, 4, 2.0, 1e-6


class Trained:
    """Stands in for DP-SGD: keeps what it was given, and can be made to fail."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.texts: list[list[str]] = []
        self.privacy: list[Any] = []
        self.fails = False

    def __call__(self, base, records, settings, *, privacy, source, seed, adapter):
        if self.fails:
            raise RuntimeError("out of memory")
        assert source.private
        self.rows.append([len(examples) for examples in records])
        self.texts.append([" ".join(e.prompt for e in some) for some in records])
        self.privacy.append(privacy)
        noised = {k: v + 0.01 * len(self.rows) for k, v in adapter.items()}
        return TrainingOutcome(noised, [1.0], [], 1, 0.0, 0)


@pytest.fixture(name="trained")
def listen_to_training(provider, monkeypatch) -> Trained:
    made = Trained()
    monkeypatch.setattr(member_training, "train_adapter_privately", made)
    return made


def noised(tmp_path: Path, **more: Any) -> RunConfig:
    return community_config(
        tmp_path / "run",
        **{
            "sharing": "federated,synthetic",
            "noise_multiplier": NOISE,
            "delta": DELTA,
            "batch_size": BATCH,
            "num_server_rounds": 2,
            "record_epsilon": 150.0,
            "test_tape": False,
            "trace_filter": "none",
            "generator_epochs": 5,
            "synthetic_traces": 1,
            "controls": "none",
            **more,
        },
    )


def simulated(tmp_path: Path, **more: Any) -> Member:
    return Member(noised(tmp_path, **more), owner())


def deployed(tmp_path: Path, node: dict[str, Any] | None = None, **more: Any) -> Member:
    own = owner_config(tmp_path, 0, **(node or {}))
    return Member(noised(tmp_path, **more), Owner.from_node_config(own))


def own_traces(tmp_path: Path, scopes: Sequence[Scope]) -> None:
    """Give the first deployed member a trace of each of its first records."""
    records = fake_partition(noised(tmp_path), 0, 3).train
    traces = [
        Trace(
            question=record.question,
            reasoning="1 + 2 = 3",
            answer=record.answer,
            trace_class=TraceClass.FULL,
            scope=scope,
        )
        for record, scope in zip(records, scopes, strict=False)
    ]
    fill_store(tmp_path, 0, traces)


def train(member: Member, *labels: str, number: int = 1, key: str = RUN):
    folder = "" if not member.owner.simulated else member.config.run_dir
    return member.train(
        CoalitionTrainRequest(
            server_round=number, coalitions=labels, run_key=key, run_dir=folder
        )
    )


def write(member: Member, *labels: str, key: str = RUN):
    folder = "" if not member.owner.simulated else member.config.run_dir
    return member.write(
        SyntheticRequest(server_round=1, coalitions=labels, run_key=key, run_dir=folder)
    )


def spent(member: Member) -> list[tuple[float, float]]:
    """Return what each record was charged, epsilon and delta."""
    folder = "" if not member.owner.simulated else member.config.run_dir
    asked = CoalitionTrainRequest(
        server_round=1, coalitions=(), run_key=RUN, run_dir=folder
    )
    with closing(member.traces.ledger(asked)) as ledger:
        records = member.node.partition.train
        keys = ledger.record_keys([record.identity for record in records])
        return [(ledger.spent(key), ledger.spent_delta(key)) for key in keys]


def cost(rounds: int = 2, epochs: int = 1) -> float:
    """Return what one adapter costs, from the numbers above alone."""
    steps = int(np.ceil(epochs * RECORDS / BATCH))
    schedule = [(BATCH / RECORDS, steps) for _ in range(rounds)]
    return training_epsilon(
        DpTraining(noise_multiplier=NOISE, phases=tuple(schedule)), delta=DELTA
    )


def times(member: Member, count: int, epsilon: float | None = None) -> None:
    """Check that every record was charged so many trainings."""
    one = cost() if epsilon is None else epsilon
    for paid, delta in spent(member):
        assert paid == pytest.approx(count * one, rel=1e-6)
        assert delta == pytest.approx(count * DELTA, rel=1e-9)


# Charged before anything is trained -------------------------------------------------


@pytest.mark.parametrize("kind", ["simulated", "deployed"])
def test_every_record_is_charged_before_it_trains(tmp_path, trained, kind):
    own_traces(tmp_path, [Scope.COALITION] * RECORDS)
    member = (simulated if kind == "simulated" else deployed)(tmp_path)
    assert spent(member) == [(0.0, 0.0)] * RECORDS
    trained.fails = True
    with pytest.raises(RuntimeError):
        train(member, "library")
    times(member, 1)
    with pytest.raises(RuntimeError):
        write(member, "library")
    total = cost() + cost(rounds=1, epochs=5)
    assert [paid for paid, _ in spent(member)] == pytest.approx([total] * RECORDS)
    # What was paid for and never trained is trained without another charge.
    trained.fails = False
    train(member, "library")
    write(member, "library")
    assert [paid for paid, _ in spent(member)] == pytest.approx([total] * RECORDS)
    assert len(trained.rows) == 2


@pytest.mark.parametrize("rounds", [1, 3])
def test_all_rounds_are_paid_at_once_and_repetition_is_free(tmp_path, trained, rounds):
    member = simulated(tmp_path, num_server_rounds=rounds)
    sent = []
    for number in range(1, rounds + 1):
        for _ in range(2):
            reply = train(member, "library", "library+bakery", number=number)
            sent.append(reply.adapters["library"])
            times(member, 2, cost(rounds))
    assert len(trained.rows) == 2 * rounds
    for first, again in zip(sent[::2], sent[1::2], strict=True):
        for name, tensor in first.items():
            np.testing.assert_array_equal(tensor, again[name])


def test_the_steps_that_run_are_those_that_were_charged(tmp_path, trained):
    member = simulated(tmp_path, local_epochs=2)
    train(member, "library")
    write(member, "library")
    for privacy, epochs in zip(trained.privacy, (2, 5), strict=True):
        assert privacy.noise_multiplier == NOISE
        assert privacy.sample_rate == BATCH / RECORDS
        assert privacy.steps == -(-epochs * RECORDS // BATCH)
        assert privacy.num_records == RECORDS


def test_the_server_books_what_the_node_trains(tmp_path, trained):
    member = simulated(tmp_path)
    train(member, "library")
    write(member, "library")
    asking = CommunityRequests(member.config, NAMES, run_key=RUN, run=None)  # type: ignore[arg-type]
    identity = type("Said", (), {"num_records": RECORDS})()
    state = RoundState(server_round=1, members={0: Met(1, identity)})
    for name, privacy in zip(
        ("federated.library", "synthetic"), trained.privacy, strict=True
    ):
        event = asking.training_event(state, 0, name)
        assert (event.noise_multiplier, event.sampling_rate, event.steps) == (
            privacy.noise_multiplier,
            privacy.sample_rate,
            privacy.steps,
        )
        assert event.arm == name
    # A community that is called so is no generator.
    named = asking.training_event(state, 0, "federated.synthetic")
    assert named.steps == -(-RECORDS // BATCH)
    assert named.arm != asking.training_event(state, 0, "synthetic").arm


def test_a_store_that_was_lost_is_paid_again(tmp_path, trained):
    member = simulated(tmp_path)
    train(member, "library")
    (folder,) = (tmp_path / "run").rglob("federated.library")
    shutil.rmtree(folder)
    train(member, "library")
    times(member, 2)
    # One whose rounds alone are gone trains with new noise, and not for nothing.
    assert len(trained.rows) == 2


# Who takes part ---------------------------------------------------------------------


def test_records_that_the_ledger_refused_take_part_with_nothing(tmp_path, trained):
    own_traces(tmp_path, [Scope.COALITION] * RECORDS)
    limit = 1.5 * cost()
    member = deployed(tmp_path, {"max-record-epsilon": limit})
    asked = CoalitionTrainRequest(
        server_round=1, coalitions=(), run_key=RUN, run_dir=""
    )
    with closing(member.traces.ledger(asked)) as ledger:
        keys = ledger.record_keys([r.identity for r in member.node.partition.train])
        ledger.charge_training(
            keys[2:5], run="before", epsilon=cost(), delta=0.0, description="x"
        )
    train(member, "library")
    (row,) = trained.rows
    assert len(row) == RECORDS
    assert [not examples for examples in row] == [n in (2, 3, 4) for n in range(9)]
    assert max(paid for paid, _ in spent(member)) <= limit
    # The second coalition is beyond everybody's limit: noise alone, and no charge.
    before = spent(member)
    reply = train(member, "library+bakery")
    assert trained.rows[1] == [0] * RECORDS
    assert spent(member) == before
    assert list(reply.adapters) == ["library+bakery"]


def test_a_trace_trains_for_coalitions_that_it_may_reach(tmp_path, trained):
    scopes = [Scope.OWN, Scope.COMMUNITY, Scope.COALITION, Scope.PUBLIC]
    own_traces(tmp_path, scopes)
    member = deployed(tmp_path)
    train(member, "library", "library+bakery", "bakery")
    assert len(trained.rows) == 2
    alone, together = ([bool(n) for n in row] for row in trained.rows)
    assert alone == [False, True, True, True] + [False] * 5
    assert together == [False, False, True, True] + [False] * 5
    # Every record pays for both: whether it has a trace must not be told.
    times(member, 2)


def test_a_member_without_traces_sends_an_adapter_of_noise(tmp_path, trained):
    own_traces(tmp_path, [Scope.OWN] * RECORDS)
    member = deployed(tmp_path)
    reply = train(member, "library", "bakery")
    assert list(reply.adapters) == ["library"]
    assert trained.rows == [[0] * RECORDS]
    times(member, 1)


def test_equal_questions_are_one_record_s(tmp_path, trained, monkeypatch):
    def doubled(config, partition_id, num_partitions) -> Partition:
        found = fake_partition(config, partition_id, num_partitions)
        train = (*found.train[:4], *found.train[:4], found.train[8])
        return Partition(train=train, test=found.test, deep_test=())

    monkeypatch.setattr(node_module, "load_partition", doubled)
    node_module._partition.cache_clear()
    own_traces(tmp_path, [Scope.COALITION] * 4)
    member = deployed(tmp_path)
    train(member, "library")
    (row,) = trained.rows
    assert len(row) == RECORDS
    assert [bool(n) for n in row] == [True] * 4 + [False] * 5
    texts = [text for text in trained.texts[0] if text]
    assert len(set(texts)) == 4
    node_module._partition.cache_clear()


def test_a_trace_of_no_record_is_learnt_by_nobody(tmp_path, trained, caplog):
    """Its owner would not know what it is charged to, and is told."""
    own_traces(tmp_path, [Scope.COALITION] * 2)
    member = deployed(tmp_path)
    train(member, "library")
    assert caplog.messages == []
    fill_store(
        tmp_path, 0,
        [Trace(question=f"unknown {n}", reasoning="1 + 1 = 2", answer="2",
               trace_class=TraceClass.FULL, scope=Scope.PUBLIC) for n in range(3)],
    )  # fmt: skip
    train(member, "library+bakery")
    assert trained.rows[1] == trained.rows[0]
    (line,) = caplog.messages
    assert line.startswith("3 of 5 traces ask what no record of this node asks")
    assert "unknown" not in line


# The owner's delta ------------------------------------------------------------------


def test_a_delta_above_the_owner_s_is_refused(tmp_path, trained):
    member = deployed(tmp_path, {"max-record-delta": DELTA / 2})
    for ask in (train, write):
        with pytest.raises(ConfigError, match="max-record-delta"):
            ask(member, "library")
    assert trained.rows == []
    assert spent(member) == [(0.0, 0.0)] * RECORDS


def test_deltas_of_all_adapters_stay_within_the_owner_s(tmp_path, trained):
    own_traces(tmp_path, [Scope.COALITION] * RECORDS)
    member = deployed(tmp_path, {"max-record-delta": 2 * DELTA})
    train(member, "library", "library+bakery", "library+harbor")
    taking_part = [any(row) for row in trained.rows]
    assert taking_part == [True, True, False]
    times(member, 2)


# What a server may try --------------------------------------------------------------


def test_more_rounds_than_were_charged_are_refused(tmp_path, trained):
    member = simulated(tmp_path)
    train(member, "library", number=2)
    for number in (3, 4, 1_000_000):
        with pytest.raises(ConfigError, match="num-server-rounds"):
            train(member, "library", number=number)
    times(member, 1)
    assert len(trained.rows) == 1
    # With more rounds in the settings it is another run, which pays.
    more = simulated(tmp_path, num_server_rounds=3)
    train(more, "library", number=3)
    paid = [paid for paid, _ in spent(member)]
    assert paid == pytest.approx([cost(2) + cost(3)] * RECORDS)


@pytest.mark.parametrize(
    "labels",
    [
        ("library+bakery", "bakery+library"),
        ("library", "library+bakery", "library+harbor", "library+bakery+harbor"),
    ],
)
@pytest.mark.parametrize("kind", ["simulated", "deployed"])
def test_another_order_or_another_coalition_costs_again(
    tmp_path, trained, labels, kind
):
    own_traces(tmp_path, [Scope.COALITION] * RECORDS)
    member = (simulated if kind == "simulated" else deployed)(tmp_path)
    for asked in range(1, len(labels) + 1):
        train(member, *labels[:asked])
        times(member, asked)
    assert len(trained.rows) == len(labels)


@pytest.mark.parametrize(
    "labels",
    [
        ("library", "library"),
        ("library+library",),
        ("library+school",),
        ("library+../../x",),
        ("library+",),
    ],
)
def test_what_is_no_coalition_of_the_member_is_refused(tmp_path, trained, labels):
    own_traces(tmp_path, [Scope.COALITION] * RECORDS)
    member = deployed(tmp_path)
    with pytest.raises(ConfigError):
        train(member, *labels)
    with pytest.raises(ConfigError):
        write(member, *labels)
    assert trained.rows == []
    assert spent(member) == [(0.0, 0.0)] * RECORDS


@pytest.mark.parametrize("labels", [("bakery",), ("bakery+harbor",), ("",), ("..",)])
def test_coalitions_of_others_train_nothing(tmp_path, trained, labels):
    own_traces(tmp_path, [Scope.PUBLIC] * RECORDS)
    member = deployed(tmp_path)
    assert train(member, *labels).adapters == {}
    assert write(member, *labels).traces == ()
    assert trained.rows == []
    assert spent(member) == [(0.0, 0.0)] * RECORDS


@pytest.mark.parametrize(
    "change",
    [
        {"key": OTHER},
        {"seed": 8},
        {"learning_rate": 1e-3},
        {"label_share": 0.25},
        {"pool_tokens": 77},
        {"coalitions": "grand"},
    ],
    ids=str,
)
def test_another_run_costs_again(tmp_path, trained, change):
    own_traces(tmp_path, [Scope.COALITION] * RECORDS)
    train(deployed(tmp_path), "library")
    key = str(change.get("key", RUN))
    more = {name: value for name, value in change.items() if name != "key"}
    member = deployed(tmp_path, **more)
    train(member, "library", key=key)
    assert len(trained.rows) == 2
    times(member, 2)


@pytest.mark.parametrize("neutral", [{"name": "b"}, {"phase_timeout": 9.0}], ids=str)
def test_what_changes_nothing_is_neither_trained_nor_paid_again(
    tmp_path, trained, neutral
):
    own_traces(tmp_path, [Scope.COALITION] * RECORDS)
    train(deployed(tmp_path), "library")
    member = deployed(tmp_path, **neutral)
    train(member, "library")
    assert len(trained.rows) == 1
    times(member, 1)


@pytest.mark.parametrize("narrow", [0, 1], ids=["alike", "one for its own community"])
def test_a_generator_is_paid_for_each_set_of_coalitions(tmp_path, trained, narrow):
    """Not for each set of traces: the number of charges would tell what these are."""
    own_traces(tmp_path, [Scope.COALITION] * 5 + [Scope.COMMUNITY] * narrow)
    member = deployed(tmp_path)
    one = cost(rounds=1, epochs=5)
    asked = [
        ("library+bakery",),
        ("library", "library+bakery"),
        # Coalitions of others are none of its own, and their order says nothing.
        ("library+bakery", "bakery", "library"),
        ("library",),
        ("library+bakery",),
    ]
    for labels, charges in zip(asked, (1, 2, 2, 3, 3), strict=True):
        write(member, *labels)
        # A record without any trace pays as often as the others.
        times(member, charges, one)
    assert [sum(map(bool, row)) for row in trained.rows] == [5, 5, 5 + narrow]


def test_what_is_sent_depends_on_own_traces_by_the_generator_alone(
    tmp_path, trained, monkeypatch
):
    seen = []

    def listens(base, adapter, own, **named):
        seen.append((list(own), named["count"]))
        return type("Made", (), {"written": (), "counts": {}})()

    monkeypatch.setattr("fedcot.community.member.write_traces", listens)
    own_traces(tmp_path, [Scope.COALITION] * 5)
    write(deployed(tmp_path, synthetic_traces=0), "library")
    # No gate that looks at them, and a number that does not count them.
    assert seen == [([], RECORDS)]
    monkeypatch.setattr(
        member_training, "train_adapter",
        lambda base, examples, settings, *, seed, adapter: TrainingOutcome(
            dict(adapter), [1.0], [], 1, 0.0, 0
        ),
    )  # fmt: skip
    write(deployed(tmp_path, synthetic_traces=0, noise_multiplier=0.0), "library")
    assert [(len(own), count) for own, count in seen[1:]] == [(5, RECORDS)]


# What a run says --------------------------------------------------------------------


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Return settings, summary and uplink of one noised run, with its ledgers."""
    with pytest.MonkeyPatch.context() as patched:
        made = put_in_place(patched)
        patched.setattr(member_training, "train_adapter_privately", Trained())
        folder = tmp_path_factory.mktemp("noised")
        config = noised(
            folder, coalitions="library,grand", test_records=1, max_new_tokens=2
        )
        run, grid = gather(config, made)
        members = [Member(config, owner(partition)) for partition in range(3)]
        return config, summary_of(run), grid, [spent(one) for one in members]


def test_the_stated_epsilon_composes_all_that_the_ledgers_charged(said):
    _, summary, grid, ledgers = said
    assert summary["status"] == "completed", summary["reason"]
    assert sum(kind == TRAIN_COALITION for kind, _ in grid.uplink) == 6
    # The library is in two coalitions, the others in one; a generator for each.
    written = cost(rounds=1, epochs=5)
    for charged, coalitions in zip(ledgers, (2, 1, 1), strict=True):
        for paid, delta in charged:
            assert paid == pytest.approx(coalitions * cost() + written, rel=1e-6)
            assert delta == pytest.approx((coalitions + 1) * DELTA)
    per_arm = summary["privacy"]["per_arm"]
    stated = per_arm["federated"]["record_epsilon_at_delta"]
    # Two rounds for each of two coalitions, as one mechanism at one delta.
    assert stated == pytest.approx(cost(rounds=2 * 2), rel=1e-9)
    assert cost() < stated <= 2 * cost()
    generated = per_arm["synthetic"]["record_epsilon_at_delta"]
    assert generated == pytest.approx(written, rel=1e-9)
    for arm in ("federated", "synthetic"):
        line = per_arm[arm]
        assert line["record_epsilon_max"] == "inf"
        assert line["delta"] == DELTA
        assert line["mechanism"] == "dp-sgd"
        assert any("offers" in one for one in line["uncharged"])
    # The account adds up all of it, at one order.
    assert summary["account"]["charged_epsilon"] >= max(stated, generated)


def test_what_is_planned_is_what_is_reported(said):
    config, summary, _, _ = said
    plan = plan_run(config, configured_channel(config), num_partitions=3)
    planned = sharing_epsilons(config, plan, sizes=partition_sizes(config, 3))
    for arm, line in summary["privacy"]["per_arm"].items():
        assert line["record_epsilon_at_delta"] == planned[arm].record_epsilon_at_delta
        assert line["guarantee"] == planned[arm].guarantee


@pytest.mark.parametrize(("limit", "granted"), [(3.2, 1), (3.6, 2)])
def test_a_budget_that_ends_early_leaves_the_students_that_were_paid(
    tmp_path, provider, trained, limit, granted
):
    """What the last granted round gave is scored and kept.

    At the order that is best for three rounds they cost 2.88, 3.55 and 4.21.
    """
    config = noised(
        tmp_path,
        sharing="federated",
        coalitions="grand",
        num_server_rounds=3,
        record_epsilon=limit,
        test_records=1,
        max_new_tokens=2,
    )
    run, grid = gather(config, provider)
    summary = summary_of(run)
    assert summary["status"] == "budget-exhausted"
    assert summary["num_rounds"] == granted + 1
    grand = "library+bakery+harbor"
    assert set(summary["community"]["students"][f"federated.{grand}"]["own"]) == set(
        NAMES
    )
    assert (run.path / "adapters" / "federated" / grand).is_dir()
    assert sum(kind == TRAIN_COALITION for kind, _ in grid.uplink) == 3 * granted
