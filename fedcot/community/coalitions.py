"""Communities and the coalitions they can form."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Final

from fedcot.errors import ConfigError

Coalition = tuple[str, ...]
Partition = tuple[Coalition, ...]  # every community in exactly one coalition

JOIN: Final = "+"
MOST_COMMUNITIES: Final = 10  # 1,023 coalitions


def coalition_of(members: Iterable[str], communities: Sequence[str]) -> Coalition:
    """Return a coalition with its members in the order of the communities.

    Raises
    ------
    ConfigError
        There are no members, or one is no community.
    """
    chosen = set(members)
    if not chosen or not chosen <= set(communities):
        raise ConfigError(
            "`members` must be communities, at least one, found "
            f"{', '.join(sorted(chosen)) or 'none'}; the communities are "
            f"{', '.join(communities)}."
        )
    return tuple(name for name in communities if name in chosen)


def label(coalition: Coalition) -> str:
    """Return how a coalition is written: ``library+bakery``."""
    return JOIN.join(coalition)


def all_coalitions(communities: Sequence[str]) -> tuple[Coalition, ...]:
    """Return every coalition of at least one, the smallest first."""
    return tuple(
        chosen
        for size in range(1, len(communities) + 1)
        for chosen in combinations(communities, size)
    )


def set_partitions(communities: Sequence[str]) -> Iterator[Partition]:
    """Yield every way to divide the communities into coalitions.

    Their number is the Bell number of the number of communities: 1, 2, 5, 15, 52, 203,
    877 and 4,140 for 1 to 8. Coalitions stand in the order of their first members.
    """
    if not communities:
        yield ()
        return
    *before, last = communities
    for partition in set_partitions(before):
        for place, block in enumerate(partition):
            yield (*partition[:place], (*block, last), *partition[place + 1 :])
        yield (*partition, (last,))


def parse_coalitions(text: str, communities: Sequence[str]) -> tuple[Coalition, ...]:
    """Return the coalitions that a setting names, the smallest first.

    Parameters
    ----------
    text : str
        ``all``; ``alone``, each community by itself; ``grand``, all together; or
        coalitions separated by commas, as ``library,library+bakery,grand``.
    communities : sequence of str

    Raises
    ------
    ConfigError
        An unknown community, or one that stands twice in a coalition.
    """
    found: set[Coalition] = set()
    for part in (piece.strip() for piece in text.split(",")):
        if part == "all":
            found |= set(all_coalitions(communities))
        elif part == "alone":
            found |= {(name,) for name in communities}
        elif part == "grand":
            found.add(tuple(communities))
        else:
            names = [name.strip() for name in part.split(JOIN)]
            unknown = [name for name in names if name not in communities]
            if unknown or len(set(names)) != len(names):
                raise ConfigError(
                    "`coalitions` must be all, alone, grand or names of communities "
                    f"joined by {JOIN}, each once, found {part!r}; the communities are "
                    f"{', '.join(communities)}."
                )
            found.add(coalition_of(names, communities))
    place = {coalition: n for n, coalition in enumerate(all_coalitions(communities))}
    return tuple(sorted(found, key=lambda coalition: place[coalition]))
