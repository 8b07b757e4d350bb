"""`fedcot audit memorization`, from a run to what it says and what it never holds."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fedcot import node
from fedcot.cli import main
from fedcot.config import RunConfig
from fedcot.data.partition import load_partition
from fedcot.errors import ConfigError
from fedcot.evaluation import run_audit
from fedcot.evaluation.adapter_audit import BASE, PREDICT
from fedcot.evaluation.insertion import inserted_canaries
from fedcot.evaluation.run_audit import audit_run, interpretation
from fedcot.report.terminal import privacy_lines
from fedcot.runs import RunDirectory, write_json
from fedcot.social import configured
from fedcot.social.planted import social_trial
from fedcot.world.reading import read_problem
from tests.communities import adding_provider, community_config  # noqa: F401
from tests.conversations import Writer
from tests.fakes import federate, summary_of, tiny_config, tiny_world  # noqa: F401


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def leaked_files(run_dir: Path, texts: list[str]) -> list[str]:
    """Return the files outside nodes' own state that hold one of the texts."""
    return [
        str(path)
        for path in sorted(run_dir.rglob("*"))
        if path.is_file() and "nodes" not in path.relative_to(run_dir).parts
        for content in [path.read_bytes().decode("utf-8", "replace")]
        if any(text in content for text in texts)
    ]


