"""Figures are made without a display and without warnings (which are errors); what is drawn are the data."""

from itertools import pairwise

import numpy as np
import pytest
from ase.cell import Cell
from ase.spectrum.band_structure import BandStructure
from matplotlib.figure import Figure

from ase_mlelec.analysis import plots

ENERGIES = np.linspace(-8, 10, 91)


@pytest.fixture
def ax():
    return Figure(layout="constrained").add_subplot()


def gaussian(center):
    return np.exp(-((ENERGIES - center) ** 2))


def is_drawn(figure, path):
    figure.savefig(path, dpi=40)
    return path.stat().st_size > 1000


def test_dos(ax, tmp_path):
    assert plots.plot_dos(ax, ENERGIES, gaussian(0), 1.0, label="solid", color="k", occupied=True) is ax
    plots.plot_dos(ax, ENERGIES, gaussian(2), 1.5, label="liquid")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), gaussian(0))
    assert [line.get_xdata()[0] for line in ax.lines[1::2]] == [1.0, 1.5]
    assert ax.get_xlabel() == "energy (eV)" and "states/eV" in ax.get_ylabel()
    assert is_drawn(ax.figure, tmp_path / "dos.png")


def test_occupied_states_reach_the_fermi_level(ax):
    """The shade ends at the Fermi level, also between two energies of the grid."""
    level = float(ENERGIES[40] + 0.3 * (ENERGIES[41] - ENERGIES[40]))
    plots.plot_dos(ax, ENERGIES, gaussian(0), level, occupied=True)
    assert ax.collections[0].get_paths()[0].vertices[:, 0].max() == pytest.approx(level)


def test_aligned_dos(ax):
    plots.plot_dos(ax, ENERGIES, gaussian(2), 2.0, align=True)
    curve, level = ax.lines
    assert curve.get_xdata()[np.argmax(curve.get_ydata())] == pytest.approx(0)
    assert level.get_xdata()[0] == 0
    assert "F" in ax.get_xlabel()


@pytest.mark.parametrize("option", ["align", "occupied"])
def test_fermi_level_is_needed(ax, option):
    with pytest.raises(ValueError, match="without fermi_level"):
        plots.plot_dos(ax, ENERGIES, gaussian(0), **{option: True})


def test_dos_map(ax, tmp_path):
    time = np.arange(6.0)
    assert plots.plot_dos_map(ax, time, ENERGIES, [gaussian(k) for k in range(6)], time) is ax
    np.testing.assert_array_equal(ax.collections[0].get_array().reshape(91, 6)[:, 2], gaussian(2))
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), time)
    assert is_drawn(ax.figure, tmp_path / "map.png")


def test_series(ax):
    values = np.arange(12.0).reshape(3, 4)
    assert plots.plot_series(ax, [0, 1, 2], values, "$Q$ (states/eV)") is ax
    plots.plot_series(ax, [0, 1, 2], values[:, 0], "$Q$ (states/eV)")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), values.mean(axis=1))
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), values[:, 0])
    assert len(ax.collections) == 1


@pytest.mark.parametrize("size", [10, 5000])
def test_parity(ax, tmp_path, size):
    reference = np.random.default_rng(0).normal(size=(size, 3))
    assert plots.plot_parity(ax, reference, reference + 0.5, "eV/Å") is ax
    assert "MAE 0.5 eV/Å\nRMSE 0.5 eV/Å" in ax.texts[0].get_text()
    assert ax.get_xlim() == ax.get_ylim()
    assert is_drawn(ax.figure, tmp_path / "parity.png")
    with pytest.raises(ValueError, match="need one shape"):
        plots.plot_parity(ax, reference, reference[1:])


def test_ticks_of_parity_do_not_overlap():
    """Energies per atom are long numbers, in panels as of 'mlelec test --plot'."""
    figure = Figure(figsize=(16, 4), layout="constrained")
    panels = figure.subplots(1, 4)
    energies = np.linspace(-107.7, -107.42, 9)
    for ax in panels:
        plots.plot_parity(ax, energies, energies, "eV/atom")
    figure.draw_without_rendering()
    low, high = ax.get_xlim()
    boxes = [text.get_window_extent() for text in ax.get_xticklabels() if low <= text.get_position()[0] <= high]
    assert len(boxes) > 2 and all(one.x1 < other.x0 for one, other in pairwise(boxes))


def test_parity_counts(ax, tmp_path):
    reference = np.random.default_rng(0).uniform(1, 2, (20, 20, 20))
    assert plots.plot_parity_counts(ax, reference, 1.02 * reference, "e/Å$^3$") is ax
    assert ax.collections[0].get_array().sum() == 8000  # every point is counted once
    mean, largest, relative = ax.texts[0].get_text().splitlines()
    assert float(mean.split()[1]) == pytest.approx(0.02 * reference.mean(), rel=5e-3)
    assert float(largest.split()[1]) == pytest.approx(0.02 * reference.max(), rel=5e-3)
    assert relative == "MAPE 2 %"
    assert ax.get_xlim() == ax.get_ylim()
    assert is_drawn(ax.figure, tmp_path / "counts.png")


