"""Settings of all tests."""

from hypothesis import settings

# No test judges by the clock: a busy machine must not make one fail.
settings.register_profile("molmo_ros", deadline=None)
settings.load_profile("molmo_ros")
