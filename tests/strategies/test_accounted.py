"""The account around a strategy: it grants, refuses and ends a run in time."""

import json
import logging
import math

import pytest
from flwr.app import Message

from fedcot.data.schema import Rationale
from fedcot.errors import FedcotError
from fedcot.mechanism import configured_channel
from fedcot.privacy.vocabulary import world_vocabulary
from fedcot.records import QUERY_IDENTIFY, TRAIN_DISTILL, IdentifyRequest
from fedcot.runs import RunDirectory
from fedcot.student.dp_settings import DpSettings
from fedcot.tasks.world import WorldTask
from fedcot.teacher.teacher import Completion
from strategies import (
    AccountedStrategy,
    FedCoT,
    PhasedStrategy,
    PrivacyAccountant,
    PromptsEvent,
    Public,
    Results,
    TrainingEvent,
)
from strategies.composition import best_order, gaussian_epsilon
from strategies.events import AggregateEvent
from strategies.exchange import Exchange
from strategies.requests import planned_steps
from strategies.spending import Unaccounted
from strategies.state import Member, RoundState
from tests.fakes import (
    ScriptedTeacher,
    federate,
    node_configs,
    tiny_config,
    tiny_world,  # noqa: F401
)
from tests.grid import LocalGrid

pytestmark = pytest.mark.usefixtures("tiny_world")
WIRE = IdentifyRequest(
    code_hash="a", student_hash="b", vocabulary_hash="c", dataset_hash="d"
)


class Poll(PhasedStrategy):
    """Asks every client for one noised bit per round, each round by its own draw.

    `costs` gives the nats of each round's mechanism, by channel.
    """

    closing = ("publish",)

    def __init__(self, results: Results, costs: dict[str, float]) -> None:
        super().__init__(results)
        self.costs = costs
        self.heard: list[int] = []
        self.published: list[list[int]] = []

    @property
    def phases(self):
        return (("ask", self.ask), ("hear", self.hear), ("publish", self.publish))

    def summary(self) -> None:
        pass

    def ask(self, grid, state) -> None:
        self.exchange = Exchange(grid, timeout=10, on_failure=pytest.fail)
        nodes = grid.get_node_ids()
        state.members = {place: Member(node, None) for place, node in enumerate(nodes)}
        channel, cost = list(self.costs.items())[state.server_round - 1]
        self.events = {
            place: PromptsEvent(
                server_round=state.server_round,
                partition_id=place,
                prompt_epsilon=cost,
                channel_hash=channel,
                record_keys=("me",),
            )
            for place in state.members
        }
        for place, event in self.events.items():
            if self.spending.before_send(state, event):
                node = state.members[place].node_id
                self.exchange.send(node, QUERY_IDENTIFY, WIRE, group_id="0")

    def hear(self, grid, state) -> None:
        nodes = {member.node_id: place for place, member in state.members.items()}
        while self.exchange.waits_for(QUERY_IDENTIFY):
            for answer in self.exchange.poll():
                place = nodes[answer.node_id]
                self.spending.after_receive(state, self.events[place])
                self.heard.append(state.server_round)
                state.learnt = True

    def publish(self, grid, state) -> None:
        self.published.append(list(self.heard))


def echo(message, context):
    return Message(message.content, reply_to=message)


def poll(tmp_path, costs: dict[str, float], *, limit: float):
    config = tiny_config(tmp_path / "run")
    results = Results(RunDirectory.create(str(tmp_path / "run"), name="poll"), config)
    strategy = Poll(results, costs)
    accountant = PrivacyAccountant(tmp_path / "book", record_epsilon=limit)
    grid = LocalGrid(echo, node_configs(2), {})
    return AccountedStrategy(strategy, accountant), strategy, grid