def test_parity_groups(ax, tmp_path):
    reference, groups = np.array([0.0, 0.1, 1.0, 1.1]), ["solid", "liquid", "solid", "liquid"]
    assert plots.plot_parity_groups(ax, reference, reference + [0.1, 0.2, -0.1, 0.2], groups, "eV/atom") is ax
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "solid: MAE 0.1 eV/atom",
        "liquid: MAE 0.2 eV/atom",
    ]
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), [0.0, 1.0])
    assert is_drawn(ax.figure, tmp_path / "groups.png")
    with pytest.raises(ValueError, match="need one shape"):
        plots.plot_parity_groups(ax, reference, reference[1:], groups)


def test_dos_comparison(tmp_path):
    figure = Figure(layout="constrained")
    ax, below = figure.subplots(2, 1)
    assert plots.plot_dos_comparison(ax, below, ENERGIES, gaussian(0), 1.5 * gaussian(0), 1.0) == (ax, below)
    np.testing.assert_allclose(below.lines[0].get_ydata(), 0.5 * gaussian(0))
    assert ax.get_xlim() == below.get_xlim() == (-8, 10)
    assert ax.lines[-1].get_xdata()[0] == below.lines[-1].get_xdata()[0] == 1.0
    assert is_drawn(figure, tmp_path / "comparison.png")


def test_variances(ax, tmp_path):
    assert plots.plot_variances(ax, {"solid": np.arange(5.0), "liquid": np.arange(9.0)}, "variance") is ax
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["solid", "liquid"]
    boxes = [patch.get_path().vertices[:, 1] for patch in ax.patches]
    assert [(box.min(), box.max()) for box in boxes] == [(1, 3), (2, 6)]  # the quartiles
    assert is_drawn(ax.figure, tmp_path / "variances.png")


def test_slice_is_where_the_cell_is(ax, tmp_path):
    cell = np.array([[0.0, 4.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    field = np.random.default_rng(0).random((8, 6, 2))
    assert plots.plot_slice(ax, field, cell, "density (e/Å$^3$)", cmap="magma") is ax
    mesh = ax.collections[0]
    corners = mesh.get_coordinates()[[0, -1, 0, -1], [0, 0, -1, -1]]
    np.testing.assert_allclose(corners, [[0, 0], [4, 0], [1, 3], [5, 3]], atol=1e-12)
    drawn = np.asarray(mesh.get_array()).reshape(9, 7)
    np.testing.assert_array_equal(drawn[:-1, :-1], field[:, :, 0])
    np.testing.assert_array_equal(drawn[-1], drawn[0])  # periodic
    assert is_drawn(ax.figure, tmp_path / "slice.png")


def test_spectrum(ax, tmp_path):
    nu = np.linspace(0, 4000, 50)
    assert plots.plot_spectrum(ax, nu, np.sin(nu / 900) ** 2, 0.1 * np.ones(50), label="H2O", color="k") is ax
    plots.plot_spectrum(ax, nu, np.cos(nu / 900) ** 2)
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), np.cos(nu / 900) ** 2)
    (band,) = ax.collections
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(np.max(np.sin(nu / 900) ** 2) + 0.1)
    assert "cm" in ax.get_xlabel() and "cm" in ax.get_ylabel() and ax.get_xlim() == (0, 4000)
    assert is_drawn(ax.figure, tmp_path / "spectrum.png")


def test_stack(ax, tmp_path):
    x, curves = np.linspace(0, 3, 7), np.random.default_rng(0).random((4, 7))
    assert plots.plot_stack(ax, x, curves, ["20 GPa", "40 GPa", "60 GPa", "80 GPa"]) is ax
    drawn = np.array([line.get_ydata() for line in ax.lines[::2]])
    base = np.array([line.get_ydata()[0] for line in ax.lines[1::2]])
    np.testing.assert_allclose(drawn - base[:, None], curves)
    np.testing.assert_allclose(np.diff(base), curves.max(axis=1).mean())
    assert ax.get_ylim()[0] < 0 and ax.get_ylim()[1] > drawn.max()
    assert [(text.get_text(), text.xy[1]) for text in ax.texts] == [
        (f"{20 * k + 20} GPa", base[k] + curves[k, -1]) for k in range(4)
    ]
    assert is_drawn(ax.figure, tmp_path / "stack.png")
    assert not ax.collections
    plots.plot_stack(ax, x, curves, "abcd", errors=np.full(curves.shape, 0.2))
    edges = [band.get_paths()[0].vertices for band in ax.collections]
    heights = [edge[np.isclose(edge[:, 0], x[3]), 1] for edge in edges]
    np.testing.assert_allclose([np.ptp(each) for each in heights], 0.4)
    np.testing.assert_allclose([each.mean() for each in heights], drawn[:, 3])
    with pytest.raises(ValueError):
        plots.plot_stack(ax, x, curves, ["20 GPa"])


def test_components(ax, tmp_path):
    scores = np.random.default_rng(0).normal(size=(3, 20, 2))
    assert plots.plot_components(ax, scores, scores[..., 0], "$Q$ (states/eV)") is ax
    assert len(ax.collections[0].get_offsets()) == 60
    assert is_drawn(ax.figure, tmp_path / "components.png")
    plots.plot_components(Figure().add_subplot(), scores)


def test_density_path_and_types_of_components(ax, tmp_path):
    scores = np.random.default_rng(0).normal(size=(30, 20, 2))
    scores[0, 15:] = np.nan  # the padding of a smaller structure
    assert plots.plot_component_density(ax, scores) is ax
    assert ax.collections[0].get_array().sum() == 595
    assert plots.plot_component_path(ax, scores[:, 0], color="cyan", label="atom 0") is ax
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), scores[:, 0])
    assert [tuple(line.get_xydata()[0]) for line in ax.lines[1:]] == [tuple(scores[0, 0]), tuple(scores[-1, 0])]
    assert is_drawn(ax.figure, tmp_path / "density.png")
    other = Figure().add_subplot()
    types = np.where(np.isnan(scores[..., 0]), np.nan, np.arange(20) % 4 == 1)
    plots.plot_component_types(other, scores, types, ["other", "cubic"])
    assert sum(len(line.get_xdata()) for line in other.lines) == 595
    assert [text.get_text() for text in other.get_legend().get_texts()] == ["other: 75 %", "cubic: 25 %"]


