"""A Flower strategy whose round is a list of named phases over one state object."""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import NoReturn

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from strategies.results import Results
from strategies.spending import Spending, Unaccounted, unaccounted
from strategies.state import RoundState

Phase = Callable[[Grid, RoundState], None]
logger = logging.getLogger("flwr.fedcot")


class PhasedStrategy(Strategy):
    """Runs `phases` in order, round after round.

    Flower's own round is one train and one evaluate phase; a strategy that also asks
    and answers overrides `start` and so cannot be wrapped by those that change what
    the four hooks see, such as Flower's differential privacy wrappers. The hooks
    refuse, so that such a wrapper fails instead of doing nothing.

    A phase that makes clients release something private asks `spending` first and tells
    it what came back; `strategies.accounted.AccountedStrategy` puts an account there.

    Parameters
    ----------
    results : Results
        Where the seconds of each phase are kept.

    Attributes
    ----------
    spending : Spending
        Asked before a request that spends is sent.
    state : RoundState
        Of the current round, or of the last; a run that fails is summarised from it.
    closing : tuple of str
        Phases that score and save what was learnt. They run also where the budget
        ends a round.
    """

    closing: tuple[str, ...] = ("evaluate",)

    def __init__(self, results: Results) -> None:
        self.results = results
        self.spending: Spending = Unaccounted()
        self.state = RoundState(server_round=1)

    @property
    @abstractmethod
    def phases(self) -> tuple[tuple[str, Phase], ...]:
        """Name and function of each phase, in order."""

    @property
    def spends(self) -> bool:
        """Whether a request makes clients release what has a finite epsilon."""
        return True

    def is_void(self, state: RoundState) -> bool:
        """Whether the budget leaves a round nothing to do but the `closing` phases."""
        return state.is_void

    def is_over(self, state: RoundState) -> bool:
        """Whether the run ends after this round."""
        return state.all_exhausted

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the rounds.

        Parameters
        ----------
        grid : Grid
            Flower's.
        num_rounds : int
            Rounds to run at most.
        initial_arrays, timeout, train_config, evaluate_config, evaluate_fn
            Part of Flower's signature; adapters start on the clients and everything
            else stands in the run config, so these must keep their defaults.

        Returns
        -------
        Result
            Accuracy of each arm by round; global adapters where they are averaged.

        Raises
        ------
        FedcotError
            The strategy spends and nobody keeps an account.
        """
        given = (initial_arrays, train_config, evaluate_config, evaluate_fn)
        if any(value is not None for value in given) or timeout != 3600:
            raise ValueError(
                "Only `grid` and `num_rounds` may be given; see RunConfig."
            )
        if self.spends and isinstance(self.spending, Unaccounted):
            raise unaccounted()
        logger.info("Starting %s strategy:", type(self).__name__)
        self.summary()
        result = Result()
        state = self.state = RoundState(server_round=1)
        started = time.monotonic()
        while True:
            logger.info("")
            logger.info("[ROUND %d/%d]", state.server_round, num_rounds)
            self.run_round(grid, state)
            result.evaluate_metrics_clientapp[state.server_round] = MetricRecord(
                {arm: float(x["mean"]) for arm, x in self.results.accuracy().items()}
            )
            if state.server_round >= num_rounds or self.is_over(state):
                break
            state = self.state = state.next_round()
        logger.info("")
        logger.info("Strategy execution finished in %.2fs", time.monotonic() - started)
        return result

    def run_round(self, grid: Grid, state: RoundState) -> None:
        """Run every phase; each skips what the state already holds.

        Once the budget has refused all of a round, only the `closing` phases are left,
        and those only if there is something to close.
        """
        for name, phase in self.phases:
            if self.is_void(state) and not (state.learnt and name in self.closing):
                continue
            with self.results.timed(name):
                phase(grid, state)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Refuse: see the class."""
        self._refuse()

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Refuse: see the class."""
        self._refuse()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Refuse: see the class."""
        self._refuse()

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Refuse: see the class."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotImplementedError(
            f"{type(self).__name__} runs phases of its own and cannot be wrapped by a "
            "strategy that calls Flower's four hooks; call its start()."
        )
