"""A mean of adapters that hides whether one client took part in it.

Papers: https://arxiv.org/abs/1710.06963, https://arxiv.org/abs/1712.07557. The
arithmetic is that of Flower's `DifferentialPrivacyServerSideFixedClipping`. That class
wraps the four hooks of a strategy, and ours has phases of its own, so it cannot be put
around it.

The unit is one client with all its records. It protects from those who see the means,
which are the other clients and whoever gets the adapter; the server sees every update.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from dp_accounting.pld import privacy_loss_distribution as pld
from numpy.typing import NDArray

from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.node_training import first_adapter, student_base
from fedcot.privacy.sampler import (
    SEEDED_GUARANTEE,
    RandomSource,
    SystemRandomSource,
    TapeRandomSource,
)
from fedcot.report.reader import nats
from fedcot.seeding import derive_seed
from fedcot.student.base import is_random_half
from fedcot.student.noise import ClippedSum
from strategies.aggregation import Adapter, check_like

UNIT = "one client: all its records, in every round"
ADJACENCY = (
    "zero-out: one client's updates are replaced by zero in every round; which clients "
    "are sampled, and how many, is public and amplifies nothing"
)
PROTECTED_FROM = "those who see the means; not the server, which sees every update"


class PrivateMean:
    """Clips each client's update, adds them up with noise, divides by a public number.

    Parameters
    ----------
    noise_multiplier : float
        Standard deviation of the noise of the sum in units of `clipping_norm`, > 0.
    clipping_norm : float
        Largest norm of one client's update over all tensors together, > 0.
    source : RandomSource
        Of the noise; no guarantee holds unless it is private.
    is_trained : callable, optional
        Whether a tensor of that name is trained; the others stay as they are and get
        no noise. All, if not given.

    Raises
    ------
    ConfigError
        A value breaks its rule.
    """

    def __init__(
        self,
        *,
        noise_multiplier: float,
        clipping_norm: float,
        source: RandomSource,
        is_trained: Callable[[str], bool] | None = None,
    ) -> None:
        for name, value in (
            ("server-noise-multiplier", noise_multiplier),
            ("server-clipping-norm", clipping_norm),
        ):
            if not 0 < value < math.inf:
                raise ConfigError(
                    f"`{name}` must be > 0 and finite, found {value}; pass for example "
                    f"`-c {name}=1.0`."
                )
        self.noise_multiplier = noise_multiplier
        self.clipping_norm = clipping_norm
        self._source = source
        self._is_trained = is_trained or (lambda name: True)

    def of(
        self,
        adapters: Mapping[int, Adapter],
        *,
        reference: Adapter,
        num_sampled: int,
    ) -> dict[str, NDArray[np.float32]]:
        """Return the reference plus the noised mean of the updates.

        Parameters
        ----------
        adapters : mapping of int to Adapter
            By partition id; of those that answered, which may be none. An update that
            is not finite counts as zero.
        reference : Adapter
            What all clients started from; public. Updates are differences to it.
        num_sampled : int
            Clients that were asked, >= 1; public. Clients that did not answer count as
            zero updates, so that the mean does not tell how many there are.

        Returns
        -------
        dict of str to ndarray of float32

        Raises
        ------
        ValueError
            More adapters than clients that were asked, or one with other tensors than
            the reference.
        """
        if not 1 <= max(1, len(adapters)) <= num_sampled:
            raise ValueError(
                f"`num_sampled` must be at least 1 and the {len(adapters)} adapters "
                f"that came, found {num_sampled}."
            )
        names = [name for name in sorted(reference) if self._is_trained(name)]
        size = sum(reference[name].size for name in names)
        total = ClippedSum(size, self.clipping_norm)
        for partition in sorted(adapters):
            check_like(reference, adapters[partition], partition, "the reference")
            if names:
                total.add(_flat(adapters[partition], names) - _flat(reference, names))
        moved = total.noised(self.noise_multiplier, self._source) / num_sampled
        mean = {name: np.array(tensor) for name, tensor in reference.items()}
        start = 0
        for name in names:
            end = start + mean[name].size
            update = moved[start:end].reshape(mean[name].shape)
            mean[name] = (mean[name] + update).astype(np.float32)
            start = end
        return mean

    def lines(self, *, num_releases: int, delta: float) -> list[str]:
        """Return what holds for a client after some means, as lines to print."""
        epsilon = client_epsilon(
            self.noise_multiplier, num_releases=num_releases, delta=delta
        )
        shown = f"{nats(epsilon)} nats at delta {delta:g}"
        if not self._source.private:
            shown = SEEDED_GUARANTEE
        return [
            f"client epsilon  {shown}, {num_releases} means",
            f"unit            {UNIT}",
            f"adjacency       {ADJACENCY}",
            f"protected from  {PROTECTED_FROM}",
        ]


def configured_mean(
    config: RunConfig, *, arm: str, server_round: int
) -> PrivateMean | None:
    """Return the private mean of one arm in one round; None where none is asked for."""
    if not config.server_noise_multiplier > 0:
        return None
    source: RandomSource = SystemRandomSource()
    if config.test_tape:
        path = ("client-privacy", arm, server_round)
        source = TapeRandomSource(derive_seed(config.seed, *path))
    return PrivateMean(
        noise_multiplier=config.server_noise_multiplier,
        clipping_norm=config.server_clipping_norm,
        source=source,
        is_trained=_is_zero_half if config.freeze_lora_a else None,
    )


def starting_adapter(config: RunConfig) -> dict[str, NDArray[np.float32]]:
    """Return what the clients of a run start from: the first reference of updates.

    The random half alone is much longer than any clipping norm, so an update cannot be
    told relative to zero.
    """
    adapter = first_adapter(student_base(config), config)
    return {name: tensor.numpy() for name, tensor in adapter.items()}


def client_epsilon(
    noise_multiplier: float, *, num_releases: int, delta: float
) -> float:
    """Return an upper bound for one client that is in every mean, in nats.

    Sampling of clients amplifies nothing here: who is sampled follows from a seed.

    Parameters
    ----------
    noise_multiplier : float
        Of each mean, >= 0; infinite epsilon without noise.
    num_releases : int
        Means that are released, over all rounds and arms, >= 0.
    delta : float
        In (0, 1).

    Raises
    ------
    ConfigError
        A value breaks its rule.
    """
    if not 0 < delta < 1:
        raise ConfigError(
            f"`delta` must lie in (0, 1), found {delta}; pass for example "
            "`-c delta=0.000001`."
        )
    if not 0 <= noise_multiplier < math.inf or num_releases < 0:
        raise ConfigError(
            "`server-noise-multiplier` must be >= 0 and finite, found "
            f"{noise_multiplier} for {num_releases} means; pass for example "
            "`-c server-noise-multiplier=1.0`."
        )
    if num_releases == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    # Adaptively chosen Gaussian sums compose to one with less noise, exactly.
    one = noise_multiplier / math.sqrt(num_releases)
    return float(pld.from_gaussian_mechanism(one).get_epsilon_for_delta(delta))


def _is_zero_half(name: str) -> bool:
    return not is_random_half(name)


def _flat(adapter: Adapter, names: list[str]) -> NDArray[np.float64]:
    return np.concatenate([adapter[name].ravel() for name in names]).astype(np.float64)
