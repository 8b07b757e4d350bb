"""The tokenizers lose nothing of what the world writes."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fedcot.data.prompts import completion, explain_prompt, predict_prompt
from fedcot.data.schema import Rationale
from fedcot.models.public_lm import build_public_lm_tokenizer
from fedcot.models.tokenizer import build_tokenizer
from fedcot.world import FAMILIES, draw_problems, question_words

TOKENIZER = build_tokenizer()


def test_prompts_and_rationales_of_every_family_round_trip() -> None:
    for problem in draw_problems("train", tuple(FAMILIES), 180, seed=0):
        for level in (1, 2, 3, 4):
            target = completion(Rationale(problem.rationale(level), problem.answer))
            for prompt in (explain_prompt, predict_prompt):
                text = f"{prompt(problem.text)} {target}"
                ids = TOKENIZER(text)["input_ids"]
                assert TOKENIZER.unk_token_id not in ids
                assert TOKENIZER.decode(ids) == text


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8))
def test_neighbouring_numbers_stay_apart(numbers: list[int]) -> None:
    text = " ".join(map(str, numbers))
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.decode(ids) == text
    assert len(ids) == sum(len(str(number)) for number in numbers)


def test_the_tokenizer_survives_saving(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "explain: tom has 12 marbles rationale: 12 - 5 = 7 answer: 7"
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 1)


def test_public_language_model_ids_are_the_vocabulary_indices() -> None:
    words = build_public_lm_tokenizer()
    for index, word in enumerate(question_words()):
        assert words(word)["input_ids"] == [index + 2]
    assert words("zebra")["input_ids"] == [1]
    assert words.pad_token_id == words.eos_token_id == 0
