"""Samples and scores against one plain forward pass for each token."""

import hashlib
import math
from pathlib import Path

import pytest
import torch

from fedcot.errors import ConfigError, TeacherError
from fedcot.models.loading import LoadedModel, load_model
from fedcot.models.sampling import gumbel_noise, prompt_digest
from fedcot.plain_text import cut
from fedcot.social import local_model
from fedcot.social.local_model import LocalModel
from tests.tiny_architectures import save_architecture

NAMES = ["gpt2", "qwen2", "llama", "t5", "bart"]
PROMPTS = [
    "tom has 3 marbles answer:",
    "how many books are left? rationale:",
    "question: the two sisters",
    "tom has 3 marbles answer:",
]
SEEDS = [5, 6, 2**62, 7]
PAIRS = [
    ("tom has 3 marbles answer:", " 7"),
    ("ann had 9 books and 2 are lent rationale:", " 9 - 2 = 7 answer: 7"),
    ("how many?", " The user asks, the assistant answers"),
    ("tom has 3 marbles answer:", " 5 + 6 = 11 so the answer is 11."),
    # Some tokenizers put a space in front of what stands alone.
    ("the two sisters", "= 11"),
]
SECRET = "what-only-one-patient-asks"


def saved(name: str, folder: Path) -> str:
    # Logits of a new model are so flat that rounding would decide.
    return save_architecture(name, folder, initializer_range=0.2)


def read(loaded: LoadedModel, text: str) -> list[int]:
    """Return a prompt as its tokenizer reads it; causal models go on from there."""
    ids = list(loaded.tokenizer(text)["input_ids"])
    ends = [loaded.tokenizer.eos_token_id]
    while not loaded.is_encoder_decoder and ids[-1] in ends:
        ids.pop()
    return ids


def next_logits(loaded: LoadedModel, ids: list[int], new: list[int]) -> torch.Tensor:
    with torch.no_grad():
        if loaded.is_encoder_decoder:
            start = loaded.model.config.decoder_start_token_id
            return loaded.model(
                input_ids=torch.tensor([ids]),
                decoder_input_ids=torch.tensor([[start, *new]]),
            ).logits[0, -1]
        return loaded.model(input_ids=torch.tensor([ids + new])).logits[0, -1]


def sampled_alone(
    loaded: LoadedModel,
    prompt: str,
    seed: int,
    *,
    temperature: float,
    tokens: int,
    stop: list[str],
    ends: tuple[int, ...] = (),
) -> tuple[str, list[float]]:
    """Write one token after the other; return the text and what each of them cost."""
    ids = read(loaded, prompt)
    digest = prompt_digest(seed, ids)
    ends = (*ends, loaded.tokenizer.eos_token_id)
    new: list[int] = []
    costs: list[float] = []
    while len(new) < tokens:
        logits = next_logits(loaded, ids, new)
        scores = logits
        if temperature:
            step = hashlib.sha256(digest + len(new).to_bytes(8, "big")).digest()[:8]
            key = torch.tensor([int.from_bytes(step, signed=True)])
            scores = logits / temperature + gumbel_noise(key, len(logits))[0]
        token = int(scores.argmax())
        costs.append(torch.log_softmax(logits.double(), dim=-1)[token].item())
        new.append(token)
        if token in ends or any(word in text_of(loaded, new) for word in stop):
            break
    words = new[:-1] if new[-1] in ends else new
    whole = text_of(loaded, words)
    text = cut(whole, stop)
    if text == whole:
        return text, costs
    needed = next(
        n for n in range(len(new) + 1) if text_of(loaded, new[:n]).startswith(text)
    )
    return text, costs[:needed]


