"""What mechanisms keep of real English text at one exact token epsilon.

4,000 words with vectors from the public questions in the folder that FEDCOT_DATA names.
The public model counts word pairs in one half of the questions; what is released is
measured on questions of the other half.
"""

import argparse
import math
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcot import provenance
from fedcot.comparison import write_comparison
from fedcot.privacy.artefact import VocabularyArtefact
from fedcot.privacy.channels import Channel, TokenChannel, build_channel
from fedcot.privacy.public_model import BigramModel
from fedcot.privacy.sampler import SystemRandomSource
from fedcot.privacy.selection import Bank
from fedcot.privacy.vocabulary import PAD_ID
from fedcot.privacy.word_vectors import build_artefact, question_texts

NEAR = 10
PROMPTS = 300
CALIBRATION = 32
SOURCE = "public questions: GSM8K, CommonsenseQA, SVAMP, StrategyQA (training parts)"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--token-epsilon", type=float, default=6.0)
    parser.add_argument(
        "--output", type=Path, default=Path("results/english-words.json")
    )
    given = parser.parse_args()
    folder = os.environ.get("FEDCOT_DATA")
    if not folder:
        sys.exit("FEDCOT_DATA must name the folder of public data, found nothing.")
    texts = question_texts(Path(folder))
    artefact = build_artefact(texts, words=4000, source=SOURCE)
    encoded = np.stack([artefact.vocabulary.encode(text) for text in texts])
    known, held_out = encoded[::2], encoded[1::2]
    places = np.linspace(0, len(held_out) - 1, PROMPTS).astype(np.int64)
    result = measure(artefact, known, held_out[places], given.token_epsilon)
    result["command"] = shlex.join(["python", "-P", "benchmarks/english_words.py"])
    result["git_commit"] = provenance.git_commit()
    result["versions"] = provenance.versions()
    write_comparison(result, given.output)
    for row in result["mechanisms"]:
        reads = row["perplexity"]
        print(
            f"{row['mechanism']:<22} exact {row['exact_epsilon']:.6f} nats a token, "
            f"near {row['near']:.4f}, true word {row['kept']:.4f}, "
            f"perplexity {'not drawn' if reads is None else f'{reads:,.0f}'}"
        )
    print(f"Result: {given.output}")


def measure(
    artefact: VocabularyArtefact,
    known: NDArray[np.int64],
    private: NDArray[np.int64],
    epsilon: float,
) -> dict[str, Any]:
    """Return what each mechanism keeps of some private prompts.

    Parameters
    ----------
    known, private : ndarray of int64, shape (texts, slots)
        Public texts for the model, and the prompts that are perturbed.
    epsilon : float
        Nats of one token, exact.
    """
    vocabulary, similarity = artefact.vocabulary, artefact.similarity
    model = BigramModel(vocabulary, known)
    distance = -similarity.copy()
    np.fill_diagonal(distance, -np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :NEAR]
    calibration = Bank(vocabulary, np.unique(known, axis=0)[:CALIBRATION])
    rows = []
    for mechanism in ("exponential", "rank", "adaptive"):
        channel = build_channel(
            mechanism,
            vocabulary,
            epsilon,
            similarity=similarity,
            public_model=model,
            bank=calibration,
            neighbours=NEAR,
        )
        row = {"mechanism": mechanism, "exact_epsilon": channel.token_epsilon}
        rows.append({**row, **kept_of(channel, private, nearest, model)})
    rows.insert(0, nominal_row(similarity, private, nearest, epsilon))
    return {
        "token_epsilon": epsilon,
        "unit": "nats, one token",
        "vocabulary": {
            "words": len(vocabulary.words),
            "hash": artefact.hash,
            **artefact.provenance,
        },
        "near": f"share of words released as one of their {NEAR} nearest",
        "prompts": len(private),
        "perplexity_of_the_private_prompts": perplexity(model, private),
        "mechanisms": rows,
    }


def kept_of(
    channel: Channel,
    private: NDArray[np.int64],
    nearest: NDArray[np.int64],
    model: BigramModel,
) -> dict[str, float | None]:
    """Return what a channel keeps in one draw, and exactly over all words."""
    started = time.perf_counter()
    released = channel.sample(private, SystemRandomSource())
    seconds = time.perf_counter() - started
    words = private != PAD_ID
    near = (nearest[private] == released[:, :, None]).any(axis=2)[words]
    over_vocabulary = None
    if isinstance(channel, TokenChannel):
        shares = [
            _share(np.array(channel.weights_row(token)), nearest[token])
            for token in range(0, channel.size, 20)
        ]
        over_vocabulary = float(np.mean(shares))
    return {
        "near": float(near.mean()),
        "near_stderr": float(near.std(ddof=1) / math.sqrt(near.size)),
        "near_over_the_vocabulary": over_vocabulary,
        "kept": float((private == released)[words].mean()),
        "perplexity": perplexity(model, released),
        "tokens_per_second": private.size / seconds,
    }


def nominal_row(
    similarity: NDArray[np.float64],
    private: NDArray[np.int64],
    nearest: NDArray[np.int64],
    epsilon: float,
) -> dict[str, Any]:
    """Return the textbook exponential mechanism, exp(epsilon * score / 2)."""
    weights = np.exp(epsilon * similarity / 2)
    law = weights / weights.sum(axis=1, keepdims=True)
    near = np.take_along_axis(law, nearest, axis=1).sum(axis=1)
    words = private[private != PAD_ID]
    return {
        "mechanism": "nominal exponential",
        "exact_epsilon": float(np.log(law.max(axis=0) / law.min(axis=0)).max()),
        "near": float(near[words].mean()),
        "near_stderr": 0.0,
        "near_over_the_vocabulary": float(near[::20].mean()),
        "kept": float(np.diag(law)[words].mean()),
        "perplexity": None,
        "tokens_per_second": None,
    }


def perplexity(model: BigramModel, prompts: NDArray[np.int64]) -> float:
    """Return the public model's perplexity of some prompts, padding included."""
    logs = [
        np.log(model.next_probabilities(prompts[:, :slot])[rows, prompts[:, slot]])
        for slot in range(prompts.shape[1])
        for rows in [np.arange(len(prompts))]
    ]
    return math.exp(-float(np.mean(logs)))


def _share(weights: NDArray[np.int64], chosen: NDArray[np.int64]) -> float:
    return float(weights[chosen].sum() / weights.sum())


if __name__ == "__main__":
    main()
