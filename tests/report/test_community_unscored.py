"""What is said of a run of communities in which no student was trained."""

import pytest

from fedcot.errors import ConfigError
from fedcot.report.community import chosen_arm
from tests.report.made_communities import COMMUNITIES, GRAND, made, refused


def traces(asked):
    found = {"members": 1, "asked": asked, "offered": {}}
    return dict.fromkeys(COMMUNITIES, found)


@pytest.mark.parametrize(
    ("scope", "coalitions"),
    [("own", ["north", "south", GRAND]), ("community", [GRAND])],
)
def test_a_scope_that_reaches_nobody_is_named_with_the_remedy(
    tmp_path, scope, coalitions
):
    run = made(
        tmp_path,
        students={},
        settings={"trace-scope": scope},
        coalitions=coalitions,
        traces=traces(40),
    )
    refused(
        lambda: chosen_arm(run),
        f"with `trace-scope={scope}`",
        "nothing was sent",
        "-c trace-scope=coalition",
    )


@pytest.mark.parametrize(
    ("scope", "asked"),
    [
        ("coalition", 40),  # the filter left nothing, say
        ("community", 40),  # it reaches the communities by themselves
        ("own", 0),  # deployed: the owners said it, and the setting says nothing
    ],
)
def test_elsewhere_the_traces_are_to_be_looked_at(tmp_path, scope, asked):
    settings = {"trace-scope": scope}
    run = made(tmp_path, students={}, settings=settings, traces=traces(asked))
    with pytest.raises(ConfigError, match="nothing was offered") as caught:
        chosen_arm(run)
    assert "trace-scope" not in str(caught.value)
    # What is to be typed can be typed.
    assert f"fedcot community {run.path} --section sharing" in str(caught.value)
    assert "RUN_DIR" not in str(caught.value)
