"""Freeze windows: what the settings say of them, and when they are in force, also as clocks are put forward or back."""

from __future__ import annotations

import datetime
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from deployer.core.errors import SettingsError
from deployer.settings import Settings, load
from deployer.settings.freeze_windows import FreezeWindow, parse

HOME = {"HOME": "/home/ann"}
UTC = datetime.UTC


def window(**more: Any) -> FreezeWindow:
    return parse({"reason": "r", "from": "fri 17:00", "to": "mon 08:00", **{k.strip("_"): v for k, v in more.items()}})


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


# --- when -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "now", "until"),
    [
        # The tz database: clocks in Amsterdam are put back on 2026-10-25, 01:00 UTC, and forward on 2027-03-28, 01:00.
        ({"time_zone": "Europe/Amsterdam"}, "2026-10-23T14:59:59Z", None),
        ({"time_zone": "Europe/Amsterdam"}, "2026-10-23T15:00:00Z", "2026-10-26T07:00:00Z"),
        ({"time_zone": "Europe/Amsterdam"}, "2026-10-26T06:59:59Z", "2026-10-26T07:00:00Z"),
        ({"time_zone": "Europe/Amsterdam"}, "2026-10-26T07:00:00Z", None),
        ({"time_zone": "Europe/Amsterdam"}, "2027-03-26T16:00:00Z", "2027-03-29T06:00:00Z"),
        # In New York back on 2026-11-01, 06:00 UTC, and forward on 2027-03-14, 07:00.
        ({"time_zone": "America/New_York"}, "2026-10-30T20:59:59Z", None),
        ({"time_zone": "America/New_York"}, "2026-10-30T21:00:00Z", "2026-11-02T13:00:00Z"),
        ({"time_zone": "America/New_York"}, "2027-03-12T22:00:00Z", "2027-03-15T12:00:00Z"),
        # Twice on the clock: from the first to the last. 01:30 in New York is 05:30 and 06:30 UTC.
        ({"time_zone": "America/New_York", "from_": "sun 01:30", "to": "sun 01:45"}, "2026-11-01T05:29:59Z", None),
        (
            {"time_zone": "America/New_York", "from_": "sun 01:30", "to": "sun 01:45"},
            "2026-11-01T05:30:00Z",
            "2026-11-01T06:45:00Z",
        ),
        (
            {"time_zone": "America/New_York", "from_": "sun 01:30", "to": "sun 01:45"},
            "2026-11-01T06:10:00Z",
            "2026-11-01T06:45:00Z",
        ),
        # Left out: 02:30 has come when 01:59:59 is followed by 03:00.
        ({"time_zone": "America/New_York", "from_": "sun 02:30", "to": "sun 04:00"}, "2027-03-14T06:59:59Z", None),
        (
            {"time_zone": "America/New_York", "from_": "sun 02:30", "to": "sun 04:00"},
            "2027-03-14T07:00:00Z",
            "2027-03-14T08:00:00Z",
        ),
        (
            {"time_zone": "America/New_York", "from_": "sun 01:00", "to": "sun 02:30"},
            "2027-03-14T06:00:00Z",
            "2027-03-14T07:00:00Z",
        ),
        # Over midnight, over the end of the week and of the year, and days that make one weekend.
        ({"from_": "22:00", "to": "06:00"}, "2026-12-31T23:30:00Z", "2027-01-01T06:00:00Z"),
        ({"from_": "22:00", "to": "06:00"}, "2026-12-31T06:00:00Z", None),
        ({"from_": "22:00", "to": "06:00", "days": ["sun"]}, "2026-11-30T05:59:59Z", "2026-11-30T06:00:00Z"),
        ({"from_": "22:00", "to": "06:00", "days": ["sun"]}, "2026-12-01T05:59:59Z", None),
        ({"from_": "00:00", "to": "24:00", "days": ["Sunday", "sat"]}, "2026-11-28T00:00:00Z", "2026-11-30T00:00:00Z"),
        ({"from_": "00:00", "to": "24:00"}, "2026-11-28T00:00:00Z", "never"),
        ({"from_": "mon 08:00", "to": "mon 07:00"}, "2026-11-30T07:30:00Z", None),
        ({"from_": "mon 08:00", "to": "mon 07:00"}, "2026-11-30T08:00:00Z", "2026-12-07T07:00:00Z"),
        # Samoa had no 30 December 2011: the Friday was left out.
        ({"time_zone": "Pacific/Apia", "from_": "fri 09:00", "to": "fri 17:00"}, "2011-12-30T10:00:00Z", None),
        (
            {"time_zone": "Pacific/Apia", "from_": "thu 09:00", "to": "fri 17:00"},
            "2011-12-30T09:59:59Z",
            "2011-12-30T10:00:00Z",
        ),
    ],
)
def test_when_a_window_is_in_force(fields: dict[str, Any], now: str, until: str | None) -> None:
    if "days" in fields or fields.get("from_", "fri")[0].isdigit():
        made = parse({"reason": "r", **{k.strip("_"): v for k, v in fields.items()}})
    else:
        made = window(**fields)
    expected = None if until is None else math.inf if until == "never" else at(until)
    assert made.until(at(now)) == expected


