"""How much an import takes in before it leaves something out."""

from dataclasses import dataclass, fields

from fedcot.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what an export may hold; ours, not a provider's.

    Attributes
    ----------
    conversation_bytes : int
        Of one conversation or row as JSON. What is larger is left out and counted. The
        memory that an import needs grows with this number, up to 40 times it where the
        JSON is made to be bad, and not with the size of the file.
    text_characters : int
        Of a question, reasoning or answer. A trace with more is left out and counted.
    files : int
        In an archive or a folder.
    file_bytes, total_bytes : int
        Of one file and of all files that are read, uncompressed.
    ratio : int
        Uncompressed bytes per compressed byte of a file in an archive.
    directory_bytes : int
        Of the list of names at the end of an archive, which is read as a whole.

    Raises
    ------
    ConfigError
        A bound is not positive.
    """

    conversation_bytes: int = 12 * 2**20
    text_characters: int = 1_000_000
    files: int = 1_000_000
    file_bytes: int = 16 * 2**30
    total_bytes: int = 64 * 2**30
    ratio: int = 250
    directory_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        """Check the bounds."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 1:
                raise ConfigError(
                    f"`{field.name}` must be at least 1, found {value}; raise it."
                )