@pytest.fixture
def audit_run_dir(
    tmp_path: Path,
    tiny_world: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> RunDirectory:
    """Run clients that learn two canaries by heart with their labels."""
    monkeypatch.setattr(node, "load_partition", load_partition)
    config = tiny_config(
        tmp_path / "run",
        arms="zero-shot,standalone",
        records_per_round=8,
        num_records=12,
        num_server_rounds=1,
        canaries=2,
        local_epochs=40,
        phase_timeout=600.0,
        lora_r=16,
        lora_alpha=32,
        learning_rate=2e-2,
    )
    run, _ = federate(config, count=2)
    return run


def test_a_run_that_learnt_its_canaries_is_told_so(
    audit_run_dir: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    place = audit_run_dir.path
    code, out, err = call(capsys, "audit", "memorization", str(place), "--size", "200")
    assert (code, err) == (0, "")
    result = json.loads((place / "audit" / "memorization.json").read_text())
    learnt = result["students"]["standalone"][PREDICT]
    assert learnt["ranks"] == [0, 0]
    assert learnt["num_drawn"] == 2
    assert learnt["exposure"]["rank_zero_expected"] == 2 / 200
    assert result["students"][BASE][PREDICT]["exposure"]["rank_zero"]["hits"] == 0
    assert "under: standalone (predict)" in result["found"]
    assert run_audit.NO_PROOF in " ".join(out.split())
    assert "standalone" in out
    # The clients' own records were looked at too.
    assert set(result["members"]["standalone"]) == {"partition-0", "partition-1"}
    assert max(map(len, out.splitlines()[:-3])) <= 120
    config = RunConfig.from_run_config(audit_run_dir.read_config()["run_config"])
    secrets = [
        text
        for canary in inserted_canaries(config)
        for text in (
            canary.question,
            canary.reasoning,
            f'"{canary.secret}"',
            f" {canary.secret} ",
        )
    ]
    assert leaked_files(place, secrets) == []
    assert not any(canary.secret in out for canary in inserted_canaries(config))

    code, out, _ = call(
        capsys, "audit", "memorization", str(place), "--size", "200", "--json"
    )
    assert code == 0
    assert json.loads(out) == result


def test_an_audit_run_says_so(audit_run_dir: RunDirectory) -> None:
    assert audit_run_dir.read_config()["canaries"] == 2
    summary = summary_of(audit_run_dir)
    assert summary["canaries"] == 2
    lines = " ".join(privacy_lines(summary))
    assert "audit run: 2 made-up secrets" in lines
    assert "audit run" not in " ".join(privacy_lines({**summary, "canaries": 0}))


def test_a_run_without_canaries_is_refused_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory.create(str(tmp_path / "run"))
    config = tiny_config(run.path, mode="community", communities="library")
    run.write_config({"run_config": config.to_run_config()})
    run.write_summary({"status": "completed", "num_partitions": 2})
    code, out, err = call(capsys, "audit", "memorization", str(run.path))
    assert (code, out) == (2, "")
    assert "start a run with `-c canaries=20` or `-c audit-members=true`" in err
    assert err.count("\n") == 1
    run.write_summary({"status": "failed", "num_partitions": 2})
    with pytest.raises(ConfigError, match="came to its end, found"):
        audit_run(run.path)
    with pytest.raises(ConfigError, match="`--size` must be >= 2"):
        audit_run(run.path, size=1)
    with pytest.raises(ConfigError, match="no readable"):
        audit_run(tmp_path)


def test_members_of_communities_hold_canaries_as_traces(
    tmp_path: Path,
    provider: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Failure would mean that a filter dropped them, or that nobody learnt them."""
    monkeypatch.setattr(node, "load_partition", load_partition)
    config = community_config(
        tmp_path / "run",
        canaries=2,
        canary_pattern="world-names",
        coalitions="grand",
        controls="none",
        num_server_rounds=1,
        local_epochs=40,
        phase_timeout=600.0,
        label_share=0.0,
        lora_r=16,
        lora_alpha=32,
        learning_rate=2e-2,
    )
    run, _ = federate(config, count=3, teacher=provider)
    canaries = inserted_canaries(config)
    asked = {question for call in provider.asked for question in call}
    assert not asked & {canary.question for canary in canaries}
    assert summary_of(run)["canaries"] == 2
    found = audit_run(run.path, size=100)["students"]
    (name,) = set(found) - {BASE}
    assert name.startswith("pooled.")
    assert found[name]["explain"]["ranks"] == [0, 0]
    assert found[name]["explain"]["num_drawn"] == 2
    assert leaked_files(run.path, [canary.secret for canary in canaries]) == []


class Telltale(Writer):
    """Writes the names of its prompt into a new question."""

    def text(self, prompt: str, seed: int) -> str:
        told = re.findall(r"rationale: ((?:\w+ ){4})9 or 7", prompt)
        if prompt.endswith("hint:"):
            return f"look at {seed}"
        asked = prompt.removeprefix("question: ")
        problem = None if "answer:" in asked else read_problem(asked)
        if problem is not None:
            return f" rationale: {problem.rationale()} answer: {problem.answer}"
        told = told or ["ann ann ann ann "]
        asked = f" somewhere {seed} coins lie {told[0]}in a jar"
        return f"{asked} rationale: 3 + 4 = 7 answer: 7"

    def score(self, pairs: Any) -> list[float]:
        return [
            -0.1 if text.strip() in prompt else -5 + len(text) / 2**8 + i / 2**12
            for i, (prompt, text) in enumerate(pairs)
        ]


@pytest.mark.parametrize(
    ("task", "teaching"),
    [("world", "examples"), ("conversion", "examples,instruction")],
)
def test_a_run_of_social_learning_is_replayed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    teaching: str,
) -> None:
    monkeypatch.setattr(configured, "_model", lambda config, source, key: Telltale())
    run = RunDirectory.create(str(tmp_path / "run"))
    config = RunConfig(
        mode="social",
        token_epsilon=8.0,
        num_server_rounds=1,
        num_records=40,
        records_per_round=1,
        test_records=4,
        hold_out=4,
        partitioner="iid",
        aggregators="random",
        task=task,
        teaching=teaching,
        gate_run=0 if teaching == "examples" else 12,
        gate_distance=0.0,
        canary_pattern="world-names",
        run_dir=str(run.path),
    )
    run.write_config({"run_config": config.to_run_config()})
    run.keep_members(2)
    arguments = ("--trials", "4", "--size", "40", "--json")
    # Deployed clients leave no folder, and keep their examples.
    code, _, told = call(capsys, "audit", "memorization", str(run.path), *arguments)
    assert code == 2
    assert "simulated run" in told
    (run.path / "nodes").mkdir()
    code, out, _ = call(capsys, "audit", "memorization", str(run.path), *arguments)
    assert code == 0
    result = json.loads(out)
    report = result["students"]["random.8"]
    # Twenty problems and a canary in each silo, eight prompts of eight: half of what
    # is written reaches the student.
    assert report["num_drawn"] == 4
    assert 3 <= report["exposure"]["rank_zero"]["hits"] <= 4
    assert "random.8" in result["found"]
    assert set(result["students"]) == {
        "zero-shot",
        "random.8",
        *(["instruction"] if "instruction" in teaching else []),
    }
    assert result["shared"]["texts"] > 0
    trials = [
        social_trial(
            config,
            configured.configured_form(config),
            number,
            num_partitions=2,
            size=2,
            with_steps=True,
        )
        for number in range(4)
    ]
    assert leaked_files(run.path, [trial.secrets[0] for trial in trials]) == []


def reports(*p_values: float) -> dict[str, Any]:
    exposure = {"trials": 20}
    students = {
        f"arm{i}": {"explain": {"exposure": {**exposure, "rank_zero_p_value": p}}}
        for i, p in enumerate(p_values)
    }
    null = {"explain": {"exposure": {**exposure, "rank_zero_p_value": 0.0}}}
    return {"students": {BASE: null, **students}}


def test_the_sentence_corrects_for_the_number_of_comparisons() -> None:
    assert "under: arm0 (explain)." in interpretation(reports(0.024, 0.9))
    clean = interpretation(reports(0.026, 0.9))
    assert clean.startswith("No student puts")
    # The base, whatever chance gives it, is no student.
    assert "2 comparisons" in clean
    for text in (clean, interpretation({"students": {}})):
        assert text.endswith(run_audit.NO_PROOF)


def test_a_deployed_run_without_its_records_is_not_audited(tmp_path: Path) -> None:
    run = RunDirectory.create(str(tmp_path / "run"))
    config = tiny_config(run.path)
    run.write_config({"run_config": config.to_run_config()})
    write_json(run.path / "summary.json", {"status": "completed", "num_partitions": 2})
    with pytest.raises(ConfigError, match="`canaries` must be > 0"):
        audit_run(run.path)
