"""Progress without a terminal: lines every now and then, none for short work."""

import io
import sys
import time

from ase_mlelec import progress
from ase_mlelec.progress import Bar


def told(capsys, period, monkeypatch, **options):
    monkeypatch.setattr(progress, "PERIOD", period)
    assert list(Bar(range(3), desc="work", unit=" things", **options)) == [0, 1, 2]
    return capsys.readouterr().err


def test_lines_without_a_terminal(capsys, monkeypatch):
    lines = told(capsys, 1e-9, monkeypatch).splitlines()
    assert [line.split(",")[0] for line in lines] == [f"work: {n} of 3 things" for n in (1, 2, 3)]
    assert all(line.endswith(" left") for line in lines)


def test_lines_come_by_time_alone(capsys, monkeypatch):
    """The monitor thread of tqdm adds a line of its own where iterations are skipped."""
    monkeypatch.setattr(progress, "PERIOD", 0.01)
    with Bar(total=1000) as bar:
        for _ in range(3):
            time.sleep(0.02)
            bar.update(100)
        assert bar.miniters <= 1
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_short_work_is_silent(capsys, monkeypatch):
    assert told(capsys, 60.0, monkeypatch) == ""
    assert told(capsys, 1e-9, monkeypatch, show=False) == ""


def test_bar_at_a_terminal(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(Bar(range(3), desc="work", mininterval=0)) == [0, 1, 2]
    assert "\rwork: 100%|" in terminal.getvalue()
