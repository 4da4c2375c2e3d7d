"""What came of the inputs: counts, the slowest, the largest memory, and one example of every kind of finding."""

import collections
import re

OUTCOMES = collections.defaultdict(collections.Counter)  # by test, for the summary at the end
SLOWEST, LARGEST = {}, {}


class Record:
    """Of one test with ``inputs`` inputs.  A few stop at the first finding, made small; many go on."""

    def __init__(self, name, inputs, stop):
        self.name, self.inputs, self.stop, self.findings = name, inputs, stop, {}

    def take(self, verdict, edits):
        OUTCOMES[self.name][verdict.outcome] += 1
        SLOWEST[self.name] = max(SLOWEST.get(self.name, 0), verdict.seconds)
        LARGEST[self.name] = max(LARGEST.get(self.name, 0), verdict.kib)
        if verdict.finding is None:
            return
        assert not self.stop, f"{verdict.finding}, of the edits {edits}"
        kind = re.sub(r"'.*'|\d+", "", verdict.finding)[:150]
        count, finding, least = self.findings.get(kind, (0, verdict.finding, edits))
        if len(edits) < len(least):
            finding, least = verdict.finding, edits
        self.findings[kind] = count + 1, finding, least

    def check(self):
        lines = [f"{count} x {finding}\n    edits {edits}" for count, finding, edits in self.findings.values()]
        assert not lines, f"{len(lines)} kinds of findings\n" + "\n".join(lines)


def summary():
    """Lines of a table: inputs, how many were read, the slowest and the memory, by test."""
    if not OUTCOMES:
        return
    yield f"{'damaged inputs':32} {'inputs':>7} {'read':>7} {'refused':>8} {'slowest/s':>10} {'memory/MB':>10}"
    for name, outcomes in OUTCOMES.items():
        total, read = sum(outcomes.values()), outcomes["read"]
        refused = sum(count for outcome, count in outcomes.items() if outcome.startswith("refused"))
        yield f"{name:32} {total:7} {read:7} {refused:8} {SLOWEST[name]:10.2f} {LARGEST[name] / 1024:10.0f}"
    yield f"{'in all':32} {sum(sum(outcomes.values()) for outcomes in OUTCOMES.values()):7}"
