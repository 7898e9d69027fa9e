"""Pictures of rows: rates against a size or by shape, and all kernels under the machine's ceilings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

import numpy as np

from .errors import LabError
from .measure import Row

__all__ = ["check", "roofline", "speed"]

# Told apart by people who don't see all colours (Okabe & Ito 2008); the reference is grey, and peers are black.
_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C564B",
    "#7F3FBF",
    "#3F7F3F",
    "#F0E442",
)
_PRODUCTS = ("cpu", "cuda")  # what runs where no implementation is named: blue in every picture
_KINDS = (".png", ".pdf", ".svg", ".jpg", ".webp")
_PEER_COLOURS = ("#000000", "#555555")
_MARKERS = "osD^vP*X<>ph"
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 200,
    "legend.frameon": False,
}


def check(path: Path) -> None:
    """LabError if a picture can't be drawn into this file: said before anything is measured."""
    matplotlib = _matplotlib()
    if path.suffix not in _KINDS:
        raise LabError(f"can't draw {path}: expected a name that ends in one of {', '.join(_KINDS)}")
    matplotlib.use("Agg")


def speed(path: Path, rows: list[Row], device: str) -> list[Path]:
    """Draws a figure for each operation, and returns their files: a panel for each pass and setting.

    Where shapes differ in the workload's x alone, the rate is a line over x; other shapes are bars side by side. Shades
    and whiskers are from p20 to p80; a grey line is what the machine could reach at best.
    """
    operations = list(dict.fromkeys(row.operation for row in rows if len(row.seconds)))
    written = []
    for operation in operations:
        target = path if len(operations) == 1 else path.with_stem(f"{path.stem}-{operation}")
        _speed_figure(target, [row for row in rows if row.operation == operation and len(row.seconds)], device)
        written.append(target)
    return written


def roofline(path: Path, rows: list[Row], device: str) -> list[Path]:
    """Draws every kernel's rate over its arithmetic intensity (Williams et al. 2009, doi:10.1145/1498765.1498785)."""
    rows = [row for row in rows if len(row.seconds) and row.flops]
    if not rows:
        return []
    matplotlib = _matplotlib()
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(1, 1, (6.4, 4.6))
        axes = axes[0, 0]
        matrix, copy = (np.median([getattr(row, name) for row in rows]) for name in ("matrix_rate", "copy_rate"))
        intensity = np.array([row.flops / row.bytes for row in rows])
        span = np.geomspace(min(intensity.min(), matrix / copy) / 3, max(intensity.max(), matrix / copy) * 3, 200)
        (ceiling,) = axes.plot(
            span,
            np.minimum(matrix, span * copy) / 1e9,
            color="black",
            linewidth=1.2,
            label=f"ceiling: copy {copy / 1e9:,.1f} GB/s,\nmatrix product {matrix / 1e9:,.0f} GFLOP/s",
        )
        colours = _colours(rows)
        markers = {name: _MARKERS[i % len(_MARKERS)] for i, name in enumerate(_unique(_kernel(row) for row in rows))}
        for row, x in zip(rows, intensity):
            axes.plot(
                *(x, row.flops / row.percentile(50) / 1e9, markers[_kernel(row)]),
                color=colours[row.provider],
                markersize=6,
                alpha=0.75,
                markeredgewidth=0,
            )
        axes.set(xscale="log", yscale="log", xlabel="arithmetic intensity (operations per byte moved)")
        axes.set(ylabel="GFLOP/s", title=f"Roofline, {', '.join(_unique(row.dtype for row in rows))}, {device}")
        for axis in (axes.xaxis, axes.yaxis):
            _plain_ticks(axis)
        handles = [_handle(name, colour, "s") for name, colour in colours.items()]
        handles += [_handle(name, "white", marker, edge="black") for name, marker in markers.items()]
        figure.legend(handles=[*handles, ceiling], loc="outside right upper", fontsize=8)
        _save(figure, path)
    return [path]


