"""What is shipped is what the code says: run config, bundle, README."""

import tomllib
from io import BytesIO
from zipfile import ZipFile

import pytest

from fedcot.config import RunConfig
from fedcot.privacy.accounting import prompt_epsilon
from fedcot.privacy.composition import epsilon_at_delta
from fedcot.privacy.rank import RankChannel
from fedcot.privacy.shapes import best_staircase, neighbour_utility
from fedcot.privacy.vocabulary import Vocabulary, world_vocabulary
from fedcot.report.communities_table import (
    communities_markdown,
    findings_markdown,
    levels_markdown,
)
from fedcot.report.hardware_table import hardware_markdown
from fedcot.report.modes_table import modes_markdown
from fedcot.report.privacy_tables import curve_markdown, words_markdown
from fedcot.report.recorded_table import recorded_markdown
from fedcot.report.results_table import results_markdown
from fedcot.report.social_table import (
    in_context_markdown,
    memorization_markdown,
    sms_markdown,
    social_markdown,
)
from fedcot.settings_table import markdown_table

BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"
BUNDLED = {".py", ".toml"}


def pyproject(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())


def test_the_shipped_run_config_is_the_defaults_with_an_epsilon(repository):
    shipped = pyproject(repository)["tool"]["flwr"]["app"]["config"]
    defaults = RunConfig(token_epsilon=8.0).to_run_config()
    assert shipped == defaults
    # 1 == 1.0 == True in Python, but not in Flower.
    assert {k: type(v) for k, v in shipped.items()} == {
        k: type(v) for k, v in defaults.items()
    }
    assert list(shipped) == list(defaults)


def test_no_federation_is_shipped(repository):
    # `flwr run` rewrites a pyproject that holds one.
    assert "federations" not in pyproject(repository)["tool"]["flwr"]


def test_the_bundle_holds_the_code_and_nothing_else(repository):
    from flwr.cli.build import build_fab_from_disk

    names = ZipFile(BytesIO(build_fab_from_disk(repository))).namelist()
    files = [name for name in names if not name.startswith(".info")]
    suffixes = {"." + name.rsplit(".", 1)[-1] for name in files}
    assert suffixes == BUNDLED
    tops = {name.split("/")[0] for name in files}
    assert tops == {
        "fedcot",
        "strategies",
        "server_app.py",
        "client_app.py",
        "pyproject.toml",
    }
    code = {
        path.relative_to(repository).as_posix()
        for package in ("fedcot", "strategies")
        for path in (repository / package).rglob("*.py")
    }
    assert code <= set(files)


def test_the_assembled_app_is_the_imported_code(repository, tmp_path):
    from fedcot.app_folder import assemble_app

    app = assemble_app(tmp_path)
    for path in (repository / "fedcot").rglob("*.py"):
        copy = app / "fedcot" / path.relative_to(repository / "fedcot")
        assert copy.read_bytes() == path.read_bytes()
    assert (app / "server_app.py").is_file()
    shipped = tomllib.loads((app / "pyproject.toml").read_text())
    assert shipped["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "server_app:app",
        "clientapp": "client_app:app",
    }


def test_the_readme_shows_the_settings_as_they_are(repository):
    readme = (repository / "README.md").read_text()
    shown = readme.split(BEGIN)[1].split(END)[0].strip()
    assert shown == markdown_table(), (
        "run: python -c 'from fedcot.settings_table import markdown_table; "
        "print(markdown_table())'"
    )


def test_the_version_is_the_same_everywhere(repository):
    import fedcot

    version = pyproject(repository)["project"]["version"]
    assert fedcot.__version__ == version
    assert f"## {version}" in (repository / "CHANGELOG.md").read_text()


def test_the_readme_shows_the_results_that_were_measured(repository):
    readme = (repository / "README.md").read_text()
    begin, end = "<!-- results: begin -->", "<!-- results: end -->"
    shown = readme.split(begin)[1].split(end)[0].strip()
    file = repository / "results" / "main-job.json"
    assert shown == (results_markdown(file) if file.is_file() else "")


def test_the_readme_says_what_a_prompt_costs(repository):
    vocabulary = world_vocabulary()
    cost = prompt_epsilon(8.0, vocabulary.length)
    sentence = f"of {vocabulary.length} slots may give away {cost:.0f}."
    assert sentence in " ".join((repository / "README.md").read_text().split())


@pytest.mark.parametrize(
    ("mark", "name", "table"),
    [
        ("privacy", "privacy-curve.json", curve_markdown),
        ("words", "english-words.json", words_markdown),
        ("recorded", "recorded.json", recorded_markdown),
        ("hardware", "hardware.json", hardware_markdown),
        ("communities", "community.json", communities_markdown),
        ("findings", "community.json", findings_markdown),
        ("levels", "svamp-levels.json", levels_markdown),
    ],
)
def test_readme_and_docs_show_the_other_tables_of_results(
    repository, mark, name, table
):
    page = "docs/communities.md" if mark in ("findings", "levels") else "README.md"
    readme = (repository / page).read_text()
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    shown = readme.split(begin)[1].split(end)[0].strip()
    assert shown == table(repository / "results" / name).strip()


@pytest.mark.parametrize(
    ("mark", "place", "table"),
    [
        ("in-context", "fedcot_weights/training-record.json", in_context_markdown),
        ("social", "results/social.json", social_markdown),
        ("sms", "results/sms-spam.json", sms_markdown),
        ("memorization", "results/memorization.json", memorization_markdown),
        ("modes", "results/modes.json", modes_markdown),
    ],
)
def test_docs_show_what_students_learn_in_words(repository, mark, place, table):
    page = (repository / "docs" / "social.md").read_text()
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    assert page.split(begin)[1].split(end)[0].strip() == table(repository / place)


def test_the_readme_says_what_thirty_tokens_at_six_nats_mean(repository):
    words = Vocabulary.of([f"w{number}x" for number in range(4000)], 30)
    shape = best_staircase(6.0, neighbour_utility(len(words.words)))
    channel = RankChannel(words, 6.0, shape=shape)
    readme = " ".join((repository / "README.md").read_text().split())
    assert f"{channel.prompt_epsilon:.0f} nats for the prompt" in readme
    composed = epsilon_at_delta(channel, delta=1e-6)
    assert f"lowers that to {composed:.0f} nats" in readme