def test_it_wraps_any_strategy_and_stops_it_when_the_budget_is_used_up(
    tmp_path, caplog
):
    costs = {"coin": 7.0, "die": 11.5, "urn": 20.5, "hat": 1.0}
    accounted, strategy, grid = poll(tmp_path, costs, limit=20.0)
    with caplog.at_level(logging.INFO, logger="flwr.fedcot"):
        accounted.start(grid, num_rounds=4)
    # Two mechanisms fit, the third does not, and then no round is begun.
    assert len(grid.log) == 4
    assert accounted.state.server_round == 3
    assert accounted.status == "budget-exhausted"
    assert "20.5 nats" in accounted.reason
    assert "\n" not in accounted.reason
    # What was learnt until then is scored and saved once more.
    assert strategy.published == [[1, 1], [1, 1, 2, 2], [1, 1, 2, 2]]
    assert accounted.state.charged == {0: 18.5, 1: 18.5}
    report = accounted.privacy()
    assert report["charged_epsilon"] == 18.5
    assert report["record_epsilon_limit"] == 20.0
    assert report["num_releases"] == 4
    assert report["num_refused_requests"] == 2
    assert "charged 18.5 of 20 nats" in caplog.text
    assert "budget exhausted" in caplog.text


def test_a_run_that_may_begin_nothing_ends_at_once(tmp_path):
    accounted, strategy, grid = poll(tmp_path, {"urn": 20.5}, limit=20.0)
    accounted.start(grid, num_rounds=1)
    assert accounted.status == "budget-exhausted"
    assert not grid.log
    assert strategy.published == []
    assert accounted.privacy()["charged_epsilon"] == 0.0


def test_a_run_within_its_budget_is_completed(tmp_path):
    accounted, strategy, grid = poll(tmp_path, {"coin": 7.0, "die": 11.5}, limit=18.5)
    accounted.start(grid, num_rounds=2)
    assert accounted.status == "completed"
    assert accounted.reason == ""
    assert strategy.published[-1] == [1, 1, 2, 2]
    assert repr(accounted) == "AccountedStrategy(Poll)"


def test_one_client_without_budget_does_not_stop_the_others(tmp_path):
    accounted, strategy, grid = poll(tmp_path, {"coin": 7.0, "die": 11.5}, limit=20.0)
    law = {"server_round": 1, "noise_multiplier": 3.0, "sampling_rate": 1.0}
    accounted.accountant.delta = 1e-6
    accounted.accountant.compose(TrainingEvent(partition_id=0, **law, steps=16))
    assert 20.0 - 11.5 < accounted.accountant.get_epsilon() < 20.0 - 7.0
    accounted.start(grid, num_rounds=2)
    assert accounted.state.exhausted == {0}
    assert strategy.heard == [1, 1, 2]


def test_a_reply_that_overspends_is_charged_and_not_used(tmp_path):
    accounted, _, _ = poll(tmp_path, {}, limit=20.0)
    state = RoundState(server_round=1)
    event = PromptsEvent(
        server_round=1,
        partition_id=0,
        prompt_epsilon=25.0,
        channel_hash="c",
        record_keys=("me",),
    )
    with pytest.raises(FedcotError, match="released more than"):
        accounted.after_receive(state, event)
    assert state.charged == {0: 25.0}


def test_a_noised_mean_is_granted_to_all_of_its_clients_or_to_none(tmp_path):
    accounted, _, _ = poll(tmp_path, {}, limit=20.0)
    accounted.accountant.delta = 1e-6
    state = RoundState(server_round=1)
    law = {"server_round": 1, "partition_ids": (0, 1)}
    free = AggregateEvent(**law, noise_multiplier=0.1, counts_for_records=False)
    assert accounted.before_send(state, free)
    assert state.charged == {0: 0.0, 1: 0.0}
    assert "one client, noised means alone" in accounted.lines()[-1]
    assert not accounted.before_send(state, AggregateEvent(**law, noise_multiplier=0.1))
    assert state.exhausted == {0, 1}
    assert "a noised mean would go beyond" in accounted.reason


def test_a_strategy_that_spends_must_be_wrapped_and_only_once(tmp_path):
    accounted, strategy, grid = poll(tmp_path, {"coin": 7.0}, limit=20.0)
    with pytest.raises(FedcotError, match="wrap it once"):
        AccountedStrategy(strategy, accounted.accountant)
    alone = Poll(strategy.results, {"coin": 7.0})
    with pytest.raises(FedcotError, match="AccountedStrategy"):
        alone.start(grid, num_rounds=1)
    assert not grid.log


