"""The six level files become data sets with the same questions and the same split."""

import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fedcot.community.level_data import (
    ANSWER_FILE,
    CHANGED,
    HUMAN_FILE,
    LEVEL_FILES,
    MISSING,
    NO_GOLD,
    TWICE,
    UNREADABLE,
    read_levels,
    write_level_mapping,
)
from fedcot.community.step_text import TEXT_FILLER, count_words
from fedcot.data.loading import LabelCounts, LoadedData, load_dataset
from fedcot.data.schema import Rationale
from fedcot.errors import ConfigError
from fedcot.evaluation.extraction import split_answer
from fedcot.models.sentencepiece_bpe import fast_tokenizer
from tests.tasks.writing import config_for

VARIANTS = [*((level, 0) for level in range(7)), (1, 6)]


def write_files(
    folder: Path, changes: dict[tuple[str, int], Any] | None = None
) -> Path:
    """Write ten questions whose level k has k steps, changed where asked."""
    for name in (*LEVEL_FILES, HUMAN_FILE, ANSWER_FILE):
        rows = []
        for n in range(10):
            level = LEVEL_FILES.index(name) + 1 if name in LEVEL_FILES else 1
            steps = " ".join(f"Step {k} of this one." for k in range(level))
            output = str(n) if name == ANSWER_FILE else f"{steps} The answer is {n}"
            row = {"instruction": f"What is {n} plus 0?", "output": output}
            rows.append((changes or {}).get((name, n), row))
        text = json.dumps([row for row in rows if row is not None])
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def outputs(n: int, text: str) -> dict[str, str]:
    return {"instruction": f"What is {n} plus 0?", "output": text}


def test_levels_are_joined_on_the_question(tmp_path: Path) -> None:
    found = read_levels(write_files(tmp_path))
    assert found.joined == len(found.records) == 10
    assert found.dropped == {}
    first = found.records[0]
    assert (first.question, first.gold) == ("What is 0 plus 0?", "0")
    assert first.levels[1] == Rationale("Step 0 of this one. Step 1 of this one.", "0")
    assert first.human == first.levels[0]
    assert found.kept.medians == (5, 10, 15, 20, 25, 30)
    assert found.written.medians == (9, 14, 19, 24, 29, 34)
    assert found.kept.monotone == 1


def test_every_dropped_question_is_counted(tmp_path: Path) -> None:
    second, third = LEVEL_FILES[1], LEVEL_FILES[2]
    changes = {
        (second, 0): None,  # Not in every file.
        (third, 1): outputs(1, "Wrong. The answer is 2"),
        (third, 2): outputs(2, "No answer here"),
        (second, 3): outputs(3, "The answer is 3"),  # No reasoning.
        (second, 4): outputs(4, "Sum it = 4The answer is 4"),  # Glued, but readable.
        (ANSWER_FILE, 5): outputs(5, "five"),
        (HUMAN_FILE, 6): outputs(7, "Again. The answer is 7"),
        (third, 8): outputs(8, "As decimals. The answer is 8.0"),
    }
    found = read_levels(write_files(tmp_path, changes))
    kept = [record.gold for record in found.records]
    assert kept == ["4", "8", "9"]
    assert found.dropped == {
        MISSING: 2,  # 0, and 6, which the human file lacks
        CHANGED: 1,
        UNREADABLE: 2,
        NO_GOLD: 1,
        TWICE: 1,
    }
    assert found.joined == 7
    assert found.records[0].levels[1] == Rationale("Sum it = 4", "4")
    assert found.records[1].levels[2] == Rationale("As decimals.", "8")


def test_other_content_is_refused_without_its_text(tmp_path: Path) -> None:
    write_files(tmp_path)
    for content in ("{", '{"a": 1}', '[{"instruction": "SECRET"}]', "[1]"):
        (tmp_path / HUMAN_FILE).write_text(content, encoding="utf-8")
        with pytest.raises(ConfigError, match="human_annotation") as raised:
            read_levels(tmp_path)
        assert "SECRET" not in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="`folder`"):
        read_levels(tmp_path / "absent")
    (tmp_path / HUMAN_FILE).write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match="none among 0"):
        read_levels(tmp_path)


