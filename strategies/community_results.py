"""What a run of communities measured, student by student."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from fedcot import provenance
from fedcot.community.coalitions import JOIN, Coalition, label
from fedcot.community.diversity import diversity_of, task_mixes
from fedcot.community.messages import (
    BEFORE,
    PROVIDER,
    CoalitionTrainReply,
    StudentScore,
    StudentsReply,
    SyntheticReply,
    TracesReply,
)
from fedcot.community.scenario import STRIKE, parse_scenario
from fedcot.community.settings import (
    FEDERATED,
    LABEL_ONLY,
    PERTURBED,
    PROMPT,
    RANDOM_LABEL,
    SYNTHETIC,
)
from fedcot.data.partition import load_partition
from fedcot.data.portability.legal import LEGAL_NOTE
from strategies.coalition_students import CoalitionStudent
from strategies.exchange import Answer
from strategies.measures import estimate
from strategies.results import Results
from strategies.state import RoundState

ALONE: Final = "alone"
TEACHER: Final = "teacher"


class CommunityResults:
    """Collects the measurements of one run.

    Parameters
    ----------
    results : Results
        Writes lines and adapters.
    coalitions : sequence of Coalition
        Of the run, the smallest first.
    """

    def __init__(self, results: Results, coalitions: Sequence[Coalition]) -> None:
        self.results = results
        self.config = results.config
        self.coalitions = tuple(coalitions)
        self._offers: dict[int, TracesReply] = {}
        self._students: dict[str, dict[str, Any]] = {}
        # By student, then by partition.
        self._scores: dict[str, dict[int, StudentScore]] = defaultdict(dict)
        self._hold_out: dict[str, StudentScore] = {}
        self._communities: dict[int, str] = {}
        self._written: dict[int, dict[str, int]] = {}
        self._bytes: dict[str, dict[str, int]] = {}
        self._audit: dict[str, Any] = {}
        self._perturbed: dict[str, int] = {}
        self._scenario = parse_scenario(
            self.config.scenario, self.config.community_names
        )

    def note_offer(
        self, server_round: int, answer: Answer, reply: TracesReply, purpose: str
    ) -> None:
        """Write what one member offers: numbers and a hash, never a text."""
        if purpose != PROMPT:
            self._offers[reply.partition_id] = reply
        self._add_bytes(purpose, answer)
        self._communities[reply.partition_id] = reply.community
        self.results.note_line(
            server_round,
            "collect",
            reply.partition_id,
            answer,
            community=reply.community,
            purpose=purpose,
            manifest_hash=reply.manifest_hash,
            num_offered=list(reply.num_offered),
            num_sent=len(reply.traces),
            num_withdrawn=len(reply.withdrawn),
            num_asked=reply.num_asked,
            num_unparsed=reply.num_unparsed,
            num_filtered=reply.num_filtered,
        )

    def note_prompts(self, answer: Answer) -> None:
        """Count the bytes of one member's perturbed questions."""
        self._add_bytes(PERTURBED, answer)

    def note_perturbed(self, counts: Mapping[str, int]) -> None:
        """Keep how many released questions were answered in all rounds."""
        self._perturbed = dict(counts)

    def note_training(
        self, server_round: int, answer: Answer, reply: CoalitionTrainReply
    ) -> None:
        """Write how one member trained the adapters of its coalitions."""
        self._add_bytes(FEDERATED, answer)
        self.results.note_line(
            server_round,
            "federate",
            reply.partition_id,
            answer,
            withheld=reply.withheld,
            coalitions=sorted(reply.adapters),
            losses=list(reply.losses),
        )

    def note_writing(
        self, server_round: int, answer: Answer, reply: SyntheticReply
    ) -> None:
        """Write what one member's generator wrote, and what was kept back."""
        self._add_bytes(SYNTHETIC, answer)
        counts = {
            name: getattr(reply, name)
            for name in reply.__slots__
            if name.startswith("num_")
        }
        self._written[reply.partition_id] = {**counts, "num_sent": len(reply.traces)}
        self.results.note_line(
            server_round,
            "write",
            reply.partition_id,
            answer,
            **self._written[reply.partition_id],
        )

    def note_audit(self, audit: Mapping[str, Any]) -> None:
        """Keep what students give away of each community's traces."""
        self._audit = dict(audit)

    def _add_bytes(self, purpose: str, answer: Answer) -> None:
        held = self._bytes.setdefault(purpose, {"uplink_bytes": 0, "downlink_bytes": 0})
        held["uplink_bytes"] += answer.uplink_bytes
        held["downlink_bytes"] += answer.downlink_bytes

    def note_student(
        self, server_round: int, name: str, student: CoalitionStudent
    ) -> None:
        """Write what one student of a pool was trained on."""
        measured = {k: v for k, v in vars(student).items() if k != "adapter"}
        self._students[name] = measured
        row = {"round": server_round, "phase": "distil", "student": name}
        self.results.run.append_metrics({**row, **measured})

    def note_scores(
        self, server_round: int, answer: Answer, reply: StudentsReply, community: str
    ) -> None:
        """Write the scores of one member."""
        partition = reply.partition_id
        self.results.note_line(
            server_round, "evaluate", partition, answer, withheld=reply.withheld
        )
        for score in reply.scores:
            row = {"round": server_round, "phase": "evaluate", "partition": partition}
            self.results.run.append_metrics(
                {**row, "community": community, **asdict(score)}
            )
            self._scores[score.student][partition] = score

    def note_hold_out(self, score: StudentScore) -> None:
        """Write one student's score on the questions that nobody holds."""
        self._hold_out[score.student] = score
        self.results.run.append_metrics({"phase": "hold-out", **asdict(score)})

    def accuracy(self) -> dict[str, dict[str, float]]:
        """Return the headline accuracy of each arm, pooled over all members.

        ``alone``: each member by the student of its community alone. The other arms of
        a coalition: by that of the widest coalition.
        """
        found = {
            TEACHER: self._pooled({PROVIDER}),
            BEFORE: self._pooled({BEFORE}),
        }
        widest = label(self.coalitions[-1])
        for arm in (LABEL_ONLY, RANDOM_LABEL, *self.config.sharing_names):
            found[arm] = self._pooled({f"{arm}.{widest}"})
        first = self.config.sharing_names[0]
        alone = {f"{first}.{name}" for name in self.config.community_names}
        if alone <= self._scores.keys():
            found[ALONE] = self._pooled(alone, own_only=True)
        return {arm: score for arm, score in found.items() if score}

    def summary(
        self,
        state: RoundState,
        *,
        status: str,
        traffic: Mapping[str, int],
        reason: str,
        teacher: Mapping[str, Any],
        privacy: Mapping[str, Any],
        account: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return every key of `summary.json`."""
        config = self.config
        return {
            "status": status,
            "mode": config.mode,
            "mechanism": "none",
            "seed": config.seed,
            "canaries": config.canaries,
            "num_partitions": len(state.members),
            "num_rounds": state.server_round,
            "accuracy": self.accuracy(),
            "accuracy_by_prompt": {},
            "accuracy_deep": {},
            "teacher_measured_on": "the members' test questions",
            "rationale_validity": self._validity(),
            "dataset": config.dataset,
            "data": {},
            "community": self._community(len(state.members)),
            "privacy": dict(privacy),
            "account": dict(account),
            "traffic": dict(traffic),
            "timing": {p: round(s, 3) for p, s in self.results.timing.items()},
            "failures": list(state.failures),
            "refused": state.refused,
            "git_commit": provenance.git_commit(),
            "versions": provenance.versions(),
            "teacher": dict(teacher),
            "reason": reason,
        }

    def _community(self, num_partitions: int) -> dict[str, Any]:
        names = self.config.community_names
        return {
            "communities": list(names),
            "coalitions": [label(one) for one in self.coalitions],
            "low_utility": self.config.low_utility,
            "members": {
                name: [p for p, own in sorted(self._communities.items()) if own == name]
                for name in names
            },
            "mix": self._mix(num_partitions),
            "traces": {name: self._offered(name) for name in names},
            "written": self._sum_written(),
            "perturbed": self._perturbed,
            "bytes": self._bytes,
            "audit": self._audit,
            "provider": self._views(PROVIDER),
            "before": self._views(BEFORE),
            "students": {
                student: {**self._students.get(student, {}), **self._views(student)}
                for student in sorted(self._scores.keys() | self._students.keys())
                if student not in (PROVIDER, BEFORE)
            },
            "legal_note": LEGAL_NOTE,
        }

    def _sum_written(self) -> dict[str, int]:
        """Return what all generators wrote, and what was kept back, by reason."""
        total: dict[str, int] = defaultdict(int)
        for counts in self._written.values():
            for name, count in counts.items():
                total[name] += count
        return dict(total)

    def _mix(self, num_partitions: int) -> dict[str, Any]:
        """Return what communities ask about, where this process may read it."""
        simulated = all(self._offers[p].num_asked for p in self._offers)
        if not (self._offers and simulated):
            return {}
        domains: dict[str, list[str]] = defaultdict(list)
        for partition, name in sorted(self._communities.items()):
            records = load_partition(self.config, partition, num_partitions).train
            domains[name] += [record.domain for record in records]
        mixes = task_mixes(domains)
        return {"questions": mixes, **asdict(diversity_of(mixes))}

    def _offered(self, community: str) -> dict[str, Any]:
        offers = [o for o in self._offers.values() if o.community == community]
        own = [place for place, one in enumerate(self.coalitions) if community in one]
        return {
            "members": len(offers),
            "asked": sum(offer.num_asked for offer in offers),
            "unparsed": sum(offer.num_unparsed for offer in offers),
            "filtered": sum(offer.num_filtered for offer in offers),
            "withdrawn": sum(len(offer.withdrawn) for offer in offers),
            "offered": {
                label(self.coalitions[place]): sum(o.num_offered[place] for o in offers)
                for place in own
            },
        }

    def _views(self, student: str) -> dict[str, Any]:
        """Return a student's accuracy on each community's own test and the hold-out."""
        own = {}
        for name in self.config.community_names:
            if self._strikes(name, student):
                continue
            members = {p for p, c in self._communities.items() if c == name}
            score = self._of(student, members)
            if score:
                own[name] = score
        held = self._hold_out.get(student)
        return {
            "own": own,
            "hold_out": estimate(held.exact_match, held.num_records) if held else None,
        }

    def _strikes(self, community: str, student: str) -> bool:
        """Whether a community has left the coalition of a student for good."""
        behaviour = self._scenario.get(community)
        return (
            behaviour is not None
            and (behaviour.kind, behaviour.share) == (STRIKE, 1.0)
            and community in student.partition(".")[2].split(JOIN)
        )

    def _of(self, student: str, partitions: set[int]) -> dict[str, float] | None:
        scores = [
            score
            for partition, score in self._scores.get(student, {}).items()
            if partition in partitions
        ]
        total = sum(score.num_records for score in scores)
        if not total:
            return None
        return estimate(sum(score.exact_match for score in scores), total)

    def _pooled(
        self, students: set[str], *, own_only: bool = False
    ) -> dict[str, float] | None:
        hits = total = 0
        for student in students:
            community = student.partition(".")[2]
            for partition, score in self._scores.get(student, {}).items():
                if not own_only or self._communities.get(partition) == community:
                    hits += score.exact_match
                    total += score.num_records
        return estimate(hits, total) if total else None

    def _validity(self) -> dict[str, float]:
        widest = label(self.coalitions[-1])
        named = {TEACHER: PROVIDER, BEFORE: BEFORE}
        named |= {arm: f"{arm}.{widest}" for arm in self.config.sharing_names}
        found = {}
        for arm, student in named.items():
            scores = self._scores.get(student, {}).values()
            if records := sum(score.num_records for score in scores):
                found[arm] = sum(s.valid_rationales for s in scores) / records
        return found
