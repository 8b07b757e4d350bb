"""The settings of `mode=social`; see `fedcot.settings` for all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fedcot import rules
from fedcot.rules import at_least, list_of, one_of, setting

WORLD_TASK: Final = "world"
# Those of `fedcot.social.task_data`, which a test compares; reading it takes a second.
RULES: Final = ("conversion", "labels", "operator")
TASKS: Final = (
    WORLD_TASK,
    *RULES,
    "sms-spam",
    "sms-spam-classes",
    "gsm8k",
    "random-insertion",
    "lambada",
    "boolq",
)
# Tasks whose answers are a closed set.
LABELLED: Final = ("labels", "sms-spam", "sms-spam-classes", "boolq")
EXAMPLES: Final = "examples"
INSTRUCTION: Final = "instruction"
RANDOM: Final = "random"
VOTING: Final = "voting"
PRIVATE_VOTING: Final = "private-voting"
AGGREGATORS: Final = (RANDOM, VOTING, PRIVATE_VOTING)
SINGLE: Final = "single"
MERGINGS: Final = (SINGLE, "concat", "vote", "model")
BUILTIN_SMALL: Final = "builtin-small"
MOST_EXAMPLES: Final = 64


def _is_counts(value: str) -> bool:
    names = rules.split_list(value)
    small = all(name.isascii() and name.isdigit() and len(name) < 3 for name in names)
    return (
        small
        and len({int(name) for name in names}) == len(names)
        and all(int(name) <= MOST_EXAMPLES for name in names)
    )


@dataclass(frozen=True, kw_only=True)
class SocialSettings:
    """What teacher clients teach, how candidates are chosen, and what may leave."""

    task: str = setting(
        WORLD_TASK,
        one_of(*TASKS),
        "what teacher clients hold examples of, in mode social: problems of the "
        "built-in world, one of its tasks with a hidden rule, or a task of the paper",
    )
    client_model: str = setting(
        "builtin",
        rules.Rule(
            "models, separated by commas", lambda value: all(rules.split_list(value))
        ),
        "model of the teacher clients, in mode social: builtin, builtin-small, a local "
        "folder, a Hugging Face id, or the URL of an endpoint; several, separated by "
        "commas, are dealt out in turn. The owner of a deployed node sets its own in "
        "the node config",
    )
    prompted_student: str = setting(
        "builtin",
        rules.TEXT,
        "the student's model, which reads what teachers say as its prompt; as "
        "client-model",
    )
    teaching: str = setting(
        f"{EXAMPLES},{INSTRUCTION}",
        list_of(EXAMPLES, INSTRUCTION),
        "what teacher clients are asked for: examples that their models write after "
        "private ones, or instructions",
    )
    aggregators: str = setting(
        f"{RANDOM},{VOTING}",
        list_of(*AGGREGATORS),
        "how the student's examples are chosen among all that were sent; each is a "
        "student of its own",
    )
    example_counts: str = setting(
        "0,1,2,4,8",
        rules.Rule(f"a comma list of numbers from 0 to {MOST_EXAMPLES}", _is_counts),
        "examples in a student's prompt; each number is a student of its own",
    )
    examples_per_prompt: int = setting(
        8,
        rules.SAMPLES,
        "private examples that a teacher's model reads before it writes one: n_gen",
    )
    examples_kept: int = setting(
        1,
        rules.SAMPLES,
        "samples of a prompt that stay, those of the lowest perplexity: k",
    )
    generation_prompts: int = setting(
        0,
        rules.Rule("0 to 10000", lambda value: 0 <= value <= 10_000),
        "prompts of a teacher client; 0: examples-per-prompt",
    )
    samples_per_prompt: int = setting(
        4, rules.SAMPLES, "samples of a prompt, out of which examples-kept stay"
    )
    example_temperature: float = setting(
        0.7, rules.TEMPERATURE, "temperature that examples and instructions have"
    )
    held_out_share: float = setting(
        0.25,
        rules.OPEN_UNIT,
        "share of a teacher client's examples that it votes with and never shows to "
        "its model; only where an aggregator counts votes",
    )
    balanced_choice: bool = setting(
        False,
        rules.ANY,
        "choose as many examples of each label, for tasks with a closed set of answers",
    )
    vote_epsilon: float = setting(
        0.0,
        rules.VOTE_EPSILON,
        "privacy loss of one vote of a teacher client, in nats, for "
        "`aggregators=private-voting`; no default",
        example=1.0,
    )
    gate_distance: float = setting(
        0.1,
        rules.UNIT,
        "a text whose edit distance to the nearest private one is below this share of "
        "its length does not leave; exact copies never do",
    )
    gate_run: int = setting(
        12,
        at_least(0),
        "a text that repeats so many words of a private one in a row does not leave; "
        "0: not looked for",
    )
    instruction_merging: str = setting(
        SINGLE,
        one_of(*MERGINGS),
        "which instruction the student gets: that of one teacher client, drawn with "
        "the seed; all of them; the one that explains most held-out examples; or one "
        "that the student's model makes of all",
    )
    instruction_tries: int = setting(
        4, rules.SAMPLES, "samples until an instruction may leave"
    )
    manual_prompt: str = setting(
        "",
        rules.ANY,
        "a text of yours in place of what teachers say: a baseline; empty: none",
    )
    distil_examples: bool = setting(
        False,
        rules.ANY,
        "also train a LoRA student on all examples that were sent; world only",
    )

    @property
    def client_models(self) -> tuple[str, ...]:
        """The models that are dealt out to teacher clients."""
        return rules.split_list(self.client_model)

    @property
    def teaching_names(self) -> tuple[str, ...]:
        """What teacher clients are asked for, in the order given."""
        return rules.split_list(self.teaching)

    @property
    def aggregator_names(self) -> tuple[str, ...]:
        """The aggregators in the order given; none where no examples are asked for."""
        asked = EXAMPLES in self.teaching_names
        return rules.split_list(self.aggregators) if asked else ()

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of examples in a prompt, in rising order."""
        return tuple(
            sorted(int(name) for name in rules.split_list(self.example_counts))
        )

    @property
    def has_votes(self) -> bool:
        """Whether teacher clients vote on examples."""
        return any(name != RANDOM for name in self.aggregator_names)
