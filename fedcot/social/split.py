"""Which examples each teacher client holds.

The paper splits at random (https://arxiv.org/abs/2312.11441, section 4); the others are
the label and quantity skews of Li et al. (https://arxiv.org/abs/2102.02079, section 4).
Silos never share a question, with each other or with the test set: it would be learnt
from, or attributed to, the wrong one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from fedcot.data.partitioners import Splitting, partition_rows
from fedcot.data.schema import Record
from fedcot.errors import ConfigError
from fedcot.seeding import numpy_generator
from fedcot.social.demonstrations import Demonstration
from fedcot.social.task_rows import TaskData, content_key

Silo = tuple[Demonstration, ...]

SPLITS: Final = ("iid", "dirichlet", "label", "size")
_BY_LABEL: Final = ("dirichlet", "label")


def split_demonstrations(
    data: TaskData,
    num_teachers: int,
    *,
    partitioner: str = "iid",
    dirichlet_alpha: float = 0.5,
    smallest: int = 1,
    seed: int,
) -> tuple[Silo, ...]:
    """Return the examples of each teacher client; every example has one holder.

    Parameters
    ----------
    data : TaskData
    num_teachers : int
        At least 1.
    partitioner : str
        ``iid``: at random, sizes differ by one at most. ``dirichlet``: the shares of a
        label among the clients are Dirichlet. ``label``: labels are dealt out in turn.
        ``size``: at random, the shares of all examples are Dirichlet.
    dirichlet_alpha : float
        Concentration, > 0: the smaller, the more unequal.
    smallest : int
        Every client must hold so many; with ``size`` it gets them first.
    seed : int

    Raises
    ------
    ConfigError
        A client would hold fewer, the task has no labels to split by, or two silos or
        a silo and the test set share a question.
    """
    if partitioner not in SPLITS:
        raise ConfigError(
            f"`partitioner` must be one of {', '.join(SPLITS)}, found {partitioner!r}; "
            "choose one of them."
        )
    if not (np.isfinite(dirichlet_alpha) and dirichlet_alpha > 0):
        raise ConfigError(
            f"`dirichlet-alpha` must be > 0, found {dirichlet_alpha}; raise it."
        )
    if num_teachers < 1 or num_teachers * max(1, smallest) > len(data.train):
        raise ConfigError(
            f"`num-partitions` must be at least 1 and leave every teacher client "
            f"{max(1, smallest)} of {len(data.train)} examples, found {num_teachers}; "
            "ask for fewer clients."
        )
    if partitioner in _BY_LABEL and not data.labels:
        raise ConfigError(
            f"`partitioner` must be `iid` or `size` for a task without a closed set of "
            f"answers, found `{partitioner}` with `{data.format_name}`; pass `-c "
            "partitioner=iid`."
        )
    if partitioner == "size":
        rows = _by_size(len(data.train), num_teachers, dirichlet_alpha, smallest, seed)
    else:
        rows = partition_rows(
            Splitting(partitioner, dirichlet_alpha, seed),
            [Record(one.question, one.answer, "") for one in data.train],
            [""] * len(data.train),
            num_teachers,
        )
    silos = tuple(tuple(data.train[row] for row in held) for held in rows)
    fewest = min(map(len, silos))
    if fewest < smallest:
        raise ConfigError(
            f"`partitioner={partitioner}` must leave every teacher client {smallest} "
            f"examples, found one with {fewest}; ask for fewer clients, raise "
            "dirichlet-alpha, or pass `-c partitioner=iid`."
        )
    check_disjoint(silos, data.test)
    return silos


def check_disjoint(silos: Sequence[Silo], test: Sequence[Demonstration]) -> None:
    """Refuse silos that share a question with each other or with the test set.

    Questions are compared by `fedcot.social.task_rows.content_key`; a silo may hold one
    of its own twice.

    Raises
    ------
    ConfigError
        With the number of such questions and no text.
    """
    held = [{content_key(one) for one in silo} for silo in silos]
    tested = {content_key(one) for one in test}
    times = Counter(key for keys in held for key in keys)
    shared = sum(count > 1 for count in times.values())
    known = sum(key in tested for key in times)
    if shared or known:
        raise ConfigError(
            "`partitioner` must give every question one holder and leave the test set "
            f"alone, found {shared} questions in several silos and {known} in the test "
            "set; take repeated questions out of the data."
        )


def _by_size(
    total: int, clients: int, alpha: float, smallest: int, seed: int
) -> tuple[tuple[int, ...], ...]:
    """Return rows in rising order, at random and of Dirichlet sizes."""
    rng = numpy_generator(seed, "silo-sizes")
    least = max(1, smallest)
    shares = rng.dirichlet([alpha] * clients)
    # Rounding the running sum loses no row.
    ends = np.rint(np.cumsum(shares) * (total - clients * least)).astype(int)
    sizes = np.diff(ends, prepend=0) + least
    order = rng.permutation(total)
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return tuple(tuple(sorted(int(row) for row in part)) for part in parts)
