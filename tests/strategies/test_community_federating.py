"""Whom a round asks for adapters, how these weigh, and what a run says of it first."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedcot.budget import TRAINED, TRAINED_PRIVATELY
from fedcot.community.costs import SHARED
from fedcot.community.messages import CoalitionTrainReply, TracesReply
from fedcot.mechanism import configured_channel
from fedcot.privacy.sampler import SEEDED_GUARANTEE
from strategies.community import Community
from strategies.state import Member, RoundState
from tests.communities import NAMES, AddingProvider, community_config

GRAND = "library+bakery+harbor"
SIZES = (9, 9, 18)
TAPE = {"test_tape": True}


def strategy(folder: Path, **settings: Any) -> Community:
    config = community_config(folder, **{"sharing": "pooled,federated", **settings})
    made = Community(
        config,
        provider=AddingProvider(),
        public=SimpleNamespace(channel=configured_channel(config)),  # type: ignore[arg-type]
        results=SimpleNamespace(config=config, run=None),  # type: ignore[arg-type]
        run_key="ab" * 8,
    )
    made.spending = SimpleNamespace(before_send=lambda *given: True)  # type: ignore[assignment]
    return made


def federated(made: Community, offered: tuple[int, ...]) -> dict[int, tuple[str, ...]]:
    """Return who was asked for what; each member sends its number as its adapter."""
    state = RoundState(server_round=1)
    for partition, size in enumerate(SIZES):
        identity = SimpleNamespace(num_records=size, simulated=False)
        state.members[partition] = Member(partition, identity)  # type: ignore[arg-type]
        own = [NAMES[partition] in name.split("+") for name in made.labels]
        made.intake.gathered.offers[partition] = TracesReply(
            partition_id=partition,
            community=NAMES[partition],
            manifest_hash="",
            num_offered=tuple(offered[partition] * inside for inside in own),
        )
    asked: dict[int, tuple[str, ...]] = {}

    def send_to(partition, kind, request):
        asked[partition] = request.coalitions
        made.intake.gathered.trained[partition] = CoalitionTrainReply(
            partition_id=partition,
            withheld=True,
            adapters={
                name: {"a": np.full(1, partition, np.float32)}
                for name in request.coalitions
            },
        )

    made.send_to = send_to  # type: ignore[method-assign]
    made.receive_all = lambda kind: None  # type: ignore[method-assign]
    made.federate(None, state)  # type: ignore[arg-type]
    known = made.intake.gathered.adapters_asked
    assert known == {partition: set(names) for partition, names in asked.items()}
    return asked


@pytest.mark.parametrize("offered", [(7, 0, 2), (9, 9, 18), (1, 1, 0)])
def test_with_noise_nothing_depends_on_how_many_traces_there_are(tmp_path, offered):
    """Failure would tell counts and absence, for which nothing is charged."""
    made = strategy(tmp_path, noise_multiplier=2.0)
    asked = federated(made, offered)
    assert asked == {p: (name, GRAND) for p, name in enumerate(NAMES)}
    mean = made.students[f"federated.{GRAND}"]["a"]
    assert mean == pytest.approx((1 * 9 + 2 * 18) / 36)


@pytest.mark.parametrize(
    ("offered", "mean"), [((7, 0, 3), 0.6), ((9, 0, 2**62), 2 * 18 / 27)]
)
def test_a_member_weighs_what_it_offers_up_to_its_records(tmp_path, offered, mean):
    """A member could otherwise put its own adapter in the place of the mean."""
    made = strategy(tmp_path)
    asked = federated(made, offered)
    assert asked == {0: ("library", GRAND), 2: ("harbor", GRAND)}
    assert made.students[f"federated.{GRAND}"]["a"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sharing": "pooled,federated"}, {"pooled": SHARED, "federated": TRAINED}),
        (
            {"sharing": "pooled,synthetic", "noise_multiplier": 2.0},
            {"pooled": SHARED, "synthetic": TRAINED_PRIVATELY},
        ),
        (
            {"sharing": "federated,perturbed", "noise_multiplier": 2.0} | TAPE,
            dict.fromkeys(("federated", "perturbed"), SEEDED_GUARANTEE),
        ),
        ({"sharing": "perturbed"}, {"perturbed": None}),
    ],
)  # fmt: skip
def test_the_log_says_what_bounds_each_way_of_sharing(tmp_path, caplog, settings, said):
    made = strategy(tmp_path, **{"test_tape": False, **settings})
    with caplog.at_level(logging.INFO, logger="flwr.fedcot"):
        made.summary()
    lines = [line for line in caplog.messages if "Guarantee" in line]
    own = made.public.channel.guarantee
    assert lines == [
        f"\t├── Guarantee of {name}: {said[name] or own}"
        for name in made.config.sharing_names
    ]
