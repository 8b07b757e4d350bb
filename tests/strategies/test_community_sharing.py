"""Every way of sharing in one run and alone; what leaves, what is charged and said."""

import math
from pathlib import Path
from typing import Any

import pytest

import client_app
from fedcot.budget import plan_run
from fedcot.community.costs import sharing_epsilons
from fedcot.community.member import Member
from fedcot.community.messages import (
    QUERY_TRACES,
    TRAIN_COALITION,
    TRAIN_GENERATOR,
    StudentScore,
    StudentsReply,
    StudentsRequest,
    TracesReply,
)
from fedcot.data.partition import partition_sizes
from fedcot.data.traces import Scope
from fedcot.errors import ConfigError, FedcotError
from fedcot.mechanism import configured_channel, configured_vocabulary
from fedcot.models.generation import Generated
from fedcot.node import Node
from fedcot.node_state import Owner
from fedcot.privacy.ledger import Ledger
from fedcot.records import QUERY_PERTURB, PerturbReply
from fedcot.report.community_utility import gains_section
from fedcot.report.ledgers import read_ledgers
from fedcot.report.reader import read_run
from fedcot.tasks.registry import configured_task
from strategies import community, community_run
from strategies.accounted import AccountedStrategy
from strategies.questions import prompts_of
from tests.communities import (
    NAMES,
    AddingProvider,
    adding_provider,  # noqa: F401
    community_config,
    fill_store,
    gather,
    owner_config,
    put_in_place,
    secret_trace,
)
from tests.fakes import ScriptedTeacher, fake_partition, rows_of, summary_of

GRAND = "library+bakery+harbor"
EVERY = "pooled,perturbed,federated,synthetic,prompt"


class BothProviders(AddingProvider):
    """Adds the numbers of a question; of a released one it says any sum that holds."""

    def __init__(self) -> None:
        super().__init__()
        self.released = ScriptedTeacher()

    def for_released(self) -> ScriptedTeacher:  # type: ignore[override]
        return self.released


def settings(**more: Any) -> dict[str, Any]:
    """Return settings that every way of sharing works with."""
    return {
        "coalitions": "grand",
        "generator_epochs": 1,
        "synthetic_traces": 2,
        "record_epsilon": 250.0,
        "controls": "label-only",
        "test_records": 2,
        "max_new_tokens": 2,
        **more,
    }


