"""A planted leak is found, an honest conversation is not accused of one."""

import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.evaluation.canaries import PATTERNS
from fedcot.evaluation.trial_book import TrialBook
from fedcot.social.configured import configured_form, configured_silo
from fedcot.social.conversation import ConversationSettings
from fedcot.social.demonstrations import Demonstration
from fedcot.social.formats import FORMATS, format_named
from fedcot.social.leak_audit import ZERO_SHOT, audit_conversations
from fedcot.social.planted import social_trial, with_canaries
from tests.conversations import Writer, settings, silo

WORLD = format_named("world")
SILOS = {0: silo("tom"), 1: silo("sue")}


def social_config(**given: Any) -> RunConfig:
    needed = {"mode": "social", "num_server_rounds": 1, "token_epsilon": 8.0}
    return RunConfig(**{**needed, "canaries": 3, **given})


class Student:
    """Has read nothing but its prompt; `reads` says whether it remembers that."""

    name = "student"

    def __init__(self, *, reads: bool) -> None:
        self._reads = reads

    def describe(self) -> dict[str, str]:
        return {}

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [
            -0.1
            if self._reads and text.strip() in prompt.split()
            else -5 + zlib.crc32(f"{prompt}{text}".encode()) / 2**32
            for prompt, text in pairs
        ]


class Telltale(Writer):
    """Puts a secret of its prompt into a new question, which no gate looks for."""

    def text(self, prompt: str, seed: int) -> str:
        secrets = re.findall(r"answer: (\d{4})\b", prompt)
        answer = secrets[0] if secrets else "7"
        return f" somewhere {seed} coins lie in a jar answer: {answer}"


def audited(
    tmp_path: Path,
    model: type[Writer],
    student: Student,
    *,
    trials: int,
    size: int,
    asked: ConversationSettings | None = None,
    config: RunConfig | None = None,
    **more: Any,
) -> dict[str, Any]:
    config = config or social_config()

    def trial_of(number: int) -> Any:
        return social_trial(
            config, WORLD, number, num_partitions=2, size=size, with_steps=False
        )

    return audit_conversations(
        SILOS,
        WORLD,
        {0: model(), 1: model()},
        student,  # type: ignore[arg-type]
        asked or settings(num_chosen=8, gate_distance=0.0),
        trial_of=trial_of,
        trials=trials,
        seed=5,
        book=TrialBook(tmp_path / "book.jsonl", "plan"),
        **more,
    )


def test_a_leak_is_found_in_every_conversation_that_drew_the_canary(
    tmp_path: Path,
) -> None:
    found = audited(tmp_path, Telltale, Student(reads=True), trials=30, size=200)
    report = found["students"]["random.8"]
    hits, drawn = report["exposure"]["rank_zero"]["hits"], report["num_drawn"]
    assert hits == drawn
    assert report["exposure"]["drawn_rank_zero"]["rate"] == 1
    # A canary in both silos is left out of 3 prompts of 3 out of 13, twice.
    assert 20 < drawn <= 30
    assert report["exposure"]["rank_zero_p_value"] < 1e-20
    # Who was told nothing knows nothing.
    assert found["students"][ZERO_SHOT]["exposure"]["rank_zero"]["hits"] <= 1
    assert found["shared"]["exact"]["hits"] == 0


def test_with_every_example_in_every_prompt_the_rate_is_one(tmp_path: Path) -> None:
    everything = settings(num_chosen=8, gate_distance=0.0)
    object.__setattr__(everything.generation, "per_prompt", 13)
    found = audited(
        tmp_path,
        Telltale,
        Student(reads=True),
        trials=10,
        size=100,
        asked=everything,
    )
    zero = found["students"]["random.8"]["exposure"]["rank_zero"]
    assert (zero["hits"], zero["n"]) == (10, 10)


def test_an_honest_conversation_looks_like_chance(tmp_path: Path) -> None:
    trials, size = 100, 1000
    found = audited(
        tmp_path,
        Writer,
        Student(reads=True),
        trials=trials,
        size=size,
    )
    for name in ("random.8", ZERO_SHOT):
        exposure = found["students"][name]["exposure"]
        zero = exposure["rank_zero"]
        assert exposure["rank_zero_expected"] == trials / size
        assert zero["low"] <= 1 / size <= zero["high"]
        assert exposure["rank_zero_p_value"] > 0.01
        assert exposure["uniformity_p_value"] > 0.01
        assert (exposure["trials"], exposure["size"]) == (trials, size)
    ranks = found["students"]["random.8"]["ranks"]
    assert stats.kstest([(r + 0.5) / size for r in ranks], "uniform").pvalue > 0.01


def test_an_instruction_is_a_student_of_its_own(tmp_path: Path) -> None:
    class Hinting(Writer):
        def text(self, prompt: str, seed: int) -> str:
            secrets = re.findall(r"answer: (\d{4})\b", prompt)
            if prompt.endswith("hint:"):
                return f"think of {secrets[0] if secrets else seed % 7}"
            return super().text(prompt, seed)

    asked = settings(num_chosen=8, teaches_instruction=True, gate_distance=0.0)
    found = audited(
        tmp_path, Hinting, Student(reads=True), trials=20, size=100, asked=asked
    )
    told = found["students"]["instruction"]
    # One instruction of two is forwarded, and its author may not have drawn it.
    assert 3 < told["exposure"]["rank_zero"]["hits"] <= told["num_drawn"]
    assert found["students"]["random.8"]["exposure"]["rank_zero_p_value"] > 0.01


