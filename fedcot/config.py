"""The settings of one run: names, types, ranges and defaults stand here once.

`RunConfig` is frozen and checked when it is built, so code below never sees a
mapping or a value out of range. `pyproject.toml` mirrors the defaults, the README
table and the help texts are made from the same fields.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

from fedcot import rules
from fedcot.errors import ConfigError
from fedcot.rules import Scalar, at_least, key_of, list_of, one_of, setting, shown

ARMS: Final = (
    "zero-shot",
    "standalone",
    "self-rationale",
    "shuffled-rationale",
    "random-bank",
    "distil",
    "fedcot",
)
MECHANISMS: Final = (
    "exponential",
    "rank",
    "adaptive",
    "saliency",
    "selection",
    "rantext",
    "custext",
    "none",
)
# No finite epsilon holds for these: they are for comparison, and need the permission of
# a node's owner like a question that is sent as it is.
UNBOUNDED_MECHANISMS: Final = ("rantext", "custext", "none")
PAIRINGS: Final = ("perturbed", "original", "adapted")
AGGREGATIONS: Final = ("none", "fedavg")
PARTITIONERS: Final = ("domain", "iid")
MODES: Final = ("fedcot",)
DATASETS: Final = ("world",)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of one run; building one checks them all.

    Raises
    ------
    ConfigError
        A value has the wrong type or breaks its rule. One line: the parameter, the
        rule, the value found and the remedy.
    """

    mode: str = setting("fedcot", one_of(*MODES), "way of sharing reasoning")
    dataset: str = setting(
        "world", one_of(*DATASETS), "where the private questions come from"
    )
    name: str = setting("main-job", rules.SLUG, "names the run and its directory")
    arms: str = setting(
        "zero-shot,standalone,distil,fedcot",
        list_of(*ARMS),
        "what is compared on the same split; the teacher is always measured",
    )
    num_server_rounds: int = setting(2, at_least(1), "rounds")
    num_partitions: int = setting(
        0, at_least(0), "clients the data is split for; 0: the nodes that are connected"
    )
    fraction_train: float = setting(
        1.0, rules.SHARE, "share of the clients that take part in a round"
    )
    num_records: int = setting(
        1280, at_least(1), "private training questions of all clients together"
    )
    records_per_round: int = setting(
        128, at_least(1), "questions one client may ask per round, at most num-records"
    )
    test_records: int = setting(100, at_least(1), "test questions of one client")
    partitioner: str = setting(
        "domain", one_of(*PARTITIONERS), "one domain per client, or all mixed"
    )
    teacher: str = setting(
        "builtin", rules.TEXT, "`builtin`, a local folder or a Hugging Face id"
    )
    student: str = setting(
        "builtin", rules.TEXT, "`builtin`, a local folder or a Hugging Face id"
    )
    teacher_batch_size: int = setting(
        64, at_least(1), "prompts the teacher answers together"
    )
    max_new_tokens: int = setting(
        80, at_least(1), "length limit of one rationale, in tokens"
    )
    mechanism: str = setting(
        "rank", one_of(*MECHANISMS), "how a private question is perturbed"
    )
    token_epsilon: float = setting(
        MISSING,
        rules.POSITIVE,
        "privacy loss of one token, in nats; no default in the library",
        example=8.0,
    )
    prompt_epsilon: float = setting(
        0.0,
        rules.NOT_NEGATIVE,
        "what one whole prompt may cost, in nats: the budget of `adaptive`, "
        "`saliency` and `selection`, a limit for the others; 0: slots x token-epsilon",
    )
    record_epsilon: float = setting(
        250.0,
        rules.POSITIVE,
        "limit for one record over all rounds, in nats; kept by the client's ledger",
    )
    delta: float = setting(
        1e-6, rules.OPEN_UNIT, "delta at which composed budgets are also stated"
    )
    vocabulary: str = setting(
        "world",
        rules.TEXT,
        "public words that a question is perturbed over: `world`, or a file of "
        "`fedcot privacy vocabulary`",
    )
    bank: str = setting(
        "world",
        rules.TEXT,
        "public prompts for `selection`, public texts for `adaptive`: `world`, or a "
        "file with one question a line",
    )
    bank_size: int = setting(
        4500, at_least(2), "public prompts that `selection` chooses from, at most"
    )
    bank_variations: bool = setting(
        False,
        rules.ANY,
        "from the second round on, `selection` also chooses from variations of what "
        "a client has released",
    )
    noise_multiplier: float = setting(
        0.0,
        rules.NOISE,
        "DP-SGD noise of adapters that leave a client, in units of max-grad-norm; 0: "
        "no DP-SGD",
    )
    max_grad_norm: float = setting(
        1.0, rules.NORM, "largest norm of one record's gradient under DP-SGD"
    )
    freeze_lora_a: bool = setting(
        False, rules.ANY, "train only the B half of the adapter (FFA-LoRA)"
    )
    server_noise_multiplier: float = setting(
        0.0,
        rules.NOISE,
        "noise of the mean of adapters, in units of server-clipping-norm; 0: none",
    )
    server_clipping_norm: float = setting(
        1.0, rules.NORM, "largest norm of one client's update in the mean"
    )
    pairing: str = setting(
        "perturbed",
        one_of(*PAIRINGS),
        "question a rationale is paired with in training",
    )
    rationale_weight: float = setting(
        1.0, rules.NOT_NEGATIVE, "weight of the rationale loss beside the label loss"
    )
    aggregation: str = setting(
        "none",
        one_of(*AGGREGATIONS),
        "personal adapters that stay with the client, or their mean",
    )
    local_epochs: int = setting(8, at_least(1), "passes over the pairs per round")
    batch_size: int = setting(16, at_least(1), "examples per training step")
    learning_rate: float = setting(
        5e-3, rules.POSITIVE, "peak learning rate of the adapter"
    )
    lora_r: int = setting(16, at_least(1), "rank of the LoRA matrices")
    lora_alpha: int = setting(32, at_least(1), "LoRA scale; lora-alpha / lora-r")
    lora_dropout: float = setting(
        0.0, rules.DROPOUT, "dropout before the LoRA matrices"
    )
    target_modules: str = setting(
        "all-linear,embeddings",
        rules.TEXT,
        "modules that get an adapter, by name; all-linear: as in PEFT",
    )
    seed: int = setting(
        0, at_least(0), "seed of data, sampling and training; never of the mechanism"
    )
    run_dir: str = setting("", rules.ANY, "run directory; empty: runs/<time>-<name>")
    phase_timeout: float = setting(
        3600.0, rules.POSITIVE, "time limit of one phase, in seconds"
    )
    test_tape: bool = setting(
        False, rules.ANY, "seeded draws for tests; such a run has no guarantee"
    )

    def __post_init__(self) -> None:
        """Check every value, then the rules between values."""
        for item in fields(self):
            value = rules.typed(item, getattr(self, item.name))
            object.__setattr__(self, item.name, value)
            rules.check_rule(item, value)
        self._check_together()

    def _check_together(self) -> None:
        """Check the rules between values."""
        shared_only = {
            "noise-multiplier": self.noise_multiplier > 0,
            "server-noise-multiplier": self.server_noise_multiplier > 0,
            "freeze-lora-a": self.freeze_lora_a,
        }
        for key, is_set in shared_only.items():
            if is_set and self.aggregation == "none":
                raise ConfigError(
                    f"`{key}` must be left at its default with personal adapters "
                    "(`aggregation=none`), because they never leave a client, found it "
                    "set; pass `-c aggregation=fedavg`."
                )
        if self.noise_multiplier > 0 and self.lora_dropout > 0:
            raise ConfigError(
                "`lora-dropout` must be 0 under DP-SGD, because its masks are drawn "
                f"for all records in turn, found {self.lora_dropout}; pass "
                "`-c lora-dropout=0.0`."
            )
        if self.records_per_round > self.num_records:
            raise ConfigError(
                f"`records-per-round` must be at most `num-records` "
                f"({self.num_records}), found {self.records_per_round}; "
                f"pass for example `-c records-per-round={self.num_records}`."
            )

    @property
    def arm_names(self) -> tuple[str, ...]:
        """The arms in the order given."""
        return rules.split_list(self.arms)

    @classmethod
    def from_run_config(cls, mapping: Mapping[str, Any]) -> Self:
        """Build from Flower's run config; keys are kebab-case.

        Raises
        ------
        ConfigError
            An unknown key, a key without a default that is missing, or a bad value.
        """
        for key in mapping:
            setting_of(key)
        if "token-epsilon" not in mapping:
            raise ConfigError(
                "`token-epsilon` must be given, because no epsilon is assumed, found "
                "nothing; pass for example `-c token-epsilon=8.0`."
            )
        return cls(**{key.replace("-", "_"): value for key, value in mapping.items()})

    def to_run_config(self) -> dict[str, Scalar]:
        """Return every setting under its kebab-case key, as Flower takes them."""
        return {key_of(item): getattr(self, item.name) for item in fields(self)}