def writes_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let generators write sums instead of a random student's words."""

    def generate(model, base, prompts, *, seeds, **more):
        return [
            Generated(
                f"the bakery sells {seed % 40} loaves then {seed % 7} more "
                f"rationale: {seed % 40} + {seed % 7} = {seed % 40 + seed % 7} "
                f"answer: {seed % 40 + seed % 7}",
                3,
                9,
            )
            for seed in seeds
        ]

    monkeypatch.setattr("fedcot.community.synthetic.generate", generate)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return one run that shares in every way, its provider and all that was sent."""
    with pytest.MonkeyPatch.context() as patched:
        put_in_place(patched)
        writes_sums(patched)
        asked: list[tuple[int, StudentsRequest]] = []
        honest = Member.score

        def listens(self, request):
            asked.append((self.owner.partition_id, request))
            return honest(self, request)

        patched.setattr(Member, "score", listens)
        folder = tmp_path_factory.mktemp("every") / "run"
        config = community_config(
            folder, **settings(sharing=EVERY, hold_out=2, coalitions="library,grand")
        )
        provider = BothProviders()
        run, grid = gather(config, provider)
    return run, grid, provider, asked


def test_all_ways_in_one_run_have_a_student_bytes_and_a_cost(finished):
    run, grid, _, _ = finished
    summary = summary_of(run)
    assert (summary["status"], summary["failures"]) == ("completed", [])
    arms = EVERY.split(",")
    students = summary["community"]["students"]
    # The prompt is no trained student, but is scored as one.
    assert set(students) == {
        f"{arm}.{one}"
        for arm in (*arms, "label-only")
        for one in ("library", GRAND)
    }  # fmt: skip
    for name, student in students.items():
        assert set(student["own"]) == set(NAMES) or name.startswith("prompt.")
        assert student["hold_out"]["n"] == 2
        trained = not name.startswith(("prompt.", "federated."))
        assert ("num_traces" in student) == trained
    # A prompt is of its members only.
    assert set(students["prompt.library"]["own"]) == {"library"}
    assert set(students[f"prompt.{GRAND}"]["own"]) == set(NAMES)
    kinds = {
        "perturbed": QUERY_PERTURB,
        "federated": TRAIN_COALITION,
        "synthetic": TRAIN_GENERATOR,
    }
    found = summary["community"]["bytes"]
    assert set(found) == set(arms)
    for arm, kind in kinds.items():
        sent = sum(len(reply) for name, reply in grid.uplink if name == kind)
        assert found[arm]["uplink_bytes"] == sent > 0
        assert found[arm]["downlink_bytes"] > 0
    traces = sum(len(reply) for name, reply in grid.uplink if name == QUERY_TRACES)
    both = found["pooled"]["uplink_bytes"] + found["prompt"]["uplink_bytes"]
    assert both == traces
    per_arm = summary["privacy"]["per_arm"]
    assert set(per_arm) == {*arms, "label-only"}
    assert all(line["unit"] and line["delta"] for line in per_arm.values())
    assert summary["privacy"]["worst_arm"]["record_epsilon_max"] == "inf"
    assert any("offers" in text for text in per_arm["pooled"]["uncharged"])


def test_students_of_every_way_learn_from_their_own_pool(finished):
    run, _, provider, _ = finished
    students = summary_of(run)["community"]["students"]
    # Seven of nine traces of each member pass; four are released in a round; a
    # generator writes two.
    assert students[f"pooled.{GRAND}"]["num_traces"] == 21
    assert students["pooled.library"]["num_traces"] == 7
    assert students[f"synthetic.{GRAND}"]["num_traces"] == 6
    assert students["synthetic.library"]["num_traces"] == 2
    for name, members in ((GRAND, 3), ("library", 1)):
        perturbed = students[f"perturbed.{name}"]
        made = perturbed["num_traces"] + perturbed["num_invalid"]
        assert 0 < made <= 4 * members
    written = summary_of(run)["community"]["written"]
    assert (written["num_sent"], written["num_trained"]) == (6, 21)
    # What members released, and nothing else, went to the provider of such questions.
    (released,) = provider.released.asked
    assert 0 < len(released) <= 12


def test_a_community_s_demonstrations_and_their_limit(finished):
    _, grid, _, asked = finished
    assert {partition for partition, _ in asked} == {0, 1, 2}
    for partition, request in asked:
        texts = {one.student: one.text for one in request.prompts}
        own = {f"prompt.{GRAND}"} | ({"prompt.library"} if partition == 0 else set())
        assert set(texts) == own
        for text in texts.values():
            # `prompt-traces` is four, though every member offers as many.
            assert text.count("answer:") == 4
        # In a simulation everybody scores the adapters of all.
        assert {"pooled.library", f"synthetic.{GRAND}"} <= set(request.adapters)
        assert {"provider", "zero-shot"} <= set(request.students)
    replies = [
        TracesReply.decode(content)
        for kind, content in grid.replies
        if kind == QUERY_TRACES
    ]
    assert sorted(len(reply.traces) for reply in replies) == [4, 4, 4, 7, 7, 7]


def test_the_hold_out_is_scored_with_the_prompt(tmp_path, provider, monkeypatch):
    scored: list[tuple[str, str, int]] = []
    honest = community.score_student

    def listens(config, student, records, *, adapter, text=""):
        scored.append((student, text, len(records)))
        return honest(config, student, records, adapter=adapter, text=text)

    monkeypatch.setattr(community, "score_student", listens)
    config = community_config(
        tmp_path / "a", **settings(sharing="prompt", hold_out=3, prompt_traces=1)
    )
    run, _ = gather(config, provider)
    assert [name for name, _, _ in scored] == ["zero-shot", f"prompt.{GRAND}"]
    assert [number for _, _, number in scored] == [3, 3]
    assert scored[0][1] == ""
    assert scored[1][1].count("answer:") == 1
    student = summary_of(run)["community"]["students"][f"prompt.{GRAND}"]
    assert student["hold_out"]["n"] == 3
    # Nothing was trained, so nothing but its text is there.
    assert not (run.path / "adapters").exists()


@pytest.mark.parametrize("sharing", ["synthetic", "federated"])
def test_a_way_alone_has_its_students_and_no_others(
    tmp_path, provider, monkeypatch, sharing
):
    writes_sums(monkeypatch)
    run, grid = gather(
        community_config(tmp_path / "a", **settings(sharing=sharing)), provider
    )
    summary = summary_of(run)
    assert summary["status"] == "completed"
    # Controls belong to pooled traces.
    assert set(summary["community"]["students"]) == {f"{sharing}.{GRAND}"}
    assert set(summary["community"]["bytes"]) == {"count", sharing}
    assert set(summary["privacy"]["per_arm"]) == {sharing}
    for kind, sent in grid.uplink:
        words = (b"quokka", b"axolotl", b"pangolin")
        assert not any(word in sent for word in words), kind
    for kind, content in grid.replies:
        if kind == QUERY_TRACES:
            assert TracesReply.decode(content).traces == ()


# Perturbed questions ----------------------------------------------------------------


def perturbed(folder, **more: Any):
    """Return settings of a run that shares perturbed questions only, for real."""
    own = {"sharing": "perturbed", "test_tape": False, "num_server_rounds": 2}
    return community_config(folder, **settings(**{**own, **more}))


def words_of_records(config) -> list[bytes]:
    """Return every word that stands in one record only."""
    return [
        record.question.split()[0].encode()
        for partition in range(3)
        for split in ("train", "test", "deep_test")
        for record in getattr(fake_partition(config, partition, 3), split)
    ]


@pytest.mark.parametrize("mechanism", ["rank", "selection"])
def test_no_word_of_a_record_leaves_and_students_learn_from_what_was_released(
    tmp_path, provider, monkeypatch, mechanism
):
    pools: dict[str, list[Any]] = {}
    honest = community.PooledTraining.train

    def listens(self, traces, num_invalid, *, arm):
        pools[arm] = list(traces)
        return honest(self, traces, num_invalid, arm=arm)

    monkeypatch.setattr(community.PooledTraining, "train", listens)
    more = {"prompt_epsilon": 8.0} if mechanism == "selection" else {}
    config = perturbed(tmp_path / "a", mechanism=mechanism, **more)
    both = BothProviders()
    run, grid = gather(config, both)
    summary = summary_of(run)
    assert summary["status"] == "completed", summary["reason"]
    secret = words_of_records(config)
    assert len(secret) == len(set(secret)) == 3 * (9 + 2 + 2)
    for kind, sent in grid.uplink:
        assert not any(word in sent for word in secret), kind
    # Every question of the pool was released, and the grid saw its words.
    seen: set[str] = set()
    for kind, content in grid.replies:
        if kind == QUERY_PERTURB:
            reply = PerturbReply.decode(content)
            assert reply.raw_prompts == ()
            seen |= {prompt.record_key for prompt in reply.prompts}
    released = {q for asked in both.released.asked for q in asked}
    assert pools["perturbed"]
    assert {trace.question for trace in pools["perturbed"]} <= released
    # One trace at most for each record that was released.
    assert len(pools["perturbed"]) <= len(seen)
    # The provider that is not for released questions was asked by the server for none.
    assert both.asked == []


def test_a_ledger_is_charged_once_and_what_was_released_is_sent_again_for_free(
    tmp_path, provider
):
    # All nine records are asked in each of three rounds.
    config = perturbed(tmp_path / "a", num_server_rounds=3, records_per_round=9)
    run, grid = gather(config, BothProviders())
    summary = summary_of(run)
    assert summary["status"] == "completed", summary["reason"]
    channel = configured_channel(config)
    plan = plan_run(config, channel, num_partitions=3)
    for use in read_ledgers(run.path):
        assert use.releases == 9
        assert use.max_epsilon == pytest.approx(channel.prompt_epsilon, rel=1e-9)
    fresh = [
        sum(prompt.fresh for prompt in PerturbReply.decode(content).prompts)
        for kind, content in grid.replies
        if kind == QUERY_PERTURB
    ]
    assert sorted(fresh) == [0] * 6 + [9] * 3
    # A question that was sent again is no other one, and what came back is counted.
    answers = {
        (reply.partition_id, key): ScriptedTeacher().answer([question])[0].rationale
        for kind, content in grid.replies
        if kind == QUERY_PERTURB
        for reply in [PerturbReply.decode(content)]
        for _, key, question in prompts_of(
            reply, configured_vocabulary(config), configured_task(config)
        )
    }
    unparsed = sum(rationale is None for rationale in answers.values())
    counts = {"asked": 27, "unparsed": unparsed}
    assert summary["community"]["perturbed"] == counts
    line = summary["privacy"]["per_arm"]["perturbed"]
    assert line["record_epsilon_max"] == pytest.approx(plan.record_epsilon, rel=1e-9)
    assert line["prompt_epsilon_max"] == pytest.approx(channel.prompt_epsilon)
    assert line["mechanism"] == config.mechanism
    # What the command line plans is what the run reports.
    sizes = partition_sizes(config, 3)
    planned = sharing_epsilons(config, plan, sizes=sizes)["perturbed"]
    assert line["record_epsilon_at_delta"] == planned.record_epsilon_at_delta
    assert line["guarantee"] == planned.guarantee
    assert summary["account"]["charged_epsilon"] == pytest.approx(
        channel.prompt_epsilon
    )


def test_what_ledgers_remember_of_trainings_is_at_a_delta(
    tmp_path, provider, monkeypatch
):
    monkeypatch.setattr(Ledger, "spent_delta", lambda self, key: 2e-6)
    own = {"delta": 1e-9, "num_server_rounds": 1, "test_records": 1}
    run, _ = gather(perturbed(tmp_path / "a", **own), BothProviders())
    summary = summary_of(run)
    line = summary["privacy"]["per_arm"]["perturbed"]
    assert line["delta"] == 1e-9 + 2e-6
    assert line["record_epsilon_at_delta"] == summary["account"]["charged_epsilon"]
    assert summary["account"]["delta"] == 2e-6


def test_a_run_without_budget_stops_and_says_so(tmp_path, provider):
    both = BothProviders()
    run, grid = gather(perturbed(tmp_path / "a", record_epsilon=1.0), both)
    summary = summary_of(run)
    assert summary["status"] == "budget-exhausted"
    assert "1 nats" in summary["reason"]
    assert summary["num_rounds"] == 1
    assert summary["community"]["students"] == {}
    assert not any(kind == QUERY_PERTURB for kind, _ in grid.uplink)
    assert both.released.asked == []
    assert summary["account"]["charged_epsilon"] == 0


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_spent_budget_does_not_keep_other_ways_from_their_students(
    tmp_path, provider, rounds
):
    config = perturbed(
        tmp_path / "a",
        sharing="pooled,perturbed,prompt",
        record_epsilon=1.0,
        num_server_rounds=rounds,
    )
    run, grid = gather(config, BothProviders())
    summary = summary_of(run)
    assert summary["status"] == "budget-exhausted"
    assert summary["num_rounds"] == rounds
    students = summary["community"]["students"]
    assert students[f"pooled.{GRAND}"]["num_traces"] == 21
    assert set(students[f"pooled.{GRAND}"]["own"]) == set(NAMES)
    assert set(students[f"prompt.{GRAND}"]["own"]) == set(NAMES)
    assert students[f"perturbed.{GRAND}"]["num_traces"] == 0
    assert not any(kind == QUERY_PERTURB for kind, _ in grid.uplink)


@pytest.mark.parametrize(
    ("sharing", "noise", "spends"),
    [
        ("perturbed", 0.0, True),
        ("pooled,perturbed", 0.0, True),
        ("federated", 1.0, True),
        ("synthetic", 1.0, True),
        ("pooled,prompt", 1.0, False),
        ("federated,synthetic", 0.0, False),
    ],
)
def test_a_strategy_that_spends_refuses_to_start_without_an_account(
    tmp_path, provider, monkeypatch, sharing, noise, spends
):
    """Taken out of its wrapper, it asks nobody for anything."""

    class Unwrapped:
        def __new__(cls, strategy, accountant):
            return strategy

    wrapped = []

    def listens(self, grid, *arguments, **named):
        wrapped.append(self)
        raise FedcotError("stopped here")

    config = perturbed(tmp_path / "a", sharing=sharing, noise_multiplier=noise)
    with monkeypatch.context() as patched:
        patched.setattr(AccountedStrategy, "start", listens)
        patched.setattr(community.Community, "start", listens)
        with pytest.raises(FedcotError, match="stopped here"):
            gather(config, BothProviders())
    assert isinstance(wrapped[0], AccountedStrategy) == spends
    if not spends:
        return
    monkeypatch.setattr(community_run, "AccountedStrategy", Unwrapped)
    asked: list[str] = []
    monkeypatch.setattr(
        client_app, "_answer", lambda message, *_: asked.append(message) or message
    )
    again = perturbed(tmp_path / "b", sharing=sharing, noise_multiplier=noise)
    with pytest.raises(FedcotError, match="must be accounted for"):
        gather(again, BothProviders())
    assert asked == []


@pytest.mark.slow
def test_what_an_earlier_run_sent_unprotected_is_not_left_out(tmp_path, provider):
    """Also beside other ways of sharing, whose own charges are no prompts'."""
    nodes = [owner_config(tmp_path, partition) for partition in range(3)]
    answers = {"trace_filter": "answer", "test_tape": False}
    own = {"sharing": "perturbed,federated", "noise_multiplier": 4.0, **answers}
    before = gather(
        community_config(tmp_path / "a", **settings(**own)), BothProviders(),
        nodes=nodes,
    )[0]  # fmt: skip
    line = summary_of(before)["privacy"]["per_arm"]["perturbed"]
    assert line["record_epsilon_max"] < math.inf
    for node in nodes:
        expose_all(node, community_config(tmp_path / "x", **settings(**own)))
    after = gather(
        community_config(tmp_path / "b", **settings(**own)), BothProviders(),
        nodes=nodes,
    )[0]  # fmt: skip
    line = summary_of(after)["privacy"]["per_arm"]["perturbed"]
    assert line["record_epsilon_max"] == "inf"
    assert line["record_epsilon_at_delta"] == "inf"


