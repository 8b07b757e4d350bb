"""A strategy with an account: grant before sending, compose before using, stop in time.

It wraps any `PhasedStrategy`, as Flower's differential privacy wrappers wrap theirs;
the strategy inside states what its requests spend and knows nothing of accounts.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedcot.errors import FedcotError
from fedcot.privacy.accounting import NEIGHBORING_RELATION
from fedcot.report.reader import nats
from strategies.accounting import PrivacyAccountant
from strategies.events import PrivacyEvent, PromptsEvent
from strategies.phased import PhasedStrategy
from strategies.results import COMPLETED, EXHAUSTED
from strategies.spending import Unaccounted
from strategies.state import RoundState

UNIT: Final = (
    "nats charged to the most charged record over all rounds; what is guaranteed for "
    "it stands in per_arm"
)
CLIENT_UNIT: Final = (
    "nats at delta, one client over all rounds, against those who see the noised means "
    "and no update"
)
logger = logging.getLogger("flwr.fedcot")


class AccountedStrategy(Strategy):
    """Lets a strategy spend what its accountant grants.

    Parameters
    ----------
    strategy : PhasedStrategy
        Asks through `spending`, which this wrapper takes over.
    accountant : PrivacyAccountant
        Says what may be granted and adds up what was released.

    Raises
    ------
    FedcotError
        Something else keeps the strategy's account already.

    Examples
    --------
    ::

        strategy = FedCoT(config, teacher=..., public=..., results=..., run_key=...)
        accountant = PrivacyAccountant(path, record_epsilon=250.0, delta=1e-6)
        AccountedStrategy(strategy, accountant).start(grid, num_rounds=3)
    """

    def __init__(self, strategy: PhasedStrategy, accountant: PrivacyAccountant) -> None:
        if not isinstance(strategy.spending, Unaccounted):
            raise FedcotError("a strategy may have one account only; wrap it once")
        self.strategy = strategy
        self.accountant = accountant
        self.num_refused = 0
        self._last_refusal = ""
        strategy.spending = self

    def __repr__(self) -> str:
        """Name the wrapper and what it wraps."""
        return f"{type(self).__name__}({type(self.strategy).__name__})"

    @property
    def state(self) -> RoundState:
        """The state of the current round, or of the last."""
        return self.strategy.state

    def start(self, grid: Grid, *arguments: Any, **keywords: Any) -> Result:
        """Run the strategy until it ends or the budget does; see `PhasedStrategy`."""
        logger.info("Starting %r:", self)
        logger.info(
            "\t└── Record limit: %s nats over all rounds",
            nats(self.accountant.record_epsilon),
        )
        result = self.strategy.start(grid, *arguments, **keywords)
        for line in self.lines():
            logger.info("%s", line)
        return result

    def summary(self) -> None:
        """Log what was charged, and the settings of the strategy."""
        for line in self.lines():
            logger.info("\t├── %s", line)
        self.strategy.summary()

    def before_send(self, state: RoundState, event: PrivacyEvent) -> bool:
        """Grant the request of a client that has the budget; it counts from now on."""
        granted = self.accountant.grant(event)
        for partition in event.partitions:
            state.granted[partition] = state.granted.get(partition, False) or granted
            if granted:
                self._charge(state, partition)
        if not granted:
            self._refuse(state, event)
        return granted

    def after_receive(self, state: RoundState, event: PrivacyEvent) -> None:
        """Charge what a reply says was released, before anything of it is used.

        Raises
        ------
        PrivacyBudgetExhausted
            More was released than a record may cost: the reply must not be used.
        """
        try:
            if isinstance(event, PromptsEvent):
                self.accountant.observe(event)
            self.accountant.compose(event)
        finally:
            for partition in event.partitions:
                self._charge(state, partition)

    @property
    def status(self) -> str:
        """How the run ended: `completed`, or `budget-exhausted`."""
        spent = self.num_refused or self.state.refused or self.state.exhausted
        return EXHAUSTED if spent else COMPLETED

    @property
    def reason(self) -> str:
        """One line that says why the budget was exhausted; empty if it was not."""
        if self.status == COMPLETED:
            return ""
        limit = nats(self.accountant.record_epsilon)
        reasons = [self._last_refusal] if self._last_refusal else []
        if self.state.refused:
            reasons.append(
                f"{self.state.refused} releases were refused by the clients' ledgers"
            )
        return f"a record may cost {limit} nats over all rounds: " + "; ".join(
            reasons or ["some client has nothing left to release"]
        )

    def privacy(self) -> dict[str, Any]:
        """Return the account for the summary; each epsilon has its unit."""
        spent = self.accountant.get_privacy_spent()
        return {
            "unit": UNIT,
            "neighboring_relation": NEIGHBORING_RELATION,
            "record_epsilon_limit": self.accountant.record_epsilon,
            "charged_epsilon": spent.epsilon,
            "charged_prompts_epsilon": spent.prompts_epsilon,
            "charged_gaussian_epsilon": spent.gaussian_epsilon,
            "delta": spent.delta,
            "renyi_order": spent.optimal_order,
            "client_unit": CLIENT_UNIT,
            "client_epsilon": spent.client_epsilon,
            "num_releases": spent.num_releases,
            "num_refused_requests": self.num_refused,
            "accounting_method": spent.accounting_method,
        }

    def lines(self) -> list[str]:
        """Return the account as lines to log, each epsilon with its unit."""
        spent = self.accountant.get_privacy_spent()
        limit = nats(self.accountant.record_epsilon)
        at_delta = f" at delta {spent.delta:g}" if spent.delta else ""
        charged = (
            f"privacy: charged {nats(spent.epsilon)} of {limit} nats{at_delta}, most "
            f"charged record over all rounds ({NEIGHBORING_RELATION})"
        )
        lines = [charged]
        if spent.gaussian_epsilon:
            lines.append(
                f"privacy: of these {nats(spent.prompts_epsilon)} nats for prompts and "
                f"{nats(spent.gaussian_epsilon)} nats{at_delta} for noised training"
            )
        if spent.client_epsilon:
            lines.append(
                f"privacy: {nats(spent.client_epsilon)} nats{at_delta}, one client, "
                "noised means alone"
            )
        if self.status == EXHAUSTED:
            lines.append(f"privacy: budget exhausted: {self.reason}")
        return lines

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Leave it to the strategy, which refuses."""
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Leave it to the strategy, which refuses."""
        return self.strategy.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Leave it to the strategy, which refuses."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Leave it to the strategy, which refuses."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def _charge(self, state: RoundState, partition: int) -> None:
        # A grant counts in full until its reply says what it was used for.
        state.charged[partition] = self.accountant.get_epsilon(partition_id=partition)

    def _refuse(self, state: RoundState, event: PrivacyEvent) -> None:
        """Count a refusal, and the clients that would be refused like this one."""
        self.num_refused += 1
        self._last_refusal = self._describe(event)
        was_over = state.all_exhausted
        state.exhausted.update(event.partitions)
        if isinstance(event, PromptsEvent):
            state.exhausted.update(
                partition
                for partition in state.members
                if self.accountant.would_exceed(replace(event, partition_id=partition))
            )
        if state.all_exhausted and not was_over:
            logger.error(
                "├── The privacy budget is spent: %s, and a record may cost %s nats "
                "over all rounds (neighbours: %s); raise `record-epsilon` or lower "
                "what a release costs.",
                self._last_refusal,
                nats(self.accountant.record_epsilon),
                NEIGHBORING_RELATION,
            )

    def _describe(self, event: PrivacyEvent) -> str:
        if isinstance(event, PromptsEvent):
            return (
                f"round {event.server_round} was refused, one prompt costs "
                f"{nats(event.prompt_epsilon)} nats"
            )
        return (
            f"round {event.server_round} was refused, {event} would go beyond the "
            "limit of a record"
        )
