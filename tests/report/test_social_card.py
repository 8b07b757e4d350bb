"""The card of a prompt says whose models wrote it and that no epsilon bounds it."""

import json

import pytest
import yaml

from fedcot.report.model_card import model_card, write_cards
from fedcot.report.social_card import prompt_card
from tests.report.made_social import (
    privacy,
    social,
    student,
    students,
    summary_of,
    write_social,
)

EVIL = "x`|<script>\n# Head"


@pytest.fixture(name="config")
def _config():
    settings = {
        "mode": "social",
        "client-model": "/home/somebody/models/tiny,https://key@gpu.example.org/v1",
        "prompted-student": "/home/somebody/models/small",
        "task": "labels",
        "gate-distance": 0.1,
        "gate-run": 12,
    }
    return {"run_config": settings, "seed": 7, "git_commit": "c" * 40}


def card(config, name="random.1", part=None, **changed):
    told = summary_of(social() if part is None else part, **changed)
    return prompt_card(config, told, name)


def test_a_card_says_that_it_is_a_prompt_and_from_whom(config):
    text = card(config)
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == "builtin"
    assert "prompt" in front["tags"]
    assert "It is no model, and no weight was trained." in text
    # Only the first of two chosen examples stands in a prompt of one.
    assert (
        "1 examples that models of the teacher clients with partition 0 wrote" in text
    )
    assert "partition 0, 1 wrote" in card(config, "random.8")
    assert "chosen by voting" in card(config, "voting.8")
    assert "* seed: `7`" in text
    assert "c" * 40 in text


def test_a_card_says_what_it_may_leak(config):
    text = card(config, "voting.8")
    assert "A gate is no differential privacy." in text
    assert "nearer to one than 0.1 of its length" in text
    assert "repeats 12 words" in text
    assert "take every epsilon as infinite" in text
    assert "### examples" in text
    assert "### voting" in text
    assert "### instruction" not in text
    assert "one record, over all rounds: infinite" in text
    both = card(config, "instruction+random.8")
    assert "written by the models of the teacher clients with partition 1." in both
    assert "### instruction" in both
    assert "### examples" in both


def test_private_votes_cover_no_text(config):
    line = {**privacy()["per_arm"]["examples"], "record_epsilon_max": 4.00001}
    per_arm = {**privacy()["per_arm"], "private-voting": line}
    text = card(config, "private-voting.8", privacy={"per_arm": per_arm})
    assert "covers the choice, and no text" in text
    assert "one record, over all rounds: 4.0001 nats" in text
    assert "infinite (no bound holds)" in text.split("### private-voting")[0]


def test_what_the_run_does_not_state_is_infinite(config):
    text = card(config, privacy={"per_arm": {}})
    assert "The run states no epsilon: take every epsilon as infinite." in text


def test_originals_must_not_be_passed_on(config):
    text = card(config, "original.8")
    assert "**It holds 8 private examples as they are" in text
    assert "It must not be passed on." in text
    assert "It is private text. No epsilon" in text


def test_a_manual_prompt_gives_nothing_away(config):
    text = card(config, "manual")
    assert "Nothing in it comes from a teacher client." in text
    assert "Nothing in it was made from private examples." in text


def test_a_card_has_the_evaluation_beside_its_bounds(config):
    text = card(config, "random.8")
    assert "| random.8 | 0.80 ± 0.03 | 200 | 512 B |" in text
    assert "| zero-shot | 0.40 ± 0.03 | 200 | 0 B |" in text
    assert "| original.8 (private, for comparison only) | 0.90" in text


def test_a_card_names_no_path_and_no_address(config):
    text = card(config, part=social(models=None))
    assert "tiny, an OpenAI-compatible endpoint" in text
    assert "`small`" in text
    assert "somebody" not in text
    assert "gpu.example" not in text


def test_texts_from_data_break_no_markdown(config):
    named = {**students(), EVIL: student(EVIL, 2, 0.5)}
    told = social(task=EVIL, students=named)
    text = card(config, EVIL, told)
    assert "<script>" not in text
    assert "\n# Head" not in text


def test_an_unfinished_and_an_audited_run_say_so(config):
    assert "has not ended" in prompt_card(config, {}, "random.8")
    text = card(config, status="failed", canaries=4)
    assert "ended as `failed`" in text
    assert "Made in an audit run" in text


def test_cards_lie_beside_prompts(tmp_path):
    folder = write_social(tmp_path / "one")
    prompts = folder / "prompts"
    prompts.mkdir()
    for name in ("random.1", "random.8", "instruction"):
        (prompts / f"{name}.txt").write_text("Text: my secret\nClass: zib")
    written = write_cards(folder)
    assert [path.name for path in written] == [
        *("instruction.md", "random.1.md", "random.8.md"),
    ]
    assert "# fedcot: the prompt `random.8`" in (prompts / "random.8.md").read_text()
    assert all("my secret" not in path.read_text() for path in written)
    assert len(list(prompts.iterdir())) == 6


def test_other_modes_have_no_cards_of_prompts(tmp_path):
    folder = write_social(tmp_path / "one")
    (folder / "prompts").mkdir()
    (folder / "prompts" / "random.1.txt").write_text("x")
    config = json.loads((folder / "config.json").read_text())
    config["run_config"]["mode"] = "fedcot"
    (folder / "config.json").write_text(json.dumps(config))
    assert write_cards(folder) == []


def test_a_distilled_adapter_says_what_it_was_trained_on(config):
    adapter = {"task_type": "CAUSAL_LM"}
    told = summary_of(social())
    text = model_card(config, told, arm="distilled", partition=None, adapter=adapter)
    assert "# fedcot: distilled, the student" in text
    assert "all examples that teacher clients' models wrote" in text
    assert "no epsilon bounds what passing it on gives away" in text