ZONES = (
    *("Europe/Amsterdam", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Santiago"),
    *("Asia/Beirut", "Africa/Casablanca", "Europe/Dublin", "Asia/Kathmandu"),
)


def transitions(zone: ZoneInfo) -> Iterator[datetime.datetime]:
    """The moments of 2026 and 2027 at which the zone's clocks are put forward or back, from the tz database."""
    moment = datetime.datetime(2026, 1, 1, tzinfo=UTC)
    while moment.year < 2028:
        after = moment + datetime.timedelta(hours=1)
        if moment.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
            yield moment
        moment = after


@pytest.mark.parametrize("name", ZONES)
def test_around_every_transition_the_clock_on_the_wall_decides(name: str) -> None:
    """From when the clock shows the beginning first, until it shows nothing before the end any more."""
    zone = ZoneInfo(name)
    found = list(transitions(zone))
    assert found or name == "Asia/Kathmandu"
    for transition in found[:3] or [datetime.datetime(2026, 5, 5, tzinfo=UTC)]:
        moments = [transition + datetime.timedelta(minutes=5 * n) for n in range(-12 * 5, 12 * 5)]
        clock = [moment.astimezone(zone).replace(tzinfo=None) for moment in moments]
        middle = clock[len(clock) // 2]
        for begin, minutes in ((-90, 60), (-45, 60), (-30, 20), (-10, 5), (0, 60), (-60, 30), (15, 30), (-120, 240)):
            start = middle + datetime.timedelta(minutes=begin)
            stop = start + datetime.timedelta(minutes=minutes)
            day = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
            made = window(
                time_zone=name,
                from_=f"{day[start.weekday()]} {start:%H:%M}",
                to=f"{day[stop.weekday()]} {stop:%H:%M}",
            )
            first = next(n for n, shown in enumerate(clock) if shown >= start)
            last = max(n for n, shown in enumerate(clock) if shown < stop)
            for n, moment in enumerate(moments):
                until = made.until(moment.timestamp())
                assert (until is not None) == (first <= n <= last), (transition, start, stop, moment)
                assert until is None or until == moments[last].timestamp() + 300


def test_a_week_of_every_window_is_what_it_says() -> None:
    """Without transitions, as many minutes as on the clock."""
    for fields, minutes in (
        ({}, (7 + 48 + 8) * 60),
        ({"from_": "mon 08:00", "to": "fri 17:00"}, (4 * 24 + 9) * 60),
        ({"from_": "sun 23:59", "to": "mon 00:01"}, 2),
    ):
        made = window(**fields)
        begin = at("2026-12-01T00:00:00Z")
        assert sum(made.until(begin + 60 * n) is not None for n in range(7 * 24 * 60)) == minutes


def test_time_zones_are_there_where_the_system_has_none() -> None:
    """As in slim images."""
    said = "from deployer.settings.freeze_windows import _zone; print(_zone('Europe/Amsterdam'))"
    environment = {**os.environ, "PYTHONTZPATH": ""}
    done = subprocess.run([sys.executable, "-c", said], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Europe/Amsterdam", done.stderr


# --- what they are of, and what is none -------------------------------------------------------------------------------


def test_patterns_say_of_which_namespaces() -> None:
    made = window(namespaces=["shop", "team-*", "?-test"])
    assert [n for n in ("shop", "shop-2", "team-a", "team", "a-test", "ab-test") if made.covers(n)] == [
        *("shop", "team-a", "a-test")
    ]
    assert window().covers("anything")


def test_a_file_has_them(tmp_path: Any) -> None:
    file = tmp_path / "deployer.toml"
    file.write_text(
        '[[freeze_windows]]\nreason = "weekend"\nfrom = "Fri 17:00"\nto = "mon 08:00"\ntime_zone = "Europe/Amsterdam"\n'
        '[[freeze_windows]]\nreason = "night"\nfrom = 22:00:00\nto = 06:00:00\nnamespaces = ["prod-*"]\n'
    )
    weekend, night = load({}, HOME, file).freeze_windows
    assert (weekend.days, weekend.begin, weekend.minutes, weekend.namespaces) == ((4,), 1020, 3780, ("*",))
    assert (night.days, night.begin, night.minutes, night.time_zone) == (tuple(range(7)), 1320, 480, "UTC")
    table = {"reason": "r", "from": "22:00", "to": "06:00"}
    assert Settings(freeze_windows=(table,)).freeze_windows == (parse(table),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[freeze_windows]\nreason = 'r'", r"is not a list of tables, each under a line \[\[\.\.\.\]\]"),
        ("freeze_windows = ['x']", "is not a table"),
        ("[[freeze_windows]]\nreason = 'r'", "window 1: from and to are missing"),
        ("[[freeze_windows]]\nreason = 'r'\nfrom = '9:00'\nto = '10:00'", "from: '9:00' is not a time like 17:00"),
        ("[[freeze_windows]]\nreason = 'r'\nfrom = '25:00'\nto = '10:00'", "from: '25:00' is not a time"),
        ("[[freeze_windows]]\nreason = 'r'\nfrom = 900\nto = '10:00'", "from: '900' is not a time"),
        ("[[freeze_windows]]\nreason = 'r'\nfrom = '24:00'\nto = '10:00'", "from: 24:00 ends a day"),
        ("[[freeze_windows]]\nreason = 'r'\nfrom = 'freitag 17:00'\nto = 'mon 08:00'", "'freitag' is not a day"),
        ("[[freeze_windows]]\nreason = 'r'\nfrom = 'fri 17:00'\nto = '08:00'", "give a day with both"),
        ("[[freeze_windows]]\nreason = 'r'\nfrom = '08:00'\nto = '08:00'", "from and to are the same"),
        ("[[freeze_windows]]\nreason = 'r'\nfrom = 'fri 08:00'\nto = 'fri 08:00'", "from and to are the same"),
        ("[[freeze_windows]]\nreason = 'r'\nfrom = 'fri 1:00'\nto = 'fri 08:00'", "is not a time"),
        (
            "[[freeze_windows]]\nreason = 'r'\nfrom = 'fri 17:00'\nto = 'mon 08:00'\ndays = ['fri']",
            "days: leave them out",
        ),
        ("[[freeze_windows]]\nreason = 'r'\nfrom = '17:00'\nto = '18:00'\ndays = []", "days must be a list"),
        ("[[freeze_windows]]\nreason = 'r'\nfrom = '17:00'\nto = '18:00'\ndays = ['fr']", "'fr' is not a day"),
        (
            "[[freeze_windows]]\nreason = 'a\\nb'\nfrom = '17:00'\nto = '18:00'".replace("'a", '"a').replace(
                "b'", 'b"'
            ),
            "reason must be a single line",
        ),
        ("[[freeze_windows]]\nreason = ' '\nfrom = '17:00'\nto = '18:00'", "reason must be a text"),
        (
            "[[freeze_windows]]\nreason = 'r'\nfrom = '17:00'\nto = '18:00'\ntime_zone = 'Mars/Base'",
            "time_zone: 'Mars/Base' is not in the tz database",
        ),
        (
            "[[freeze_windows]]\nreason = 'r'\nfrom = '17:00'\nto = '18:00'\ntime_zone = '../../etc/passwd'",
            "is not in the tz database",
        ),
        (
            "[[freeze_windows]]\nreason = 'r'\nfrom = '17:00'\nto = '18:00'\ntime_zone = 'America'",
            "is not in the tz database",
        ),
        (
            "[[freeze_windows]]\nreason = 'r'\nfrom = '17:00'\nto = '18:00'\ntimezone = 'UTC'",
            r"unknown key timezone \(did you mean time_zone\?\)",
        ),
        (
            "[[freeze_windows]]\nreason = 'r'\nfrom = '17:00'\nto = '18:00'\nnamespaces = 'shop'",
            "namespaces must be a list",
        ),
        (
            "[[freeze_windows]]\nreason = 'r'\nfrom = '17:00'\nto = '18:00'\nnamespaces = ['Shop']",
            "'Shop' is not a namespace or a pattern",
        ),
    ],
)
def test_what_is_wrong_with_one_is_said(tmp_path: Any, text: str, said: str) -> None:
    file = tmp_path / "deployer.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=f"key freeze_windows: .*{said}"):
        load({}, HOME, file)
