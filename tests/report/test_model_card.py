"""A card says what an adapter is made of, and never less epsilon than the summary."""

import json
import math
import re
from pathlib import Path

import pytest
import yaml

from fedcot.errors import ConfigError
from fedcot.models.sources import public_name
from fedcot.report.model_card import model_card, write_cards
from fedcot.settings import ARMS

EPSILONS = ("token_epsilon", "prompt_epsilon_max", "record_epsilon_max")


def entry(epsilon: object, **more: object) -> dict:
    return {
        "unit": "nats, pure epsilon of one token / one prompt / one record",
        "neighboring_relation": "REPLACE_SPECIAL",
        "adjacency": "zero-out",
        "token_epsilon": epsilon,
        "prompt_epsilon_max": epsilon,
        "record_epsilon_max": epsilon,
        "record_epsilon_at_delta": epsilon,
        "delta": 1e-6,
        "guarantee": "pure local differential privacy of every token",
        "uncharged": ["losses", "accuracies"],
        **more,
    }


def made(**settings: object) -> dict:
    return {
        "run_config": {
            "student": "/home/somebody/models/tiny-llama",
            "teacher": "https://key@gpu.example.org/v1",
            "dataset": "/home/somebody/sums.toml",
            "vocabulary": "/home/somebody/runs/vocabulary-12.safetensors",
            "mechanism": "rank",
            "aggregation": "none",
            "pairing": "perturbed",
            "noise-multiplier": 0.0,
            "lora-r": 16,
            "run-dir": "/home/somebody/runs/one",
            **settings,
        },
        "seed": 7,
        "git_commit": "c" * 40,
        "versions": {"peft": "0.21.2"},
        "artefacts": {
            "student": "a" * 64,
            "dataset": "d" * 64,
            "vocabulary": "b" * 64,
            "channel": "e" * 64,
        },
    }


def finished(**per_arm: dict) -> dict:
    return {
        "status": "completed",
        "num_partitions": 8,
        "num_rounds": 2,
        "accuracy": {"fedcot": {"mean": 0.25, "stderr": 0.01, "n": 500}},
        "chance": 0.2,
        "filters": {"fedcot": {"num_pairs": 40, "num_unparsable": 3, "num_kept": 37}},
        "privacy": {"per_arm": per_arm},
        "failures": ["RuntimeError: My secret question about Bob"],
    }


def card(config: dict, summary: dict, **more: object) -> str:
    given = {"arm": "fedcot", "partition": 0, "adapter": {"task_type": "CAUSAL_LM"}}
    return model_card(config, summary, **{**given, **more})


def test_a_card_names_what_the_adapter_is_made_of() -> None:
    text = card(made(), finished(fedcot=entry(8.0)))
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == "tiny-llama"
    assert front["library_name"] == "peft"
    assert front["pipeline_tag"] == "text-generation"
    assert {"lora", "fedcot"} <= set(front["tags"])
    for shown in (
        *("a" * 64, "b" * 64, "d" * 64, "e" * 64, "c" * 40),
        *("sums.toml", "client 0", "perturbed questions", "seed of data"),
        *("40 rationales received", "37 trained on", "0.250 ± 0.010", "0.200"),
        *("clients: 8", "lora-r: `16`", "PeftModel.from_pretrained"),
    ):
        assert shown in text


def test_a_card_shows_no_path_no_address_and_nothing_of_a_failure() -> None:
    text = card(made(), finished(fedcot=entry(8.0)))
    for hidden in ("/home", "somebody", "gpu.example.org", "key@", "Bob", "secret"):
        assert hidden not in text
    assert "an OpenAI-compatible endpoint" in text


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("Qwen/Qwen2.5-0.5B@abc", "Qwen/Qwen2.5-0.5B@abc"),
        ("builtin", "builtin"),
        ("~/models/one/", "one"),
        ("./one", "one"),
        ("C:\\Users\\me\\one", "one"),
        ("http://localhost:8000/v1", "an OpenAI-compatible endpoint"),
    ],
)
def test_a_source_is_named_without_its_place(source, name) -> None:
    assert public_name(source) == name


