"""Writes completions with a model in this process, through `transformers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import transformers

from fedcot.errors import ConfigError, TeacherError
from fedcot.models.chat import has_chat, teacher_ids
from fedcot.models.generation import Generated, generate, longest_prompt
from fedcot.models.loading import load_model
from fedcot.models.options import ModelOptions
from fedcot.models.sources import artefact_hash, model_folder
from fedcot.out_of_memory import explain_out_of_memory, is_out_of_memory
from fedcot.tasks.task import TeacherPrompt
from fedcot.teacher.teacher import Described, Written


class TransformersWriter:
    """A teacher's model in this process; see `fedcot.teacher.teacher.Writer`.

    What it writes for a prompt is a function of the prompt and of `describe()`: never
    of the batch, up to rounding. A prompt that leaves no room for a rationale in the
    model's context gets an empty completion, which counts as unparsed, instead of
    ending a run that others go on with.

    Parameters
    ----------
    source : str
        ``builtin``, a local folder or a Hugging Face id.
    options : ModelOptions, optional
        How it is loaded; the default's number format is that of the built-in pair.
    batch_size : int
        Prompts for each forward pass at most; halved where memory does not suffice.
    max_new_tokens : int
        A completion is cut there.
    temperature, top_p, seed
        See `fedcot.models.sampling.Sampling`; the default is greedy.

    Raises
    ------
    ConfigError
        If there is no such model, or its context is shorter than `max_new_tokens`.
    """

    def __init__(
        self,
        source: str,
        *,
        options: ModelOptions | None = None,
        batch_size: int = 64,
        max_new_tokens: int = 80,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.name = source
        self._options = options or ModelOptions()
        self._batch_size = batch_size
        self._max_new_tokens = max_new_tokens
        self._temperature = temperature
        self._top_p = top_p
        self._seed = seed
        self._loaded = load_model(source, "teacher", self._options)
        if longest_prompt(self._loaded.model, max_new_tokens) == 0:
            raise ConfigError(
                "`max-new-tokens` must leave room for a prompt in the context of "
                f"`teacher`, found {max_new_tokens} for {source!r}; lower it."
            )

    def describe(self) -> Described:
        """Return what decides the completions: model, versions and settings."""
        model = self._loaded.model
        described: dict[str, str | int | float | bool] = {
            "writer": "transformers",
            "model": self.name,
            "artefact": artefact_hash(self.name, "teacher"),
            "revision": _revision(self.name),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
            "quantization": self._options.quantization,
            "chat": has_chat(self._loaded),
            "max_new_tokens": self._max_new_tokens,
            "temperature": float(self._temperature),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        if self._temperature > 0:
            described |= {"top_p": float(self._top_p), "seed": self._seed}
        return described

    def write(
        self,
        prompts: Sequence[TeacherPrompt],
        *,
        stop: Sequence[str] = (),
        on_written: Callable[[int, Written], None] | None = None,
    ) -> list[Written]:
        """Return one completion for each prompt, in order.

        Raises
        ------
        TeacherError
            Memory does not suffice for a single prompt.
        ConfigError
            The chat template refuses the prompts.
        """

        def report(index: int, completion: Generated) -> None:
            if on_written is not None:
                on_written(index, _written(completion))

        try:
            completions = generate(
                self._loaded.model,
                self._loaded,
                [teacher_ids(self._loaded, prompt) for prompt in prompts],
                batch_size=self._batch_size,
                max_new_tokens=self._max_new_tokens,
                stop=stop,
                temperature=self._temperature,
                top_p=self._top_p,
                seed=self._seed,
                on_written=report,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TeacherError(
                f"{explain_out_of_memory('teacher')}; batches were halved from "
                f"`teacher-batch-size` {self._batch_size} down to a single prompt"
            ) from error
        return [_written(completion) for completion in completions]


def _written(completion: Generated) -> Written:
    return Written(
        completion.text,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.new_tokens,
        is_cut=completion.is_cut,
    )


def _revision(source: str) -> str:
    """Return the commit of a model from the Hugging Face Hub; empty for others."""
    folder = model_folder(source, "teacher")
    return folder.name if folder.parent.name == "snapshots" else ""
