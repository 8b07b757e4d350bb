"""The settings of `mode=community`; see `fedcot.settings` for all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedcot import rules
from fedcot.data.traces import Scope, TraceClass
from fedcot.rules import at_least, list_of, one_of, setting
from fedcot.settings import COMMUNITY, FEDCOT

if TYPE_CHECKING:
    from fedcot.config import RunConfig

POOLED: Final = "pooled"
PERTURBED: Final = "perturbed"
FEDERATED: Final = "federated"
SYNTHETIC: Final = "synthetic"
PROMPT: Final = "prompt"
LABEL_ONLY: Final = "label-only"
RANDOM_LABEL: Final = "random-label"
NO_CONTROLS: Final = "none"
SHARINGS: Final = (POOLED, PERTURBED, FEDERATED, SYNTHETIC, PROMPT)
TRACE_FILTERS: Final = ("none", "steps", "answer")
PROVIDER_LEVELS: Final = 6  # as in https://arxiv.org/abs/2502.18001


@dataclass(frozen=True, kw_only=True)
class CommunitySettings:
    """Who belongs together, what they share, and what each is compared on."""

    communities: str = setting(
        "",
        rules.ANY,
        "names of the communities, in mode community; in the built-in world each is "
        "the client domain that its members mostly ask about. Client p belongs to "
        "community p modulo their number",
        example="library,bakery",
    )
    coalitions: str = setting(
        "alone,grand",
        rules.TEXT,
        "which communities distil a student together: all, alone, grand, or names "
        "joined by +, as library+bakery",
    )
    community_diversity: float = setting(
        1.0,
        rules.UNIT,
        "0: all communities ask about the same mix of domains; 1: each about its own",
    )
    sharing: str = setting(
        "pooled",
        list_of(*SHARINGS),
        "what members share, each on the same split: their traces; traces of perturbed "
        "questions under the mechanism; adapters; traces that a member's own generator "
        "writes; a few traces as the student's prompt",
    )
    controls: str = setting(
        f"{LABEL_ONLY},{RANDOM_LABEL}",
        list_of(LABEL_ONLY, RANDOM_LABEL, NO_CONTROLS),
        "students that are trained beside the pooled ones, on the same traces: on "
        "their answers alone, for every coalition; and on other questions' targets, "
        "for the widest. No gain is stated without the first",
    )
    trace_scope: str = setting(
        Scope.COALITION.value,
        one_of(*(scope.value for scope in Scope)),
        "whom simulated members let their traces reach; the owner of a deployed node "
        "says it trace by trace (`fedcot traces scope`)",
    )
    trace_filter: str = setting(
        "answer",
        one_of(*TRACE_FILTERS),
        "which traces a member offers: all, those whose steps hold by public rules, or "
        "those that also reach the member's own answer",
    )
    provider_reasoning: str = setting(
        TraceClass.FULL.value,
        one_of(*(kind.value for kind in TraceClass)),
        "how much of its reasoning the provider hands out",
    )
    provider_level: int = setting(
        0,
        rules.Rule(
            f"0 to {PROVIDER_LEVELS}", lambda value: 0 <= value <= PROVIDER_LEVELS
        ),
        "level of detail that the provider is prompted for, by an example, coarse to "
        "fine from 1; 0: as it writes. It is a request, and fine levels need a larger "
        "max-new-tokens; only with `trace-filter=answer` are traces kept for answers "
        "that stay right. Not for the built-in provider, nor a recorded one",
    )
    granularity: int = setting(
        0,
        at_least(0),
        "level that members rewrite their traces to, coarse to fine from 1; 0: as the "
        "provider wrote them",
    )
    granularity_padding: int = setting(
        0,
        at_least(0),
        "finer level whose length traces are padded to with filler, the control for "
        "length; 0: none",
    )
    label_share: float = setting(
        0.5,
        rules.UNIT,
        "weight of the answer alone in the loss of a coalition's student; the "
        "reasoning with its answer has the rest",
    )
    pool_tokens: int = setting(
        0,
        at_least(0),
        "training tokens that a coalition takes of its pool, so that sizes can be "
        "compared at equal cost; 0: all",
    )
    prompt_traces: int = setting(
        4,
        at_least(1),
        "traces that a coalition's student reads before each question, for "
        "`sharing=prompt`",
    )
    synthetic_traces: int = setting(
        0,
        at_least(0),
        "traces that a member's generator writes, for `sharing=synthetic`; 0: as many "
        "as the member has questions",
    )
    synthetic_temperature: float = setting(
        0.6, rules.POSITIVE, "temperature that a generator writes at"
    )
    generator_epochs: int = setting(
        24, at_least(1), "passes of a member's generator over the member's traces"
    )
    hold_out: int = setting(
        200,
        rules.HOLD_OUT,
        "questions that no client holds, for the second view on each student: of the "
        "built-in world all domains in equal share, of a dataset drawn by chance",
    )
    audit_members: bool = setting(
        False,
        rules.ANY,
        "measure what the students give away of members' traces: membership inference "
        "and verbatim copies; needs `pooled` among `sharing`, in a simulation",
    )
    low_utility: float = setting(
        0.5,
        rules.UNIT,
        "a community counts as badly served where the provider's accuracy is below",
    )
    scenario: str = setting(
        "",
        rules.ANY,
        "what communities do against the plan, as kind:community[:share], separated by "
        "commas: free-rider, strike or poison",
        example="poison:bakery:0.5",
    )

    @property
    def community_names(self) -> tuple[str, ...]:
        """The communities in the order given; none outside mode community."""
        return rules.split_list(self.communities) if self.communities else ()

    @property
    def control_names(self) -> tuple[str, ...]:
        """The controls in the order given."""
        names = rules.split_list(self.controls)
        return tuple(name for name in names if name != NO_CONTROLS)

    @property
    def sharing_names(self) -> tuple[str, ...]:
        """The ways of sharing in the order given."""
        return rules.split_list(self.sharing)


def perturbs(config: RunConfig) -> bool:
    """Whether a run's mechanism has anything to do; communities may do without."""
    if config.mode == COMMUNITY:
        return PERTURBED in config.sharing_names
    return config.mode == FEDCOT
