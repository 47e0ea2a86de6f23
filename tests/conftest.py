"""Settings of all tests."""

import pytest
from hypothesis import settings

# No test judges by the clock: a busy machine must not make one fail.
settings.register_profile("molmo_ros", deadline=None)
settings.load_profile("molmo_ros")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with processes or simulators first: workers take whole files, and one begun last keeps the others idle."""
    heavy = {item.path for item in items if item.get_closest_marker("ros") or item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in heavy)