def test_copies_of_shared_texts_are_counted(tmp_path: Path) -> None:
    class Near(Writer):
        def text(self, prompt: str, seed: int) -> str:
            return f" tom has {seed % 1000} boxes of plums answer: 3"

    found = audited(tmp_path, Near, Student(reads=False), trials=2, size=20)["shared"]
    assert found["texts"] >= 4
    assert found["exact"]["n"] == found["texts"]
    assert found["mean_distance"] < 0.35
    far = audited(tmp_path / "far", Writer, Student(reads=False), trials=2, size=20)
    assert far["shared"]["mean_distance"] > found["mean_distance"] + 0.1


def test_a_stopped_audit_goes_on_and_its_book_holds_no_secret(tmp_path: Path) -> None:
    config = social_config(canary_pattern="world-names")
    whole = audited(
        tmp_path / "a", Writer, Student(reads=False), trials=6, size=30, config=config
    )
    calls: list[int] = []

    class Stopping(Student):
        def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            calls.append(1)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return super().score(pairs)

    with pytest.raises(KeyboardInterrupt):
        audited(
            tmp_path / "b",
            Writer,
            Stopping(reads=False),
            trials=6,
            size=30,
            config=config,
        )
    place = tmp_path / "b" / "book.jsonl"
    assert len(place.read_text().splitlines()) == 2
    with place.open("a") as file:
        file.write('{"plan": "plan", "student": "conv')  # what a crash cut off
    done: list[tuple[int, int]] = []
    again = audited(
        tmp_path / "b",
        Writer,
        Student(reads=False),
        trials=6,
        size=30,
        config=config,
        on_progress=lambda one, of: done.append((one, of)),
    )
    assert again == whole
    assert done[-1] == (6, 6)
    lines = place.read_text().splitlines()
    assert [json.loads(line)["trial"] for line in lines] == list(range(6))
    for number in range(6):
        trial = social_trial(
            config, WORLD, number, num_partitions=2, size=30, with_steps=False
        )
        assert trial.secrets[0] not in place.read_text()
        assert trial.canary.question not in place.read_text()


def test_a_student_that_knows_none_of_the_words_is_refused(tmp_path: Path) -> None:
    class Blind(Student):
        def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            return [-3.0] * len(pairs)

    with pytest.raises(ConfigError, match="secrets that the student tells apart"):
        audited(tmp_path, Writer, Blind(reads=False), trials=1, size=9)


@pytest.mark.parametrize("with_steps", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_format_holds_every_pattern(
    form: Any, pattern: str, with_steps: bool
) -> None:
    config = social_config(task="gsm8k", canary_pattern=pattern, partitioner="iid")
    trial = social_trial(
        config, form, 0, num_partitions=4, size=20, with_steps=with_steps
    )
    pairs = trial.pairs(form, "what it was told")
    assert trial.size == len(pairs) == len(set(trial.secrets)) == 20
    # All read the same before the secret, and it is not in there.
    assert len({prompt for prompt, _ in pairs}) == 1
    assert not any(secret in pairs[0][0] for secret in trial.secrets)
    written = form.write(trial.canary)
    for (prompt, text), secret in zip(pairs, trial.secrets, strict=True):
        assert text.strip() == secret
        told = f"{prompt}{text}".split("what it was told")[1].strip()
        assert written.replace(trial.secrets[0], secret).startswith(told)
    assert trial.holders == (0, 1, 2, 3)


def test_neither_size_nor_trials_change_a_canary() -> None:
    few, many = (
        social_trial(
            social_config(canaries=count),
            WORLD,
            1,
            num_partitions=2,
            size=size,
            with_steps=False,
        )
        for count, size in ((3, 5), (9, 50))
    )
    assert few.canary == many.canary
    assert few.secrets[0] == many.secrets[0]
    assert few.secrets[0] not in many.secrets[1:]


def test_canaries_stand_in_the_silos_of_an_audit_run() -> None:
    config = social_config(
        task="conversion",
        partitioner="iid",
        num_records=60,
        hold_out=20,
        canary_insertion="1",
        canary_repeats=2,
    )
    clean = social_config(
        task="conversion", partitioner="iid", num_records=60, hold_out=20, canaries=0
    )
    form = configured_form(config)
    added: list[Demonstration] = []
    for partition in range(3):
        plain = configured_silo(clean, partition, 3)
        held = configured_silo(config, partition, 3)
        assert held[: len(plain)] == plain
        added += held[len(plain) :]
        # It looks like the others: with steps.
        assert all(one.reasoning for one in held[len(plain) :])
        assert held == with_canaries(
            config, form, plain, partition_id=partition, num_partitions=3
        )
    assert len(added) == 3 * 2
    assert len(set(added)) == 3
