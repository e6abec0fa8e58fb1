"""Who steers better: every design tuned by one budget on pairs of its own, then measured on others.

Knows designs by name and their settings, splits and intervals. Tuning: each setting of a design (at most
BUDGET) is tried on the first COARSE validation pairs, the best KEEP of them on all; the best by "both" is
measured once on the reported pairs. Differences are paired: the same pictures and kinds, drawn again with
replacement by kind (10,000 times), as pairs of one kind share its latents.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from sae.steering import Steerer
from sae.storage import replacing
from training.steering.protocol import Change, Outcome, Pair, judge, outcome

BUDGET, COARSE, KEEP = 8, 90, 2
DRAWS = 10_000
Settings = Mapping[str, Change]
"""A design's settings, by what they are called."""


@dataclass(frozen=True)
class Entry:
    """A design with its tuned setting, measured on the reported pairs."""

    name: str
    setting: str
    tuned: float
    """"both" on the validation pairs."""
    done: Bool[np.ndarray, " pairs"]
    kept: Bool[np.ndarray, " pairs"]

    @property
    def both(self) -> Bool[np.ndarray, " pairs"]:
        """Done, and the other object's word kept."""
        return self.done & self.kept


class Bench:
    """One task's splits, and what was measured on them already (in `folder`, so that nothing runs twice)."""

    def __init__(
        self,
        steerer: Steerer,
        validation: Sequence[Pair],
        reported: Sequence[Pair],
        *,
        insert: bool,
        folder: Path | None = None,
    ) -> None:
        self.steerer, self.insert, self.folder = steerer, insert, folder
        self.splits = {"validation": list(validation), "reported": list(reported)}
        rng = np.random.default_rng(0)
        order = rng.permutation(len(validation))[:COARSE]
        self.splits["coarse"] = [self.splits["validation"][place] for place in sorted(order)]

    def judged(
        self, name: str, split: str, change: Change
    ) -> tuple[Bool[np.ndarray, " pairs"], Bool[np.ndarray, " pairs"]]:
        """(done, kept) of every pair of a split; read from the folder if it lies there."""
        pairs = self.splits[split]
        task = "in" if self.insert else "out"
        key = f"{task} {split} {len(pairs)} {name}".replace("/", "-")
        file = None if self.folder is None else self.folder / f"{key}.json"
        if file is not None and file.is_file():
            done, kept = json.loads(file.read_text(encoding="utf-8"))
            return np.array(done, bool), np.array(kept, bool)
        done, kept = judge(self.steerer, pairs, change, insert=self.insert)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            rows = [part.astype(int).tolist() for part in (done, kept)]
            with replacing(file) as temporary:
                temporary.write_text(json.dumps(rows), encoding="utf-8")
        return done, kept

    def tune(self, name: str, settings: Settings) -> tuple[str, float]:
        """The best setting of a design and what it reaches on the validation pairs."""
        if len(settings) > BUDGET:
            raise ValueError(f"{name} has {len(settings)} settings; the budget is {BUDGET}")
        first = {s: self._both(f"{name}, {s}", "coarse", settings[s]) for s in settings}
        kept = sorted(first, key=first.__getitem__, reverse=True)[:KEEP]
        then = {s: self._both(f"{name}, {s}", "validation", settings[s]) for s in kept}
        best = max(then, key=then.__getitem__)
        return best, then[best]

    def enter(self, name: str, settings: Settings) -> Entry:
        """Tune a design, then measure it on the reported pairs."""
        setting, tuned = self.tune(name, settings)
        done, kept = self.judged(f"{name}, {setting}", "reported", settings[setting])
        return Entry(name, setting, tuned, done, kept)

    def outcome(self, entry: Entry) -> Outcome:
        """The entry in shares."""
        return outcome(self.kinds, entry.done, entry.kept)

    @property
    def kinds(self) -> Int[np.ndarray, " pairs"]:
        """The kind of every reported pair."""
        return np.array([pair.kind for pair in self.splits["reported"]])

    def _both(self, name: str, split: str, change: Change) -> float:
        done, kept = self.judged(name, split, change)
        return float((done & kept).mean())


def interval(
    values: Float[np.ndarray, " pairs"], groups: Int[np.ndarray, " pairs"], seed: int = 0
) -> tuple[float, float]:
    """95 % of the mean of `values` when groups are drawn again with replacement."""
    _, place = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(place, values), np.bincount(place).astype(float)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(DRAWS, len(sums)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def difference(
    one: Entry, other: Entry, kinds: Int[np.ndarray, " pairs"]
) -> tuple[float, float, float]:
    """How much more often `one` does both than `other`, with its 95 % interval, all in shares."""
    gap = one.both.astype(float) - other.both.astype(float)
    return float(gap.mean()), *interval(gap, kinds)


def verdict(ours: Entry, theirs: Entry, kinds: Int[np.ndarray, " pairs"]) -> str:
    """Who wins, in a sentence."""
    mean, low, high = difference(ours, theirs, kinds)
    points = (
        f"{abs(100 * mean):.1f} points (95 % interval of the difference {low:+.1%} to {high:+.1%})"
    )
    if low > 0:
        return f"{ours.name} wins against {theirs.name} by {points}"
    if high < 0:
        return f"{theirs.name} wins against {ours.name} by {points}"
    return f"{ours.name} and {theirs.name} cannot be told apart: {points}"
