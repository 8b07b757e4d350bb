"""A teacher client's side of mode social, without Flower.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), section 3 and appendix H.
Server side: `strategies.social`. Examples, scores and what the gate refused stay in the
node's state folder; what leaves is a message of `fedcot.social.messages`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from fedcot import provenance
from fedcot.config import RunConfig
from fedcot.errors import CodeMismatchError, ConfigError
from fedcot.node import Node
from fedcot.node_runs import run_name
from fedcot.node_state import Owner, private_files
from fedcot.records import IdentifyReply, IdentifyRequest
from fedcot.seeding import derive_seed
from fedcot.social.ballot_scores import score_examples, score_instructions
from fedcot.social.ballots import ANY_LABEL, cast_ballot
from fedcot.social.client_model import ClientModel
from fedcot.social.configured import (
    client_model_of,
    configured_test,
    demonstration_of,
    prompted_student,
    social_identity,
)
from fedcot.social.demonstrations import Demonstration
from fedcot.social.generation import DISCARDED, Check, GenerationSettings, generate
from fedcot.social.inspection import Considered, Kind
from fedcot.social.instructions import NUM_EXAMPLES, REFUSED, write_instruction
from fedcot.social.messages import (
    ORIGINAL,
    OWN,
    BallotReply,
    BallotRequest,
    ExamplesReply,
    ExamplesRequest,
    InstructionReply,
    InstructionRequest,
    PromptsReply,
    PromptsRequest,
    StepRequest,
    step_message,
)
from fedcot.social.request_rules import check_request
from fedcot.social.settings import EXAMPLES, WORLD_TASK
from fedcot.social.shared_texts import SharedDemonstration, SharedInstruction
from fedcot.social.split import Silo
from fedcot.social.step_store import (
    TEXTS,
    VOTES,
    Content,
    StepStore,
    alone,
    candidate_of,
    candidate_row,
    instruction_of,
    instruction_rows,
    num_sent,
)
from fedcot.social.student import PromptedStudent, prompt_score
from fedcot.social.teacher_silo import TeacherSilo, steps_hold, teacher_config

Made = tuple[Sequence[Considered], Content]


class TeacherClient:
    """One teacher client: its examples, its model and its message log.

    Parameters
    ----------
    config : RunConfig
        Settings of the run; they may narrow what the owner allows, never widen it.
    owner : Owner
        Settings of the node's owner.

    Raises
    ------
    ConfigError
        The run asks for what this node cannot or must not do.
    """

    def __init__(self, config: RunConfig, owner: Owner) -> None:
        self.node = Node(teacher_config(config, owner), owner)
        self.config = self.node.config
        self.owner = owner
        self.silo = TeacherSilo(self.config, owner)

    def identify(self, request: IdentifyRequest) -> IdentifyReply:
        """Say who this node is, if it runs what the server runs.

        Raises
        ------
        CodeMismatchError
            The code differs, or in a simulation the student's model or the test
            questions, for which a deployed node takes the server's word.
        """
        told = None if self.owner.simulated else request
        own = social_identity(self.config, provenance.code_hash(), told=told)
        if own != request:
            raise CodeMismatchError("The node runs other code or other artefacts.")
        return IdentifyReply(
            code_hash=own.code_hash,
            student_hash=own.student_hash,
            vocabulary_hash=own.vocabulary_hash,
            dataset_hash=own.dataset_hash,
            partition_id=self.owner.partition_id,
            num_partitions=self.owner.num_partitions,
            num_records=len(self.silo.all),
            simulated=self.owner.simulated,
            raw_prompts_allowed=self.owner.allow_raw_prompts,
        )

    @private_files()
    def teach(self, request: ExamplesRequest) -> ExamplesReply:
        """Return demonstrations that the client's model wrote after private ones.

        Raises
        ------
        ConfigError
            The request is not what the settings give at its step, the client answered
            another one there before, it has too few demonstrations, or its owner lets
            no more out.
        """
        content = self._once(
            request, "candidate", lambda: self._write_examples(request)
        )
        simulated = self.owner.simulated
        return ExamplesReply(
            partition_id=self.owner.partition_id,
            withheld=not simulated,
            demonstrations=tuple(
                SharedDemonstration(candidate_of(row)) for row in content["candidates"]
            ),
            ranking=content["ranking"] if simulated else "",
            **(_counts(content) if simulated else {}),
        )

    @private_files()
    def instruct(self, request: InstructionRequest) -> InstructionReply:
        """Return an instruction that the client's model wrote, if one passed the gate.

        Raises
        ------
        ConfigError
            As `teach`.
        """
        content = self._once(
            request, "instruction", lambda: self._write_instruction(request)
        )
        simulated = self.owner.simulated
        return InstructionReply(
            partition_id=self.owner.partition_id,
            withheld=not simulated,
            instruction=tuple(
                SharedInstruction(instruction_of(row))
                for row in content["instructions"]
            ),
            **(_counts(content) if simulated else {}),
        )

    @private_files()
    def vote(self, request: BallotRequest) -> BallotReply:
        """Return which candidates the held-out demonstrations speak for.

        There is one ballot for each vote of a run. Keys of runs are the server's, so
        that several runs mean several ballots, whose epsilons add up; the owner's
        `max-ballots` bounds them all.

        Raises
        ------
        ConfigError
            The run has no votes, the model cannot score, or as `teach`.
        """
        content = self._once(request, "vote", lambda: self._cast(request))
        return BallotReply(
            partition_id=self.owner.partition_id,
            ballot=tuple(content["ballot"]),
            num_shown=content["num_shown"] if self.owner.simulated else 0,
        )

    @private_files()
    def score(self, request: PromptsRequest) -> PromptsReply:
        """Score students on this client's share of the public questions.

        With the built-in world on its own test records as well.

        Raises
        ------
        ConfigError
            The node is deployed, whose questions are its owner's own and must not go
            to a model of the server's; or there are fewer examples than asked for.
        """
        if not self.owner.simulated:
            raise ConfigError(
                "`simulation` must be true for a client that scores students, because "
                "the questions of a deployed node are its owner's, found a deployed "
                "node; score students on the server."
            )
        student = PromptedStudent(
            prompted_student(self.config),
            self.silo.form,
            max_new_tokens=self.config.max_new_tokens,
        )
        students = [
            *((s.student, s.instruction, s.demonstrations) for s in request.students),
            *self._originals(request),
        ]
        questions = {"": self._questions, OWN: self._own_questions}
        scores = [
            prompt_score(
                prefix + name,
                student.correct(
                    instruction,
                    demonstrations,
                    [one.question for one in asked],
                    [one.answer for one in asked],
                ),
            )
            for name, instruction, demonstrations in students
            for prefix, asked in questions.items()
            if asked or not prefix
        ]
        return PromptsReply(
            partition_id=self.owner.partition_id, withheld=False, scores=tuple(scores)
        )

    def _once(
        self, request: StepRequest, kind: Kind, make: Callable[[], Made]
    ) -> Content:
        """Return what is said at a step; see `StepStore.once`."""
        check_request(self.config, self.owner.num_partitions, request)
        with alone(self.owner.folder(request.run_dir)):
            return self._steps(request).once(
                step_message(request), kind, make, server_round=request.server_round
            )

    def _write_examples(self, request: ExamplesRequest) -> Made:
        count = request.per_prompt * request.keep
        self._check_room(request, "max-shared-texts", TEXTS, count)
        known = self.silo.teaching
        made = generate(
            self._model,
            self.silo.form,
            known.demonstrations,
            GenerationSettings(
                per_prompt=request.per_prompt,
                keep=request.keep,
                num_prompts=request.num_prompts,
                samples_per_prompt=request.samples_per_prompt,
                temperature=request.temperature,
                max_new_tokens=request.max_new_tokens,
            ),
            gate=self.silo.gate(),
            seed=self._seed(request),
            check=self._check,
        )
        counts = {
            **{name: made.counts[name] for name in DISCARDED},
            "sampled": made.num_sampled,
            "checked": made.num_checked,
            "wrong": made.num_wrong,
            "drawn": len(made.drawn_indices),
            "unexplained": known.num_left_out,
        }
        content = {
            "candidates": [candidate_row(one) for one in made.candidates],
            "ranking": made.ranking,
            "counts": counts,
        }
        return made.considered, content

    def _write_instruction(self, request: InstructionRequest) -> Made:
        self._check_room(request, "max-shared-texts", TEXTS, 1)
        known, seed = self.silo.teaching, self._seed(request)
        made = write_instruction(
            self._model,
            self.silo.form,
            known.drawn(NUM_EXAMPLES, seed, "instruction"),
            gate=self.silo.gate(),
            temperature=request.temperature,
            max_new_tokens=request.max_new_tokens,
            seed=seed,
            tries=request.tries,
        )
        counts = {
            **{name: made.counts[name] for name in REFUSED},
            "unexplained": known.num_left_out,
        }
        content = {"instructions": instruction_rows(made), "counts": counts}
        return made.considered, content

    def _cast(self, request: BallotRequest) -> Made:
        self._check_room(request, "max-ballots", VOTES, 1)
        held_out, form = self.silo.held_out.demonstrations, self.silo.form
        if request.subject == EXAMPLES:
            candidates = [
                Demonstration(one.question, one.answer, one.reasoning)
                for one in request.candidates
            ]
            scores = score_examples(self._model, form, held_out, candidates)
            labels = [one.answer for one in candidates]
        else:
            scores = score_instructions(self._model, form, held_out, request.texts)
            labels = [ANY_LABEL] * len(request.texts)
        ballot = list(cast_ballot(scores.values, labels, request.turns))
        said = f"{request.subject}: {' '.join(map(str, ballot))}"
        content = {"ballot": ballot, "num_shown": scores.num_shown}
        return [Considered(said, None, left=True)], content

    def _check_room(
        self, request: StepRequest, key: str, kinds: Collection[Kind], count: int
    ) -> None:
        """Refuse what is beyond what a deployed node's owner lets out in all runs."""
        if self.owner.simulated:
            return
        most = getattr(self.owner, key.replace("-", "_"))
        # What an earlier try of this step wrote down it would write down again.
        before = num_sent(self.owner.folder(""), kinds)
        before -= self._steps(request).num_unsent(request.step)
        if before + count > most:
            raise ConfigError(
                f"`{key}` of the node's owner must leave room for what is asked for, "
                f"found {before} sent, {count} more asked for and {most} allowed; ask "
                "for fewer, or let the owner raise it."
            )

    def _originals(self, request: PromptsRequest) -> list[tuple[str, str, Silo]]:
        """Return the baselines that read private examples: the same first ones."""
        seed = derive_seed(self.config.seed, ORIGINAL, self.owner.partition_id)
        return [
            (
                f"{ORIGINAL}.{count}",
                "",
                self.silo.teaching.drawn(count, seed, ORIGINAL),
            )
            for count in request.original_counts
            if count
        ]

    @property
    def _questions(self) -> tuple[Demonstration, ...]:
        """The share of the public questions that this client asks."""
        place, clients = self.owner.partition_id, self.owner.num_partitions
        return configured_test(self.config)[place::clients]

    @property
    def _own_questions(self) -> tuple[Demonstration, ...]:
        """What only the built-in world has: a client's own test records."""
        if self.config.task != WORLD_TASK:
            return ()
        return tuple(map(demonstration_of, self.node.partition.test))

    @property
    def _model(self) -> ClientModel:
        return client_model_of(self.config, self.owner.partition_id)

    @property
    def _check(self) -> Check | None:
        """What public rules there are: of the built-in world's own problems only."""
        return steps_hold if self.config.task == WORLD_TASK else None

    def _seed(self, request: StepRequest) -> int:
        partition = self.owner.partition_id
        return derive_seed(self.config.seed, "teach", partition, request.step)

    def _steps(self, request: StepRequest) -> StepStore:
        run = run_name(self.config, self.owner, request.run_key)
        return StepStore(self.owner.folder(request.run_dir) / run)


def _counts(content: Content) -> dict[str, int]:
    return {f"num_{name}": count for name, count in content["counts"].items()}