def expose_all(node: dict[str, Any], config) -> None:
    """Write into a node's ledger that an earlier run sent everything as it is."""
    own = Node(config, Owner.from_node_config(node))
    with Ledger(Path(node["state-dir"]) / "ledger", record_epsilon=200.0) as ledger:
        keys = ledger.record_keys([r.identity for r in own.partition.train])
        ledger.expose(keys, run="earlier")


# Controls and strikes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("controls", "trained"),
    [
        ("none", set()),
        pytest.param("label-only", set(), marks=pytest.mark.slow),
        pytest.param("random-label", {f"random-label.{GRAND}"}, marks=pytest.mark.slow),
    ],
)
def test_controls_are_those_asked_for_and_no_gain_is_stated_without_labels(
    tmp_path, provider, controls, trained
):
    config = community_config(
        tmp_path / "a",
        **settings(sharing="pooled", controls=controls, coalitions="alone,grand"),
    )
    run, _ = gather(config, provider)
    summary = summary_of(run)
    students = summary["community"]["students"]
    pooled = {f"pooled.{one}" for one in (*NAMES, GRAND)}
    others = set(students) - pooled
    if controls == "label-only":
        trained = {f"label-only.{one}" for one in (*NAMES, GRAND)}
    assert others == trained
    assert set(summary["privacy"]["per_arm"]) == {"pooled", controls} - {"none"}
    if controls == "label-only":
        assert gains_section(read_run(run.path)).problem == ""
        return
    with pytest.raises(ConfigError, match="found no label-only for library"):
        gains_section(read_run(run.path))