def test_scatter_plots_of_very_many_atoms_stay_small(ax):
    scores = np.zeros((7, 9001, 2))
    plots.plot_components(ax, scores, scores[..., 0], "Q")
    assert 10000 < len(ax.collections[0].get_offsets()) <= 20000


def test_page_of_components(tmp_path):
    scores = np.random.default_rng(0).normal(size=(8, 20, 2))
    order = np.zeros((8, 20))
    order[4:, 7] = 1
    figure = plots.components_figure(scores, order, variance=[0.8, 0.15])
    assert len(figure.axes) == 4 and figure.axes[0].get_title() == "80 and 15 % of the variance"
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_xydata(), scores[:, 7])
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xydata(), scores.mean(axis=1))
    assert is_drawn(figure, tmp_path / "page.png")
    figure = plots.components_figure(scores[:1], order[:1], types=np.zeros((1, 20)), names=["other"])
    assert len(figure.axes) == 5 and not figure.axes[1].lines
    with pytest.raises(ValueError, match="atom 20, need 0 to 19"):
        plots.components_figure(scores, order, atom=20)


def test_bands(ax, tmp_path):
    """Lines and colored points at the energies above the reference, ticks where the path turns."""
    bands = BandStructure(
        Cell.new([1, 2, 3]).bandpath("GXSG", npoints=20), np.random.default_rng(0).random((1, 20, 3)), reference=0.4
    )
    assert plots.plot_bands(ax, bands) is ax
    np.testing.assert_array_equal([line.get_ydata() for line in ax.lines[:3]], bands.energies[0].T - 0.4)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["Γ", "X", "S", "Γ"]
    other = Figure().add_subplot()
    plots.plot_bands(other, bands, bands.energies[0], "upper layer")
    assert len(other.collections[0].get_offsets()) == 60 and is_drawn(other.figure, tmp_path / "bands.png")


def test_bands_break_where_the_path_does(ax):
    """No line across a break, whose two points share a place and a tick."""
    path = Cell.new([1, 2, 3]).bandpath("GX,SY", npoints=20)
    bands = BandStructure(path, np.random.default_rng(0).random((1, 20, 1)))
    plots.plot_bands(ax, bands, deviations=np.full((1, 20, 1), 0.1))
    x, y = ax.lines[0].get_data()
    (gap,) = np.flatnonzero(np.isnan(y))
    np.testing.assert_array_equal(np.delete(y, gap), bands.energies[0, :, 0])
    assert x[gap - 1] == x[gap + 1] and 1 < gap < 19
    assert len(ax.collections[0].get_paths()) == 2
    assert [text.get_text() for text in ax.get_xticklabels()] == ["Γ", "X|S", "Y"]


@pytest.mark.parametrize("n", [1, 3, 30])
def test_melting(tmp_path, n):
    time = np.arange(n)
    run = {
        "time": 20.0 * time,
        "temperature": 300 + 100.0 * time,
        "coordination": np.full((n, 8), 4.0),
        "order_parameter": np.random.default_rng(0).random((n, 8)) + time[:, None],
        "energy_grid": ENERGIES,
        "total_dos": np.array([gaussian(0)] * n),
        "fermi_level": np.full(n, 6.5),
    }
    figure = plots.melting_figure(run, title="melting")
    assert [ax.get_xlabel() for ax in figure.axes if "time" in ax.get_xlabel()] == ["time (ps)"]
    assert is_drawn(figure, tmp_path / "melting.png")
