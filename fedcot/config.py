"""The settings of one run, read, checked and sent.

`RunConfig` is frozen and checked when it is built, so code below never sees a
mapping or a value out of range. Its fields stand in `fedcot.settings`; `pyproject.toml`
mirrors the defaults, the README table and the help texts are made from them.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, Self

from fedcot import rules
from fedcot.arms import needs_raw_prompts
from fedcot.community.setting_rules import check_communities
from fedcot.community.settings import PERTURBED, CommunitySettings
from fedcot.errors import ConfigError
from fedcot.evaluation.audit_settings import AuditSettings, check_canaries
from fedcot.rules import Scalar, key_of, shown
from fedcot.settings import (
    COMMUNITY,
    DATASET,
    FEDCOT,
    FULL,
    RECORDED,
    SOCIAL,
    WORLD,
    WORLD_PARTITIONERS,
    DataSettings,
    LearningSettings,
    ModelSettings,
    PrivacySettings,
    TeacherSettings,
)
from fedcot.social.setting_rules import check_social
from fedcot.social.settings import WORLD_TASK, SocialSettings
from fedcot.teacher_source import checked_base_url, is_endpoint


@dataclass(frozen=True, kw_only=True)
class RunConfig(
    # The last group comes first in the order of the fields.
    AuditSettings,
    SocialSettings,
    CommunitySettings,
    LearningSettings,
    PrivacySettings,
    TeacherSettings,
    ModelSettings,
    DataSettings,
):
    """Settings of one run; building one checks them all.

    Raises
    ------
    ConfigError
        A value has the wrong type or breaks its rule. One line: the parameter, the
        rule, the value found and the remedy.
    """

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
            # A coalition's adapters always leave their members.
            stays = self.aggregation == "none" and self.mode != COMMUNITY
            if is_set and stays:
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
        if self.noise_multiplier > 0 and self.gradient_checkpointing:
            raise ConfigError(
                "`gradient-checkpointing` must be false under DP-SGD, which takes "
                "records one by one and never does so, found true; pass "
                "`-c gradient-checkpointing=false`."
            )
        if self.tuning == FULL:
            self._check_full_tuning()
        asks = self.mode == FEDCOT or bool(self.arm_names)
        if asks and self.records_per_round > self.num_records:
            raise ConfigError(
                f"`records-per-round` must be at most `num-records` "
                f"({self.num_records}), found {self.records_per_round}; "
                f"pass for example `-c records-per-round={self.num_records}`."
            )
        raw = [arm for arm in self.arm_names if needs_raw_prompts(arm)]
        asks_endpoint = is_endpoint(self.teacher)
        if asks_endpoint:
            checked_base_url(self.teacher)
        if asks_endpoint and raw and not self.raw_to_endpoint:
            raise ConfigError(
                "`arms` must hold none that sends raw questions where the teacher is "
                f"an endpoint, found {', '.join(raw)}; leave them out, or pass "
                "`-c raw-to-endpoint=true` if it may see private questions."
            )
        check_communities(self)
        check_social(self)
        check_canaries(self)
        if self.dataset == WORLD:
            self._check_world()
        else:
            self._check_dataset()

    def _check_full_tuning(self) -> None:
        """Check that nothing is asked that only an adapter can have."""
        reasons = {
            "noise_multiplier": (0.0, "DP-SGD is checked for adapters only"),
            "freeze_lora_a": (False, "there is no adapter whose half could stay"),
            "student_quantization": ("none", "weights in few bits cannot be trained"),
        }
        for name, (wanted, why) in reasons.items():
            if (value := getattr(self, name)) != wanted:
                key = name.replace("_", "-")
                raise ConfigError(
                    f"`{key}` must be {shown(wanted)} with `tuning=full`, because "
                    f"{why}, found {shown(value)}; pass `-c tuning=lora`, or leave it "
                    "at its default."
                )
        # Whether `auto` means float32 is seen when the model is there.
        if self.student_dtype not in ("auto", "float32"):
            raise ConfigError(
                "`student-dtype` must be float32 with `tuning=full`, because smaller "
                "formats round the steps of training away, found "
                f"{shown(self.student_dtype)}; pass `-c student-dtype=float32`."
            )

    def _check_world(self) -> None:
        """Check that nothing asks the built-in world for what only a dataset has."""
        needs = {
            "teacher": self.teacher == RECORDED,
            "vocabulary": self.vocabulary == DATASET,
            "bank": self.bank == DATASET,
            "partitioner": (
                self.partitioner not in WORLD_PARTITIONERS and not self._holds_a_task
            ),
            "public-share": self.public_share > 0,
        }
        for key, is_set in needs.items():
            if is_set:
                value = getattr(self, key.replace("-", "_"))
                raise ConfigError(
                    f"`{key}` must be left at its default with the built-in world, "
                    f"found {shown(value)}; pass for example `-c dataset=gsm8k`, or "
                    "see `fedcot data list`."
                )

    def _check_dataset(self) -> None:
        """Check that what is public is made for this dataset, not for the world."""
        wants_bank = self.mechanism in ("selection", "adaptive", "saliency")
        asks = "fedcot" in self.arm_names and self.mechanism != "none"
        for key, is_needed in (("vocabulary", asks), ("bank", asks and wants_bank)):
            if is_needed and getattr(self, key) == WORLD:
                raise ConfigError(
                    f"`{key}` must be a file or `dataset` for the dataset "
                    f"{shown(self.dataset)}, found `world`, which knows other words; "
                    f"pass `-c {key}=dataset -c public-share=0.2`."
                )
        used = [key for key in ("vocabulary", "bank") if getattr(self, key) == DATASET]
        used += ["arms"] if "random-bank" in self.arm_names else []
        is_recorded = self.teacher == RECORDED and "fedcot" in self.arm_names
        if is_recorded and (self.mechanism, self.bank) != ("selection", DATASET):
            raise ConfigError(
                "`mechanism` must be selection, with `bank=dataset`, where the teacher "
                "is recorded: it knows its own questions only, and no perturbed one, "
                f"found {self.mechanism}; pass `-c mechanism=selection -c bank=dataset "
                "-c public-share=0.3`, or leave out the arm fedcot."
            )
        if used and self.public_share == 0:
            raise ConfigError(
                f"`public-share` must be > 0 where `{used[0]}` takes public questions "
                "of the dataset, found 0.0; pass for example `-c public-share=0.2`."
            )

    @property
    def _holds_a_task(self) -> bool:
        """Whether teacher clients hold a task that has a split of its own."""
        return self.mode == SOCIAL and self.task != WORLD_TASK

    @property
    def arm_names(self) -> tuple[str, ...]:
        """The arms in the order given.

        In mode community nothing is compared but what communities share, and of the
        arms there is the one that perturbs questions, if they share such traces. In
        mode social there is none: no teacher answers a client's question.
        """
        if self.mode == SOCIAL:
            return ()
        if self.mode == COMMUNITY:
            return ("fedcot",) if PERTURBED in self.sharing_names else ()
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
