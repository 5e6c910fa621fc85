"""The device and the latency table behind the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from hwnas.registry import PluginConfig
from hwnas.report import formats
from hwnas.report.parts import Callout, Facts, Fragment, Heading, Part
from hwnas.report.results import RunResults, TableProvenance
from hwnas.report.run_data import RunData
from hwnas.report.sections import SECTIONS, Section

_INITIALS = {"cpu", "gpu", "isa", "os", "id"}


@SECTIONS.register("device_card")
class DeviceCard(Section):
    """The device and the latency table behind the numbers, with warnings."""

    order = 90
    title = "Device"

    class Config(PluginConfig):
        """Settings of the section."""

        stale_days: int = Field(90, ge=1, description="age of a table that calls for a warning")

    def applicable(self, run: RunData) -> str | None:
        """Need a fingerprint or a table."""
        if run.results is None or not (run.results.device or run.results.table):
            return "The run does not say on which device it was measured."
        return None

    def render(self, run: RunData) -> Fragment:
        """Return warnings, the fingerprint and the table's provenance."""
        assert run.results is not None
        results = run.results
        parts: list[Part] = list(self._warnings(results))
        if results.device:
            parts.append(Heading("Fingerprint"))
            parts.append(Facts(flattened(results.device)))
        if results.table is None:
            parts.append(Callout("info", "No latency table was used."))
        else:
            parts.append(Heading("Latency table"))
            parts.append(Facts(_table_facts(results.table)))
        return tuple(parts)

    def _warnings(self, results: RunResults) -> list[Part]:
        table = results.table
        if table is None:
            return []
        assert isinstance(self.config, DeviceCard.Config)
        found: list[Part] = []
        again = "Measure it again with: hwnas profile."
        if not table.device_matches:
            title = "The latency table was measured on another device."
            found.append(Callout("warning", title, f"Predictions can be far off. {again}"))
        running = results.device.get("runtime_version")
        if table.runtime_version and running and table.runtime_version != running:
            title = f"The table is of runtime {table.runtime_version}, this one is {running}."
            found.append(Callout("warning", title, again))
        if table.created is not None:
            age = (_aware(results.created) - _aware(table.created)).days
            if age > self.config.stale_days:
                title = f"The latency table was {age} days old when the run ended."
                text = f"Drivers, runtime or clock settings may have changed. {again}"
                found.append(Callout("warning", title, text))
        return found


def _aware(moment: datetime) -> datetime:
    """Take a moment without time zone as UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def flattened(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as lines: ``{"a": {"b": 1}}`` → ``("A b", "1")``."""
    items: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            items.extend(flattened(value, f"{name} "))
            continue
        name = name.upper() if name in _INITIALS else name[:1].upper() + name[1:]
        if isinstance(value, (list, tuple)):
            items.append((name, ", ".join(str(each) for each in value)))
        elif value is not None:
            items.append((name, str(value)))
    return items


def _table_facts(table: TableProvenance) -> list[tuple[str, str]]:
    items = [
        ("File", table.path),
        ("Device", table.device_id),
        ("Runtime", f"{table.runtime} {table.runtime_version}".strip()),
        ("Measured", formats.date(table.created)),
        ("Entries", "" if table.entries is None else str(table.entries)),
        (
            "Median spread",
            "" if table.median_spread is None else formats.percent(table.median_spread),
        ),
        ("Note", table.note),
    ]
    return [(term, value) for term, value in items if value and value != formats.MISSING]
