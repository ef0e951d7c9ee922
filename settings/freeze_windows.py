"""Windows in which namespaces are frozen every week: times on the clock of a time zone, as instants."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployer.settings.namespaces import covers, namespace_patterns
from deployer.settings.spelling import similar

REASON_MOST = 500
"""Characters of the reason of a freeze, and of an override."""

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY, _WEEK = 24 * 60, 7 * 24 * 60  # minutes
_TIME = re.compile(r"(?:([a-z]+) +)?([0-2][0-9]):([0-5][0-9])")
_FIELDS = ("namespaces", "reason", "time_zone", "days", "from", "to")


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeWindow:
    """One of them.

    namespaces  names and patterns
    time_zone   a name of the tz database
    days        of the week on which it begins, 0 = Monday
    begin       minutes after midnight
    minutes     how long it takes on the clock, which may be put forward or back meanwhile; at most a week
    """

    namespaces: tuple[str, ...]
    reason: str
    time_zone: str
    days: tuple[int, ...]
    begin: int
    minutes: int

    def covers(self, namespace: str) -> bool:
        """Is the namespace frozen in this window?"""
        return covers(self.namespaces, namespace)

    def until(self, now: float) -> float | None:
        """When what is in force at `now` ends; infinite when it never does, None when nothing is in force.

        Both are seconds since the epoch. What follows at once belongs to it: Saturday and Sunday are one weekend.
        """
        end: float | None = None
        for start, stop in self._periods(now):
            if end is None:
                end = stop if start <= now < stop else None
            elif start > end:
                return end
            else:
                end = max(end, stop)
        # It went on for more than a week, and every week is like any other.
        return None if end is None else math.inf

    def _periods(self, now: float) -> Iterator[tuple[float, float]]:
        """Start and end, in order, of all that could be in force at `now`, and of those of the next two weeks."""
        # Here, not above: a service without windows, and `deployer --help`, need no time zones.
        from zoneinfo import ZoneInfo

        zone = ZoneInfo(self.time_zone)
        today = datetime.datetime.fromtimestamp(now, zone).date()
        midnight = datetime.datetime.combine(today, datetime.time())
        for day in range(-8, 17):
            date = midnight + datetime.timedelta(days=day)
            if date.weekday() in self.days:
                start = date + datetime.timedelta(minutes=self.begin)
                stop = start + datetime.timedelta(minutes=self.minutes)
                yield _instant(start, zone, last=False), _instant(stop, zone, last=True)


def parse(table: Mapping[str, Any]) -> FreezeWindow:
    """A window as the settings have it. Raises ValueError: what is wrong, in a sentence."""
    for name in table:
        if name not in _FIELDS:
            near = similar(name, _FIELDS, most=1)
            raise ValueError(f"unknown key {name}" + (f" (did you mean {near[0]}?)" if near else ""))
    missing = [name for name in ("reason", "from", "to") if name not in table]
    if missing:
        raise ValueError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    if wrong := wrong_reason(table["reason"]):
        raise ValueError(f"reason {wrong}")
    (from_day, begin), (to_day, end) = _time("from", table["from"]), _time("to", table["to"])
    if begin == _DAY:
        raise ValueError("from: 24:00 ends a day; write 00:00 of the next one")
    if (from_day is None) != (to_day is None):
        raise ValueError("from and to: give a day with both (fri 17:00, mon 08:00) or with none")
    days: tuple[int, ...]
    if from_day is not None and to_day is not None:
        if "days" in table:
            raise ValueError("days: leave them out where from and to have a day")
        days, minutes = (from_day,), ((to_day - from_day) * _DAY + end - begin) % _WEEK
    else:
        days, minutes = _days(table.get("days", list(_DAYS))), (end - begin) % _DAY
        minutes = _DAY if (begin, end) == (0, _DAY) else minutes
    if not minutes:
        raise ValueError("from and to are the same; for a whole day write 00:00 and 24:00")
    return FreezeWindow(
        namespaces=namespace_patterns(table.get("namespaces", ["*"])),
        reason=table["reason"].strip(),
        time_zone=_zone(table.get("time_zone", "UTC")),
        days=days,
        begin=begin,
        minutes=minutes,
    )


def wrong_reason(value: object) -> str:
    """What is wrong with a reason, which logs and answers repeat; empty when nothing is."""
    if not isinstance(value, str) or not value.strip():
        return "must be a text that says why"
    if not value.isprintable():
        return "must be a single line of printable text"
    return f"must have at most {REASON_MOST} characters" if len(value) > REASON_MOST else ""


def _time(name: str, value: object) -> tuple[int | None, int]:
    """The day, if there is one, and the minutes after midnight."""
    if isinstance(value, datetime.time) and value == value.replace(second=0, microsecond=0):
        value = f"{value:%H:%M}"  # TOML has times of its own
    match = _TIME.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    minutes = int(match[2]) * 60 + int(match[3]) if match else _WEEK
    if match is None or minutes > _DAY:
        raise ValueError(f"{name}: {str(value)!r} is not a time like 17:00 or fri 17:00")
    return (_day(match[1]) if match[1] else None), minutes


def _days(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(day, str) for day in value):
        raise ValueError('days must be a list like ["sat", "sun"]')
    return tuple(sorted({_day(day.strip().lower()) for day in value}))


def _day(name: str) -> int:
    for number, day in enumerate(_DAYS):
        if name in (day, day[:3]):
            return number
    raise ValueError(f"{name!r} is not a day; write mon, tue, wed, thu, fri, sat or sun")


def _zone(value: object) -> str:
    from zoneinfo import ZoneInfo

    try:
        if isinstance(value, str) and value:
            return ZoneInfo(value).key
    except (KeyError, ValueError, OSError):  # not there, no such name can be, a directory of names
        pass
    raise ValueError(f"time_zone: {value!r} is not in the tz database; write a name like Europe/Amsterdam")


def _instant(clock: datetime.datetime, zone: datetime.tzinfo, *, last: bool) -> float:
    """When the clock shows that, in seconds since the epoch; the first or the last time when it does so twice.

    A time that is left out, as clocks are put forward, has come in the moment in which they are.
    """
    before, after = (clock.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))
    if before <= after:
        return after if last else before
    # It is left out: read with the offset that ends and the one that begins, it is after and before that moment.
    low, high = int(after), int(before)
    offset = datetime.datetime.fromtimestamp(high, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return float(high)
