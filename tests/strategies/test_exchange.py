"""What can go wrong between server and nodes, each with one clear line."""

import time

import pytest
from flwr.app import Error, Message

from fedcot.errors import CodeMismatchError, FedcotError
from fedcot.node_errors import CODE_MISMATCH, describe
from fedcot.records import QUERY_IDENTIFY, IdentifyRequest
from strategies import exchange
from strategies.exchange import Exchange, wait_for_nodes
from tests.grid import LocalGrid

REQUEST = IdentifyRequest(
    code_hash="a", student_hash="b", vocabulary_hash="c", dataset_hash="d"
)


def nodes(count: int = 4) -> list[dict[str, int]]:
    return [{"partition-id": i, "num-partitions": count} for i in range(count)]


def talk(app, *, count: int = 4, timeout: float = 10.0, late: int = 0):
    """Send one request to every node; return exchange, answers and failures."""
    grid = LocalGrid(app, nodes(count), {}, late=late)
    failures: list[tuple[int, str, str]] = []
    exchanging = Exchange(
        grid, timeout=timeout, on_failure=lambda *failure: failures.append(failure)
    )
    for node_id in grid.get_node_ids():
        exchanging.send(node_id, QUERY_IDENTIFY, REQUEST, group_id="0")
    answers = []
    while exchanging.waits_for(QUERY_IDENTIFY):
        answers += exchanging.poll()
    return exchanging, answers, failures


def echo(message, context):
    return Message(message.content, reply_to=message)


def fails_with(code: int, reason: str, *, but: int = -1):
    """Return an app whose nodes fail, all but one partition."""

    def app(message, context):
        if context.node_config["partition-id"] == but:
            return echo(message, context)
        return Message(Error(code=code, reason=reason), reply_to=message)

    return app


def test_answers_carry_their_size_both_ways():
    exchanging, answers, failures = talk(echo)
    assert len(answers) == 4
    assert not failures
    assert all(a.uplink_bytes == a.downlink_bytes > 50 for a in answers)
    assert exchanging.uplink_bytes == sum(a.uplink_bytes for a in answers)
    assert exchanging.downlink_bytes == exchanging.uplink_bytes


def test_a_late_node_does_not_hold_up_the_others():
    # Failure would mean that the first answers wait for the last.
    grid = LocalGrid(echo, nodes(), {}, late=5)
    exchanging = Exchange(grid, timeout=10, on_failure=pytest.fail)
    for node_id in grid.get_node_ids():
        exchanging.send(node_id, QUERY_IDENTIFY, REQUEST, group_id="0")
    assert len(exchanging.poll()) == 3
    assert exchanging.waits_for(QUERY_IDENTIFY)


def test_no_more_than_a_wave_is_outstanding(monkeypatch):
    monkeypatch.setattr(exchange, "WAVE", 2)
    grid = LocalGrid(echo, nodes(5), {})
    exchanging = Exchange(grid, timeout=10, on_failure=pytest.fail)
    for node_id in grid.get_node_ids():
        exchanging.send(node_id, QUERY_IDENTIFY, REQUEST, group_id="0")
    sizes = []
    while exchanging.waits_for(QUERY_IDENTIFY):
        sizes.append(len(exchanging.poll()))
    assert max(sizes) == 2
    assert sum(sizes) == 5


def test_a_node_that_never_answers_is_given_up():
    started = time.monotonic()
    _, answers, failures = talk(echo, timeout=0.3, late=10**9)
    assert len(answers) == 3
    assert "phase-timeout" in failures[0][2]
    assert time.monotonic() - started < 5


def test_other_code_ends_the_run_with_one_line():
    _, sentence = describe(CodeMismatchError("secret"))
    with pytest.raises(CodeMismatchError, match="other code") as caught:
        talk(fails_with(CODE_MISMATCH, sentence))
    assert "\n" not in str(caught.value)


def test_a_dead_actor_ends_the_run_at_once():
    # Flower gives the dead process every later client, so waiting helps nobody.
    reason = "<class 'ray.exceptions.ActorDiedError'>:<'The actor died ...'>"
    with pytest.raises(FedcotError, match="process died"):
        talk(fails_with(0, reason, but=1))


def test_a_burst_of_unknown_errors_ends_the_run():
    with pytest.raises(FedcotError, match="process died"):
        talk(fails_with(0, "no words"))


def test_failing_clients_are_counted_and_the_others_go_on():
    reason = "<class 'flwr.ClientAppException'>:<'secret quokka question'>"
    _, answers, failures = talk(fails_with(2, reason, but=3))
    assert len(answers) == 1
    assert len(failures) == 3
    # What Flower quotes may be private; its class is enough.
    assert "ClientAppException" in failures[0][2]
    assert "quokka" not in failures[0][2]


def test_the_server_waits_for_its_nodes():
    """A simulation starts the server first: an early look finds 0 nodes."""
    grid = LocalGrid(echo, nodes(), {})
    found = sorted(grid.contexts)
    looks = iter([[], [], found[:1], found])
    grid.get_node_ids = lambda: next(looks, found)
    assert wait_for_nodes(grid, 4, timeout=5) == found
    looks = iter([[], found[:2], found])
    assert wait_for_nodes(grid, 0, timeout=5, settle=0.2) == found


def test_too_few_nodes_are_one_clear_line():
    grid = LocalGrid(echo, nodes(2), {})
    with pytest.raises(FedcotError, match="`num-partitions` is 3, but 2 nodes"):
        wait_for_nodes(grid, 3, timeout=0.2)
