"""The tokenizers lose nothing of what the world writes."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fedcot.data.prompts import completion, explain_prompt, predict_prompt
from fedcot.data.schema import Rationale
from fedcot.models.in_context_data import rule_sequence
from fedcot.models.public_lm import build_public_lm_tokenizer
from fedcot.models.sources import builtin_folder
from fedcot.models.tokenizer import build_in_context_tokenizer, build_tokenizer
from fedcot.seeding import numpy_generator
from fedcot.world import FAMILIES, draw_problems, question_words
from fedcot.world.hidden_rules import KINDS, draw_rule

TOKENIZER = build_tokenizer()
IN_CONTEXT = build_in_context_tokenizer()


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


def test_the_tokenizer_of_the_pair_is_the_shipped_one() -> None:
    shipped = AutoTokenizer.from_pretrained(builtin_folder() / "teacher")
    assert TOKENIZER.backend_tokenizer.to_str() == shipped.backend_tokenizer.to_str()


def test_the_in_context_tokenizer_keeps_every_id() -> None:
    """Another id would make the warm start read other words."""
    old, new = TOKENIZER.get_vocab(), IN_CONTEXT.get_vocab()
    assert {token: new[token] for token in old} == old
    added = sorted(new[token] for token in set(new) - set(old))
    assert added == list(range(len(old), len(new)))
    assert "\N{LOWER ONE EIGHTH BLOCK}hint:" in set(new) - set(old)
    assert IN_CONTEXT.unk_token_id == TOKENIZER.unk_token_id


def test_rules_of_every_kind_round_trip() -> None:
    rng = numpy_generator(0, "x")
    for kind in KINDS:
        for split in ("pretraining", "held-out"):
            for _ in range(20):
                pieces = rule_sequence(
                    draw_rule(split, kind, rng), 3, rng, hint="after"
                )
                text = " ".join(piece.text for piece in pieces)
                ids = IN_CONTEXT(text)["input_ids"]
                assert IN_CONTEXT.unk_token_id not in ids
                assert IN_CONTEXT.decode(ids) == text
