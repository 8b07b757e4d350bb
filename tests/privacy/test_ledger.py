import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcot.errors import LedgerError
from fedcot.privacy.channels import Channel
from fedcot.privacy.database import DATABASE_NAME
from fedcot.privacy.identity import IdentityChannel
from fedcot.privacy.ledger import Ledger, Release
from fedcot.privacy.rank import RankChannel
from fedcot.privacy.sampler import RandomSource, SystemRandomSource, TapeRandomSource
from tests.privacy.worker import CHANNEL, VOCABULARY, prompt

SYSTEM = SystemRandomSource()
OTHER = RankChannel(VOCABULARY, 0.05)
RAW = IdentityChannel(VOCABULARY)


def release(
    ledger: Ledger,
    count: int = 1,
    channel: Channel = CHANNEL,
    source: RandomSource = SYSTEM,
) -> list[Release]:
    keys = ledger.record_keys([f"question {index}" for index in range(count)])
    prompts = [(key, prompt(index)) for index, key in enumerate(keys)]
    return ledger.release(prompts, channel, source=source)


def test_a_prompt_is_drawn_once_and_costs_once(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        first = release(ledger, 3)
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        again = release(ledger, 3)
        totals = ledger.totals()
        spent = [ledger.spent(made.record_key) for made in again]
    assert [made.fresh for made in first] == [True] * 3
    assert [made.fresh for made in again] == [False] * 3
    assert [made.ids for made in first] == [made.ids for made in again]
    exact = VOCABULARY.length * CHANNEL.token_epsilon
    assert exact <= first[0].prompt_epsilon <= exact + 2e-9
    assert spent == [made.prompt_epsilon for made in again]
    assert (totals.records, totals.charges, totals.releases) == (3, 3, 3)
    assert totals.max_epsilon == first[0].prompt_epsilon
    assert totals.sum_epsilon == pytest.approx(3 * exact)


def test_another_artefact_is_another_charge_up_to_the_limit(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=0.9) as ledger:
        first, second = release(ledger)[0], release(ledger, channel=OTHER)[0]
        assert first.channel_hash != second.channel_hash
        assert ledger.spent(first.record_key) == pytest.approx(0.9, abs=1e-4)
        assert release(ledger, channel=RankChannel(VOCABULARY, 0.01)) == []
        # A refusal changes nothing and what was released stays available.
        assert ledger.totals().charges == 2
        assert release(ledger)[0].ids == first.ids


def test_records_over_their_limit_are_refused_one_by_one(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=0.7) as ledger:
        old = release(ledger, 2)
        made = release(ledger, 4, channel=OTHER)
        assert [item.record_key for item in made] == ledger.record_keys(
            [f"question {index}" for index in range(4)]
        )[2:]
        assert {ledger.spent(item.record_key) for item in old} == {
            old[0].prompt_epsilon
        }


def test_the_limit_is_compared_exactly(tmp_path: Path) -> None:
    """The cost rounded up to nano-nats fits its own limit and not one below it."""
    with Ledger(tmp_path / "probe", record_epsilon=1.0) as ledger:
        cost = release(ledger)[0].prompt_epsilon
    with Ledger(tmp_path / "below", record_epsilon=cost - 1e-9) as ledger:
        assert release(ledger) == []
    with Ledger(tmp_path / "exact", record_epsilon=cost) as ledger:
        assert len(release(ledger)) == 1


def test_a_lower_limit_still_sends_what_was_released(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        made = release(ledger)
    with Ledger(tmp_path, record_epsilon=0.1) as ledger:
        assert release(ledger)[0].ids == made[0].ids
        assert release(ledger, channel=OTHER) == []


def test_another_slot_is_another_prompt_and_another_charge(tmp_path: Path) -> None:
    """A later turn must neither get the first turn's output nor go out unpaid."""
    with Ledger(tmp_path, record_epsilon=1.3) as ledger:
        (key,) = ledger.record_keys(["question 0"])

        def ask(slot: str) -> list[Release]:
            return ledger.release([(key, prompt(0))], CHANNEL, source=SYSTEM, slot=slot)

        first, second = ask("prompt")[0], ask("turn 2")[0]
        assert first.fresh
        assert second.fresh
        assert first.ids != second.ids
        assert ledger.spent(key) == pytest.approx(1.2, abs=1e-4)
        assert ask("turn 3") == []
        assert [ask("prompt")[0].ids, ask("turn 2")[0].ids] == [first.ids, second.ids]
        # The slot that is asked for without a name.
        assert release(ledger)[0].ids == first.ids
        with pytest.raises(ValueError, match="`slot` must name"):
            ask("")
        assert ledger.totals().charges == 2


class WholePrompt:
    """Charges a prompt as a whole, whatever one of its tokens would cost."""

    token_epsilon = math.inf
    prompt_epsilon = 0.25
    hash = "whole"

    def __getattr__(self, name: str) -> object:
        return getattr(CHANNEL, name)


def test_the_charge_is_what_the_channel_asks_for_a_prompt(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=0.3) as ledger:
        made = release(ledger, channel=WholePrompt())[0]  # type: ignore[arg-type]
        assert made.prompt_epsilon == ledger.spent(made.record_key) == 0.25


class Misshapen:
    """Returns fewer tokens than it was given: their number would tell something."""

    def __getattr__(self, name: str) -> object:
        return getattr(CHANNEL, name)

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        return ids[:, :-1]


def test_a_channel_that_changes_the_length_sends_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        with pytest.raises(ValueError, match="keep the shape"):
            release(ledger, channel=Misshapen())  # type: ignore[arg-type]
        assert (ledger.totals().charges, ledger.totals().releases) == (1, 0)


class Crash(Exception):
    """The process dies."""


class CrashingChannel:
    """Dies instead of drawing, after the charge was made."""

    def __init__(self) -> None:
        self.ids_seen: NDArray[np.int64] | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(CHANNEL, name)

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        self.ids_seen = ids
        raise Crash


def crash(ledger: Ledger) -> None:
    with pytest.raises(Crash):
        release(ledger, channel=CrashingChannel())  # type: ignore[arg-type]


def test_a_charge_without_output_serves_the_retry(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        crash(ledger)
        assert ledger.totals().charges == 1
        assert ledger.totals().releases == 0
        assert release(ledger)[0].fresh
        assert ledger.totals().charges == 1


def test_a_charge_without_output_keeps_to_a_lower_limit(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        crash(ledger)
    with Ledger(tmp_path, record_epsilon=0.5) as ledger:
        assert release(ledger) == []


class WatchingChannel:
    """Looks from outside at what is durable when the draw is made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.charges_before_draw = -1

    def __getattr__(self, name: str) -> object:
        return getattr(CHANNEL, name)

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        outside = sqlite3.connect(self.path)
        query = "SELECT COUNT(*) FROM charges"
        self.charges_before_draw = outside.execute(query).fetchone()[0]
        outside.close()
        return CHANNEL.sample(ids, source)


def test_the_charge_is_committed_before_the_draw(tmp_path: Path) -> None:
    channel = WatchingChannel(tmp_path / DATABASE_NAME)
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        release(ledger, 5, channel=channel)  # type: ignore[arg-type]
    assert channel.charges_before_draw == 5


def test_seeded_outputs_never_pass_for_private_ones(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=2.0) as ledger:
        seeded = release(ledger, source=TapeRandomSource(0))[0]
        private = release(ledger)[0]
        assert private.fresh
        assert seeded.ids != private.ids
        assert release(ledger, source=TapeRandomSource(1))[0].ids == seeded.ids
        totals = ledger.totals()
    assert (totals.charges, totals.seeded) == (2, 1)


def test_raw_release_needs_an_infinite_limit_and_is_never_forgotten(
    tmp_path: Path,
) -> None:
    with Ledger(tmp_path, record_epsilon=1e9) as ledger:
        assert release(ledger, channel=RAW) == []
    with Ledger(tmp_path, record_epsilon=math.inf) as ledger:
        made = release(ledger, channel=RAW)[0]
        assert made.prompt_epsilon == ledger.spent(made.record_key) == math.inf
        assert made.ids == tuple(prompt(0).tolist())
    with Ledger(tmp_path, record_epsilon=1e9) as ledger:
        assert release(ledger) == []
        assert ledger.totals().max_epsilon == math.inf


def test_keys_tell_equal_records_apart_and_nothing_else(tmp_path: Path) -> None:
    contents = ["one", "two", "one", "one"]
    with (
        Ledger(tmp_path / "a", record_epsilon=1.0) as first,
        Ledger(tmp_path / "b", record_epsilon=1.0) as second,
    ):
        keys = first.record_keys(contents)
        assert keys == first.record_keys(contents)
        assert len(set(keys)) == 4
        # The order of other records changes no key; another node has other keys.
        assert first.record_keys(["two", "one"]) == [keys[1], keys[0]]
        assert not set(keys) & set(second.record_keys(contents))
        assert not any("one" in key for key in keys)
        # Half a surrogate pair cannot be encoded plainly, and an error would show it.
        assert len(first.record_keys(["\ud800"])) == 1


def test_the_database_holds_no_private_token(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        keys = ledger.record_keys(["a very private question"])
        ledger.release([(keys[0], prompt(0))], CHANNEL, source=SYSTEM)
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert keys[0].encode() in content
    assert b"private question" not in content


def test_a_failed_store_sends_nothing(tmp_path: Path) -> None:
    """The table of outputs is gone when the draw is to be stored."""
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        saboteur = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
        saboteur.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON releases"
            " BEGIN SELECT RAISE(ABORT, 'disk is gone'); END"
        )
        with pytest.raises(LedgerError, match="disk is gone"):
            release(ledger, 3)
        assert ledger.totals().charges == 3
        saboteur.execute("DROP TRIGGER broken")
        saboteur.close()
        assert len(release(ledger, 3)) == 3
        assert ledger.totals().charges == 3


@pytest.mark.parametrize(
    ("ids", "rule"),
    [
        (np.zeros(5, dtype=np.int64), "public length of 6 slots"),
        (np.full(6, 99), "must be integers in"),
        (np.zeros(6), "must be integers in"),
    ],
)
def test_a_wrong_prompt_is_refused_before_it_is_charged(
    tmp_path: Path, ids: NDArray[np.int64], rule: str
) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        with pytest.raises(ValueError, match=rule):
            ledger.release([("a", prompt(0)), ("b", ids)], CHANNEL, source=SYSTEM)
        with pytest.raises(ValueError, match="must be distinct"):
            ledger.release([("a", prompt(0))] * 2, CHANNEL, source=SYSTEM)
        assert ledger.totals().charges == 0


def test_what_went_out_raw_is_counted_and_makes_later_runs_infinite(
    tmp_path: Path,
) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        made = release(ledger, 3)
        sent, other = made[0].record_key, made[1].record_key
        ledger.expose([sent], run="first")
        ledger.expose([sent], run="first")
        assert ledger.totals().exposed == 1
        # The run that sent it states each arm by itself.
        assert ledger.spent(sent, run="first") == made[0].prompt_epsilon
        assert ledger.spent(sent, run="second") == math.inf
        assert ledger.spent(sent) == math.inf
        assert ledger.spent(other, run="second") == made[1].prompt_epsilon
        ledger.expose([sent, other], run="second")
        assert ledger.totals().exposed == 2
        assert ledger.spent(sent, run="first") == math.inf
        # A sum of charges; what was exposed is counted beside it.
        assert ledger.totals().max_epsilon == made[0].prompt_epsilon


def test_an_exposure_is_committed_when_it_returns(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        ledger.expose(["key"], run="first")
        outside = sqlite3.connect(tmp_path / DATABASE_NAME)
        rows = outside.execute("SELECT record_key, run FROM exposures").fetchall()
        outside.close()
    assert rows == [("key", "first")]


def test_pseudonyms_are_stable_in_a_run_and_unlinkable_between_runs(
    tmp_path: Path,
) -> None:
    with (
        Ledger(tmp_path / "a", record_epsilon=1.0) as first,
        Ledger(tmp_path / "b", record_epsilon=1.0) as second,
    ):
        keys = first.record_keys(["one", "two", "one"])
        names = first.pseudonyms(keys, run="x")
        assert names == first.pseudonyms(keys, run="x")
        assert len({*names, *first.pseudonyms(keys, run="y"), *keys}) == 9
        assert not set(names) & set(second.pseudonyms(keys, run="x"))
        # Run and key cannot be mistaken for one another.
        assert first.pseudonyms(["b"], run="a") != first.pseudonyms(["ab"], run="")