def _plain_ticks(axis) -> None:
    """Marks a logarithmic axis at 1, 2, 5, 10 ..., over more than three decades at 1, 10 ..., in plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low <= 1e3 else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axis.set_minor_formatter(NullFormatter())


def _speed_figure(path: Path, rows: list[Row], device: str) -> None:
    matplotlib = _matplotlib()
    panels = list(_panels(rows))
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    colours = _colours(rows)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(lines, columns, (1.2 + 5.2 * columns, 1.1 + 2.9 * lines))
        for place, (title, part, over_x) in zip(axes.flat, panels):
            (_lines if over_x else _bars)(place, part, colours, *_rate(rows))
            place.set_title(title)
        for place in axes.flat[len(panels) :]:
            place.set_axis_off()
        handles = [_handle(name, colour, "s") for name, colour in colours.items()]
        handles.append(matplotlib.lines.Line2D([], [], color="0.6", linestyle="--", label="this machine's ceiling"))
        handles.append(
            matplotlib.lines.Line2D([], [], color="0.25", linewidth=0.8, label="shades, whiskers: p20 to p80")
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)))
        figure.suptitle(f"{rows[0].operation} on {device}", fontsize=10)
        _save(figure, path)


def _panels(rows: list[Row]) -> Iterable[tuple[str, list[Row], bool]]:
    """(title, rows, whether they differ in x alone): for each pass and setting a panel a line, and one of bars."""
    for key, part in _grouped(rows, lambda row: (row.mode, row.dtype, str(row.options))):
        options = "".join(f", {name}={value}" for name, value in part[0].shown.items())
        title = f"{key[0]}, {key[1]}{options}"
        others = []
        for _, same in _grouped(part, _other_sizes):
            if len({row.sizes[row.x] for row in same}) > 1:
                fixed = ", ".join(f"{name}={value}" for name, value in same[0].sizes.items() if name != same[0].x)
                yield f"{title}, {fixed}" if fixed else title, same, True
            else:
                others += same
        if others:
            yield title, others, False


def _lines(axes, rows: list[Row], colours: dict, amount: Callable, unit: str) -> None:
    for provider, part in _grouped(rows, lambda row: row.provider):
        part.sort(key=lambda row: row.sizes[row.x])
        x = [row.sizes[row.x] for row in part]
        low, middle, high = ([amount(row) / row.percentile(percent) for row in part] for percent in (80, 50, 20))
        style = "-" if part[0].ours else ":"
        axes.plot(x, middle, style, color=colours[provider], marker="o", markersize=3.5, linewidth=1.4)
        axes.fill_between(x, low, high, color=colours[provider], alpha=0.15, linewidth=0)
    best = sorted({row.sizes[row.x]: amount(row) / row.ceiling for row in rows}.items())
    axes.plot(*zip(*best), color="0.6", linestyle="--", linewidth=1.2)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set(xlabel=rows[0].x, ylabel=unit)
    axes.set_ylim(bottom=0)


def _bars(axes, rows: list[Row], colours: dict, amount: Callable, unit: str) -> None:
    shapes, providers = _unique(row.shape for row in rows), _unique(row.provider for row in rows)
    width = 0.8 / len(providers)
    for row in rows:
        low, middle, high = (amount(row) / row.percentile(percent) for percent in (80, 50, 20))
        left = shapes.index(row.shape) + width * (providers.index(row.provider) - (len(providers) - 1) / 2)
        axes.bar(left, middle, 0.92 * width, color=colours[row.provider])
        whisker = "0.6" if colours[row.provider] in _PEER_COLOURS else "0.25"  # seen on black, too
        axes.errorbar(left, middle, [[middle - low], [high - middle]], color=whisker, linewidth=0.8)
    for place, shape in enumerate(shapes):
        best = max(amount(row) / row.ceiling for row in rows if row.shape == shape)
        axes.hlines(best, place - 0.4, place + 0.4, color="0.6", linestyle="--")
    names = ",".join(rows[0].sizes)
    axes.set_xticks(
        range(len(shapes)), shapes, rotation=20 if len(shapes) > 3 else 0, ha="right" if len(shapes) > 3 else "center"
    )
    axes.set(xlabel=f"shape ({names})", ylabel=unit)
    axes.grid(axis="x", visible=False)


def _rate(rows: list[Row]) -> tuple[Callable[[Row], float], str]:
    """What a rate counts: arithmetic, or bytes where memory is what bounds most of these kernels."""
    bound_by_memory = sum(row.bytes / row.copy_rate > row.flops / row.matrix_rate for row in rows) > len(rows) / 2
    if bound_by_memory:
        return lambda row: row.bytes / 1e9, "GB/s"
    return lambda row: row.flops / 1e9, "GFLOP/s"


def _colours(rows: list[Row]) -> dict[str, str]:
    ours = [name for name in _unique(row.provider for row in rows if row.ours) if name != "reference"]
    ours.sort(key=lambda name: name not in _PRODUCTS)
    theirs = _unique(row.provider for row in rows if not row.ours)
    chosen = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(ours)}
    if any(row.provider == "reference" for row in rows):
        chosen["reference"] = "#999999"
    return chosen | {name: _PEER_COLOURS[i % len(_PEER_COLOURS)] for i, name in enumerate(theirs)}


def _kernel(row: Row) -> str:
    return f"{row.operation} {row.mode}"


def _other_sizes(row: Row) -> Hashable:
    return tuple(value for name, value in row.sizes.items() if name != row.x)


def _unique(values: Iterable) -> list:
    return list(dict.fromkeys(values))


def _grouped(rows: list[Row], key: Callable[[Row], Hashable]) -> Iterable[tuple]:
    """(key, rows) in the order in which keys first occur."""
    groups: dict = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups.items()


def _handle(label: str, colour: str, marker: str, edge: str | None = None):
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker=marker, linestyle="", markeredgecolor=edge or colour, label=label)


def _figure(lines: int, columns: int, size: tuple[float, float]):
    from matplotlib import pyplot

    return pyplot.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")


def _save(figure, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path)
    pyplot.close(figure)


def _matplotlib():
    try:
        import matplotlib.lines
    except ImportError as error:
        raise LabError("pictures need matplotlib, which is not installed: pip install matplotlib") from error
    return matplotlib