@pytest.mark.parametrize("epsilon", [0.0, 2.5, 7.99991, 8.00001, 168.0, "inf", None])
def test_no_epsilon_reads_smaller_than_in_the_summary(epsilon) -> None:
    text = card(made(), finished(fedcot=entry(epsilon)))
    stated = re.findall(r"\* epsilon of [^:]*: (.*)", text)
    assert len(stated) == (3 if epsilon is None else 4)
    for shown in stated:
        if epsilon in ("inf", None):
            assert shown.startswith("infinite")
        else:
            assert shown.endswith(" nats")
            assert epsilon <= float(shown.split()[0]) < epsilon + 1e-4
    assert "neighbours REPLACE_SPECIAL (zero-out)" in text
    assert "unit: nats, pure epsilon" in text
    assert "guarantee: pure local differential privacy of every token" in text
    assert "not covered by any epsilon: losses, accuracies" in text


@pytest.mark.parametrize("missing", EPSILONS)
def test_what_the_summary_does_not_state_is_infinite(missing) -> None:
    some = {key: value for key, value in entry(8.0).items() if key != missing}
    text = card(made(), finished(fedcot=some))
    assert text.count("infinite (none is stated)") == 1
    text = card(made(), finished(distil=entry(8.0)))
    assert "take every epsilon as infinite" in text
    assert "8 nats" not in text


@pytest.mark.parametrize("arm", ARMS)
def test_of_an_adapter_that_never_left_its_client_nothing_is_promised(arm) -> None:
    """Labels of private records are in it, whatever the prompts have cost."""
    text = card(made(), finished(**{arm: entry(8.0)}), arm=arm)
    assert "no epsilon above covers it" in text
    assert "infinite epsilon" in text
    averaged = made(aggregation="fedavg")
    text = card(averaged, finished(**{arm: entry(8.0)}), arm=arm, partition=None)
    assert "never left its client" not in text
    assert "the mean of all clients" in text


def test_a_shared_adapter_is_covered_by_what_the_arm_states() -> None:
    averaged = made(aggregation="fedavg", pairing="original", **{"noise-multiplier": 1})
    text = card(averaged, finished(fedcot=entry(8.0)))
    assert "went to the server under DP-SGD" in text
    text = card(made(aggregation="fedavg"), finished(fedcot=entry(8.0)))
    assert "DP-SGD" not in text
    assert "went to the server" in text


def coalition_card(arm: str, **settings: object) -> str:
    config = made(mode="community", **{"label-share": 0.5, **settings})
    summary = finished(**{arm: entry("inf")})
    return card(config, summary, arm=arm, partition=None, coalition="north+south")


PASSED_ON = {
    "pooled": "trained at the server on traces that members handed over as text",
    "label-only": "trained at the server on traces that members handed over as text",
    "random-label": "trained at the server on traces that members handed over as text",
    "perturbed": "trained at the server on what the provider wrote to perturbed",
    "federated": "averaged at the server from adapters that members trained",
    "synthetic": "trained at the server on texts of generators",
}


@pytest.mark.parametrize("arm", PASSED_ON)
def test_a_coalition_s_card_says_where_its_student_was_trained(arm) -> None:
    text = coalition_card(arm)
    assert f"This adapter was {PASSED_ON[arm]}" in text
    # No client has trained the server's students, and nobody sends theirs.
    assert "went to the server" not in text
    assert "never left" not in text
    assert ("It is the mean of adapters" in text) == (arm == "federated")
    assert ("It was trained at the server" in text) == (arm != "federated")
    bounded = arm == "perturbed"
    assert ("what is stated above covers passing it on" in text) == bounded
    assert ("no epsilon bounds what passing it on gives away" in text) != bounded


@pytest.mark.parametrize("arm", PASSED_ON)
def test_a_coalition_s_card_names_a_mechanism_only_where_one_was_used(arm) -> None:
    text = coalition_card(arm)
    is_perturbed = arm == "perturbed"
    assert ("| mechanism | `rank`" in text) == is_perturbed
    assert ("| vocabulary |" in text) == is_perturbed
    assert ("the mechanism's draws have none" in text) == is_perturbed
    for name in ("pairing", "aggregation"):
        assert f"* {name}: " not in text
    assert ("* noise-multiplier: " in text) == (arm in ("federated", "synthetic"))
    assert ("* label-share: " in text) == (arm != "label-only")


@pytest.mark.parametrize("arm", ["federated", "synthetic"])
def test_a_coalition_s_card_says_what_dp_sgd_covers(arm) -> None:
    text = coalition_card(arm, **{"noise-multiplier": 1.0})
    assert "trained on their traces under DP-SGD" in text
    assert "the mechanism's draws have none" in text
    assert "what is stated above covers passing it on" in text
    # Pooled traces of the same run stay as they are.
    assert "DP-SGD" not in coalition_card("pooled", **{"noise-multiplier": 1.0})


