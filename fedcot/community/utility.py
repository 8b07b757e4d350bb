"""Utility of every coalition's student to every community, and when it is a gain.

Our definition of utility is the accuracy on a community's own test; the source's is
not known to us. A gain is stated only beside four baselines: CoT distillation can leave
a student worse than before it (arXiv 2604.08880), and a comparison among distilled
students alone hides that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

from fedcot.community.coalitions import Coalition, label
from fedcot.community.utility_checks import Cell, check_table, named
from fedcot.errors import ConfigError
from fedcot.evaluation.metrics import paired_p_value

Baseline = Literal["provider", "alone", "before", "label-only"]
BASELINES: Final[tuple[Baseline, ...]] = ("provider", "before", "label-only", "alone")

Key = TypeVar("Key", str, Coalition, Cell)


def _empty() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Win:
    """A community that the provider serves badly and a coalition serves better.

    Attributes
    ----------
    community : str
    coalition : tuple of str
        Holds the community.
    over_alone, over_provider : float
        Differences of accuracies, > 0.
    p_over_alone, p_over_provider : float or None
        One-sided exact p-values over the same questions, not corrected for the number
        of cells looked at; None where single answers are not known.
    """

    community: str
    coalition: Coalition
    over_alone: float
    over_provider: float
    p_over_alone: float | None = None
    p_over_provider: float | None = None


@dataclass(frozen=True, kw_only=True)
class UtilityTable:
    """Accuracies of the students of coalitions and of their baselines.

    Attributes
    ----------
    communities : tuple of str
    coalitions : tuple of Coalition
        Those that distilled a student.
    student : mapping of (community, coalition) to float
        Accuracy of the coalition's student on the community's own test, in [0, 1]; the
        community need not be a member.
    provider, before : mapping of community to float
        Accuracy of the teacher, and of the student before distillation.
    label_only : mapping of (community, coalition) to float
        Accuracy of a student of the coalition that never saw reasoning.
    hold_out : mapping of Coalition to float
        Accuracy of the coalition's student on questions that nobody holds.
    student_correct, provider_correct, before_correct, label_only_correct
        For each question of the community's own test, in one order for all, ``1`` if it
        was answered rightly and ``0`` if not; where they are known. See
        `fedcot.evaluation.metrics.correctness`.

    Raises
    ------
    ConfigError
        An unknown community or coalition, an accuracy outside [0, 1], or answers to
        different numbers of questions in one community.
    """

    communities: tuple[str, ...]
    coalitions: tuple[Coalition, ...]
    student: Mapping[Cell, float]
    provider: Mapping[str, float] = field(default_factory=_empty)
    before: Mapping[str, float] = field(default_factory=_empty)
    label_only: Mapping[Cell, float] = field(default_factory=_empty)
    hold_out: Mapping[Coalition, float] = field(default_factory=_empty)
    student_correct: Mapping[Cell, str] = field(default_factory=_empty)
    provider_correct: Mapping[str, str] = field(default_factory=_empty)
    before_correct: Mapping[str, str] = field(default_factory=_empty)
    label_only_correct: Mapping[Cell, str] = field(default_factory=_empty)

    def __post_init__(self) -> None:
        """Copy what was given, so that it cannot change, and check it."""
        for one in fields(self):
            held = getattr(self, one.name)
            if isinstance(held, Mapping):
                object.__setattr__(self, one.name, MappingProxyType(dict(held)))
        check_table(self)

    @property
    def complete(self) -> tuple[Coalition, ...]:
        """The coalitions whose student was tested on all its members' own tests."""
        return tuple(
            one
            for one in self.coalitions
            if all((name, one) in self.student for name in one)
        )

    def missing_baselines(
        self, community: str, coalition: Coalition
    ) -> tuple[str, ...]:
        """Return which of the four baselines of a gain were not measured."""
        held = {
            "provider": community in self.provider,
            "before": community in self.before,
            "label-only": (community, coalition) in self.label_only,
            "alone": (community, (community,)) in self.student,
        }
        return tuple(name for name in BASELINES if not held[name])

    def check_baselines(self, community: str, coalition: Coalition) -> None:
        """Refuse to state a gain without all four baselines.

        Raises
        ------
        ConfigError
            Provider, before, label-only or alone was not measured; it says which.
        """
        missing = self.missing_baselines(community, coalition)
        if missing:
            raise ConfigError(
                "`gain` must stand beside provider, before, label-only and alone, "
                f"found no {', '.join(missing)} for {community} in "
                f"{label(coalition)}; run the missing baselines."
            )

    def utility(self, community: str, coalition: Coalition) -> float:
        """Return the accuracy of the coalition's student on the community's own test.

        Raises
        ------
        ConfigError
            It was not measured.
        """
        return _read(self.student, (community, coalition), "student")

    def baseline(
        self, community: str, coalition: Coalition, over: Baseline = "provider"
    ) -> float:
        """Return the accuracy that a gain over `over` is counted from.

        Raises
        ------
        ConfigError
            It was not measured, or `over` is no baseline.
        """
        if over == "provider":
            return _read(self.provider, community, over)
        if over == "before":
            return _read(self.before, community, over)
        if over == "label-only":
            return _read(self.label_only, (community, coalition), over)
        if over == "alone":
            return _read(self.student, (community, (community,)), over)
        raise ConfigError(
            f"`over` must be one of {', '.join(BASELINES)}, found {over!r}; pass "
            "for example `provider`."
        )

    def gain(
        self, community: str, coalition: Coalition, over: Baseline = "provider"
    ) -> float:
        """Return how much more accurate the coalition's student is than a baseline.

        Returns
        -------
        float
            A difference of accuracies, in [-1, 1].

        Raises
        ------
        ConfigError
            One of provider, before, label-only and alone was not measured, whichever of
            them `over` is; or the student itself was not.
        """
        self.check_baselines(community, coalition)
        return self.utility(community, coalition) - self.baseline(
            community, coalition, over
        )

    def outside_option(self, community: str) -> float:
        """Return what a community has without any coalition (our definition).

        Returns
        -------
        float
            The larger accuracy of the provider and of its student alone.

        Raises
        ------
        ConfigError
            One of the two was not measured.
        """
        return max(
            self.baseline(community, (community,), "provider"),
            self.baseline(community, (community,), "alone"),
        )

    def p_value(
        self, community: str, coalition: Coalition, over: Baseline = "provider"
    ) -> float | None:
        """Return the one-sided exact p-value that the student is right more often.

        McNemar's exact test, `fedcot.evaluation.metrics.paired_p_value`.

        Returns
        -------
        float or None
            In (0, 1]; None where single answers are not known.
        """
        ours = self.student_correct.get((community, coalition))
        theirs = {
            "provider": self.provider_correct.get(community),
            "before": self.before_correct.get(community),
            "label-only": self.label_only_correct.get((community, coalition)),
            "alone": self.student_correct.get((community, (community,))),
        }[over]
        if ours is None or theirs is None:
            return None
        return paired_p_value(_bits(ours), _bits(theirs))

    def low_utility(self, threshold: float) -> tuple[str, ...]:
        """Return the communities that the provider serves below a threshold.

        Raises
        ------
        ConfigError
            The provider was not measured for one of them, or `threshold` is outside
            [0, 1].
        """
        if not 0 <= threshold <= 1:
            raise ConfigError(
                f"`low-utility` must be in [0, 1], found {threshold}; pass for example "
                "`-c low-utility=0.5`."
            )
        return tuple(
            name
            for name in self.communities
            if _read(self.provider, name, "provider") < threshold
        )

    def winners(self, threshold: float) -> tuple[Win, ...]:
        """Return where a badly served community does better in a coalition.

        Better than alone and than the provider, both strictly, and as a member: the
        claim of the source is about communities that pool what they have.

        Parameters
        ----------
        threshold : float
            See `low_utility`.

        Raises
        ------
        ConfigError
            As `gain`, for a member that is badly served.
        """
        low = set(self.low_utility(threshold))
        wins = []
        for coalition in self.coalitions:
            for name in coalition:
                if name not in low:
                    continue
                alone = self.gain(name, coalition, "alone")
                provider = self.gain(name, coalition, "provider")
                if alone > 0 and provider > 0:
                    tests = (
                        self.p_value(name, coalition, "alone"),
                        self.p_value(name, coalition, "provider"),
                    )
                    wins.append(Win(name, coalition, alone, provider, *tests))
        return tuple(wins)


def _bits(text: str) -> tuple[bool, ...]:
    return tuple(one == "1" for one in text)


def _read(values: Mapping[Key, float], key: Key, what: str) -> float:
    if key not in values:
        raise ConfigError(
            f"`{what}` must be measured to be compared, found nothing for "
            f"{named(key)}; run it."
        )
    return values[key]
