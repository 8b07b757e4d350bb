"""The public bank: whose problems it holds, and files that are wrong."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedcot.config import RunConfig
from fedcot.data.banks import load_bank, read_lines
from fedcot.data.partition import load_partition
from fedcot.errors import ConfigError
from fedcot.privacy.vocabulary import Vocabulary, world_vocabulary
from fedcot.world.families import FAMILIES
from fedcot.world.splits import draw_problems, split_of

TINY = Vocabulary.of(["fox", "hen", "3"], 3)
WORLD = world_vocabulary()


def test_the_world_s_bank_holds_all_families_in_equal_share() -> None:
    bank = load_bank(WORLD, "world", 450)
    families = {
        tuple(WORLD.encode(problem.record().question).tolist()): problem.family
        for problem in draw_problems("bank", tuple(FAMILIES), 450, seed=0)
    }
    shares = Counter(families[tuple(row)] for row in bank.prompts.tolist())
    assert set(shares) == set(FAMILIES)
    assert len(FAMILIES) == 9
    # 50 each; two questions with the same words count once.
    assert all(45 <= count <= 50 for count in shares.values())


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_no_client_s_problem_is_in_the_world_s_bank(seed: int) -> None:
    bank = draw_problems("bank", tuple(FAMILIES), 900, seed=0)
    assert {split_of(problem.hash) for problem in bank} == {"bank"}
    public = {problem.record().question for problem in bank}
    config = RunConfig(token_epsilon=8.0, seed=seed, num_records=360, test_records=40)
    for partition_id in range(3):
        partition = load_partition(config, partition_id, 3)
        private = [*partition.train, *partition.test, *partition.deep_test]
        assert len(private) == 200
        assert not public & {record.question for record in private}


def test_the_world_s_bank_does_not_depend_on_a_run() -> None:
    small, again, large = (load_bank(WORLD, "world", size) for size in (90, 90, 180))
    assert small.hash == again.hash
    assert small.hash != large.hash
    assert large.prompts[: len(small)].tolist() == small.prompts.tolist()


def test_a_file_s_questions_are_taken_in_order_once_each(tmp_path: Path) -> None:
    path = tmp_path / "bank.txt"
    path.write_text("Hen fox!\n\n  fox 3 \nhen, FOX\nowl\nhen hen hen\n", "utf-8")
    hen_fox, fox_three, owl, hens = [3, 2, 0], [2, 4, 0], [1, 0, 0], [3, 3, 3]
    assert read_lines(path, "bank") == [
        "Hen fox!", "fox 3", "hen, FOX", "owl", "hen hen hen"
    ]  # fmt: skip
    bank = load_bank(TINY, str(path), 100)
    assert bank.prompts.tolist() == [hen_fox, fox_three, owl, hens]
    assert bank.prompts.dtype == np.int64
    # The first lines are taken, before equal ones are dropped.
    assert load_bank(TINY, str(path), 3).prompts.tolist() == [hen_fox, fox_three]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "FileNotFoundError"),
        (b"\xff\xfe\x00 no text", "UnicodeDecodeError"),
        (b"", "at least 2 prompts"),
        (b"\n  \n", "at least 2 prompts"),
        (b"fox hen\n", "at least 2 prompts"),
        (b"fox hen\nFOX, hen!\n", "at least 2 prompts"),
    ],
)
def test_a_file_that_is_no_bank_is_refused_in_one_line(
    tmp_path: Path, content: bytes | None, named: str
) -> None:
    path = tmp_path / "bank.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load_bank(TINY, str(path), 10)
    message = str(raised.value)
    assert message.startswith("`bank` must")
    assert named in message
    assert "\n" not in message


def test_a_folder_is_no_bank_and_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`words` must be a readable text file"):
        read_lines(tmp_path, "words")
