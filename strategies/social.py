"""Social learning: teacher clients teach a student in natural language.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning). No weights are exchanged: the
student is a model with a prompt, on the server. Client side:
`fedcot.social.teacher_client.TeacherClient`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from flwr.serverapp import Grid

from fedcot import provenance
from fedcot.config import RunConfig
from fedcot.errors import ConfigError, FedcotError
from fedcot.node_state import read_json
from fedcot.privacy.sampler import RandomSource, SystemRandomSource
from fedcot.runs import write_json
from fedcot.seeding import derive_seed, numpy_generator
from fedcot.social.aggregation import (
    Chosen,
    Pool,
    aggregator_named,
    pool_candidates,
)
from fedcot.social.ballots import ANY_LABEL, balanced_turns, open_turns, possible_turns
from fedcot.social.client_model import ClientModel
from fedcot.social.configured import (
    configured_form,
    configured_test,
    social_identity,
)
from fedcot.social.demonstrations import Demonstration
from fedcot.social.flow import Flow, FlowGuard
from fedcot.social.instructions import (
    MergedInstruction,
    instruction_style,
    merge_instructions,
)
from fedcot.social.messages import (
    EVALUATE_PROMPTS,
    QUERY_BALLOT,
    QUERY_EXAMPLES,
    QUERY_INSTRUCTION,
    StepRequest,
    protocol_words,
    step_message,
)
from fedcot.social.outline import flow_kinds
from fedcot.social.settings import (
    EXAMPLES,
    INSTRUCTION,
    SINGLE,
)
from fedcot.social.student import PromptedStudent
from fedcot.social.teacher_silo import VOTE_MERGING
from strategies.phased import Phase
from strategies.results import Results
from strategies.social_distil import distilled_student, fedavg_bytes
from strategies.social_intake import SocialIntake
from strategies.social_requests import SocialRequests
from strategies.social_results import SocialResults
from strategies.social_students import Prompt, prompts_of
from strategies.state import RoundState
from strategies.talking import TalkingStrategy

logger = logging.getLogger("flwr.fedcot")

# Teacher clients that the conversation goes on without, by partition.
LOST: Final = "lost-teachers.json"


class SocialLearning(TalkingStrategy):
    """Identify, teach, choose, instruct, evaluate.

    Every message of the conversation passes a `FlowGuard` first: it goes to all teacher
    clients that are left, the same to each, in an order that is fixed in advance, and
    carries no teacher's words to another but for candidates that all may vote on. When
    it is over, simulated clients are asked for scores, which is no part of it.

    Parameters
    ----------
    config : RunConfig
        Settings of the run, with ``mode=social``.
    student : ClientModel
        The model that reads the prompts.
    results : Results
        Takes the measurements.
    run_key : str
        16 hex digits that name the run in the nodes' state folders.
    source : RandomSource, optional
        Of private votes; the operating system's if not given.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        student: ClientModel,
        results: Results,
        run_key: str,
        source: RandomSource | None = None,
    ) -> None:
        super().__init__(config, results)
        self.form = configured_form(config)
        self.test = configured_test(config)
        self.model = student
        self.student = PromptedStudent(
            student, self.form, max_new_tokens=config.max_new_tokens
        )
        self.asking = SocialRequests(config, run_key=run_key, run=results.run)
        self.social_results = SocialResults(results, self.form)
        self.intake = SocialIntake(self.social_results, self.form)
        self.source = source or SystemRandomSource()
        self.flow = Flow(flow_kinds(config))
        self.guard: FlowGuard | None = None
        self.pool = Pool((), (), 0)
        self.chosen: dict[str, Chosen] = {}
        self.instruction: MergedInstruction | None = None
        self._step = 0

    @property
    def phases(self) -> tuple[tuple[str, Phase], ...]:
        """The phases of a round, in order."""
        return (
            ("identify", self.identify),
            ("teach", self.teach),
            ("choose", self.choose),
            ("instruct", self.instruct),
            ("evaluate", self.evaluate),
        )

    @property
    def replies(self) -> SocialIntake:
        """What takes replies in."""
        return self.intake

    @property
    def spends(self) -> bool:
        """Whether a client's ledger is charged: never, since texts have no epsilon."""
        return False

    def summary(self) -> None:
        """Log the settings that decide the outcome."""
        config = self.config
        logger.info("\t├── Task: %s", config.task)
        logger.info("\t├── Teaching: %s", ", ".join(config.teaching_names))
        logger.info("\t├── Choosing: %s", ", ".join(config.aggregator_names) or "none")
        logger.info("\t├── Conversation: %s", ", ".join(self.flow.kinds))
        logger.info("\t└── Student: %s", self.model.name)

    def identify(self, grid: Grid, state: RoundState) -> None:
        """Learn which partition each node holds: these are the teacher clients."""
        code = provenance.code_hash()
        self.meet(grid, state, social_identity(self.config, code))
        self.guard = FlowGuard(self.flow, sorted(state.members), known=protocol_words())
        self.intake.guard = self.guard
        # A run that goes on is the same conversation: who was lost stays out, or the
        # others would be asked to vote on other candidates than before.
        for partition in read_json(self._lost_path, default=[]):
            self.intake.gone.add(partition)
        for partition in self.intake.lost():
            self.guard.lose(partition)
        logger.info("├── Teacher clients: %d", len(state.members))

    def teach(self, grid: Grid, state: RoundState) -> None:
        """Let every teacher client's model write examples, and pool them."""
        if EXAMPLES not in self.config.teaching_names:
            return
        self._broadcast(
            state, QUERY_EXAMPLES, lambda p: self.asking.examples(state, p, self._step)
        )
        self.require(self.intake.examples, QUERY_EXAMPLES)
        self.pool = pool_candidates(self.intake.examples)
        if not self.pool.demonstrations:
            raise FedcotError(
                "no example came through the teacher clients' gates; lower "
                "`gate-distance` or raise `gate-run`, ask for more with "
                "`samples-per-prompt`, or use another `client-model`"
            )
        self.social_results.note_pool(self.pool)
        logger.info("├── Candidates: %d", len(self.pool.demonstrations))

    def choose(self, grid: Grid, state: RoundState) -> None:
        """Choose the student's examples, by chance and by the teachers' votes."""
        if not self.pool.demonstrations:
            return  # None are taught; without candidates `teach` has failed.
        turns = self._turns()
        if not turns:
            self._skip_vote()
            return
        if self.config.has_votes:
            self._vote(state, turns, candidates=self.pool.demonstrations)
        for name in self.config.aggregator_names:
            aggregator = aggregator_named(
                name,
                seed=self.config.seed,
                vote_epsilon=self.config.vote_epsilon,
                num_teachers=len(state.members),
                source=self.source,
            )
            ballots = self.intake.ballots if aggregator.needs_votes else {}
            chosen = aggregator.choose(self.pool.labels, turns, ballots)
            self.chosen[name] = chosen
            self.social_results.note_chosen(name, chosen, len(ballots))

    def instruct(self, grid: Grid, state: RoundState) -> None:
        """Let every teacher client's model write an instruction; take or merge them."""
        if INSTRUCTION not in self.config.teaching_names:
            return
        self._broadcast(
            state,
            QUERY_INSTRUCTION,
            lambda p: self.asking.instruction(state, p, self._step),
        )
        texts = self.intake.instructions
        if not texts:
            # A teacher whose instruction stays is no failure: the gate may keep all.
            logger.warning("├── No instruction came through a gate")
            if self.config.instruction_merging == VOTE_MERGING:
                self._skip()
            return
        self.instruction = self._merged(state, texts)
        self.social_results.note_instruction(self.instruction, len(texts))

    def evaluate(self, grid: Grid, state: RoundState) -> None:
        """Score all students on the public test; what clients hold, on the clients."""
        prompts = prompts_of(self.config, self.pool, self.chosen, self.instruction)
        for done, prompt in enumerate(prompts, 1):
            try:
                correct = self.student.correct(
                    prompt.instruction,
                    prompt.demonstrations,
                    [one.question for one in self.test],
                    [one.answer for one in self.test],
                )
            except ConfigError as error:
                # One that does not fit must not cost the others.
                self.social_results.note_left_out(prompt.name, str(error))
                continue
            self.social_results.note_student(prompt, correct)
            self.results.progress("evaluate", state.server_round, done, len(prompts))
        if self.config.distil_examples and self.pool.demonstrations:
            self.social_results.note_distilled(
                distilled_student(
                    self.config, self.pool, self.test, state, self.results
                )
            )
        self._evaluate_clients(state, prompts)
        self._guard.finish()
        self.social_results.note_fedavg(fedavg_bytes(self.config, self.results))

    def _evaluate_clients(self, state: RoundState, prompts: Sequence[Prompt]) -> None:
        """Let simulated clients score what only they can: a deployed one is not asked.

        Private examples as a prompt, and on the built-in world their own questions.
        What a node says of itself is not enough: prompts hold what others taught.
        """
        if not all(member.identity.simulated for member in state.members.values()):
            return
        for partition in self._present(state):
            request = self.asking.prompts(state, partition, prompts)
            self.send_to(partition, EVALUATE_PROMPTS, request)
        self.receive_all(EVALUATE_PROMPTS)

    def _broadcast(
        self,
        state: RoundState,
        message_type: str,
        request: Callable[[int], StepRequest],
    ) -> None:
        """Send one step of the conversation to all teacher clients that are left."""
        guard = self._guard
        # Not behind the step: one that all were lost in is gone on with by all.
        write_json(self._lost_path, sorted(self.intake.gone))
        self.intake.step = self._step
        for partition in self._present(state):
            message = request(partition)
            guard.before_send(step_message(message), partition)
            self.send_to(partition, message_type, message)
        self.receive_all(message_type)
        for partition in self.intake.lost():
            guard.lose(partition)
        self._step += 1

    def _vote(
        self,
        state: RoundState,
        turns: tuple[str, ...],
        *,
        candidates: Sequence[Demonstration] = (),
        texts: Sequence[str] = (),
    ) -> None:
        self.intake.ballots = {}
        labels = [one.answer for one in candidates] or [ANY_LABEL] * len(texts)
        self.intake.voted_on = (labels, turns)
        self._broadcast(
            state,
            QUERY_BALLOT,
            lambda p: self.asking.ballot(
                state, p, self._step, turns=turns, candidates=candidates, texts=texts
            ),
        )
        self.require(self.intake.ballots, QUERY_BALLOT)

    def _skip_vote(self) -> None:
        """Go on without examples: none of the labels that are wanted was written."""
        logger.warning("├── No candidate has a label that is to be chosen")
        if self.config.has_votes:
            self._skip()

    def _skip(self) -> None:
        self._guard.skip()
        self._step += 1

    def _merged(self, state: RoundState, texts: dict[int, str]) -> MergedInstruction:
        how = self.config.instruction_merging
        style = instruction_style(self.form)
        if how == SINGLE:
            # One teacher, as in the paper; which one, nobody's records decide.
            rng = numpy_generator(self.config.seed, "instruction-teacher")
            known = sorted(texts)
            one = known[int(rng.integers(len(known)))]
            return merge_instructions({one: texts[one]}, "concat", style=style)
        votes = None
        if how == VOTE_MERGING:
            known = sorted(texts)
            self._vote(state, open_turns(1), texts=[texts[p] for p in known])
            first = [ballot[0] for ballot in self.intake.ballots.values()]
            votes = {p: float(first.count(i)) for i, p in enumerate(known)}
        return merge_instructions(
            texts,
            how,  # type: ignore[arg-type]
            style=style,
            votes=votes,
            model=self.model,
            max_new_tokens=self.config.max_new_tokens,
            seed=derive_seed(self.config.seed, "merge"),
        )

    def _turns(self) -> tuple[str, ...]:
        """Return a turn for each example of the longest prompt, as far as they go."""
        wanted = open_turns(self.config.counts[-1])
        if self.config.balanced_choice:
            seed = derive_seed(self.config.seed, "turns")
            wanted = balanced_turns(self.form.labels, len(wanted), seed)
        turns = possible_turns(wanted, self.pool.labels)
        if len(turns) < len(wanted):
            logger.warning(
                "├── Only %d examples can be chosen; longer prompts are left out",
                len(turns),
            )
        return turns

    def _present(self, state: RoundState) -> list[int]:
        """Return the teacher clients that have not failed, in order."""
        gone = self.intake.gone
        return [
            partition for partition in sorted(state.members) if partition not in gone
        ]

    @property
    def _lost_path(self) -> Path:
        return self.results.run.path / LOST

    @property
    def _guard(self) -> FlowGuard:
        if self.guard is None:
            raise RuntimeError("A step ran before `identify` knew the teacher clients.")
        return self.guard
