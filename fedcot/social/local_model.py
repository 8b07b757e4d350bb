"""A client's model in this process, through `transformers`.

Prompts are plain texts to go on from, never turns of a chat: few-shot prompts end in
the middle of an example (https://arxiv.org/abs/2312.11441, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import transformers

from fedcot.errors import ConfigError, TeacherError
from fedcot.models.generation import Generated, Model, generate, longest_prompt
from fedcot.models.loading import load_model
from fedcot.models.options import ModelOptions
from fedcot.models.prefix import SharedPrefix
from fedcot.models.sequences import (
    position_limit,
    target_ids,
    text_ids,
    token_ids,
    training_batch,
)
from fedcot.models.sources import Role, artefact_hash
from fedcot.out_of_memory import explain_out_of_memory, is_out_of_memory
from fedcot.plain_text import cut
from fedcot.social.client_model import Sampled, check_pairs, check_sampling
from fedcot.student.loss import supervised_logits, token_losses
from fedcot.teacher.teacher import Described

_Encoded = tuple[list[int], list[int]]


class LocalModel:
    """A decoder or encoder-decoder; see `fedcot.social.client_model.ClientModel`.

    What it samples for a prompt depends on the prompt and its seed alone, up to
    rounding, never on the prompts beside it.

    Parameters
    ----------
    source : str
        A local folder or a Hugging Face id.
    role : str
        The setting that names it, for errors.
    options : ModelOptions, optional
        How it is loaded. Its limit of tokens is that of training and is not used: only
        the model's own positions limit a prompt.
    batch_size : int
        Texts for each forward pass at most.

    Raises
    ------
    ConfigError
        There is no such model, or it cannot be loaded.
    """

    def __init__(
        self,
        source: str,
        *,
        role: Role = "teacher",
        options: ModelOptions | None = None,
        batch_size: int = 16,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(
                f"`batch_size` must be at least 1, found {batch_size}; raise it."
            )
        self.name = source
        self._role = role
        self._batch_size = batch_size
        self._loaded = load_model(source, role, options or ModelOptions())

    def describe(self) -> Described:
        """Return what decides the texts: model, number format and versions."""
        model = self._loaded.model
        return {
            "client_model": "local",
            "model": self.name,
            "artefact": artefact_hash(self.name, self._role),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
            "quantization": self._loaded.options.quantization,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def fits(self, prompt: str, *, max_new_tokens: int) -> bool:
        """Whether `sample` takes a prompt: whoever writes one leaves examples out.

        Nothing is cut here, since half an example would be read as a whole one.
        """
        room = longest_prompt(self._loaded.model, max_new_tokens)
        return room is None or len(text_ids(self._loaded, prompt)) <= room

    def sample(
        self,
        prompts: Sequence[str],
        *,
        temperature: float,
        max_new_tokens: int,
        stop: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Sampled]:
        """Return one continuation for each prompt; see `ClientModel.sample`.

        The tokens of a text are those that hold one of its signs: the last one may
        hold the beginning of a stop string too. Where the model ended the text itself,
        the end token is one of them.
        """
        check_sampling(
            prompts,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seeds=seeds,
        )
        if not prompts:
            return []
        read = [self._read(prompt) for prompt in prompts]
        room = longest_prompt(self._loaded.model, max_new_tokens)
        self._check_length([len(ids) for ids in read], room, "a prompt")
        recorder = _Recorder(self._loaded.model)
        order: list[int] = []
        with _explained(self._role):
            written = generate(
                cast(Model, recorder),
                self._loaded,
                read,
                batch_size=self._batch_size,
                max_new_tokens=max_new_tokens,
                stop=stop,
                temperature=temperature,
                seeds=seeds,
                on_written=lambda index, _: order.append(index),
            )
        rows = dict(zip(order, recorder.rows, strict=True))
        kept = [
            self._kept(rows[index][: one.new_tokens], one, stop)
            for index, one in enumerate(written)
        ]
        found = self._token_log_probabilities(list(zip(read, kept, strict=True)))
        return [
            Sampled(one.text, _mean(values) if values else None, len(values))
            for one, values in zip(written, found, strict=True)
        ]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the mean log-probability of each continuation, in nats per token.

        Prompt and continuation become tokens one behind the other, as in sampling, so
        that none is merged over the boundary between them.

        Raises
        ------
        ConfigError
            A text is empty, or a pair is longer than the model's context.
        TeacherError
            Memory does not suffice.
        """
        check_pairs(pairs)
        prompts = {prompt: self._read(prompt) for prompt, _ in pairs}
        encoded = [
            (prompts[prompt], self._continuation_ids(prompt, prompts[prompt], text))
            for prompt, text in pairs
        ]
        apart = self._loaded.is_encoder_decoder
        lengths = [
            max(len(prompt), len(target)) if apart else len(prompt) + len(target)
            for prompt, target in encoded
        ]
        limit = position_limit(self._loaded.model)
        self._check_length(lengths, limit, "a prompt with its continuation")
        leads = [self._num_leading(target) for _, target in encoded]
        found = self._token_log_probabilities(encoded)
        scored = [values[lead:] for values, lead in zip(found, leads, strict=True)]
        if not all(scored):
            raise ConfigError(
                "`pairs` must hold continuations with a token, found one that the "
                f"tokenizer of {self.name!r} leaves nothing of; leave it out."
            )
        return [_mean(values) for values in scored]

    def _read(self, prompt: str) -> list[int]:
        ids = text_ids(self._loaded, prompt)
        if not ids:
            raise ConfigError(
                "`prompts` must hold a token each, found one that the tokenizer of "
                f"{self.name!r} leaves nothing of; a prompt ends in a cue at least."
            )
        return ids

    def _continuation_ids(
        self, prompt: str, prompt_ids: list[int], text: str
    ) -> list[int]:
        """Return the tokens of a continuation behind those of its prompt."""
        if self._loaded.is_encoder_decoder:
            return target_ids(self._loaded, text)[:-1]
        # Some tokenizers put a space in front of every text they are given.
        whole = text_ids(self._loaded, prompt + text)
        if whole[: len(prompt_ids)] == prompt_ids:
            return whole[len(prompt_ids) :]
        return token_ids(self._loaded.tokenizer, text)

    def _num_leading(self, target: Sequence[int]) -> int:
        """Return how many tokens open the text of a decoder and hold none of it."""
        if not self._loaded.is_encoder_decoder:
            return 0
        special = set(self._loaded.tokenizer.all_special_ids)
        return next(
            (place for place, token in enumerate(target) if token not in special),
            len(target),
        )

    def _kept(
        self, ids: list[int], generated: Generated, stop: Sequence[str]
    ) -> list[int]:
        """Return the sampled tokens that a text needs, and the end that it has."""
        tokenizer = self._loaded.tokenizer

        def text_of(tokens: list[int]) -> str:
            return str(tokenizer.decode(tokens, skip_special_tokens=True))

        whole = text_of(ids)
        if cut(whole, [word for word in stop if word]) == whole:
            return ids
        while ids and text_of(ids[:-1]).startswith(generated.text):
            ids = ids[:-1]
        return ids

    def _token_log_probabilities(
        self, encoded: Sequence[_Encoded]
    ) -> list[list[float]]:
        """Return the log-probability of each token of each target, in nats."""
        found: dict[int, list[float]] = {
            row: [] for row, (_, target) in enumerate(encoded) if not target
        }
        order = sorted(
            set(range(len(encoded))) - set(found),
            key=lambda row: tuple(map(len, encoded[row])),
        )
        prompts = [encoded[row][0] for row in order]
        prefix = SharedPrefix.of(self._loaded.model, prompts)
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            if prefix is not None:
                some = [encoded[row] for row in rows]
                found |= dict(zip(rows, self._behind(prefix, some), strict=True))
                continue
            batch = training_batch([encoded[row] for row in rows], self._loaded)
            with _explained(self._role), torch.inference_mode():
                logits, labels = supervised_logits(
                    self._loaded.model, self._loaded, batch
                )
                losses, supervised = token_losses(logits, labels, shift=batch.shift)
            for place, row in enumerate(rows):
                values = -losses[place][supervised[place]].cpu().double()
                found[row] = values.tolist()
        return [found[row] for row in range(len(encoded))]

    def _behind(
        self, prefix: SharedPrefix, encoded: Sequence[_Encoded]
    ) -> list[list[float]]:
        """Return the log-probabilities of targets whose prompts begin alike, in nats.

        Votes and audits score hundreds of texts behind one long prompt.
        """
        model = self._loaded.model
        rests = [[*prompt[prefix.length :], *target] for prompt, target in encoded]
        width = max(map(len, rests))
        # Padding stands behind what is read, so that any token will do.
        ids = torch.tensor(
            [rest + [0] * (width - len(rest)) for rest in rests], device=model.device
        )
        lengths = torch.tensor([len(rest) for rest in rests], device=model.device)
        is_read = torch.arange(width, device=model.device) < lengths[:, None]
        mask = torch.cat([is_read.new_ones(len(rests), prefix.length), is_read], dim=1)
        forward: Any = model
        with _explained(self._role), torch.inference_mode():
            logits = forward(
                input_ids=ids,
                attention_mask=mask.long(),
                past_key_values=prefix.for_batch(len(rests)),
                use_cache=True,
            ).logits[:, :-1]
            logs = logits.float().log_softmax(dim=-1)
            told = logs.gather(-1, ids[:, 1:, None]).squeeze(-1).cpu().double()
        found = []
        for row, (prompt, target) in zip(told, encoded, strict=True):
            first = len(prompt) - prefix.length - 1
            found.append(row[first : first + len(target)].tolist())
        return found

    def _check_length(
        self, lengths: Sequence[int], room: int | None, what: str
    ) -> None:
        if room is not None and max(lengths, default=0) > room:
            raise ConfigError(
                f"`{self._role}` must have a context that holds {what}, found "
                f"{max(lengths)} tokens where {room} fit; show fewer examples, lower "
                "max-new-tokens, or choose a model with a longer context."
            )


class _Recorder:
    """Hands everything on to a model, and keeps the tokens that it writes.

    `generate` returns texts. Reading a text again may give other tokens than were
    sampled, and with them another likelihood.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.rows: list[list[int]] = []  # in the order of the batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, **given: Any) -> Any:
        return self._model(**given)

    def generate(self, **given: Any) -> Any:
        output = self._model.generate(**given)
        apart = self._model.config.is_encoder_decoder
        start = 1 if apart else given["input_ids"].shape[1]
        self.rows += output[:, start:].tolist()
        return output


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@contextmanager
def _explained(role: Role) -> Iterator[None]:
    """Say in words that memory did not suffice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TeacherError(f"`{role}`: {explain_out_of_memory('teacher')}") from error
