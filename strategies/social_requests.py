"""What the student says to teacher clients, built from the settings of the run."""

from __future__ import annotations

from collections.abc import Sequence

from fedcot.config import RunConfig
from fedcot.runs import RunDirectory
from fedcot.social.configured import generation_settings
from fedcot.social.demonstrations import Demonstration
from fedcot.social.messages import (
    INSTRUCTIONS,
    BallotRequest,
    CandidateText,
    ExamplesRequest,
    InstructionRequest,
    PromptsRequest,
    SentPrompt,
)
from fedcot.social.settings import EXAMPLES, WORLD_TASK
from strategies.social_students import Prompt
from strategies.state import RoundState


class SocialRequests:
    """Builds one message for each teacher client, of the same content for all.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    run_key : str
        16 hex digits that name the run in the nodes' state folders.
    run : RunDirectory
        Simulated nodes write into it.
    """

    def __init__(self, config: RunConfig, *, run_key: str, run: RunDirectory) -> None:
        self.config = config
        self.run_key = run_key
        self.run = run

    def examples(self, state: RoundState, partition: int, step: int) -> ExamplesRequest:
        """Ask for examples."""
        asked = generation_settings(self.config)
        return ExamplesRequest(
            step=step,
            server_round=state.server_round,
            run_key=self.run_key,
            run_dir=self._run_dir(state, partition),
            per_prompt=asked.per_prompt,
            keep=asked.keep,
            num_prompts=asked.num_prompts,
            samples_per_prompt=asked.samples_per_prompt,
            temperature=asked.temperature,
            max_new_tokens=asked.max_new_tokens,
        )

    def instruction(
        self, state: RoundState, partition: int, step: int
    ) -> InstructionRequest:
        """Ask for an instruction."""
        return InstructionRequest(
            step=step,
            server_round=state.server_round,
            run_key=self.run_key,
            run_dir=self._run_dir(state, partition),
            temperature=self.config.example_temperature,
            max_new_tokens=self.config.max_new_tokens,
            tries=self.config.instruction_tries,
        )

    def ballot(
        self,
        state: RoundState,
        partition: int,
        step: int,
        *,
        turns: tuple[str, ...],
        candidates: Sequence[Demonstration] = (),
        texts: Sequence[str] = (),
    ) -> BallotRequest:
        """Ask for votes on examples, or on instructions."""
        return BallotRequest(
            step=step,
            server_round=state.server_round,
            run_key=self.run_key,
            run_dir=self._run_dir(state, partition),
            subject=EXAMPLES if candidates else INSTRUCTIONS,
            turns=turns,
            candidates=tuple(
                CandidateText(
                    question=one.question, answer=one.answer, reasoning=one.reasoning
                )
                for one in candidates
            ),
            texts=tuple(texts),
        )

    def prompts(
        self, state: RoundState, partition: int, prompts: Sequence[Prompt]
    ) -> PromptsRequest:
        """Ask a simulated client for scores of what only it can score.

        The students too, on its own questions, where it has any beside the public ones.
        """
        config = self.config
        sent = prompts if config.task == WORLD_TASK else ()
        counts = [count for count in config.counts if count]
        return PromptsRequest(
            step=0,
            server_round=state.server_round,
            run_key=self.run_key,
            run_dir=self._run_dir(state, partition),
            students=tuple(
                SentPrompt.of(one.name, one.instruction, one.demonstrations)
                for one in sent
            ),
            original_counts=(
                tuple(counts) if EXAMPLES in config.teaching_names else ()
            ),
        )

    def _run_dir(self, state: RoundState, partition: int) -> str:
        """Return the run directory, for simulated nodes: they write into it."""
        simulated = state.members[partition].identity.simulated
        return str(self.run.path) if simulated else ""
