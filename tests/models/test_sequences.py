"""Token ids of prompts and targets, with the special tokens that each model expects."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from fedcot.errors import ConfigError
from fedcot.models.chat import teacher_ids
from fedcot.models.loading import LoadedModel, load_model
from fedcot.models.options import ModelOptions
from fedcot.models.sequences import (
    IGNORE_INDEX,
    cut_prompt,
    fitted,
    position_limit,
    prompt_ids,
    sequence_limit,
    target_ids,
    token_ids,
    training_batch,
)
from fedcot.tasks.task import TeacherPrompt
from tests.tiny import tiny_base
from tests.tiny_architectures import (
    ARCHITECTURES,
    byte_level,
    framed,
    save_architecture,
)

PLAIN_TEXT = ModelOptions(chat_template="none")
PROMPT, TARGET = "predict: tom has 3 marbles answer:", "9 - 2 = 7"
BUILTIN = tiny_base()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return a folder for each architecture."""
    root = tmp_path_factory.mktemp("models")
    return {name: save_architecture(name, root / name) for name in ARCHITECTURES}


def tokens(loaded: LoadedModel, ids: list[int]) -> list[str]:
    return loaded.tokenizer.convert_ids_to_tokens(ids)


def test_the_built_in_pair_gets_its_words_and_an_end() -> None:
    found = tokens(BUILTIN, prompt_ids(BUILTIN, "predict: tom has 12 answer:"))
    assert [token.strip("\u2581") for token in found] == [
        *("predict:", "tom", "has", "1", "2", "answer:")
    ]
    assert prompt_ids(BUILTIN, PROMPT) == token_ids(BUILTIN.tokenizer, PROMPT)
    assert target_ids(BUILTIN, TARGET) == [
        *token_ids(BUILTIN.tokenizer, " " + TARGET),
        BUILTIN.tokenizer.eos_token_id,
    ]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_prompt_and_target_together_are_the_text(models, name) -> None:
    """What the student is trained on reads as the text it will have to go on from."""
    loaded = load_model(models[name], "student", PLAIN_TEXT)
    prompt, target = prompt_ids(loaded, PROMPT), target_ids(loaded, TARGET)
    assert target[-1] == loaded.tokenizer.eos_token_id
    whole = loaded.tokenizer(PROMPT + " " + TARGET)["input_ids"]
    decode = loaded.tokenizer.decode
    if loaded.is_encoder_decoder:
        assert prompt == loaded.tokenizer(PROMPT)["input_ids"]
        assert target == loaded.tokenizer(TARGET)["input_ids"]
        assert decode(target, skip_special_tokens=True) == TARGET
    else:
        assert prompt + target[:-1] == whole
    starts = loaded.tokenizer.bos_token
    if name in ("llama", "mistral", "gemma", "gemma2", "gemma3", "opt", "bart"):
        assert tokens(loaded, prompt)[0] == starts
    assert tokens(loaded, prompt).count(starts) <= 1


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_encoder_s_input_ends_and_a_causal_model_s_does_not(models, name) -> None:
    loaded = load_model(models[name], "student")
    end = loaded.tokenizer.eos_token_id
    assert prompt_ids(loaded, PROMPT)[-1] == end
    # The same tokenizer in front of a causal model, which has to go on.
    causal = LoadedModel(loaded.source, BUILTIN.model, loaded.tokenizer)
    assert prompt_ids(causal, PROMPT) == prompt_ids(loaded, PROMPT)[:-1]


def test_an_end_that_belongs_to_the_text_stays() -> None:
    tokenizer = BUILTIN.tokenizer
    assert prompt_ids(BUILTIN, "tom </s>")[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "mistral", "gemma3"])
def test_a_chat_is_what_the_template_makes(models, name) -> None:
    loaded = load_model(models[name], "student")
    expected = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}],
        add_generation_prompt=True,
        return_dict=False,
        enable_thinking=False,
    )
    assert prompt_ids(loaded, PROMPT) == expected
    # The answer is a turn of its own and starts without a space.
    target = target_ids(loaded, TARGET)
    assert target == [
        *token_ids(loaded.tokenizer, TARGET),
        loaded.tokenizer.eos_token_id,
    ]
    plain = load_model(models[name], "student", PLAIN_TEXT)
    assert prompt_ids(plain, PROMPT) == loaded.tokenizer(PROMPT)["input_ids"]


TEACHER = TeacherPrompt(
    "Think step by step.", (("how many cats?", "5 + 6 = 11"),), "how many books?"
)