def test_without_an_account_only_what_has_no_epsilon_goes_through():
    state = RoundState(server_round=1)
    law = {"server_round": 1, "partition_id": 0, "channel_hash": "c"}
    unbounded = PromptsEvent(**law, prompt_epsilon=math.inf)
    assert Unaccounted().before_send(state, unbounded)
    assert state.charged == {0: math.inf}
    noised = AggregateEvent(server_round=1, partition_ids=(0,), noise_multiplier=1.0)
    for bounded in (PromptsEvent(**law, prompt_epsilon=1.0), noised):
        for hook in (Unaccounted().before_send, Unaccounted().after_receive):
            with pytest.raises(FedcotError, match="AccountedStrategy"):
                hook(state, bounded)


def test_flowers_four_hooks_refuse_through_the_account(tmp_path):
    accounted, _, grid = poll(tmp_path, {}, limit=20.0)
    for call in (
        lambda: accounted.configure_train(1, None, None, grid),
        lambda: accounted.aggregate_train(1, []),
        lambda: accounted.configure_evaluate(1, None, None, grid),
        lambda: accounted.aggregate_evaluate(1, []),
    ):
        with pytest.raises(NotImplementedError, match="phases of its own"):
            call()


def fedcot(config, run: RunDirectory) -> FedCoT:
    return FedCoT(
        config,
        teacher=ScriptedTeacher(),
        public=Public(
            task=WorldTask(),
            vocabulary=world_vocabulary(),
            channel=configured_channel(config),
            bank=(),
        ),
        results=Results(run, config),
        run_key="0" * 16,
    )


def test_fedcot_runs_alone_only_without_a_mechanism(tmp_path):
    import client_app

    for mechanism in ("rank", "none"):
        run = RunDirectory.create(str(tmp_path / mechanism), name=mechanism)
        config = tiny_config(
            run.path, arms="fedcot", mechanism=mechanism, num_server_rounds=1
        )
        grid = LocalGrid(client_app.app, node_configs(1), config.to_run_config())
        strategy = fedcot(config, run)
        assert strategy.spends == (mechanism == "rank")
        if mechanism == "rank":
            with pytest.raises(FedcotError, match="AccountedStrategy"):
                strategy.start(grid, num_rounds=1)
            assert not grid.log
        else:
            strategy.start(grid, num_rounds=1)
            assert strategy.state.charged == {0: math.inf}
            assert strategy.state.trained


class TwoTeacher(ScriptedTeacher):
    """Always says 2, which is the label of every client's first record."""

    def answer(self, questions, *, on_progress=None):
        text = "1 + 1 = 2"
        return [Completion(f"{text} answer: 2", Rationale(text, "2"))] * len(questions)


def test_a_run_whose_limit_allows_one_private_training_keeps_what_it_learnt(tmp_path):
    law = {
        "arms": "fedcot",
        "aggregation": "fedavg",
        "pairing": "original",
        "noise_multiplier": 4.0,
        "num_server_rounds": 3,
        "num_partitions": 2,
        "num_records": 2,
        "records_per_round": 1,
        "test_tape": False,
    }
    config = tiny_config(tmp_path / "a", **law)
    prompt = configured_channel(config).prompt_epsilon
    order = best_order(planned_steps(config), delta=config.delta)

    def noise(*counts: int) -> float:
        steps = {}
        for count in counts:
            one = DpSettings.of(config, count)
            place = (one.noise_multiplier, one.sample_rate)
            steps[place] = steps.get(place, 0) + one.steps
        return gaussian_epsilon(steps, delta=config.delta, order=order)

    # Each client has one record, which is trained on in every round.
    assert noise(1) < noise(1, 1)
    limit = prompt + (noise(1) + noise(1, 1)) / 2
    config = tiny_config(tmp_path / "a", **law, record_epsilon=limit)
    run, grid = federate(config, count=2, teacher=TwoTeacher())
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["status"] == "budget-exhausted"
    assert "private training would go beyond" in summary["reason"]
    assert summary["num_rounds"] == 2
    assert [kind for _, kind in grid.log].count(TRAIN_DISTILL) == 2
    assert summary["accuracy"]["fedcot"]["n"] == 8
    assert (run.path / "adapters" / "fedcot" / "global").is_dir()
    account = summary["account"]
    assert account["charged_epsilon"] <= limit
    assert account["charged_prompts_epsilon"] == pytest.approx(prompt)
    assert account["charged_gaussian_epsilon"] == pytest.approx(noise(1), abs=1e-8)
    assert account["delta"] == config.delta