def test_a_striker_has_no_cell_in_the_coalitions_that_it_left(tmp_path, provider):
    config = community_config(
        tmp_path / "a",
        **settings(
            sharing="pooled",
            scenario="strike:bakery",
            coalitions="library+harbor,grand",
            controls="none",
        ),
    )
    run, _ = gather(config, provider)
    students = summary_of(run)["community"]["students"]
    for name, student in students.items():
        without = "bakery" in name.partition(".")[2].split("+")
        if student.get("own"):
            assert ("bakery" in student["own"]) != without, name
    assert set(students[f"pooled.{GRAND}"]["own"]) == {"library", "harbor"}
    assert set(students["pooled.library+harbor"]["own"]) == set(NAMES)
    assert len(students) == 2
    # The member still sends its scores: they are left out where they are read.
    rows = rows_of(run, phase="evaluate", student=f"pooled.{GRAND}")
    assert {row["community"] for row in rows} == set(NAMES)


@pytest.mark.parametrize("invented", ["pooled.library+bakery", "federated.library"])
def test_a_score_of_a_student_that_was_not_sent_is_refused(
    tmp_path, provider, monkeypatch, invented
):
    honest = Member.score

    def invents(self, request):
        reply = honest(self, request)
        if self.owner.partition_id != 1:
            return reply
        more = StudentScore(
            student=invented, exact_match=2, parsed=2, valid_rationales=2,
            num_records=2, correct="11",
        )  # fmt: skip
        return StudentsReply(
            partition_id=1, withheld=False, scores=(*reply.scores, more)
        )

    monkeypatch.setattr(Member, "score", invents)
    run, _ = gather(
        community_config(tmp_path / "a", **settings(sharing="pooled")), provider
    )
    summary = summary_of(run)
    (failure,) = summary["failures"]
    assert "partition 1: A student was scored that was not asked for." in failure
    students = summary["community"]["students"]
    assert invented not in students
    assert set(students[f"pooled.{GRAND}"]["own"]) == {"library", "harbor"}
    assert rows_of(run, student=invented) == []


