"""Privacy filters: the total that adaptively chosen budgets may not exceed.

A filter is asked before each release whether its cost still fits. Costs may depend on
everything that was released before. That is sound for the sum of pure epsilons (Rogers
et al. 2016) and for the sum of Renyi divergences of one order that was fixed in advance
(Feldman and Zrnic 2021): by induction from the last release backwards, the moment of
what is still to come is at most ``exp((order - 1) remaining)`` whatever came before. It
is not sound to stop when some composed privacy curve of the budgets so far crosses a
line, nor to pick the best order at the end. Sums are whole nano-nats: a cost is rounded
up, a total is rounded down.
"""

import math
from collections.abc import Mapping
from fractions import Fraction

from fedcot.errors import ConfigError, PrivacyBudgetExhausted
from fedcot.privacy.nats import NANO, limit_in_nano_nats, nats, whole_nano_nats
from fedcot.privacy.renyi import (
    conversion_cost,
    renyi_of_bounded_range,
    renyi_of_pure,
)

State = Mapping[str, int | float | str]
# Divergences are computed in floats; their error is far below this part of them.
RELATIVE_MARGIN = Fraction(1, 10**12)


class _Filter:
    """A total in nano-nats that never goes down and never passes its limit."""

    kind: str

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._spent = 0

    def _fits(self, cost: int | None) -> bool:
        return cost is not None and self._spent + cost <= self._limit

    def _book(self, cost: int | None) -> None:
        if cost is None or not self._fits(cost):
            shown = "no finite bound" if cost is None else f"{nats(cost):.9f} nats"
            raise PrivacyBudgetExhausted(
                f"The filter has {nats(self._limit - self._spent):.9f} nats left; the "
                f"release costs {shown}."
            )
        self._spent += cost

    def _restore(self, state: State, own: State) -> None:
        """Take what was spent from a saved state of an equal filter."""
        fixed = {key: value for key, value in own.items() if key != "spent"}
        saved = {key: value for key, value in state.items() if key != "spent"}
        spent = state.get("spent")
        if (
            saved != fixed
            or not isinstance(spent, int)
            or not (0 <= spent <= self._limit)
        ):
            raise ValueError("The saved state is not one of this filter.")
        # A state from before the last release must not give budget back.
        self._spent = max(self._spent, spent)


class PureFilter(_Filter):
    """Keep the sum of pure epsilons at or below a total.

    Parameters
    ----------
    total : float
        Nats, finite, > 0: the epsilon of everything that passes, for any adaptive
        order.

    Raises
    ------
    ConfigError
        If the total is not finite and positive.
    """

    kind = "pure"

    def __init__(self, total: float) -> None:
        super().__init__(_checked_total(total))
        self.total = float(total)

    def would_exceed(self, epsilon: float) -> bool:
        """Return whether a release of this epsilon, in nats, is too much."""
        return not self._fits(_cost(epsilon))

    def spend(self, epsilon: float) -> None:
        """Book a release of this epsilon, in nats.

        Raises
        ------
        PrivacyBudgetExhausted
            If it is too much; nothing is booked.
        ValueError
            If it is negative or not a number.
        """
        self._book(_cost(epsilon))

    @property
    def spent(self) -> float:
        """Nats booked so far, rounded up."""
        return nats(self._spent)

    @property
    def remaining(self) -> float:
        """Nats that a further release may cost, rounded down."""
        return _float_down(Fraction(self._limit - self._spent, NANO))

    def state_dict(self) -> dict[str, int | float | str]:
        """Return what `load_state_dict` takes; integers are nano-nats."""
        return {"kind": self.kind, "total": self.total, "spent": self._spent}

    def load_state_dict(self, state: State) -> None:
        """Take over what an equal filter had booked, never less than is booked here.

        Raises
        ------
        ValueError
            If the state is that of another filter.
        """
        self._restore(state, self.state_dict())


