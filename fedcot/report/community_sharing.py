"""The sections on what was shared and what it gave away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fedcot.community.coalitions import label
from fedcot.community.messages import COUNT
from fedcot.community.settings import PERTURBED, SHARINGS
from fedcot.data.portability.legal import LEGAL_NOTE
from fedcot.errors import ConfigError
from fedcot.report.community import (
    arms_of,
    coalitions_of,
    communities_of,
    community_part,
    short,
    student_view,
)
from fedcot.report.community_view import (
    MISSING,
    Section,
    Sheet,
    accuracy_cell,
    p_cell,
    plain_number,
)
from fedcot.report.reader import Run, nats, number, size
from fedcot.report.terminal import mean_and_stderr

_NO_PROOF: Final = (
    "An audit finds what these attacks find; it does not prove that nothing else leaks."
)
_WRITTEN: Final = {
    "num_trained": "own traces learnt",
    "num_sent": "written and sent",
    "num_malformed": "kept back: not readable",
    "num_invalid": "kept back: steps do not hold",
    "num_copied": "kept back: copies of own traces",
    "num_repeated": "kept back: repeated",
}


def sharing_section(run: Run) -> Section:
    """Return what members offered, what each way of sharing took and gave.

    Raises
    ------
    ConfigError
        It is no run of communities.
    """
    part = community_part(run)
    compared = compared_ways(run)
    written = {name: int(part.get("written", {}).get(name, 0)) for name in _WRITTEN}
    sheets = [_traces_sheet(run), _ways_sheet(run, compared)]
    if part.get("written"):
        sheets.append(
            Sheet(
                title="Synthetic traces, all generators",
                headings=("what", "traces"),
                rows=tuple((_WRITTEN[name], str(n)) for name, n in written.items()),
            )
        )
    if mix := part.get("mix"):
        sheets.append(_mix_sheet(run, mix))
    return Section(
        name="sharing",
        title="Sharing",
        sheets=tuple(sheets),
        lines=(*consent_lines(run), f"Legal note: {legal_note(run)}"),
        content={
            "traces": part["traces"],
            "ways": compared,
            "bytes": shared_bytes(run),
            "synthetic": dict(part.get("written") or {}),
            "mix": dict(part.get("mix") or {}),
            "consent": list(consent_lines(run)),
            "legal_note": legal_note(run),
        },
    )


def legal_note(run: Run) -> str:
    """Return what the run says of its legal standing: an argument, not advice."""
    return str(community_part(run).get("legal_note") or LEGAL_NOTE)


def shared_bytes(run: Run) -> dict[str, dict[str, int]]:
    """Return the bytes each way for each way of sharing, evaluation left out.

    `count`: asking how many traces there are. Perturbed questions are counted from the
    lines of `metrics.jsonl`.
    """
    held = community_part(run).get("bytes", {})
    found = {name: dict(held[name]) for name in (COUNT, *SHARINGS) if name in held}
    rows = [row for row in run.metrics if row.get("phase") == "perturb"]
    if rows and PERTURBED not in found:
        found[PERTURBED] = {
            way: sum(int(row.get(way, 0)) for row in rows)
            for way in ("uplink_bytes", "downlink_bytes")
        }
    return found


def compared_ways(run: Run) -> dict[str, dict[str, Any]]:
    """Return each way of sharing on the same split: accuracy, bytes and epsilon.

    Accuracies are of the student of the run's widest coalition, over the own tests of
    all members that scored it and on the hold-out. The epsilon is that of one record
    over all rounds.
    """
    widest = coalitions_of(run)[-1]
    sent, per_arm = shared_bytes(run), run.summary["privacy"].get("per_arm", {})
    return {
        arm: {
            "coalition": label(widest),
            "accuracy": run.summary["accuracy"].get(arm),
            "hold_out": student_view(run, arm, widest).get("hold_out"),
            **sent.get(arm, {}),
            "record_epsilon_max": per_arm.get(arm, {}).get("record_epsilon_max"),
            "guarantee": per_arm.get(arm, {}).get("guarantee"),
        }
        for arm in SHARINGS
        if arm in arms_of(run) or arm in sent or arm in per_arm
    }


def _ways_sheet(run: Run, compared: Mapping[str, Mapping[str, Any]]) -> Sheet:
    widest = short(coalitions_of(run)[-1], communities_of(run))
    return Sheet(
        title=f"Ways of sharing on the same split, students of {widest}",
        headings=("way", "all own tests", "hold-out", "up", "down", "record epsilon"),
        rows=tuple(
            (
                arm,
                mean_and_stderr(found["accuracy"] or {}),
                accuracy_cell(found["hold_out"]),
                size(found.get("uplink_bytes")),
                size(found.get("downlink_bytes")),
                nats(found["record_epsilon_max"]),
            )
            for arm, found in compared.items()
        ),
        note="Bytes of all coalitions and rounds, evaluation left out. Epsilon in "
        "nats, over all rounds; inf: no bound holds.",
    )


def _traces_sheet(run: Run) -> Sheet:
    traces, communities = community_part(run)["traces"], communities_of(run)
    joint = [one for one in coalitions_of(run) if len(one) > 1]
    rows = []
    for name in communities:
        found = traces.get(name, {})
        offered = found.get("offered", {})
        own = [offered[label(one)] for one in joint if label(one) in offered]
        rows.append(
            (
                name,
                *(
                    str(found.get(key, 0))
                    for key in ("members", "asked", "unparsed", "filtered", "withdrawn")
                ),
                str(offered.get(name, MISSING)),
                _range(own),
            )
        )
    return Sheet(
        title="Traces by community",
        headings=(
            "community",
            "members",
            "asked",
            "unparsed",
            "filtered",
            "withdrawn",
            "for itself",
            "for coalitions",
        ),
        rows=tuple(rows),
        note="asked: questions put to the provider, 0 for deployed nodes, which hold "
        "imported traces. for itself, for coalitions: traces that their scopes let "
        "reach them.",
    )


def _range(counts: list[int]) -> str:
    if not counts:
        return MISSING
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _mix_sheet(run: Run, mix: Mapping[str, Any]) -> Sheet:
    communities = communities_of(run)
    questions = mix["questions"]
    domains = sorted({domain for shares in questions.values() for domain in shares})
    return Sheet(
        title="What communities ask about: share of each domain",
        headings=("community", *domains),
        rows=tuple(
            (
                name,
                *(plain_number(questions[name].get(one, 0.0), 2) for one in domains),
            )
            for name in communities
            if name in questions
        ),
        note=f"Diversity index {plain_number(number(mix.get('index')))} (our "
        "definition; 0: equal mixes, 1: no common domain); mean divergence of two "
        f"{plain_number(number(mix.get('mean_pairwise_bits')))} bits, mean entropy of "
        f"a mix {plain_number(number(mix.get('mean_entropy_bits')))} bits.",
    )


def consent_lines(run: Run) -> tuple[str, ...]:
    """Return what members permitted, and what reached the run after filters."""
    part, settings = community_part(run), run.config.get("run_config", {})
    traces = part["traces"].values()
    withdrawn = sum(found.get("withdrawn", 0) for found in traces)
    simulated = any(found.get("asked", 0) for found in traces)
    scope = (
        f"simulated members let their traces reach scope {settings['trace-scope']}"
        if simulated and settings.get("trace-scope")
        else "the owner of each node said it trace by trace"
    )
    consent = (
        f"Consent: {scope}; {withdrawn} withdrawals stand in the members' manifests. A "
        "scope bounds whom traces reach, and no epsilon."
    )
    texts = [consent]
    if settings.get("trace-filter"):
        texts.append(
            f"Provider's reasoning: {settings.get('provider-reasoning', 'unknown')}; "
            f"traces offered after filter: {settings['trace-filter']}"
        )
    if settings.get("scenario"):
        texts.append(f"Scenario: {settings['scenario']}")
    return tuple(texts)


def audit_section(run: Run) -> Section:
    """Return what the widest students give away of each community's traces.

    Raises
    ------
    ConfigError
        It is no run of communities, or none that audited its students.
    """
    audit = community_part(run).get("audit") or {}
    if not audit:
        raise ConfigError(
            f"`RUN_DIR` must hold an audit of students, found none in `{run.path}`; "
            "run with `-c audit-members=true`, in a simulation with pooled among "
            "`sharing`."
        )
    return Section(
        name="audit",
        title="Audit",
        sheets=(
            Sheet(
                title="What the widest students give away of each community's traces",
                headings=(
                    "student",
                    "traces of",
                    "texts",
                    "AUC",
                    "p",
                    "found at 1 %",
                    "copied",
                    "controls",
                    "p",
                ),
                rows=tuple(_audit_rows(audit)),
                words=(0, 1),
                note="AUC: a member's text gains more over the base than a control's; "
                "0.5 is chance. found at 1 %: members found where 1 % of controls are "
                "taken for members. copied: targets written verbatim, of members and "
                "of controls. One-sided p-values, not corrected.",
            ),
        ),
        lines=(_NO_PROOF,),
        content=dict(audit),
    )


def _audit_rows(audit: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    order = [arm for arm in SHARINGS if arm in audit]
    for arm in (*order, *(arm for arm in audit if arm not in order)):
        for place, (name, found) in enumerate(audit[arm]["members"].items()):
            gain, copied = found["gain"], found["regurgitated"]["normalised"]
            controls = found["controls_regurgitated"]["normalised"]
            at_one = gain.get("tpr_at_one_percent") or {}
            yield (
                "" if place else arm,
                name,
                str(gain["members"]),
                plain_number(number(gain["auc"])),
                p_cell(number(gain["p_value"])),
                _share(at_one),
                _share(copied),
                _share(controls),
                p_cell(number(found.get("regurgitation_p_value"))),
            )


def _share(rate: Mapping[str, Any]) -> str:
    found = number(rate.get("rate"))
    return MISSING if found is None else f"{found:.1%}"


def recognition(run: Run, arm: str) -> tuple[float, float, float] | None:
    """Return mean, smallest and largest membership AUC over communities; None if none.

    Of the gain over the base, chosen beforehand and not by result.
    """
    audit = (community_part(run).get("audit") or {}).get(arm)
    if not audit:
        return None
    areas = [
        area
        for found in audit["members"].values()
        if (area := number(found["gain"]["auc"])) is not None
    ]
    return (sum(areas) / len(areas), min(areas), max(areas)) if areas else None
