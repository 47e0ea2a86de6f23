"""The exceptions of tf2, by their names in tf2_py."""


class TransformException(Exception):
    """Any failure to give a transform."""


class ConnectivityException(TransformException):
    """Both frames exist, but no chain of transforms joins them."""


class ExtrapolationException(TransformException):
    """The time lies outside of what is in the buffer."""


class InvalidArgumentException(TransformException):
    """A frame name that can be none."""


class LookupException(TransformException):
    """No such frame."""


class TimeoutException(TransformException):
    """The transform did not come in time."""
