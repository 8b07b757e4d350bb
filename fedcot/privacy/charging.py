"""Who may be charged: the rules, and the charges inside the caller's transaction.

Epsilons are whole nano-nats; None stands for no finite bound, and for no limit. Deltas
are whole units of 1e-15 and always have a limit.
"""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from fedcot.errors import LedgerError
from fedcot.privacy.tables import (
    Place,
    Training,
    add_charges,
    add_trainings,
    charged,
    charged_deltas,
    keys_in,
    trainings_of,
)

Grant = Literal["stored", "draw", "refuse"]


def allows(spent: int | None, cost: int | None, limit: int | None) -> bool:
    """Return whether a record that has spent something may be charged a cost more."""
    if limit is None:
        return True
    if spent is None or cost is None:
        return False
    return spent + cost <= limit


def prompt_grants(
    spent: Mapping[str, int | None],
    *,
    stored: Collection[str],
    charged: Collection[str],
    cost: int | None,
    limit: int | None,
) -> dict[str, Grant]:
    """Return what may be done for each record.

    Parameters
    ----------
    spent : mapping of str to int or None
        What each record asked for was charged so far, by its key.
    stored, charged : collection of str
        Keys whose output of this very prompt is stored, and whose charge is. What is
        stored goes out again whatever the limit: it tells nothing new. A charge without
        an output paid for nothing that was sent, so it still serves.
    cost : int or None
        Of this prompt.
    limit : int or None
        Of each record.

    Returns
    -------
    dict of str to str
        "stored", "draw" or "refuse", in the order of `spent`.
    """
    grants: dict[str, Grant] = {}
    for key, before in spent.items():
        if key in stored:
            grants[key] = "stored"
        elif allows(before, 0 if key in charged else cost, limit):
            grants[key] = "draw"
        else:
            grants[key] = "refuse"
    return grants


def trainable(
    spent: Mapping[str, int | None],
    training: Training,
    *,
    deltas: Mapping[str, int],
    known: Mapping[str, tuple[int | None, int]],
    limit: int | None,
    delta_limit: int,
) -> list[str]:
    """Return the records that a training may use, in the order of `spent`.

    Parameters
    ----------
    spent : mapping of str to int or None
        What each record asked for was charged so far, by its key.
    training : Training
        What it costs.
    deltas : mapping of str to int
        The sum of deltas that each of them was charged so far.
    known : mapping of str to (int or None, int)
        Nano-nats and delta that records were charged for a training of this name.
    limit : int or None
        Of the epsilons of each record.
    delta_limit : int
        Of the deltas of each record; what is known keeps to it already.

    Raises
    ------
    LedgerError
        If the name is known at another cost: it is another training then.
    """
    if any(
        cost != (training.nano_nats, training.femto_delta) for cost in known.values()
    ):
        raise LedgerError(
            f"The training '{training.description}' of this run was charged at another "
            "epsilon or delta before; describe a training that costs something else "
            "in other words."
        )
    return [
        key
        for key, before in spent.items()
        if allows(before, 0 if key in known else training.nano_nats, limit)
        and (key in known or deltas[key] + training.femto_delta <= delta_limit)
    ]


def charge_prompts(
    database: sqlite3.Connection,
    keys: Sequence[str],
    place: Place,
    *,
    cost: int | None,
    slots: int,
    is_seeded: bool,
    limit: int | None,
) -> dict[str, Grant]:
    """Charge the prompts that are new and may be charged.

    Parameters
    ----------
    database : sqlite3.Connection
        Holds the write lock, so that sums and charges belong together.
    keys : sequence of str
        Of the records.
    place : Place
        The prompt of each record.
    cost : int or None
        Of one prompt of `slots` tokens.
    is_seeded : bool
        Whether its draw comes from a seed.
    limit : int or None
        Of each record.

    Returns
    -------
    dict of str to str
        See `prompt_grants`.
    """
    paid = keys_in(database, "charges", keys, place)
    stored = keys_in(database, "releases", keys, place)
    grants = prompt_grants(
        charged(database, keys), stored=stored, charged=paid, cost=cost, limit=limit
    )
    new = [key for key in keys if grants[key] == "draw" and key not in paid]
    add_charges(database, new, place, nano_nats=cost, slots=slots, is_seeded=is_seeded)
    return grants


def charge_trainings(
    database: sqlite3.Connection,
    keys: Sequence[str],
    training: Training,
    *,
    limit: int | None,
    delta_limit: int,
) -> list[str]:
    """Charge the records that a training may use and return them, see `trainable`."""
    known = trainings_of(database, keys, training)
    allowed = trainable(
        charged(database, keys),
        training,
        deltas=charged_deltas(database, keys),
        known=known,
        limit=limit,
        delta_limit=delta_limit,
    )
    add_trainings(database, [key for key in allowed if key not in known], training)
    return allowed
