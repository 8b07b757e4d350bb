"""How far a share of people who give their data to a competitor brings it.

Source: N. Vincent, B. Hecht, Can "Conscious Data Contribution" help users to exert
"data leverage" against technology companies?, PACM HCI 5, CSCW1, article 103 (2021),
doi 10.1145/3449177; the formulas as in its public code (nickmvincent/cdc,
``compare_performance.py``). DLP is data leverage power.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fedcot.errors import ConfigError

View = Literal["own-test", "hold-out"]

MOST_MOVED: Final = 0.5  # the code of the source stops there
# Of the way from worst to best. Our bound: below it the ratio of CDC with strike is the
# noise of its denominator, and without one it grows beyond any number.
LEAST_IMPROVEMENT: Final = 0.01


@dataclass(frozen=True, slots=True)
class Leverage:
    """Data leverage power at one share of participants.

    Attributes
    ----------
    fraction : float
        Share of people who take part, in [0, 1].
    cdc : float
        Contribution alone, the data is copied: 1 where the small model is as good as
        the best. May be below 0 or above 1.
    cdc_with_strike : float
        Contribution with strike, the data is moved: 1 where the small model is as good
        as what is left to the large one. Not a number where undefined.
    strike : float
        Strike alone: 0 where the large model stays the best, 1 where it falls to the
        worst. Not a number where undefined.
    transfer_bonus : float
        ``cdc_with_strike - cdc``; not a number where the first is.
    undefined : str
        Why something is not a number; empty if nothing is.
    """

    fraction: float
    cdc: float
    cdc_with_strike: float
    strike: float
    transfer_bonus: float
    undefined: str = ""


@dataclass(frozen=True, slots=True)
class LeverageCurve:
    """Data leverage power over shares of participants, in one view.

    Attributes
    ----------
    view : {"own-test", "hold-out"}
        On the communities' own tests, or on questions that nobody holds. The two can
        disagree widely, so neither is reported without the other.
    worst, best : float
        Performances that the curve lies between, in the unit of the metric.
    points : tuple of Leverage
        By rising share.
    """

    view: View
    worst: float
    best: float
    points: tuple[Leverage, ...]

    @property
    def fractions(self) -> tuple[float, ...]:
        """The shares of participants, rising."""
        return tuple(point.fraction for point in self.points)

    @property
    def cdc(self) -> tuple[float, ...]:
        """DLP of contribution alone at each share."""
        return tuple(point.cdc for point in self.points)

    def achieves_at(self, thresholds: Sequence[float]) -> dict[float, float | None]:
        """Return the smallest share tested whose DLP of contribution passes each."""
        return achieves_at(self.fractions, self.cdc, thresholds)


def leverage(
    small: float,
    large: float | None,
    worst: float,
    best: float,
    fraction: float,
    *,
    higher_is_better: bool = True,
) -> Leverage:
    """Return the data leverage power at one share of participants.

    With ``iow(x) = x - worst``, the improvement over the worst case::

        DLP_CDC        = iow(small) / iow(best)
        DLP_CDC+strike = iow(small) / iow(large)    for fraction <= 0.5
        DLP_strike     = 1 - iow(large) / iow(best)
        transfer bonus = DLP_CDC+strike - DLP_CDC

    For errors the signs cancel, so one formula serves both directions.

    Parameters
    ----------
    small : float
        Performance of the model that gets the data of `fraction`.
    large : float or None
        Of the model that is left without it; None if no strike was simulated.
    worst, best : float
        Performances over both views (see `extremes`).
    fraction : float
        In [0, 1].
    higher_is_better : bool
        False for errors such as the RMSE.

    Returns
    -------
    Leverage
        Never infinite. The quantities of a strike are not a number, with the reason,
        without `large`; that of contribution with strike also for `fraction` above 0.5
        and where `large` is less than a hundredth of the way above the worst (ours).

    Raises
    ------
    ConfigError
        `best` equals `worst` or is not better; `fraction` outside [0, 1]; or a
        performance that is not finite.
    """
    _check(small, large, worst, best, fraction, higher_is_better=higher_is_better)
    cdc = (small - worst) / (best - worst)
    left = math.nan if large is None else (large - worst) / (best - worst)
    if math.isinf(cdc) or math.isinf(left):
        raise ConfigError(
            f"`best` must differ from `worst` by more than rounding, found {best} and "
            f"{worst}; pass the range of the metric."
        )
    if large is None:
        why = "no strike was simulated"
        return Leverage(fraction, cdc, math.nan, math.nan, math.nan, why)
    with_strike, why = math.nan, ""
    if fraction > MOST_MOVED:
        why = "contribution with strike is defined for shares of at most 0.5"
    elif left < LEAST_IMPROVEMENT:
        why = "the large model is left with next to no improvement over the worst"
    else:
        with_strike = (small - worst) / (large - worst)
    return Leverage(fraction, cdc, with_strike, 1 - left, with_strike - cdc, why)


def leverage_curve(
    view: View,
    small: Mapping[float, float],
    large: Mapping[float, float] | None,
    *,
    worst: float,
    best: float,
    higher_is_better: bool = True,
) -> LeverageCurve:
    """Return the data leverage power at every share tested.

    Parameters
    ----------
    view : {"own-test", "hold-out"}
    small : mapping of float to float
        By share of participants, the performance of the model that gets their data.
    large : mapping of float to float, optional
        By the same shares, of the model that is left without it.
    worst, best : float
        See `extremes`.
    higher_is_better : bool
        False for errors such as the RMSE.

    Raises
    ------
    ConfigError
        See `leverage`; or `large` is of other shares, or there are none.
    """
    if not small or (large is not None and set(large) != set(small)):
        raise ConfigError(
            "`large` must be of the same shares as `small`, at least one, found "
            f"{len(small)} of small and {len(large or ())} of large; test both alike."
        )
    points = tuple(
        leverage(
            small[fraction],
            None if large is None else large[fraction],
            worst,
            best,
            fraction,
            higher_is_better=higher_is_better,
        )
        for fraction in sorted(small)
    )
    return LeverageCurve(view, worst, best, points)


def both_views(
    own_test: tuple[Mapping[float, float], Mapping[float, float] | None],
    hold_out: tuple[Mapping[float, float], Mapping[float, float] | None],
    *,
    worst: float | None = None,
    best: float | None = None,
    higher_is_better: bool = True,
) -> tuple[LeverageCurve, LeverageCurve]:
    """Return the curves of both views, between the same worst and best.

    Parameters
    ----------
    own_test, hold_out : tuple of mapping and mapping or None
        In each view, the performances of small and large by share of participants.
    worst, best : float, optional
        Known otherwise, such as chance and a model on all data; if None, the extremes
        over both views, as in the source.
    higher_is_better : bool
        False for errors such as the RMSE.

    Returns
    -------
    tuple of LeverageCurve
        On the own test, then on the hold-out.

    Raises
    ------
    ConfigError
        See `leverage_curve`.
    """
    columns = [tuple(one.values()) for one in (*own_test, *hold_out) if one is not None]
    lowest, highest = extremes(*columns, higher_is_better=higher_is_better)
    worst = lowest if worst is None else worst
    best = highest if best is None else best

    def curve(
        view: View,
        measured: tuple[Mapping[float, float], Mapping[float, float] | None],
    ) -> LeverageCurve:
        return leverage_curve(
            view,
            *measured,
            worst=worst,
            best=best,
            higher_is_better=higher_is_better,
        )

    return curve("own-test", own_test), curve("hold-out", hold_out)


def extremes(
    *performances: Sequence[float], higher_is_better: bool = True
) -> tuple[float, float]:
    """Return the worst and the best performance over all columns.

    Raises
    ------
    ConfigError
        There are none.
    """
    values = [value for column in performances for value in column]
    if not values:
        raise ConfigError(
            "`performances` must be at least one, found none; test some models."
        )
    low, high = min(values), max(values)
    return (low, high) if higher_is_better else (high, low)


def achieves_at(
    fractions: Sequence[float], dlp: Sequence[float], thresholds: Sequence[float]
) -> dict[float, float | None]:
    """Return the smallest share tested whose data leverage power is above each.

    ``min f such that DLP_CDC(f) > t``: strictly above, at a share that was tested, and
    whether or not larger shares fall below again.

    Parameters
    ----------
    fractions : sequence of float
        Shares tested, in any order.
    dlp : sequence of float
        At each of them; not a number passes nothing.
    thresholds : sequence of float

    Returns
    -------
    dict of float to float or None
        By threshold; None where no share tested passes it.

    Raises
    ------
    ConfigError
        `fractions` and `dlp` differ in length.
    """
    if len(fractions) != len(dlp):
        raise ConfigError(
            f"`dlp` must be one per share tested ({len(fractions)}), found "
            f"{len(dlp)}; give both alike."
        )
    return {
        threshold: min(
            (f for f, power in zip(fractions, dlp, strict=True) if power > threshold),
            default=None,
        )
        for threshold in thresholds
    }


def _check(
    small: float,
    large: float | None,
    worst: float,
    best: float,
    fraction: float,
    *,
    higher_is_better: bool,
) -> None:
    measured = {"small": small, "large": large, "worst": worst, "best": best}
    for name, value in measured.items():
        if value is not None and not math.isfinite(value):
            raise ConfigError(
                f"`{name}` must be finite, found {value}; leave out shares that were "
                "not tested."
            )
    if not 0 <= fraction <= 1:
        raise ConfigError(
            f"`fraction` must be in [0, 1], found {fraction}; pass a share such as 0.2."
        )
    if best == worst:
        raise ConfigError(
            f"`best` must differ from `worst`, found {best} for both; without room "
            "between them there is no leverage to measure."
        )
    if (best > worst) != higher_is_better:
        raise ConfigError(
            f"`best` must be better than `worst`, found {best} and {worst} with "
            f"higher_is_better={higher_is_better}; exchange them, or set the direction "
            "of the metric."
        )
