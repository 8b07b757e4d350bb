"""How likely a model finds a stretch of what it should write, token by token.

Only a stretch of the *target* can be scored: the loss of training is masked on the
prompt, so that a secret that stands there is not learnt and cannot be audited.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcot.errors import ConfigError
from fedcot.models.sequences import (
    IGNORE_INDEX,
    Batch,
    fitted,
    prompt_ids,
    target_ids,
    training_batch,
)
from fedcot.plain_text import valid_unicode
from fedcot.student.base import Adapter, TrainingSettings, adapted
from fedcot.student.loss import supervised_logits

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from fedcot.models.loading import LoadedModel

# Distributions over the vocabulary that are held at a time, for each text.
_PLACES = 64


@dataclass(frozen=True, slots=True)
class SecretSpan:
    """A target behind a prompt, and which of its characters are scored.

    Attributes
    ----------
    prompt, target : str
        As in `fedcot.student.examples.Example`; private, so the repr leaves them out.
    start, stop : int
        Characters ``target[start:stop]`` are the secret.

    Raises
    ------
    ConfigError
        The span is empty or reaches beyond the target.
    """

    prompt: str = field(repr=False)
    target: str = field(repr=False)
    start: int
    stop: int

    def __post_init__(self) -> None:
        """Check that there is something to score."""
        if not 0 <= self.start < self.stop <= len(self.target):
            raise ConfigError(
                "`span` must be a stretch of the target that is not empty, found "
                f"characters {self.start} to {self.stop} of {len(self.target)}; a "
                "secret must stand in what the model writes, never in its prompt."
            )

    @property
    def secret(self) -> str:
        """The characters that are scored."""
        return self.target[self.start : self.stop]


ScoreFunction = Callable[[Sequence[SecretSpan]], Sequence[float]]
"""Mean log-probability of each span in nats per token; larger is more memorised.

What it is conditioned on (weights, adapter, a context in front of the prompt) is fixed
inside.
"""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """The tokens of a span under a model.

    Attributes
    ----------
    log_probabilities : ndarray of float64, shape (tokens,)
        In nats, of each token given all before it; at least one.
    means, deviations : ndarray of float64, shape (tokens,)
        Mean and standard deviation of the log-probability of a token drawn from the
        model's own distribution at that place, in nats.
    """

    log_probabilities: NDArray[np.float64]
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean log-probability, in nats per token."""
        return float(self.log_probabilities.mean())


def whole_target(prompt: str, target: str) -> SecretSpan:
    """Return a span that covers a target without its end token."""
    return SecretSpan(prompt, target, 0, len(target))


def token_scores(
    model: PreTrainedModel | PeftModel,
    loaded: LoadedModel,
    spans: Sequence[SecretSpan],
    *,
    batch_size: int,
    may_be_cut: bool = False,
) -> list[TokenScores]:
    """Score the tokens of spans, in their order.

    Prompt and target become tokens exactly as in training, so that none is merged over
    the boundary between them. A token belongs to the span if it holds at least one of
    the span's characters: one that merges the secret with its neighbour is scored.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        In evaluation mode: the base itself, or the base with an adapter.
    loaded : LoadedModel
        Tokenizer and kind of the base.
    spans : sequence of SecretSpan
    batch_size : int
        Texts for each forward pass.
    may_be_cut : bool
        Score what is left of a span where a text is longer than a student reads;
        otherwise that is an error.

    Raises
    ------
    ConfigError
        The tokenizer does not know a part of the secret, gives no positions of its
        tokens, or the secret is cut off.
    """
    # A canary and its references share one prompt.
    prompts = {text: prompt_ids(loaded, text) for text in {s.prompt for s in spans}}
    encoded = [
        _encoded(loaded, span, prompts[span.prompt], may_be_cut) for span in spans
    ]
    # Texts of like length share a batch, which then carries little padding.
    order = sorted(range(len(spans)), key=lambda i: tuple(map(len, encoded[i][:2])))
    found: dict[int, TokenScores] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = _span_batch([encoded[row] for row in rows], loaded)
        with torch.inference_mode():
            logits, labels = supervised_logits(model, loaded, batch)
            if batch.shift:
                logits, labels = logits[:, :-1], labels[:, 1:]
            for place, row in enumerate(rows):
                found[row] = _scores_of(logits[place], labels[place])
    return [found[index] for index in range(len(spans))]


def model_scores(
    loaded: LoadedModel,
    *,
    adapter: Adapter | None = None,
    settings: TrainingSettings | None = None,
    context: str = "",
    batch_size: int = 128,
) -> ScoreFunction:
    """Return the score function of a model, with an adapter or without.

    Parameters
    ----------
    loaded : LoadedModel
    adapter : mapping of str to Tensor, optional
        What was learnt; the base itself if not given.
    settings : TrainingSettings, optional
        Of the adapter; needed with one.
    context : str
        Stands in front of every prompt, for example what a student was taught in
        words.
    batch_size : int
        Texts for each forward pass.

    Raises
    ------
    ConfigError
        There is an adapter without its settings.
    """
    if adapter is not None and settings is None:
        raise ConfigError(
            "`settings` must be given with `adapter`, found none; pass the settings "
            "that the adapter was trained with."
        )

    def scores(spans: Sequence[SecretSpan]) -> list[float]:
        asked = [_behind(context, span) for span in spans]
        if adapter is None or settings is None:
            found = token_scores(loaded.model, loaded, asked, batch_size=batch_size)
        else:
            with adapted(loaded, settings, seed=0, adapter=adapter) as model:
                model.eval()
                found = token_scores(model, loaded, asked, batch_size=batch_size)
        return [tokens.mean for tokens in found]

    return scores


