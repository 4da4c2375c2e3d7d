"""How many damaged inputs are tried; a table of what came of them where they are more than usual."""

import pytest
import record


@pytest.fixture
def fuzz(request):
    """Record of one test."""
    inputs = request.config.getoption("--fuzz")
    return record.Record(request.node.name, inputs, inputs <= 100)


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--fuzz") > 100:
        for line in record.summary():
            terminalreporter.write_line(line)
