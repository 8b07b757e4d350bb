"""The nine families of the built-in world, as data.

Four general families are what the student's base model was trained on. The five client
domains use other vocabulary and other phrasing; only the teacher knows them.
"""

from dataclasses import dataclass
from typing import Literal

NAMES = ("tom", "sue", "kim", "ben", "amy", "max", "eva", "leo")


@dataclass(frozen=True, slots=True)
class Change:
    """A clause that changes the running total.

    ``{amount}`` in the clause is the right operand; a clause without it has a fixed
    `factor` (``they double``). `cause` is what rationales of granularity 3 and 4 say.
    """

    clause: str
    operation: Literal["add", "subtract", "multiply"]
    cause: str
    factor: int = 0


@dataclass(frozen=True, slots=True)
class Chain:
    """A total that changes step by step; may open with a product."""

    name: str
    openings: tuple[str, ...]
    changes: tuple[Change, ...]
    closings: tuple[str, ...]
    nouns: tuple[str, ...]
    opens_with_product: bool = False
    closing_first: bool = False


@dataclass(frozen=True, slots=True)
class Exchange:
    """Two holders pass things to each other; the request asks about the first.

    `transfers` are what the first and the second one gives away. A request that asks
    about either would make each sign an exclusive or of two words, which small models
    take very long to learn.
    """

    name: str
    request: str
    opening: str
    transfers: tuple[str, str]
    nouns: tuple[str, ...]
    gain: str
    loss: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several people with a number each; the largest or the smallest is asked for."""

    name: str
    openings: tuple[str, ...]
    entries: tuple[str, ...]
    closings: tuple[str, ...]
    smallest: bool


Family = Chain | Exchange | Comparison

GENERAL: tuple[Family, ...] = (
    Chain(
        name="marbles",
        openings=("{name} has {start} {noun}.", "There are {start} {noun}."),
        changes=(
            Change("Finds {amount}.", "add", "find"),
            Change("Wins {amount}.", "add", "win"),
            Change("Loses {amount}.", "subtract", "lose"),
            Change("Drops {amount}.", "subtract", "drop"),
        ),
        closings=("How many {noun} now?", "How many {noun} in the end?"),
        nouns=("marbles", "shells", "stones"),
    ),
    Chain(
        name="shop",
        openings=(
            "{name} buys {count} packs of {size} {noun}.",
            "There are {count} boxes with {size} {noun}.",
        ),
        changes=(
            Change("Gets {amount} more.", "add", "get"),
            Change("Uses {amount}.", "subtract", "use"),
            Change("Sells {amount}.", "subtract", "sell"),
        ),
        closings=("How many {noun} are left?", "How many {noun} now?"),
        nouns=("pens", "cups", "nails"),
        opens_with_product=True,
    ),
    Exchange(
        name="trade",
        request="How many {noun} have you now?",
        opening="You have {first} {noun}. I have {second} {noun}.",
        transfers=("You give {amount}.", "I give {amount}."),
        nouns=("cards", "coins", "stamps"),
        gain="take",
        loss="give",
    ),
    Comparison(
        name="scores",
        openings=("In a game", "On a test"),
        entries=("{name} scores {number}",),
        closings=("Who scores most?",),
        smallest=False,
    ),
)

CLIENT: tuple[Family, ...] = (
    Chain(
        name="library",
        openings=("after opening with {start}:", "once it held {start}:"),
        changes=(
            Change("{amount} returned;", "add", "returned"),
            Change("{amount} donated;", "add", "donated"),
            Change("{amount} borrowed;", "subtract", "borrowed"),
            Change("{amount} stolen;", "subtract", "stolen"),
        ),
        closings=("Count {noun} on this shelf", "Which number of {noun} stays here"),
        nouns=("novels", "atlases", "comics"),
        closing_first=True,
    ),
    Chain(
        name="bakery",
        openings=(
            "Each tray carries {size} {noun}; {count} trays.",
            "Ovens warm {size} {noun} per batch, {count} batches.",
        ),
        changes=(
            Change("Chefs add {amount}.", "add", "chefs"),
            Change("Guests eat {amount}.", "subtract", "guests"),
            Change("Mice spoil {amount}.", "subtract", "mice"),
        ),
        closings=("Tally {noun} cooling.", "Tell fresh {noun}."),
        nouns=("buns", "rolls", "tarts"),
        opens_with_product=True,
    ),
    Exchange(
        name="harbor",
        request="Report {noun} at north.",
        opening="Piers: North {first}, South {second}.",
        # What leaves the north sails south.
        transfers=("{amount} sail south.", "{amount} sail north."),
        nouns=("boats", "ferries", "barges"),
        gain="arrive",
        loss="leave",
    ),
    Comparison(
        name="contest",
        openings=("Minutes per runner:", "Race clock:"),
        entries=("{name} {number}",),
        closings=("Name whoever was quickest.", "Crown the fastest."),
        smallest=True,
    ),
    Chain(
        name="colony",
        openings=("A dish grows {start} {noun}.", "Lab sample: {start} {noun}."),
        changes=(
            Change("They double.", "multiply", "double", factor=2),
            Change("They triple.", "multiply", "triple", factor=3),
            Change("Then {amount} hatch.", "add", "hatch"),
            Change("Then {amount} die.", "subtract", "die"),
        ),
        closings=("Estimate living {noun}.", "State final {noun}."),
        nouns=("cells", "spores", "larvae"),
    ),
)

FAMILIES: dict[str, Family] = {family.name: family for family in GENERAL + CLIENT}
GENERAL_NAMES = tuple(family.name for family in GENERAL)
CLIENT_NAMES = tuple(family.name for family in CLIENT)
