"""Every example has one holder, and no silo shares a question."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcot.errors import ConfigError
from fedcot.social.demonstrations import Demonstration
from fedcot.social.generated_tasks import hidden_rule_data
from fedcot.social.split import SPLITS, check_disjoint, split_demonstrations
from fedcot.social.task_data import TaskData


def examples(count: int, labels: int = 2, start: int = 0) -> tuple[Demonstration, ...]:
    names = ("spam", "not spam", "c", "d")
    return tuple(
        Demonstration(f"question {number}", names[number % labels])
        for number in range(start, start + count)
    )


def task(count: int, labels: int = 2) -> TaskData:
    names = ("spam", "not spam", "c", "d")[:labels]
    return TaskData(
        examples(count, labels), examples(5, start=1000), "sms-spam", labels=names
    )


@settings(max_examples=40)
@given(
    st.sampled_from(SPLITS),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(0, 2**40),
)
def test_every_example_has_one_holder(
    kind: str, teachers: int, smallest: int, seed: int
) -> None:
    data = task(80)
    given_ = {"partitioner": kind, "dirichlet_alpha": 5.0, "seed": seed}
    if kind == "size":
        given_["smallest"] = smallest
    silos = split_demonstrations(data, teachers, **given_)
    assert len(silos) == teachers
    assert sorted(one.question for silo in silos for one in silo) == sorted(
        one.question for one in data.train
    )
    assert min(map(len, silos)) >= (smallest if kind == "size" else 1)
    assert split_demonstrations(data, teachers, **given_) == silos


def test_splits_are_as_unequal_as_asked() -> None:
    data = task(400)
    sizes = {
        alpha: [
            max(map(len, split_demonstrations(data, 4, seed=seed, **given_)))
            for seed in range(10)
            for given_ in [{"partitioner": "size", "dirichlet_alpha": alpha}]
        ]
        for alpha in (0.1, 1000.0)
    }
    assert sum(sizes[0.1]) / 10 > 200
    assert max(sizes[1000.0]) < 120
    even = split_demonstrations(data, 3, seed=1)
    assert sorted(map(len, even)) == [133, 133, 134]
    assert {one.answer for one in even[0]} == {"spam", "not spam"}
    # Two labels, two clients: each has one.
    silos = split_demonstrations(data, 2, partitioner="label", seed=1)
    assert [{one.answer for one in silo} for silo in silos] == [
        {"spam"},
        {"not spam"},
    ] or [{one.answer for one in silo} for silo in silos] == [{"not spam"}, {"spam"}]
    shares = {}
    for alpha in (0.1, 1000.0):
        silos = split_demonstrations(
            data, 4, partitioner="dirichlet", dirichlet_alpha=alpha, seed=3
        )
        shares[alpha] = [
            abs(sum(one.answer == "spam" for one in silo) / len(silo) - 0.5)
            for silo in silos
        ]
    assert max(shares[0.1]) > 0.3
    assert max(shares[1000.0]) < 0.1


def test_a_silo_that_shares_a_question_is_refused() -> None:
    first, second = examples(3), examples(3, start=10)
    test = examples(2, start=20)
    check_disjoint([first, second], test)
    again = Demonstration("QUESTION, 1!", "spam")
    for silos, tested, found in (
        ([first, (*second, again)], test, "1 questions in several silos and 0"),
        ([first, second], (*test, again), "0 questions in several silos and 1"),
        ([(*first, again), second], test, ""),
    ):
        if not found:
            check_disjoint(silos, tested)
            continue
        with pytest.raises(ConfigError, match=found) as caught:
            check_disjoint(silos, tested)
        assert "QUESTION" not in str(caught.value)
    doubled = TaskData((*examples(8), again), test, "sms-spam")
    with pytest.raises(ConfigError, match="several silos"):
        split_demonstrations(doubled, 9, seed=0)  # One for each.


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"partitioner": "other"}, "`partitioner` must be one of iid"),
        ({"dirichlet_alpha": 0.0}, "`dirichlet-alpha` must be > 0"),
        ({"dirichlet_alpha": float("nan")}, "`dirichlet-alpha` must be > 0"),
        ({"num_teachers": 0}, "`num-partitions`"),
        ({"num_teachers": 41}, "`num-partitions`"),
        ({"num_teachers": 5, "smallest": 9}, "leave every teacher client 9 of 40"),
        (
            {"partitioner": "dirichlet", "dirichlet_alpha": 0.1, "smallest": 10},
            "found one with",
        ),
    ],
)
def test_splits_that_cannot_be_are_refused(changed: dict, found: str) -> None:
    given_ = {"num_teachers": 4, "seed": 1, **changed}
    with pytest.raises(ConfigError, match=found):
        split_demonstrations(task(40), given_.pop("num_teachers"), **given_)


def test_only_labels_can_be_split_by() -> None:
    data = hidden_rule_data("operator", 0, num_train=40, num_test=5)
    for kind in ("dirichlet", "label"):
        with pytest.raises(ConfigError, match="`iid` or `size`"):
            split_demonstrations(data, 4, partitioner=kind, seed=0)
    assert len(split_demonstrations(data, 4, partitioner="size", seed=0)) == 4
