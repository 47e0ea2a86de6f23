"""What is known of one frame: its transforms to its parent over time."""

from __future__ import annotations

from bisect import bisect_left

from tf2_ros.rigid import Rigid, interpolate

Sample = tuple[str, Rigid]  # parent, transform from the frame into it


class OutOfRange(Exception):
    """No sample around the time asked for; the text is the first half of tf2's message."""


def seconds(time_ns: int) -> str:
    return f"{time_ns / 1e9:.6f}"


class StaticCache:
    """One transform that holds at all times."""

    def __init__(self) -> None:
        self.sample: Sample | None = None

    def insert(self, _stamp_ns: int, sample: Sample) -> bool:
        self.sample = sample
        return True

    def at(self, _time_ns: int) -> Sample:
        if self.sample is None:
            raise OutOfRange("no data")
        return self.sample

    def latest(self) -> tuple[int, str]:
        """Stamp (0 = at all times) and parent of the newest sample."""
        return 0, self.at(0)[0]


class TimeCache:
    """The samples of the last `length_ns`, ordered by stamp."""

    def __init__(self, length_ns: int) -> None:
        self.length_ns = length_ns
        self.stamps_ns: list[int] = []
        self.samples: list[Sample] = []

    def insert(self, stamp_ns: int, sample: Sample) -> bool:
        """False when the sample is too old to be kept."""
        if self.stamps_ns and stamp_ns < self.stamps_ns[-1] - self.length_ns:
            return False
        at = bisect_left(self.stamps_ns, stamp_ns)
        if at < len(self.stamps_ns) and self.stamps_ns[at] == stamp_ns:
            self.samples[at] = sample
        else:
            self.stamps_ns.insert(at, stamp_ns)
            self.samples.insert(at, sample)
        expired = bisect_left(self.stamps_ns, self.stamps_ns[-1] - self.length_ns)
        if expired:
            del self.stamps_ns[:expired], self.samples[:expired]
        return True

    def at(self, time_ns: int) -> Sample:
        stamps = self.stamps_ns
        if not stamps:
            raise OutOfRange("no data")
        if time_ns == 0:
            return self.samples[-1]
        after = bisect_left(stamps, time_ns)
        if after < len(stamps) and stamps[after] == time_ns:
            return self.samples[after]
        if len(stamps) == 1:
            raise OutOfRange(
                f"Lookup would require extrapolation at time {seconds(time_ns)}, "
                f"but only time {seconds(stamps[0])} is in the buffer"
            )
        if after == len(stamps):
            raise OutOfRange(
                f"Lookup would require extrapolation into the future.  Requested time {seconds(time_ns)} "
                f"but the latest data is at time {seconds(stamps[-1])}"
            )
        if after == 0:
            raise OutOfRange(
                f"Lookup would require extrapolation into the past.  Requested time {seconds(time_ns)} "
                f"but the earliest data is at time {seconds(stamps[0])}"
            )
        parent, earlier = self.samples[after - 1]
        later_parent, later = self.samples[after]
        if parent != later_parent:  # moved to another parent in between: what held before still holds
            return parent, earlier
        ratio = (time_ns - stamps[after - 1]) / (stamps[after] - stamps[after - 1])
        return parent, interpolate(earlier, later, ratio)

    def latest(self) -> tuple[int, str]:
        if not self.stamps_ns:
            raise OutOfRange("no data")
        return self.stamps_ns[-1], self.samples[-1][0]
