"""The comparison as pictures, tables and sentences: one PNG a panel, Markdown, Table 1.

Knows the numbers that `training.tasks.comparing` gathers; computes nothing from models.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.tasks.chance import says
from training.tasks.masking import METHODS

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#999999")
"""Okabe and Ito's blue, vermillion, green and a grey: told apart by nearly all eyes."""
FAMILIES = {
    "oracle": "top-k of the true class (an oracle: uses the label)",
    "predicted": "top-k of the predicted class (no label)",
    "dataset": "top-k of the data set",
    "random": "random k",
}


def draw(result: dict[str, Any], out: Path) -> list[str]:
    """Write the panels as PNG into `out`; their file names."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    panels = {
        "accuracy": _accuracy,
        "scatter": _scatter,
        "masking": _masking,
        "faithfulness": _faithfulness,
    }
    for name, panel in panels.items():
        figure = panel(plt, result)
        figure.savefig(out / f"{name}.png", dpi=120, bbox_inches="tight")
        plt.close(figure)
    return [f"{name}.png" for name in panels]


def _accuracy(plt: Any, result: dict[str, Any]) -> Any:
    splits = [split for split in ("base", "novel") if split in result]
    figure, axes = plt.subplots(figsize=(6, 3))
    bars = ("first", "second", "remapped", "existing")
    labels = (*result["heads"], "first's activations,\nsecond's readout", "existing\nconcepts only")
    for number, name in enumerate(bars):
        heights = [100 * result[split]["gain"][name] for split in splits]
        places = [i + 0.2 * (number - 1.5) for i in range(len(splits))]
        axes.bar(places, heights, 0.18, color=COLOURS[number], label=labels[number])
    axes.set_xticks(range(len(splits)), splits)
    axes.set_ylabel("accuracy (%)")
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _scatter(plt: Any, result: dict[str, Any]) -> Any:
    points = result["base"]["scatter"]["points"]
    figure, axes = plt.subplots(figsize=(4, 4))
    top = max([1, *(max(p[2:]) for p in points)])
    axes.plot([0, top], [0, top], color=COLOURS[3], lw=0.8)
    axes.scatter([p[2] for p in points], [p[3] for p in points], s=8, color=COLOURS[0], alpha=0.5)
    axes.set_xscale("symlog")
    axes.set_yscale("symlog")
    axes.set_xlabel(f"tokens a class, {result['heads'][0]}")
    axes.set_ylabel(f"tokens a class, {result['heads'][1]}")
    axes.set_title("how often a concept fires in a class")
    return figure


def _masking(plt: Any, result: dict[str, Any]) -> Any:
    heads = result["heads"]
    figure, rows = plt.subplots(2, 2, figsize=(9, 6), sharex=True, sharey=True)
    for column, error in zip(rows.T, ("none", "per_token"), strict=True):
        for axes, switch in zip(column, ("on", "off"), strict=True):
            for head, dash in zip(heads, ("-", "--"), strict=True):
                masks = result["masking"][head]
                for colour, family in zip(COLOURS, FAMILIES, strict=True):
                    values = [100 * v for v in masks["curves"][f"{family}/{error}/{switch}"]]
                    label = f"{head}: {FAMILIES[family]}"
                    axes.plot(masks["ks"], values, dash, color=colour, label=label, lw=1.2)
            axes.set_xscale("log")
            kept = "kept" if error == "per_token" else "dropped"
            start = "only the top k on" if switch == "on" else "the top k off"
            axes.set_title(f"{start}; error term {kept}")
    for axes in rows[:, 0]:
        axes.set_ylabel("accuracy (%)")
    for axes in rows[1]:
        axes.set_xlabel("k")
    rows[0, 1].legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _faithfulness(plt: Any, result: dict[str, Any]) -> Any:
    figure, rows = plt.subplots(2, 2, figsize=(8, 6), sharex=True)
    curves = result["faithfulness"][result["heads"][1]]
    for column, question in zip(rows.T, ("margin/none", "words/none"), strict=True):
        for axes, way in zip(column, ("deletion", "insertion"), strict=True):
            for colour, method in zip(COLOURS, METHODS, strict=True):
                curve = curves[question]["curves"][f"{method}/{way}"]
                axes.plot(curves["fractions"], curve, color=colour, label=method)
            axes.set_title(f"{way}, {question.split('/')[0]}")
    for axes in rows[:, 0]:
        axes.set_ylabel("score (logits)")
    for axes in rows[1]:
        axes.set_xlabel("share of the picture's concepts")
    rows[0, 1].legend(frameon=False)
    return figure


def report(result: dict[str, Any], panels: Sequence[str], command: str) -> str:
    """A short Markdown report of one pair."""
    first, second = result["heads"]
    base = result["base"]
    lines = [
        f"# {result['task']}: {first} against {second}",
        "",
        f"Made by `{command}` on {base['gain']['n_images']} test pictures a split.",
        "",
        table([result]),
        "",
        _sentence(result),
        "",
        "| base classes | accuracy | share of the gain |",
        "|---|---|---|",
        f"| {first} | {base['gain']['first']:.1%} | |",
        f"| {second} | {base['gain']['second']:.1%} | |",
        f"| {first}'s activations, {second}'s readout | {base['gain']['remapped']:.1%} | "
        f"{_percent(base['gain']['remapped_share'])} |",
        f"| {second} with only the concepts that {first} has in the picture | "
        f"{base['gain']['existing']:.1%} | {_percent(base['gain']['existing_share'])} |",
        "",
        _chance_sentence(result),
        "",
        f"{base['gain']['mass']:.1%} of {second}'s activation lies on concepts that {first} has in "
        f"the same picture; Pearson's r of the data set's counts is {base['correlation']:.3f}.",
        "",
        "Masks of the true class are an oracle: they use the label, so their “on” accuracies are "
        "not those of a classifier. Masks of the predicted class use no label.",
        "",
        "Areas under the curves, error term dropped (deletion: lower is better; insertion: higher):",
        "",
        "| ranking | margin, deletion | margin, insertion | words, deletion | words, insertion |",
        "|---|---|---|---|---|",
    ]
    curves = result["faithfulness"][second]
    for method in METHODS:
        cells = [
            f"{curves[f'{question}/none']['areas'][f'{method}/{way}']:.2f}"
            for question in ("margin", "words")
            for way in ("deletion", "insertion")
        ]
        lines.append(f"| {method.replace('_', ' ')} | {' | '.join(cells)} |")
    lines += ["", *(f"![{name}]({name})" for name in panels), ""]
    return "\n".join(lines)


def table(results: Sequence[dict[str, Any]]) -> str:
    """PatchSAE's Table 1 for these pairs: base / novel in each cell."""
    lines = [
        "| task | heads | high | high→low | low→high | accuracy before | accuracy after | Δ base |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        parts = [result[split] for split in ("base", "novel") if split in result]
        groups = [
            " / ".join(f"{part['overlap'][name]:.2f}" for part in parts)
            for name in ("high", "high_to_low", "low_to_high")
        ]
        accuracy = [
            " / ".join(f"{100 * part['gain'][name]:.1f}" for part in parts)
            for name in ("first", "second")
        ]
        rate = result["improvement_rate"]
        cells = [result["task"], " → ".join(result["heads"]), *groups, *accuracy]
        cells.append("–" if rate is None else f"{rate:.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def gains_table(results: Sequence[dict[str, Any]]) -> str:
    """Where the gain on base classes comes from, a row a pair; see `comparing.gain`."""
    lines = [
        "| task | heads | gain, points | first's activations read anew | only concepts that the "
        "first has | activation on those | r of counts |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        gain = result["base"]["gain"]
        cells = [
            result["task"],
            " → ".join(result["heads"]),
            f"{100 * (gain['second'] - gain['first']):+.1f}",
            *(_percent(gain[f"{name}_share"]) for name in ("remapped", "existing")),
            f"{gain['mass']:.0%}",
            f"{result['base']['correlation']:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def chance_table(results: Sequence[dict[str, Any]]) -> str:
    """What existing concepts leave of the gain beside random ones of the same mass; see `chance`."""
    lines = [
        "| task | heads | seeds | error term | gain, points | activation off, new / random | only "
        "concepts that the first has | random ones off | difference, points | so |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        chance = result["base"].get("chance")
        if chance is None:
            continue
        off = [sum(part) / len(part) for part in _masses(chance)]
        for error, name in (("per_token", "kept"), ("none", "dropped")):
            found = chance[error]
            cells = [
                result["task"],
                " → ".join(result["heads"]),
                str(found["seeds"]),
                name,
                f"{100 * found['gain']:+.1f}",
                " / ".join(f"{share:.1%}" for share in off),
                *(_with_interval(found[part]) for part in ("existing", "random", "difference")),
                says(found),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def areas_table(results: Sequence[dict[str, Any]]) -> str:
    """Areas under deletion and insertion curves without the error term, a row a head and question."""
    lines = [
        f"| task | head | question | {' | '.join(m.replace('_', ' ') for m in METHODS)} |",
        f"|---|---|---|{'---|' * len(METHODS)}",
    ]
    seen = set()
    for result in results:
        for head, curves in result["faithfulness"].items():
            for question in ("margin", "words"):
                row = (result["task"], head, question)
                if row in seen:
                    continue
                seen.add(row)
                areas = curves[f"{question}/none"]["areas"]
                cells = [
                    f"{areas[f'{m}/deletion']:.1f} / {areas[f'{m}/insertion']:.1f}" for m in METHODS
                ]
                lines.append(f"| {' | '.join((*row, *cells))} |")
    return "\n".join(lines)


def seeds_table(rows: Sequence[tuple[str, str, dict[str, Any]]]) -> str:
    """Accuracy over seeds of (task, head, accuracy of metrics.json)."""
    lines = ["| task | head | base (%) | novel (%) |", "|---|---|---|---|"]
    for task, head, accuracy in rows:
        cells = [
            f"{100 * accuracy[split]['mean']:.1f} ± {100 * accuracy[split]['std']:.1f}"
            if split in accuracy
            else "–"
            for split in ("base", "novel")
        ]
        lines.append(f"| {task} | {head} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _sentence(result: dict[str, Any]) -> str:
    first, second = result["heads"]
    gain = result["base"]["gain"]
    gained = gain["second"] - gain["first"]
    if gain["remapped_share"] is None:
        return f"{second} gains nothing over {first} on base classes ({100 * gained:+.1f} points)."
    return (
        f"Of {second}'s gain of {100 * gained:.1f} points on base classes, reading {first}'s "
        f"activations anew gives {_percent(gain['remapped_share'])}, and {second}'s activations on "
        f"concepts that {first} already has in the picture give {_percent(gain['existing_share'])}."
    )


def _chance_sentence(result: dict[str, Any]) -> str:
    """The control of the last row, in words."""
    chance = result["base"].get("chance")
    if chance is None:
        return "Neither vision tower is prompted, so no concept is new."
    found = chance["per_token"]
    if found["difference"] is None:
        return "Hardly anything is gained: the control has nothing to say."
    return (
        f"Control, over {found['seeds']} seeds and {found['images']} pictures: the concepts that were "
        f"there leave {_with_interval(found['existing'])} % of the gain, random ones of the same mass off "
        f"leave {_with_interval(found['random'])} %: {says(found)}."
    )


def _masses(chance: dict[str, Any]) -> tuple[list[float], list[float]]:
    return chance["removed"]["new mass"], chance["removed"]["random mass"]


def _with_interval(found: Sequence[float] | None) -> str:
    """ "72 (65 to 80)" of a share with its interval."""
    if found is None:
        return "–"
    value, low, high = (f"{100 * number:.0f}" for number in found)
    return f"{value} ({low} to {high})"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
