"""The study as a picture: by iteration at each generator's best β (Table 2), and by β (Table 1)."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from refineloc.training.study.summary import Summary, Values

__all__ = ["draw_base_curves", "draw_curves"]

# Okabe and Ito's colours, which colour-blind readers can tell apart. Markers and a small shift help in grey.
_STYLES = (("#999999", "x"), ("#E69F00", "D"), ("#009E73", "^"), ("#56B4E9", "v"), ("#D55E00", "o"))


def draw_curves(summary: Summary) -> Figure:
    """Two panels with one curve a generator; bars are the standard deviation of the seeds."""
    figure = Figure(figsize=(9.5, 4.6), dpi=220, layout="constrained")
    by_iteration, by_beta = figure.subplots(1, 2, sharey=True)
    grid = summary.grid
    for index, generator in enumerate(grid.generators):
        best_beta = summary.best_beta(generator)
        if best_beta is None:
            continue
        colour, marker = _STYLES[index % len(_STYLES)]
        # Curves that lie on each other (all begin with the same iteration 0) stay visible.
        shift = 0.03 * (index - (len(grid.generators) - 1) / 2)
        values = summary.values[generator, best_beta]
        _curve(by_iteration, [k + shift for k in range(values.shape[1])], list(values.T), colour, marker, generator)
        by_iteration.lines[-1].set_label(f"{generator} (β = {best_beta:g})")
        best = [summary.best(generator, beta, refined=True) for beta in grid.betas]
        x = [k + shift for k, values in enumerate(best) if values is not None]
        _curve(by_beta, x, [values for values in best if values is not None], colour, marker, generator)
    for axes, title in ((by_iteration, "by iteration, at the best β"), (by_beta, "best iteration after 0, by β")):
        if summary.scored:
            axes.axhline(summary.first.mean(), color="black", linewidth=0.8, linestyle=":", zorder=0)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelleft=True)
    by_iteration.set_xlabel("iteration")
    by_iteration.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_iteration.set_ylabel(f"{summary.measure[:1].lower()}{summary.measure[1:]}{', %' if summary.scored else ''}")
    by_beta.set_xticks(range(len(grid.betas)), [f"{beta:g}" for beta in grid.betas])
    by_beta.set_xlabel("β")
    if summary.scored:
        by_iteration.set_ylim(0)
        place = {"transform": by_beta.get_yaxis_transform(), "ha": "right", "va": "bottom"}
        by_beta.text(1.0, summary.first.mean(), "iteration 0", fontsize=8, **place)
    handles, labels = by_iteration.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=3)
    return figure


def draw_base_curves(values: Mapping[str, Values], measure: str, scored: bool) -> Figure:
    """One panel with one curve a base model, by iteration; bars are the standard deviation of the seeds.

    Args:
        values: [seeds, iterations] by base model.
        measure: the name of the values.
        scored: whether they are an mAP in percent.
    """
    figure = Figure(figsize=(6.0, 4.4), dpi=220, layout="constrained")
    axes = figure.subplots()
    for index, (name, runs) in enumerate(values.items()):
        colour, marker = _STYLES[index % len(_STYLES)]
        shift = 0.03 * (index - (len(values) - 1) / 2)
        _curve(axes, [k + shift for k in range(runs.shape[1])], list(runs.T), colour, marker, name)
    axes.set_title("base models: alone (iteration 0) and refined", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"{measure[:1].lower()}{measure[1:]}{', %' if scored else ''}")
    if scored:
        axes.set_ylim(0)
    axes.legend(frameon=False, fontsize=9)
    return figure


def _curve(axes: Axes, x: list[float], points: list[Values], colour: str, marker: str, label: str) -> None:
    means = [float(values.mean()) for values in points]
    if all(len(values) > 1 for values in points):
        bars = [float(values.std(ddof=1)) for values in points]
        axes.errorbar(x, means, bars, color=colour, linewidth=0, elinewidth=1, capsize=2)
    axes.plot(x, means, color=colour, marker=marker, markersize=6, linewidth=1.6, label=label)
