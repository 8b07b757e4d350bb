"""A folder of built-in models that are trained one by one, each with its record.

A model that stands there already, trained from the same settings, is kept, so that a
stopped call goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from fedcot.errors import ConfigError
from fedcot.models.loading import CPU_ATTENTION
from fedcot.models.training_loop import Curve, StepReport

TRAINING_NAME = "training.json"
Report = Callable[[str, int, int, float], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training gives.

    Attributes
    ----------
    model : LlamaForCausalLM
        In fp32, in evaluation mode.
    curve : list of (int, float)
        Of `fedcot.models.training_loop.fit`.
    counts : mapping of str to int
        Of what was drawn for it.
    """

    model: LlamaForCausalLM
    curve: Curve
    counts: Mapping[str, int]


class Workshop:
    """Trains models into a folder; keeps those that are done.

    Parameters
    ----------
    output : Path
        Gets a folder for each model.
    seed : int
        Of initial weights and data.
    report : callable, optional
        Called with (model, step, steps, loss in nats).

    Attributes
    ----------
    records : dict of str to dict
        For each model built or kept: settings, parameters, counts, seconds and the
        curve of the loss.
    """

    def __init__(self, output: Path, seed: int, report: Report | None = None) -> None:
        self.output = output
        self.seed = seed
        self.report = report
        self.records: dict[str, Any] = {}

    def build(
        self,
        name: str,
        tokenizer: PreTrainedTokenizerFast,
        settings: Mapping[str, Any],
        train: Callable[[StepReport | None], Trained],
    ) -> LlamaForCausalLM:
        """Return the model with a name, trained if it does not stand there.

        Parameters
        ----------
        name : str
            Of its folder.
        tokenizer : PreTrainedTokenizerFast
            Saved beside it.
        settings : mapping
            What decides the training besides the seed; as JSON holds it.
        train : callable
            Trains it.

        Returns
        -------
        LlamaForCausalLM
            What a user will load: weights rounded to bfloat16, held in fp32.
        """
        folder = self.output / name
        done = folder / TRAINING_NAME
        identity = {"seed": self.seed, **settings}
        if done.is_file():
            self.records[name] = json.loads(done.read_text())
            if self.records[name]["settings"] == identity:
                return saved_model(folder)
        started = time.perf_counter()
        trained = train(partial(self.report, name) if self.report else None)
        rounded = _save(trained.model, tokenizer, folder)
        self.records[name] = {
            "settings": identity,
            "parameters": rounded.num_parameters(),
            **trained.counts,
            "seconds": round(time.perf_counter() - started, 1),
            "loss_curve": trained.curve,
        }
        done.write_text(json.dumps(self.records[name], indent=1) + "\n")
        return rounded

    def finished(self, name: str) -> LlamaForCausalLM:
        """Return a model that another one starts from.

        Raises
        ------
        ConfigError
            It does not stand there whole.
        """
        if not (self.output / name / TRAINING_NAME).is_file():
            raise ConfigError(
                f"`output` must hold the finished model `{name}`, found none in "
                f"{str(self.output)!r}; run `fedcot pretrain --output` there first."
            )
        return saved_model(self.output / name)


def saved_model(folder: Path) -> LlamaForCausalLM:
    """Return a model of a folder in fp32, in evaluation mode."""
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=CPU_ATTENTION
    )
    model.eval()
    return model


def _save(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> LlamaForCausalLM:
    """Save in bfloat16 and return what a user will load: the rounded weights."""
    # An unfinished training must not leave the record of the one before.
    (folder / TRAINING_NAME).unlink(missing_ok=True)
    rounded = model.bfloat16()
    rounded.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    restored: LlamaForCausalLM = rounded.float()
    return restored
