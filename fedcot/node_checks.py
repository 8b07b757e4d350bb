"""What a node's owner has to have allowed before a request is answered."""

import dataclasses
from collections.abc import Sequence

from fedcot.arms import RAW_SOURCE, exposes_by_adapter
from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.node_private import PrivateTraining
from fedcot.node_state import Owner
from fedcot.records import PerturbRequest
from fedcot.settings import DATASET, UNBOUNDED_MECHANISMS, WORLD


def check_audit_run(config: RunConfig, owner: Owner) -> None:
    """Refuse an audit run on a deployed node: made-up secrets are for simulations.

    Raises
    ------
    ConfigError
        The run inserts canaries.
    """
    if config.canaries and not owner.simulated:
        raise ConfigError(
            "`canaries` must be 0 on a deployed node, whose records are not mixed with "
            f"made-up secrets, found {config.canaries}; pass `-c canaries=0`, and "
            "audit a simulated run."
        )


def check_sources(owner: Owner, request: PerturbRequest) -> None:
    """Refuse to send questions without a finite epsilon.

    Raises
    ------
    ConfigError
        The owner did not allow it.
    """
    exposed = RAW_SOURCE in request.sources or (
        "fedcot" in request.sources and request.mechanism in UNBOUNDED_MECHANISMS
    )
    if exposed and not owner.allow_raw_prompts:
        raise ConfigError(
            "`allow-raw-prompts` must be true in the node config before questions "
            "are sent without a finite epsilon; leave out the arms distil and "
            "shuffled-rationale and the mechanisms "
            f"{', '.join(UNBOUNDED_MECHANISMS)}."
        )


def check_shared(config: RunConfig, owner: Owner, arms: Sequence[str]) -> None:
    """Refuse to send adapters that saw private labels or questions unprotected.

    Raises
    ------
    ConfigError
        The owner did not allow it.
    """
    exposed = [
        arm
        for arm in arms
        if exposes_by_adapter(
            arm,
            aggregation=config.aggregation,
            pairing=config.pairing,
            noise_multiplier=config.noise_multiplier,
        )
    ]
    if exposed and not owner.allow_raw_prompts:
        raise ConfigError(
            "`aggregation` must be none for the arms "
            f"{', '.join(exposed)} with `pairing={config.pairing}`, because "
            "their adapters see private labels or questions; pass "
            "`-c aggregation=none`, `-c pairing=perturbed` or, for fedcot, "
            "`-c noise-multiplier=1.0`."
        )


def check_delta(config: RunConfig, owner: Owner, arms: Sequence[str]) -> None:
    """Refuse private training at a delta above the owner's.

    Raises
    ------
    ConfigError
        It is above.
    """
    private = PrivateTraining(config, partition_id=owner.partition_id)
    limit = owner.max_record_delta
    if config.delta > limit and any(map(private.covers, arms)):
        raise ConfigError(
            f"`delta` must be at most the node's `max-record-delta` ({limit}) "
            f"where adapters are trained privately, found {config.delta}; "
            f"pass `-c delta={min(limit, 1e-6)}`."
        )


def own_config(config: RunConfig, owner: Owner) -> RunConfig:
    """Return the settings with the owner's dataset and folder in place of the server's.

    On a deployed node the server must choose neither which files are read nor what is
    taken out of them: the number of records that a node states is no secret, but what
    it is for one choice after the other would tell who is among them.

    Raises
    ------
    ConfigError
        A deployed node is asked for a dataset and its owner named none, or public text
        would have to be taken out of the node's own records.
    """
    if owner.simulated:
        return config
    if DATASET in (config.bank, config.vocabulary):
        raise ConfigError(
            "`bank` and `vocabulary` must be files on a deployed node, because "
            "`dataset` would take them out of its own records; build them elsewhere "
            "and pass their paths."
        )
    if config.dataset == WORLD:
        return config
    if owner.data_dir is None or not owner.dataset:
        raise ConfigError(
            "`dataset` and `data-dir` must be given in the node config of a deployed "
            "node that holds a dataset, found one of them missing; pass for example "
            '--node-config \'dataset="gsm8k" data-dir="/srv/data"\'.'
        )
    return dataclasses.replace(
        config, dataset=owner.dataset, data_dir=str(owner.data_dir)
    )