@pytest.mark.slow
def test_a_deployed_member_gets_no_student_of_others(tmp_path, provider, monkeypatch):
    asked: dict[int, StudentsRequest] = {}
    honest = Member.score

    def listens(self, request):
        asked[self.owner.partition_id] = request
        return honest(self, request)

    monkeypatch.setattr(Member, "score", listens)
    for partition in range(3):
        traces = [secret_trace(f"{NAMES[partition]}{n}", Scope.COALITION)
                  for n in range(2)]  # fmt: skip
        fill_store(tmp_path, partition, traces)
    config = community_config(
        tmp_path / "run",
        **settings(
            sharing="pooled,federated,prompt",
            coalitions="alone,library+bakery",
            trace_filter="none",
            test_tape=False,
        ),
    )
    nodes = [owner_config(tmp_path, partition) for partition in range(3)]
    run, _ = gather(config, provider, nodes=nodes)
    summary = summary_of(run)
    assert summary["status"] == "completed", summary["reason"]
    for partition, request in asked.items():
        own = NAMES[partition]
        named = [*request.adapters, *(one.student for one in request.prompts)]
        assert {f"pooled.{own}", f"federated.{own}", f"prompt.{own}"} <= set(named)
        assert all(own in name.partition(".")[2].split("+") for name in named)
        inside = {name for name in named if "+" in name}
        assert bool(inside) == (own != "harbor")
    assert "pooled.harbor" in summary["community"]["students"]
