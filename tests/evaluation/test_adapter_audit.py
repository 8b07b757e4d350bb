"""Adapters that learnt a canary give it away, and the untouched base does not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedcot import node_training
from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.evaluation.adapter_audit import (
    BASE,
    EXPLAIN,
    PREDICT,
    audit_adapters,
    find_adapters,
)
from fedcot.evaluation.insertion import holders_of, inserted_canaries
from fedcot.evaluation.label_audit import audit_labels
from fedcot.node_training import training_settings
from fedcot.runs import adapter_folder
from fedcot.student.base import Base, new_adapter
from fedcot.student.examples import Example
from fedcot.student.training import save_adapter, train_adapter
from tests.tiny import tiny_base

SIZE = 50


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Base:
    made = tiny_base()
    monkeypatch.setattr(node_training, "load_base", lambda source, options: made)
    return made


def audit_config(**settings: Any) -> RunConfig:
    small = {
        "token_epsilon": 8.0,
        "num_records": 24,
        "records_per_round": 12,
        "test_records": 4,
        "num_server_rounds": 1,
        "canaries": 4,
        "canary_insertion": "one",
        "lora_r": 16,
        "lora_alpha": 32,
        "learning_rate": 2e-2,
        "local_epochs": 40,
        "batch_size": 8,
    }
    return RunConfig(**{**small, **settings})


def put_adapter(
    run_dir: Path,
    base: Base,
    config: RunConfig,
    arm: str,
    leaf: int | str | None,
    examples: list[Example],
) -> None:
    settings = training_settings(config)
    if examples:
        adapter = train_adapter(base, examples, settings, seed=0).adapter
    else:
        adapter = new_adapter(base, settings, seed=0)
    coalition = leaf if isinstance(leaf, str) else ""
    partition = leaf if isinstance(leaf, int) else None
    folder = adapter_folder(run_dir, arm, partition, coalition=coalition)
    folder.mkdir(parents=True)
    save_adapter(base, adapter, settings, folder)


def labels_of(config: RunConfig) -> list[Example]:
    return [
        Example(f"predict: {canary.question} answer:", canary.answer, "predict")
        for canary in inserted_canaries(config)
    ]


def audited(run_dir: Path, config: RunConfig, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "num_partitions": 2,
        "num_rounds": 1,
        "size": SIZE,
        "trials": 100,
        "book_path": run_dir / "audit" / "book.jsonl",
        **changes,
    }
    return audit_adapters(run_dir, config, **given)


def test_a_label_that_was_learnt_by_heart_has_rank_zero(
    tmp_path: Path, base: Base
) -> None:
    config = audit_config(canary_insertion="all")
    task_prompts = [
        replace(one, prompt=task_prompt)
        for one, task_prompt in zip(labels_of(config), _prompts(config), strict=True)
    ]
    put_adapter(tmp_path, base, config, "standalone", 0, task_prompts)
    put_adapter(tmp_path, base, config, "fedcot", 0, [])
    found = audited(tmp_path, config, num_partitions=1)
    assert set(found) == {BASE, "standalone", "fedcot"}
    learnt = found["standalone"][PREDICT]
    assert learnt["ranks"] == [0] * 4
    assert learnt["exposure"]["rank_zero"]["rate"] == 1
    assert learnt["exposure"]["rank_zero_expected"] == 4 / SIZE
    # An adapter that changes nothing has the ranks of the base.
    assert found["fedcot"][PREDICT]["ranks"] == found[BASE][PREDICT]["ranks"]
    assert found["fedcot"][EXPLAIN]["ranks"] == found[BASE][EXPLAIN]["ranks"]
    assert sum(found[BASE][PREDICT]["ranks"]) > 0
    assert json.dumps(found, allow_nan=False)


def _prompts(config: RunConfig) -> list[str]:
    from fedcot.tasks.registry import configured_task

    task = configured_task(config)
    return [task.predict_prompt(one.question) for one in inserted_canaries(config)]


def test_the_base_has_ranks_like_chance(tmp_path: Path, base: Base) -> None:
    config = audit_config(canaries=25)
    put_adapter(tmp_path, base, config, "standalone", 0, [])
    found = audited(tmp_path, config)[BASE]
    for prompt in (PREDICT, EXPLAIN):
        exposure = found[prompt]["exposure"]
        assert exposure["trials"] == 25
        assert exposure["uniformity_p_value"] > 0.01
        assert exposure["rank_zero_p_value"] > 0.01


def test_a_canary_is_ranked_under_one_adapter_of_a_holder(
    tmp_path: Path, base: Base
) -> None:
    """Several ranks of one canary would be no independent trials."""
    config = audit_config(canaries=6)
    for partition in range(2):
        put_adapter(tmp_path, base, config, "standalone", partition, [])
    put_adapter(tmp_path, base, config, "fedcot", 0, [])
    put_adapter(tmp_path, base, config, "fedcot", None, [])
    found = audited(tmp_path, config)
    own = [n for n in range(6) if holders_of(config, n, 2) == (0,)]
    assert 0 < len(own) < 6
    trials = {name: len(one[PREDICT]["ranks"]) for name, one in found.items()}
    assert trials == {
        BASE: 6,
        "standalone": 6,
        "fedcot": len(own),
        "fedcot (mean of clients)": 6,
    }
    folders = {one.folder.name for one in find_adapters(tmp_path, config, 2)}
    assert folders == {"partition-0", "partition-1", "global"}


def test_whether_a_canary_was_used_follows_from_the_rounds(
    tmp_path: Path, base: Base
) -> None:
    config = audit_config(canaries=8, records_per_round=8)
    for partition in range(2):
        put_adapter(tmp_path, base, config, "standalone", partition, [])
    some = audited(tmp_path, config)["standalone"][PREDICT]
    # In two rounds of 8 each client uses nearly all of 12 records and its canaries.
    more = audited(tmp_path, config, num_rounds=3)["standalone"][PREDICT]
    assert 0 < some["num_drawn"] < more["num_drawn"] <= 8
    assert some["exposure"]["drawn_rank_zero"]["n"] == some["num_drawn"]
    unknown = audit_config(canaries=8, fraction_train=0.5)
    assert audited(tmp_path, unknown)["standalone"][PREDICT]["num_drawn"] is None


def test_coalitions_are_audited_for_what_their_members_hold(
    tmp_path: Path, base: Base
) -> None:
    config = audit_config(
        mode="community",
        communities="library,bakery",
        canaries=6,
        canary_pattern="world-names",
    )
    put_adapter(tmp_path, base, config, "pooled", "library", [])
    put_adapter(tmp_path, base, config, "pooled", "library+bakery", [])
    put_adapter(tmp_path, base, config, "synthetic", "library+bakery", [])
    found = audited(tmp_path, config)
    library = sum(holders_of(config, n, 2) == (0,) for n in range(6))
    assert 0 < library < 6
    # The answer of a name is no secret, so that only the reasoning can be scored.
    assert {name: set(one) for name, one in found.items()} == {
        BASE: {EXPLAIN},
        "pooled.library": {EXPLAIN},
        "pooled.library+bakery": {EXPLAIN},
        "synthetic.library+bakery": {EXPLAIN},
    }
    assert found["pooled.library"][EXPLAIN]["num_drawn"] == library
    assert found["pooled.library+bakery"][EXPLAIN]["num_drawn"] == 6
    assert found["synthetic.library+bakery"][EXPLAIN]["num_drawn"] is None


def test_a_stopped_audit_scores_nothing_twice(
    tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = audit_config()
    put_adapter(tmp_path, base, config, "standalone", 0, [])
    first = audited(tmp_path, config, trials=2)
    assert len(first[BASE][PREDICT]["ranks"]) == 2
    second = audited(tmp_path, config)
    assert second[BASE][PREDICT]["ranks"][:2] == first[BASE][PREDICT]["ranks"]

    def refuse(*given: Any, **more: Any) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr("fedcot.evaluation.adapter_audit.audit", refuse)
    assert audited(tmp_path, config) == second
    # Another adapter is another audit.
    put_adapter(tmp_path, base, config, "fedcot", 0, [])
    with pytest.raises(AssertionError, match="scored again"):
        audited(tmp_path, config)


def test_a_run_without_adapters_is_refused(tmp_path: Path, base: Base) -> None:
    with pytest.raises(ConfigError, match="must hold adapters to audit, found none"):
        audited(tmp_path, audit_config())


def test_labels_that_were_learnt_by_heart_are_told_from_test_records(
    tmp_path: Path, base: Base
) -> None:
    config = audit_config(test_records=24, canaries=0, local_epochs=60)
    from fedcot.data.partition import load_partition
    from fedcot.student.examples import label_examples
    from fedcot.tasks.registry import configured_task

    own = load_partition(config, 0, 2).train
    examples = list(label_examples(own, configured_task(config)))
    put_adapter(tmp_path, base, config, "standalone", 0, examples)
    put_adapter(tmp_path, base, config, "fedcot", 1, [])
    found = audit_labels(tmp_path, config, num_partitions=2, num_rounds=1)
    learnt = found["standalone"]["partition-0"]
    assert learnt["loss"]["auc"] > 0.9
    assert learnt["loss"]["members"] == 12
    assert learnt["loss"]["tpr_at_one_percent"] is None
    assert learnt["regurgitated"]["exact"]["rate"] > 0.9
    assert set(found["fedcot"]) == {"partition-1"}
    assert found["fedcot"]["partition-1"]["gain"]["auc"] == 0.5
