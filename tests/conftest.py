"""What all tests share: no example of a property is held to a time, for a loaded machine is no fault of ours."""

from hypothesis import HealthCheck, settings

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
