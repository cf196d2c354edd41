"""What all tests share: a property is held to no time, for a loaded machine is no fault of ours, and where everything
must run a skip is a failure."""

import pytest
from hypothesis import HealthCheck, settings

from tests import skips

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    skips.watch(config)