def text_of(loaded: LoadedModel, ids: list[int]) -> str:
    return loaded.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_those_of_a_loop_with_their_own_likelihood(
    name: str, tmp_path: Path
) -> None:
    folder = saved(name, tmp_path)
    loaded = load_model(folder, "teacher")
    for temperature in (0.0, 0.8):
        free = [
            sampled_alone(
                loaded, prompt, seed, temperature=temperature, tokens=10, stop=[]
            )
            for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
        ]
        # The longest one is stopped in the middle of its text.
        longest = max((text for text, _ in free), key=len)
        middle = len(longest) // 2
        assert middle >= 2
        for stop in ([], [longest[middle : middle + 2], "never written"]):
            expected = [
                sampled_alone(
                    loaded, prompt, seed, temperature=temperature, tokens=10, stop=stop
                )
                for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
            ]
            for batch_size in (1, 3):
                found = LocalModel(folder, batch_size=batch_size).sample(
                    PROMPTS,
                    temperature=temperature,
                    max_new_tokens=10,
                    stop=stop,
                    seeds=SEEDS,
                )
                assert [one.text for one in found] == [text for text, _ in expected]
                assert [one.num_tokens for one in found] == [
                    len(costs) for _, costs in expected
                ]
                for one, (_, costs) in zip(found, expected, strict=True):
                    if not costs:
                        assert one.mean_log_probability is None
                        continue
                    mean = sum(costs) / len(costs)
                    assert one.mean_log_probability == pytest.approx(mean, rel=1e-4)
            assert bool(stop) == (longest not in [text for text, _ in expected])
    # The same prompt twice: what differs is the seed.
    assert free[0][0] != free[3][0]


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_an_end_that_was_written_counts(name: str, tmp_path: Path) -> None:
    folder = saved(name, tmp_path)
    loaded = load_model(folder, "teacher")
    prompt = PROMPTS[1]
    ids, new = read(loaded, prompt), []
    for _ in range(3):
        new.append(int(next_logits(loaded, ids, new).argmax()))
    end = new[-1]
    count = new.index(end) + 1
    before = loaded.model.generation_config.eos_token_id
    loaded.model.generation_config.eos_token_id = end
    try:
        (found,) = LocalModel(folder).sample(
            [prompt], temperature=0.0, max_new_tokens=20, stop=["never"], seeds=[0]
        )
    finally:
        loaded.model.generation_config.eos_token_id = before
    text, costs = sampled_alone(
        loaded, prompt, 0, temperature=0.0, tokens=20, stop=[], ends=(end,)
    )
    assert (found.text, found.num_tokens) == (text, len(costs)) == (text, count)
    assert found.mean_log_probability == pytest.approx(
        sum(costs) / len(costs), rel=1e-4
    )


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_means_over_the_tokens_of_the_continuation(
    name: str, tmp_path: Path
) -> None:
    folder = saved(name, tmp_path)
    loaded = load_model(folder, "teacher")
    special = set(loaded.tokenizer.all_special_ids)
    expected = []
    for prompt, text in PAIRS:
        ids = read(loaded, prompt)
        if loaded.is_encoder_decoder:
            target = [*loaded.tokenizer(text_target=text)["input_ids"]][:-1]
        else:
            whole = read(loaded, prompt + text)
            assert whole[: len(ids)] == ids
            target = whole[len(ids) :]
        costs = [
            torch.log_softmax(
                next_logits(loaded, ids, target[:place]).double(), dim=-1
            )[token].item()
            for place, token in enumerate(target)
            if token not in special
        ]
        expected.append(sum(costs) / len(costs))
    for batch_size in (1, 3):
        found = LocalModel(folder, batch_size=batch_size).score(PAIRS)
        assert found == pytest.approx(expected, rel=1e-4)
    assert len({round(value, 3) for value in expected}) == len(PAIRS)


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "llama"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_a_prompt_that_all_share_is_read_once_and_scores_stay(
    name: str, batch_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(name, tmp_path)
    shared = "question: tom has 3 marbles and finds 4 more answer: 7 " * 3
    pairs = [(shared + end, text) for end, text in PAIRS]
    model = LocalModel(folder, batch_size=batch_size)
    made = []
    honest = local_model.SharedPrefix.of

    def listens(*given: object) -> object:
        made.append(honest(*given))
        return made[-1]

    monkeypatch.setattr(local_model.SharedPrefix, "of", listens)
    found = model.score(pairs)
    assert made[0] is not None
    assert made[0].length > 32
    monkeypatch.setattr(local_model.SharedPrefix, "of", lambda *given: None)
    assert found == pytest.approx(model.score(pairs), abs=1e-5)


def test_no_token_is_merged_over_the_boundary(tmp_path: Path) -> None:
    """What a model goes on from is a prompt's own tokens, in scoring as in sampling."""
    folder = saved("gpt2", tmp_path)
    loaded = load_model(folder, "teacher")
    prompt, text = "how many ca", "ts"
    merged, ids = read(loaded, prompt + text), read(loaded, prompt)
    assert merged[: len(ids)] != ids
    target = read(loaded, text)
    costs = [
        torch.log_softmax(next_logits(loaded, ids, target[:place]).double(), -1)[
            token
        ].item()
        for place, token in enumerate(target)
    ]
    (found,) = LocalModel(folder).score([(prompt, text)])
    assert found == pytest.approx(sum(costs) / len(costs), rel=1e-4)


def test_a_model_that_knows_nothing_finds_every_token_alike(tmp_path: Path) -> None:
    folder = saved("gpt2", tmp_path)
    loaded = load_model(folder, "teacher")
    with torch.no_grad():
        loaded.model.get_output_embeddings().weight.zero_()
    model = LocalModel(folder)
    uniform = -math.log(loaded.model.config.vocab_size)
    # However long: the mean is over tokens.
    assert model.score(PAIRS) == pytest.approx([uniform] * len(PAIRS))
    found = model.sample(
        PROMPTS, temperature=2.0, max_new_tokens=5, stop=[], seeds=SEEDS
    )
    assert [one.mean_log_probability for one in found] == pytest.approx([uniform] * 4)


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_what_does_not_fit_is_refused_and_never_cut(name: str, tmp_path: Path) -> None:
    folder = saved(name, tmp_path)
    model = LocalModel(folder, role="student")
    loaded = load_model(folder, "student")
    # Both have 128 positions; an encoder keeps them to itself.
    room = 128 if name == "bart" else 120
    text = SECRET
    while len(read(loaded, text + " 7")) <= room:
        text += " 7"
    given = {"temperature": 0.0, "max_new_tokens": 8, "stop": [], "seeds": [0]}
    assert model.fits(text, max_new_tokens=8)
    assert model.sample([text], **given)[0].num_tokens > 0
    assert not model.fits(text + " 7", max_new_tokens=8)
    with pytest.raises(ConfigError, match="`student` must have a context") as caught:
        model.sample([text + " 7"], **given)
    assert SECRET not in str(caught.value)
    assert str(room) in str(caught.value)
    longer = text + " 7" * 10
    with pytest.raises(ConfigError, match="a prompt with its continuation") as caught:
        model.score([("a short one", " 7"), (longer, " 7 7 7")])
    assert SECRET not in str(caught.value)


def test_nothing_asked_is_nothing_answered(tmp_path: Path) -> None:
    model = LocalModel(saved("gpt2", tmp_path))
    given = {"temperature": 0.0, "max_new_tokens": 8, "stop": [], "seeds": []}
    assert model.sample([], **given) == []
    assert model.score([]) == []


def test_too_little_memory_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LocalModel(saved("gpt2", tmp_path))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(local_model, "supervised_logits", fail)
    with pytest.raises(TeacherError, match="memory did not suffice"):
        model.score(PAIRS)
    monkeypatch.setattr(
        local_model, "supervised_logits", lambda *_: 1 / 0
    )  # Another error stays what it is.
    with pytest.raises(ZeroDivisionError):
        model.score(PAIRS)