def _behind(context: str, span: SecretSpan) -> SecretSpan:
    parts = [part for part in (context, span.prompt) if part]
    return replace(span, prompt="\n\n".join(parts))


_Encoded = tuple[list[int], list[int], int]


def _encoded(
    loaded: LoadedModel, span: SecretSpan, prompt: list[int], may_be_cut: bool
) -> _Encoded:
    """Return prompt ids, target ids up to the span's end, and where the span begins."""
    ids = target_ids(loaded, span.target)
    inside = [
        index
        for index, (start, stop) in enumerate(_places(loaded, span.target, ids))
        if max(start, span.start) < min(stop, span.stop)
    ]
    unknown = loaded.tokenizer.unk_token_id
    # GPT-2's end token stands for the unknown one too, but nothing is unknown to it.
    has_unknown = unknown != loaded.tokenizer.eos_token_id and any(
        ids[index] == unknown for index in inside
    )
    if not inside or (has_unknown and not may_be_cut):
        raise ConfigError(
            "`pattern` must give secrets of tokens that the tokenizer knows, found one "
            f"that {loaded.source!r} does not; choose a pattern in its vocabulary."
        )
    prompt, kept = fitted(loaded, prompt, ids)
    first, last = inside[0], inside[-1] + 1
    if len(kept) < (first + 1 if may_be_cut else last):
        raise ConfigError(
            f"`max-sequence-tokens` must leave room for the secret, found {len(kept)} "
            f"of {last} tokens of its target kept; raise it, or shorten the target."
        )
    # What stands behind the span cannot change how likely the span is.
    return prompt, kept[:last], first


def _places(
    loaded: LoadedModel, text: str, ids: Sequence[int]
) -> list[tuple[int, int]]:
    """Return which characters of a target each of its tokens holds.

    Raises
    ------
    ConfigError
        The tokenizer cannot say.
    """
    tokenizer = loaded.tokenizer
    given = valid_unicode(text)
    # What `target_ids` puts in front to get the tokens of a text that goes on.
    for lead in ("",) if loaded.is_encoder_decoder else (": ", " ", ""):
        if not tokenizer.is_fast:
            break
        read = tokenizer(
            text_target=lead + given,
            add_special_tokens=loaded.is_encoder_decoder,
            return_offsets_mapping=True,
        )
        count = len(ids) - (0 if read["input_ids"] == list(ids) else 1)
        if count and read["input_ids"][-count:] == list(ids[:count]):
            shift = len(lead)
            offsets = read["offset_mapping"][-count:]
            return [(start - shift, stop - shift) for start, stop in offsets]
    raise ConfigError(
        "`student` must have a tokenizer that says which characters a token holds, "
        f"found {loaded.source!r}; use a model with a tokenizer.json."
    )


def _span_batch(encoded: Sequence[_Encoded], loaded: LoadedModel) -> Batch:
    """Return a batch whose labels stand on the spans alone."""
    batch = training_batch([(prompt, target) for prompt, target, _ in encoded], loaded)
    labels = batch.labels.clone()
    for row, (prompt, _, first) in enumerate(encoded):
        before = first + (len(prompt) if batch.shift else 0)
        labels[row, :before] = IGNORE_INDEX
    return replace(batch, labels=labels)


def _scores_of(logits: Tensor, labels: Tensor) -> TokenScores:
    """Return the scores of one text.

    Parameters
    ----------
    logits : Tensor, shape (places, vocabulary)
        Place i predicts label i.
    labels : Tensor, shape (places,)
        `IGNORE_INDEX` outside the span.
    """
    scored = labels != IGNORE_INDEX
    parts = []
    for rows, wanted in zip(
        logits[scored].split(_PLACES), labels[scored].split(_PLACES), strict=True
    ):
        log_shares = torch.log_softmax(rows.float(), dim=-1)
        shares = log_shares.exp()
        # A word that cannot come has a share of 0 and no finite logarithm.
        finite = log_shares.masked_fill(shares == 0, 0.0)
        means = (shares * finite).sum(dim=-1)
        variances = (shares * (finite - means[:, None]).square()).sum(dim=-1)
        own = log_shares.gather(1, wanted[:, None])[:, 0]
        parts.append(torch.stack([own, means, variances.sqrt()]))
    table = torch.cat(parts, dim=1).double().cpu().numpy()
    return TokenScores(table[0], table[1], table[2])