@pytest.mark.parametrize(
    ("level", "padded_to", "named"),
    [(-1, 0, "`level`"), (7, 0, "`level`"), (3, 3, "padded"), (1, 7, "padded")],
)
def test_unknown_levels_are_refused(
    tmp_path: Path, level: int, padded_to: int, named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        write_level_mapping(
            tmp_path, level, tmp_path, padded_to=padded_to, measure=count_words
        )


def test_lengths_need_a_measure(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`measure`"):
        write_level_mapping(tmp_path, 1, tmp_path, padded_to=6)
    with pytest.raises(ConfigError, match="`measure`"):
        write_level_mapping(tmp_path, 1, tmp_path, longest=6)


def test_what_is_too_long_at_one_level_is_left_out_at_all(tmp_path: Path) -> None:
    long = outputs(3, " ".join(["Word."] * 31) + " The answer is 3")
    source = write_files(tmp_path, {(LEVEL_FILES[2], 3): long})
    for level in (0, 1, 6):
        mapping = write_level_mapping(
            source, level, tmp_path / "out", longest=30, measure=count_words
        )
        rows = json.loads(mapping.with_suffix(".json").read_text(encoding="utf-8"))
        assert [row["answer"] for row in rows] == list("012456789")
    with pytest.raises(ConfigError, match="`longest`"):
        write_level_mapping(source, 1, tmp_path, longest=29, measure=count_words)


def loaded(
    source: Path, level: int, padded_to: int, out: Path, **more: Any
) -> LoadedData:
    mapping = write_level_mapping(source, level, out, padded_to=padded_to, **more)
    return load_dataset(config_for(str(mapping), out))


def test_a_padded_level_has_the_words_of_the_finer_one(tmp_path: Path) -> None:
    source = write_files(tmp_path)
    fine = loaded(source, 6, 0, tmp_path / "out")
    data = loaded(source, 1, 6, tmp_path / "out", measure=count_words)
    assert len(data.train) == len(fine.train) > 0
    for one, other in zip(data.train, fine.train, strict=True):
        assert one.question == other.question
        assert count_words(one.completion) == count_words(other.completion)
        filler, _, reasoning = one.completion.partition("Step 0")
        assert set(filler.split()) == {TEXT_FILLER}
        assert reasoning


def test_released_levels_load_with_one_split_and_nothing_skipped(
    data_folder: Path, tmp_path: Path
) -> None:
    source = data_folder / "svamp_levels"
    tokenizer = fast_tokenizer(data_folder / "stories260K" / "tok512.model")

    @cache
    def measure(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    found = {
        variant: loaded(source, *variant, tmp_path, measure=measure)
        for variant in VARIANTS
    }
    records = read_levels(source).records
    by_question = {record.question: record for record in records}
    means = {}
    for (level, padded_to), data in found.items():
        every = (*data.train, *data.test)
        assert len(every) == len(records)
        assert data.skipped == {"train": {}, "test": {}}
        assert data.cleaned == {"train": 0, "test": 0}
        for split in ("train", "test"):
            old, new = getattr(found[1, 0], split), getattr(data, split)
            assert [r.question for r in old] == [r.question for r in new]
            rows = len(new)
            if level:
                assert data.labels[split] == LabelCounts(rows, rows, 0)
        if not level:
            assert data.labels == {}
            assert not any(record.completion for record in every)
            continue
        for record in every:
            read = split_answer("numeric", record.completion)
            assert read is not None
            assert read.answer == record.answer
            text = by_question[record.question].levels[level - 1].text
            assert read.text.endswith(text)
            filler = set(read.text.removesuffix(text).split())
            assert filler <= ({TEXT_FILLER} if padded_to else set())
        means[level, padded_to] = sum(measure(r.completion) for r in every) / len(every)
    plain = [means[level, 0] for level in range(1, 7)]
    assert all(fine > coarse for coarse, fine in pairwise(plain))
    each = measure(f"{TEXT_FILLER} {TEXT_FILLER}") - measure(TEXT_FILLER)
    assert abs(means[1, 6] - means[6, 0]) <= each


def test_released_questions_that_are_dropped_are_counted(data_folder: Path) -> None:
    found = read_levels(data_folder / "svamp_levels")
    assert (found.joined, len(found.records)) == (698, 646)
    assert found.dropped == {MISSING: 2, CHANGED: 15, UNREADABLE: 37}
    assert found.kept.questions == 646
    assert found.kept.is_increasing