class RenyiFilter(_Filter):
    """Keep the sum of Renyi divergences of one order at or below what a total allows.

    Parameters
    ----------
    order : float
        > 1; fixed here, before anything is released.
    total_epsilon : float
        Nats, finite, > 0: everything that passes is (total_epsilon, delta)-private.
    delta : float
        In (0, 1).

    Raises
    ------
    ConfigError
        If a value breaks its rule or the order leaves nothing to spend.

    Notes
    -----
    The divergence allowed is ``total_epsilon - ln((order - 1) / order) +
    (ln delta + ln order) / (order - 1)``.
    """

    kind = "renyi"

    def __init__(self, order: float, total_epsilon: float, delta: float) -> None:
        _checked_total(total_epsilon)
        if not 0 < delta < 1:
            raise ConfigError(
                f"`delta` must lie in (0, 1), found {delta}; pass for example "
                "`-c delta=0.000001`."
            )
        if not (math.isfinite(order) and order > 1):
            raise ConfigError(
                f"`order` must be > 1 and finite, found {order}; pass for example 8.0."
            )
        self.order, self.total = float(order), float(total_epsilon)
        self.delta = float(delta)
        cost = Fraction(conversion_cost(order, delta))
        allowed = math.floor(
            (Fraction(total_epsilon) - cost - abs(cost) * RELATIVE_MARGIN) * NANO
        )
        if allowed <= 0:
            raise ConfigError(
                f"`order` must leave something of the total of {total_epsilon} nats at "
                f"delta {delta:g}, found {order}; pass a larger one."
            )
        super().__init__(allowed)

    def would_exceed(self, epsilon: float, *, width: float | None = None) -> bool:
        """Return whether a release is too much; arguments as for `spend`."""
        return not self._fits(self._divergence(epsilon, width))

    def spend(self, epsilon: float, *, width: float | None = None) -> None:
        """Book a release.

        Parameters
        ----------
        epsilon : float
            Its pure epsilon in nats, >= 0.
        width : float, optional
            The range of its losses in nats (`loss_distributions.bounded_range`), where
            it is known; the smaller of both divergences is booked.

        Raises
        ------
        PrivacyBudgetExhausted
            If it is too much; nothing is booked.
        ValueError
            If a value is negative or not a number.
        """
        self._book(self._divergence(epsilon, width))

    @property
    def spent(self) -> float:
        """Divergence booked so far in nats of this order, rounded up."""
        return nats(self._spent)

    @property
    def remaining(self) -> float:
        """Divergence that a further release may have, rounded down."""
        return _float_down(Fraction(self._limit - self._spent, NANO))

    def state_dict(self) -> dict[str, int | float | str]:
        """Return what `load_state_dict` takes; integers are nano-nats."""
        return {
            "kind": self.kind,
            "order": self.order,
            "total": self.total,
            "delta": self.delta,
            "spent": self._spent,
        }

    def load_state_dict(self, state: State) -> None:
        """Take over what an equal filter had booked, never less than is booked here.

        Raises
        ------
        ValueError
            If the state is that of another filter.
        """
        self._restore(state, self.state_dict())

    def _divergence(self, epsilon: float, width: float | None) -> int | None:
        """Return the nano-nats of a release, rounded up; None without a bound."""
        if _cost(epsilon) is None:
            return None
        divergence = renyi_of_pure(epsilon, self.order)
        if width is not None and _cost(width) is not None:
            divergence = min(divergence, renyi_of_bounded_range(width, self.order))
        return math.ceil(Fraction(divergence) * (1 + RELATIVE_MARGIN) * NANO)


def _cost(epsilon: float) -> int | None:
    """Return nano-nats, rounded up; None where there is no finite bound."""
    if math.isnan(epsilon) or epsilon < 0:
        raise ValueError(f"`epsilon` must be >= 0, found {epsilon}.")
    return whole_nano_nats(epsilon)


def _checked_total(total: float) -> int:
    """Return a total in nano-nats, rounded down."""
    limit = None if math.isnan(total) else limit_in_nano_nats(total)
    if limit is None or limit <= 0:
        raise ConfigError(
            f"`total` must be > 0 and finite, found {total}; pass for example 84.0."
        )
    return limit


def _float_down(value: Fraction) -> float:
    """Return the largest float that is at most `value`."""
    nearest = float(value)
    return nearest if Fraction(nearest) <= value else math.nextafter(nearest, -math.inf)
