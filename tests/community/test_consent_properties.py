"""The store against plain dictionaries, over any history of what its owner does."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from fedcot.community.coalitions import all_coalitions, label
from fedcot.community.consent import TraceStore
from fedcot.community.consent_database import DATABASE_NAME
from fedcot.data.traces import Scope, Trace
from fedcot.errors import ConfigError

COMMUNITIES = ("bakery", "library", "post")
EVERY = all_coalitions(COMMUNITIES)
NUMBERS = range(5)
numbers = st.sets(st.sampled_from(NUMBERS), min_size=1)
scopes = st.sampled_from(list(Scope))


def text_of(number: int) -> str:
    return f"private question {number}."


def trace(number: int, scope: Scope = Scope.OWN) -> Trace:
    return Trace(question=text_of(number), scope=scope)


KEYS = [trace(number).key for number in NUMBERS]


def may_reach(scope: Scope, home: str, audience: tuple[str, ...]) -> bool:
    """The rule again: how many steps of widening an audience needs."""
    needed = 3 if home not in audience else 2 if set(audience) != {home} else 1
    return ["own", "community", "coalition", "public"].index(scope) >= needed


class Owner(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.scopes: dict[int, Scope] = {}
        self.buried: dict[int, str] = {}
        self.listed: dict[int, set[tuple[str, str, str]]] = {n: set() for n in NUMBERS}
        self.grants = []

    @initialize(home=st.sampled_from(COMMUNITIES))
    def begin(self, home: str) -> None:
        self.home = home
        self.store = TraceStore(self.folder, community=home)

    @rule(given=st.lists(st.tuples(st.sampled_from(NUMBERS), scopes), max_size=6))
    def add(self, given: list[tuple[int, Scope]]) -> None:
        added = self.store.add([trace(number, scope) for number, scope in given])
        withdrawn = sum(number in self.buried for number, _ in given)
        fresh = 0
        for number, scope in given:
            if number not in self.scopes and number not in self.buried:
                self.scopes[number] = scope
                fresh += 1
        known = len(given) - fresh - withdrawn
        assert (added.added, added.known, added.withdrawn) == (fresh, known, withdrawn)

    @rule(chosen=numbers, scope=scopes)
    def set_scope(self, chosen: set[int], scope: Scope) -> None:
        try:
            changed = self.store.set_scope([KEYS[n] for n in chosen], scope)
        except ConfigError:
            assert chosen - self.scopes.keys()
            return
        assert changed == sum(self.scopes[number] is not scope for number in chosen)
        self.scopes.update(dict.fromkeys(chosen, scope))

    @rule(chosen=numbers, reason=st.text(st.characters(codec="utf-8"), max_size=3))
    def withdraw(self, chosen: set[int], reason: str) -> None:
        asked = [KEYS[n] for n in sorted(chosen)]
        try:
            stones = self.store.withdraw(asked, reason=reason)
        except ConfigError:
            assert chosen - self.scopes.keys() - self.buried.keys()
            return
        for number in chosen:
            self.scopes.pop(number, None)
            self.buried.setdefault(number, reason)
        assert [stone.key for stone in stones] == asked

    @rule(
        asked=st.lists(st.sampled_from(EVERY), unique=True, max_size=4),
        run=st.sampled_from(["a", "b"]),
    )
    def grant(self, asked: list[tuple[str, ...]], run: str) -> None:
        grants = self.store.grant(
            asked, model=lambda one: f"{run}.{label(one)}", purpose=run
        )
        wanted = {
            KEYS[number]: tuple(
                one for one in asked if may_reach(scope, self.home, one)
            )
            for number, scope in self.scopes.items()
        }
        wanted = {key: reach for key, reach in wanted.items() if reach}
        assert [(one.key, one.audiences) for one in grants] == sorted(wanted.items())
        for one in grants:
            number = KEYS.index(one.key)
            assert one.trace == trace(number, self.scopes[number])
            self.listed[number] |= {
                (f"{run}.{label(audience)}", label(audience), run)
                for audience in one.audiences
            }

    @precondition(lambda self: hasattr(self, "store"))
    @rule()
    def start_again(self) -> None:
        self.store.close()
        self.store = TraceStore(self.folder, community=self.home)

    @invariant()
    def all_is_as_told(self) -> None:
        if not hasattr(self, "store"):
            return
        held = {one.key: one for one in self.store.active()}
        assert held == {
            KEYS[number]: trace(number, scope) for number, scope in self.scopes.items()
        }
        stones = {stone.key: stone for stone in self.store.tombstones()}
        assert {key: stone.reason for key, stone in stones.items()} == {
            KEYS[number]: reason for number, reason in self.buried.items()
        }
        for number in (*self.scopes, *self.buried):
            listed = {
                (one.model, one.audience, one.purpose)
                for one in self.store.reached(KEYS[number])
            }
            assert listed == self.listed[number]
        content = (self.folder / DATABASE_NAME).read_bytes()
        for number in NUMBERS:
            assert (text_of(number).encode() in content) == (number in self.scopes)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        shutil.rmtree(self.folder)


TestOwner = Owner.TestCase
TestOwner.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
