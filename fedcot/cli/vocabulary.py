"""The command that builds a vocabulary file from what is public."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedcot.cli.privacy_app import privacy
from fedcot.cli.show import ConfigFile, JsonFlag, Overrides, show
from fedcot.config import RunConfig, load_config, parse_overrides
from fedcot.errors import ConfigError
from fedcot.rules import Scalar
from fedcot.settings import DATASET

if TYPE_CHECKING:
    from fedcot.privacy.artefact import VocabularyArtefact

_SLOTS = 32
_LARGEST_NUMBER = 100


@dataclasses.dataclass(frozen=True)
class _Given:
    """The public words and texts that were named."""

    texts: Sequence[str]
    names: Sequence[str]
    word_list: Path | None
    rare_words: Path | None


@privacy.command()
def vocabulary(
    output: Annotated[Path, typer.Option(help="The file to write.")],
    text: Annotated[
        list[Path] | None,
        typer.Option(help="Public texts, one a line; may be repeated."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="A mapping, whose public share is the text."),
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Its folder.  [default: $FEDCOT_DATA]")
    ] = None,
    public_share: Annotated[
        float | None,
        typer.Option(help="As in the run; the rows beyond it are private."),
    ] = None,
    word_list: Annotated[
        Path | None,
        typer.Option(help="Public words, one a line, with a count if wanted."),
    ] = None,
    rare_words: Annotated[
        Path | None,
        typer.Option(help="More words; each maps to the nearest one that is kept."),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(
            help="Model whose input embedding places the words: a folder, a Hugging "
            "Face id or builtin.  [default: the student for a word list, else "
            "counts of what stands near a word]"
        ),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="The student.  [default: that of the settings]")
    ] = None,
    config: ConfigFile = None,
    override: Overrides = None,
    words: Annotated[
        int, typer.Option(min=2, help="Words and numbers at most.")
    ] = 4000,
    numbers: Annotated[
        int,
        typer.Option(
            min=-1, help="0 to N are added to words without a number; -1: none."
        ),
    ] = _LARGEST_NUMBER,
    slots: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens of a prompt.  [default: the dataset's, else 32]"
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Build a vocabulary file with word vectors from public words or text.

    A private text here would make the vocabulary a release of it.
    """
    settings = _settings(
        config, override, dataset=dataset, data_dir=data_dir, share=public_share
    )
    given = _read(settings, text or [], dataset, word_list, rare_words)
    length = slots or _slots(settings, dataset)
    if word_list is None and embedding is None:
        artefact = _counted(settings, given, dataset, words, length)
    else:
        model = embedding or student or settings.student
        artefact = _embedded(given, model, words, length, numbers)
    output.parent.mkdir(parents=True, exist_ok=True)
    artefact.save(output)
    _show(artefact, output, as_json)


def _show(artefact: VocabularyArtefact, output: Path, as_json: bool) -> None:
    words = len(artefact.vocabulary.words)
    mapped = len(artefact.vocabulary.synonyms)
    content = {
        "vocabulary": str(output),
        "words": words,
        "mapped": mapped,
        "slots": artefact.vocabulary.length,
        "hash": artefact.hash,
        **artefact.provenance,
    }
    first = (
        f"{words} words, {mapped} rarer ones mapped to them, "
        f"{artefact.vocabulary.length} slots: {output}"
    )
    lines = [first]
    if unplaced := artefact.provenance.get("words_without_vector"):
        lines.append(f"{unplaced} words left out: the embedding has no token for them")
    show(content, [*lines, f"hash {artefact.hash}"], as_json)


def _settings(
    config: Path | None,
    override: Sequence[str] | None,
    *,
    dataset: str | None,
    data_dir: str | None,
    share: float | None,
) -> RunConfig:
    """Return the settings; only a dataset and a student are taken from them."""
    stated: dict[str, Scalar | None] = {
        **parse_overrides(override or []),
        "dataset": dataset,
        "data-dir": data_dir,
        "public-share": share,
    }
    if dataset is not None:
        stated |= {"vocabulary": DATASET, "bank": DATASET}
    elif data_dir is not None or share is not None:
        raise ConfigError(
            "`--data-dir` and `--public-share` must come with `--dataset`, found none; "
            "pass for example `--dataset gsm8k`."
        )
    given = {key: value for key, value in stated.items() if value is not None}
    return load_config(config, given)


def _read(
    settings: RunConfig,
    text: Sequence[Path],
    dataset: str | None,
    word_list: Path | None,
    rare_words: Path | None,
) -> _Given:
    """Read what was named.

    Raises
    ------
    ConfigError
        Nothing was named, or something cannot be read.
    """
    if not text and dataset is None and word_list is None:
        raise ConfigError(
            "`--text`, `--dataset` or `--word-list` must be given, found none of them; "
            "pass for example `--word-list FILE`."
        )
    from fedcot.data.banks import read_lines

    texts = [line for path in text for line in read_lines(path, "--text")]
    names = [path.name for path in text]
    if dataset is not None:
        from fedcot.privacy.dataset_vocabulary import public_texts

        texts += public_texts(settings)
        names.append(f"public share {settings.public_share} of {Path(dataset).name}")
    return _Given(texts, names, word_list, rare_words)


def _slots(settings: RunConfig, dataset: str | None) -> int:
    if dataset is None:
        return _SLOTS
    from fedcot.privacy.dataset_vocabulary import dataset_slots

    return dataset_slots(settings) or _SLOTS


def _counted(
    settings: RunConfig, given: _Given, dataset: str | None, words: int, length: int
) -> VocabularyArtefact:
    """Return a vocabulary with vectors counted in the texts themselves."""
    if given.rare_words is not None:
        raise ConfigError(
            "`--rare-words` must come with a word list or an embedding, found text "
            "alone; pass `--embedding MODEL`."
        )
    if dataset is not None and len(given.names) == 1:
        from fedcot.privacy.dataset_vocabulary import dataset_artefact

        return dataset_artefact(settings, words=words, length=length)
    from fedcot.privacy.word_vectors import build_artefact

    source = ", ".join(given.names)
    return build_artefact(given.texts, words=words, length=length, source=source)


def _embedded(
    given: _Given, model: str, words: int, length: int, numbers: int
) -> VocabularyArtefact:
    """Return a vocabulary with vectors of a model."""
    from fedcot.models.word_embeddings import WordEmbedding
    from fedcot.privacy.word_lists import WordList, embedded_artefact
    from fedcot.privacy.word_vectors import frequent_words

    provenance: dict[str, str | int | float] = {}
    names = list(given.names)
    ranked: Sequence[str] = frequent_words(given.texts)
    rare: list[str] = []
    if given.word_list is not None:
        listed = WordList.read(given.word_list)
        # What the texts hold beyond the list is rarer than anything on it.
        rare += ranked
        ranked = listed.words
        names.insert(0, given.word_list.name)
        provenance["word_list_hash"] = listed.hash
    if given.rare_words is not None:
        more = WordList.read(given.rare_words, "--rare-words")
        rare += more.words
        names.append(given.rare_words.name)
        provenance["rare_words_hash"] = more.hash
    return embedded_artefact(
        ranked,
        WordEmbedding.of_model(model),
        words=words,
        length=length,
        rare=rare,
        largest_number=numbers,
        provenance={
            "source": ", ".join(names),
            "texts": len(given.texts),
            **provenance,
        },
    )