def setting_of(key: str) -> Field[Any]:
    """Return the field of `RunConfig` that a kebab-case key names.

    Raises
    ------
    ConfigError
        There is no such key; the message names the nearest one.
    """
    known = {key_of(item): item for item in fields(RunConfig)}
    if key in known:
        return known[key]
    near = difflib.get_close_matches(str(key).replace("_", "-"), known, n=1)
    remedy = f"did you mean `{near[0]}`?" if near else "see `fedcot run --help`."
    raise ConfigError(f"{shown(key)} must be a run-config key, found no such; {remedy}")


def parse_overrides(pairs: Sequence[str]) -> dict[str, Scalar]:
    """Parse `key=value` pairs of the command line; the last one of a key holds.

    Values are TOML scalars. For a key that holds text, anything that is not quoted
    is taken as it stands.

    Raises
    ------
    ConfigError
        No `=`, an unknown key, or a value of another type than the key's.
    """
    parsed: dict[str, Scalar] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign:
            raise ConfigError(
                f"`-c` must be given as key=value, found {shown(pair)}; "
                "pass for example `-c token-epsilon=8.0`."
            )
        item = setting_of(key.strip())
        parsed[key.strip()] = rules.typed(item, _scalar(item, text.strip()))
    return parsed


def load_config(
    path: Path | None, overrides: Mapping[str, Scalar] | Sequence[str] = ()
) -> RunConfig:
    """Lay a file and then overrides over the configuration that is shipped.

    Parameters
    ----------
    path : Path | None
        A TOML file of kebab-case keys without tables, as for `flwr run --run-config`.
    overrides : Mapping[str, Scalar] | Sequence[str]
        Values by key, or `key=value` pairs.

    Raises
    ------
    ConfigError
        The file is missing or not TOML, or a key or value is refused.
    """
    merged: dict[str, Any] = shipped_run_config()
    if path is not None:
        merged.update(_read_toml(path))
    if not isinstance(overrides, Mapping):
        overrides = parse_overrides(overrides)
    return RunConfig.from_run_config({**merged, **overrides})


def app_pyproject() -> Path:
    """Return the `pyproject.toml` of the Flower app that this package belongs to.

    An installed package carries a copy; a checkout and an app bundle have the
    original beside the package.
    """
    package = Path(__file__).resolve().parent
    carried = package / "app_pyproject.toml"
    return carried if carried.is_file() else package.parent / "pyproject.toml"


def shipped_run_config() -> dict[str, Any]:
    """Return `[tool.flwr.app.config]`, the only place that states an epsilon."""
    document = _read_toml(app_pyproject())
    config: dict[str, Any] = document["tool"]["flwr"]["app"]["config"]
    return dict(config)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"`--config` must be a readable TOML file, found `{path}` ({reason}); "
            "see conf/main-job.toml."
        ) from error


def _scalar(item: Field[Any], text: str) -> Any:
    """Read one value; text that is not TOML comes back as it stands."""
    if rules.type_of(item) is str and not text.startswith(('"', "'")):
        return text
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # A line break in the text could bring further keys along.
    return document["value"] if document.keys() == {"value"} else text