def test_a_teacher_reads_a_chat_where_it_can(models) -> None:
    qwen = load_model(models["qwen2"], "teacher")
    text = qwen.tokenizer.decode(teacher_ids(qwen, TEACHER))
    assert text == (
        "<|im_start|>system\nThink step by step.<|im_end|>\n"
        "<|im_start|>user\nhow many cats?<|im_end|>\n"
        "<|im_start|>assistant\n5 + 6 = 11<|im_end|>\n"
        "<|im_start|>user\nhow many books?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    # A template without a system role gets the instruction in the first question.
    gemma = load_model(models["gemma3"], "teacher")
    assert gemma.tokenizer.decode(teacher_ids(gemma, TEACHER)) == (
        "<bos>[INST] Think step by step.\n\nhow many cats? [/INST] 5 + 6 = 11<eos>"
        "[INST] how many books? [/INST]"
    )
    llama = load_model(models["llama"], "teacher")
    assert teacher_ids(llama, TEACHER) == llama.tokenizer(TEACHER.text)["input_ids"]
    plain = load_model(models["qwen2"], "teacher", PLAIN_TEXT)
    assert teacher_ids(plain, TEACHER) == plain.tokenizer(TEACHER.text)["input_ids"]


def test_a_template_that_refuses_everything_is_one_line(tmp_path: Path) -> None:
    folder = save_architecture("qwen2", tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no: ' ~ 1) }}")
    loaded = load_model(folder, "student")
    for ask in (
        lambda: prompt_ids(loaded, "my secret"),
        lambda: teacher_ids(loaded, TEACHER),
    ):
        with pytest.raises(ConfigError, match="`chat-template` must fit") as caught:
            ask()
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_end_is_supervised_where_it_also_pads(models) -> None:
    loaded = load_model(models["gpt2"], "student")
    end = loaded.tokenizer.eos_token_id
    assert loaded.tokenizer.pad_token_id == end
    batch = training_batch([([5, 6, 7], [8, end]), ([5], [9, end])], loaded)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, end], [5, 9, end, end, end]]
    assert batch.attention_mask.tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    no = IGNORE_INDEX
    assert batch.labels.tolist() == [[no, no, no, 8, end], [no, 9, end, no, no]]
    assert batch.shift
    assert batch.inputs("cpu").keys() == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(("name", "start"), [("t5", 0), ("bart", 2)])
def test_a_decoder_reads_its_target_one_place_later(models, name, start) -> None:
    loaded = load_model(models[name], "student")
    pad, no = loaded.tokenizer.pad_token_id, IGNORE_INDEX
    batch = training_batch([([5, 6, 7], [8, 2]), ([5], [9, 8, 2])], loaded)
    assert batch.input_ids.tolist() == [[5, 6, 7], [5, pad, pad]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [[8, 2, no], [9, 8, 2]]
    assert not batch.shift
    theirs = loaded.model.prepare_decoder_input_ids_from_labels(batch.labels)
    assert batch.decoder_input_ids.tolist()[0][:2] == [start, 8]
    kept = batch.labels != IGNORE_INDEX
    assert torch.equal(batch.decoder_input_ids[kept], theirs[kept])


ids = st.lists(st.integers(3, 99), max_size=40)


@given(prompt=ids, target=ids, limit=st.integers(8, 40))
def test_what_is_too_long_is_cut_at_the_right_ends(prompt, target, limit) -> None:
    options = ModelOptions(max_sequence_tokens=limit)
    loaded = LoadedModel("tiny", BUILTIN.model, BUILTIN.tokenizer, options)
    kept_prompt, kept = fitted(loaded, prompt, target)
    assert len(kept_prompt) + len(kept) == min(limit, len(prompt) + len(target))
    assert target[: len(kept)] == kept
    assert prompt[len(prompt) - len(kept_prompt) :] == kept_prompt
    if kept != target:
        # A target is cut only where it is longer than half, or than what is left.
        assert len(kept) >= limit // 2
    if kept_prompt != prompt:
        assert len(kept) <= limit // 2


def test_a_cut_prompt_still_begins_as_every_text_does(models) -> None:
    loaded = load_model(models["llama"], "student")
    prompt = prompt_ids(loaded, PROMPT)
    assert cut_prompt(loaded, prompt, 5) == [prompt[0], *prompt[-4:]]
    assert cut_prompt(loaded, prompt[1:], 5) == prompt[-5:]
    assert cut_prompt(loaded, prompt, 1) == prompt[-1:]
    assert cut_prompt(loaded, prompt, len(prompt)) == prompt


def test_the_model_s_own_positions_are_a_limit_too(models) -> None:
    for name, found in (("gpt2", 128), ("bart", 128), ("llama", 128), ("t5", None)):
        loaded = load_model(models[name], "student")
        assert position_limit(loaded.model) == found
        assert sequence_limit(loaded) == (found or 512)
    short = load_model(models["gpt2"], "student", ModelOptions(max_sequence_tokens=64))
    assert sequence_limit(short) == 64


def test_a_tokenizer_may_put_an_end_behind_a_causal_prompt() -> None:
    inner = framed(byte_level(["<s>", "</s>"]), "<s>", "</s>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    loaded = LoadedModel("made", BUILTIN.model, tokenizer)
    found = prompt_ids(loaded, PROMPT)
    assert tokens(loaded, found)[0] == "<s>"
    assert tokenizer.decode(found[1:]) == PROMPT


STRANGE = (
    "",
    "\0",
    "\N{GRINNING FACE} ok",
    "\u05e9\u05dc\u05d5\u05dd",
    "half \ud83d of one",
    "a" * 100_000,
)


@pytest.mark.parametrize("name", ["llama", "qwen2", "t5", "bart"])
@pytest.mark.parametrize("text", STRANGE, ids=range(len(STRANGE)))
def test_any_text_has_a_prompt_and_a_target(models, name, text) -> None:
    loaded = load_model(models[name], "student")
    prompt, target = prompt_ids(loaded, text), target_ids(loaded, text)
    kept = fitted(loaded, prompt, target)
    assert sum(map(len, kept)) <= sequence_limit(loaded)
    batch = training_batch([kept], loaded)
    assert int(batch.input_ids.max()) < len(loaded.tokenizer)
