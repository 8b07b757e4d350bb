"""Weighted means of client adapters, in partition order.

Floating-point sums depend on their order, and replies arrive in any; summing by
partition id makes the same replies give the same bytes.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Adapter = Mapping[str, NDArray[np.float32]]


def weighted_mean(
    adapters: Mapping[int, Adapter], *, weights: Mapping[int, float]
) -> dict[str, NDArray[np.float32]]:
    """Return the weighted mean of adapters.

    Parameters
    ----------
    adapters : mapping of int to Adapter
        By partition id; all with the same tensor names and shapes.
    weights : mapping of int to float
        Number of examples by partition id, >= 0.

    Returns
    -------
    dict of str to ndarray of float32
        Summed in float64.

    Raises
    ------
    ValueError
        No adapter, no positive weight, or a tensor that is missing, not finite or of
        another shape; the message names the partition.
    """
    if not adapters:
        raise ValueError("`adapters` must hold at least one adapter, found none.")
    partitions = sorted(adapters)
    first = adapters[partitions[0]]
    for partition in partitions:
        whose = f"partition {partitions[0]}"
        check_like(first, adapters[partition], partition, whose)
        _check_finite(adapters[partition], partition)
    total = _total_weight(partitions, weights)
    mean: dict[str, NDArray[np.float32]] = {}
    for name in sorted(first):
        summed = np.zeros(first[name].shape, dtype=np.float64)
        for partition in partitions:
            # A Python float would be rounded to the array's single precision first.
            share = np.float64(weights[partition] / total)
            summed += share * adapters[partition][name]
        mean[name] = summed.astype(np.float32)
    return mean


def check_like(expected: Adapter, adapter: Adapter, partition: int, whose: str) -> None:
    """Refuse an adapter with other tensors or shapes than another one.

    Parameters
    ----------
    expected, adapter : mapping of str to ndarray
    partition : int
        Who sent `adapter`.
    whose : str
        Names `expected` in the message.

    Raises
    ------
    ValueError
        They differ; the message names the partition.
    """
    if adapter.keys() != expected.keys():
        raise ValueError(f"Partition {partition} sent other tensors than {whose}.")
    for name, tensor in adapter.items():
        # NumPy would broadcast (2, 1) against (2, 2) without a word.
        if tensor.shape != expected[name].shape or tensor.dtype != np.float32:
            raise ValueError(
                f"Partition {partition} sent `{name}` as {tensor.dtype} of shape "
                f"{tensor.shape}; it must be float32 of shape {expected[name].shape}."
            )


def _check_finite(adapter: Adapter, partition: int) -> None:
    for name, tensor in adapter.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"Partition {partition} sent `{name}` with NaN or inf.")


def _total_weight(partitions: list[int], weights: Mapping[int, float]) -> float:
    for partition in partitions:
        weight = weights.get(partition)
        if weight is None or not 0 <= weight < float("inf"):
            raise ValueError(
                f"Partition {partition} must have a weight >= 0, found {weight}."
            )
    total = sum(weights[partition] for partition in partitions)
    if total <= 0:
        raise ValueError("The weights must not all be 0.")
    return total