@pytest.mark.parametrize("arm", PASSED_ON)
def test_a_coalition_s_card_of_full_tuning_speaks_of_full_weights(arm) -> None:
    text = coalition_card(arm, tuning="full")
    assert "These full weights were" in text
    assert "All of its weights were tuned" in text
    assert "adapter" not in text.lower()


def test_a_card_of_full_tuning_speaks_of_full_weights() -> None:
    averaged = made(aggregation="fedavg", tuning="full")
    text = card(averaged, finished(fedcot=entry(8.0)))
    assert "The full weights themselves went to the server" in text
    own = card(made(tuning="full"), finished(fedcot=entry(8.0)))
    assert "**This model never left its client.**" in own
    assert "adapter" not in (text + own).lower()


@pytest.mark.parametrize("arm", ARMS)
def test_a_card_names_the_mechanism_of_perturbed_questions_alone(arm) -> None:
    text = card(made(), finished(**{arm: entry(8.0)}), arm=arm)
    assert ("| mechanism | `rank`" in text) == (arm == "fedcot")


@pytest.mark.parametrize("status", ["failed", "budget-exhausted", None])
def test_a_run_that_did_not_end_well_says_so(status) -> None:
    summary = {**finished(fedcot=entry(8.0)), "status": status}
    text = card(made(), summary if status else {})
    assert "> **The run that made this" in text
    assert (status or "has not ended") in text
    assert "**The run" not in card(made(), finished(fedcot=entry(8.0)))
    assert "secret" not in text


def test_names_cannot_break_out_of_the_card() -> None:
    strange = made(student='x"\n---\n`|<script>', dataset="a|b`c\nd")
    text = card(strange, finished(fedcot=entry(8.0, guarantee="none <b>| `x")))
    front = yaml.safe_load(text.split("---\n")[1])
    assert set(front) == {"base_model", "library_name", "pipeline_tag", "tags"}
    assert "<b>" not in text.split("## Loading")[0]
    table = [row for row in text.splitlines() if row.startswith("| ")]
    assert all(row.count("|") == 4 for row in table)


def test_an_encoder_decoder_and_a_merged_model_are_loaded_in_their_own_way() -> None:
    adapter = {"task_type": "SEQ_2_SEQ_LM"}
    text = card(made(), finished(fedcot=entry(8.0)), adapter=adapter)
    assert "AutoModelForSeq2SeqLM" in text
    text = card(made(), finished(fedcot=entry(8.0)), merged=True)
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "transformers"
    assert "merged" in front["tags"]
    assert "PeftModel" not in text


def write_run(folder: Path) -> Path:
    config, summary = made(), finished(fedcot=entry(math.inf), standalone=entry(0.0))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(
        json.dumps(summary).replace("Infinity", '"inf"')
    )
    for place in ("fedcot/partition-0", "fedcot/global", "standalone/partition-12"):
        adapter = folder / "adapters" / place
        adapter.mkdir(parents=True)
        (adapter / "adapter_config.json").write_text('{"task_type": "CAUSAL_LM"}')
        (adapter / "README.md").write_text("# Model Card for Model ID\n[More]")
    (folder / "adapters" / "fedcot" / "partition-3").mkdir()
    return folder


def test_every_adapter_of_a_run_gets_its_card(tmp_path) -> None:
    run = write_run(tmp_path / "run")
    written = write_cards(run)
    assert [path.relative_to(run / "adapters").as_posix() for path in written] == [
        "fedcot/global/README.md",
        "fedcot/partition-0/README.md",
        "standalone/partition-12/README.md",
    ]
    for path in written:
        assert "Model ID" not in path.read_text()
        assert {file.name for file in path.parent.iterdir()} == {
            "README.md",
            "adapter_config.json",
        }
    assert "client 12" in written[2].read_text()
    assert "infinite (no bound holds)" in written[0].read_text()
    (run / "summary.json").unlink()
    assert "has not ended" in write_cards(run)[0].read_text()


@pytest.mark.parametrize("broken", ["config.json", "summary.json"])
def test_a_folder_that_is_no_run_is_one_clear_line(tmp_path, broken) -> None:
    run = write_run(tmp_path / "run")
    (run / broken).write_text("[")
    with pytest.raises(ConfigError, match="RUN_DIR") as caught:
        write_cards(run)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="RUN_DIR"):
        write_cards(tmp_path / "none")
