"""The trials of a run in SQLite: one row a trial, its content as one JSON text."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import sqlalchemy as sql
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from hwnas.errors import RunFolderError
from hwnas.graph.architecture import Architecture
from hwnas.objectives.metrics import Metrics


class TrialState(StrEnum):
    """Where a trial stands."""

    PENDING = "pending"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluation of one architecture.

    Attributes:
        id: Unique in the run, counted from 0.
        state: Pending until there is a result.
        architecture: What was evaluated.
        metrics: What was measured; None unless complete.
        reward: What the strategy was told; None unless complete.
        epoch: Epoch of the one-shot loop, counted from 0; None in the trials loop.
        started: Seconds since 1970.
        finished: Seconds since 1970; None while pending.
        error: Why it failed, in one line.
    """

    id: int
    state: TrialState
    architecture: Architecture
    metrics: Metrics | None = None
    reward: float | None = None
    epoch: int | None = None
    started: float | None = None
    finished: float | None = None
    error: str | None = None

    def to_json(self) -> str:
        """Return the JSON text that is stored."""
        return json.dumps(
            {
                "architecture": self.architecture.to_json(),
                "metrics": None if self.metrics is None else asdict(self.metrics),
                "reward": self.reward,
                "epoch": self.epoch,
                "started": self.started,
                "finished": self.finished,
                "error": self.error,
            }
        )

    @classmethod
    def from_json(cls, id: int, state: str, text: str) -> Trial:
        """Read what `to_json` wrote."""
        value = json.loads(text)
        metrics = value.pop("metrics")
        return cls(
            id=id,
            state=TrialState(state),
            architecture=Architecture.from_json(value.pop("architecture")),
            metrics=None if metrics is None else Metrics(**metrics),
            **value,
        )


_TABLE = sql.Table(
    "trials",
    sql.MetaData(),
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("state", sql.String, nullable=False),
    sql.Column("content", sql.Text, nullable=False),
)


class TrialsDb:
    """Stores trials; every call is one transaction, so a kill loses at most the call in progress.

    Args:
        path: The SQLite file, created when missing.
        is_read_only: Open for reading; works beside the run that writes, and on media that cannot
            be written.

    Raises:
        RunFolderError: The file is damaged, or cannot be read or written.
    """

    def __init__(self, path: Path, *, is_read_only: bool = False) -> None:
        self.path = path
        self._engine = sql.create_engine(
            _url(path, is_read_only),
            # One connection: the run is the only writer, and opening costs more than a trial.
            poolclass=StaticPool,
            connect_args={"timeout": 30, "check_same_thread": False},
        )
        with self._transaction() as connection:
            if not is_read_only:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
                _TABLE.create(connection, checkfirst=True)

    def put(self, trials: Iterable[Trial]) -> None:
        """Store trials; those whose id is known are replaced.

        Raises:
            RunFolderError: The file cannot be written; nothing of this call is stored.
        """
        rows = [
            {"id": trial.id, "state": str(trial.state), "content": trial.to_json()}
            for trial in trials
        ]
        if not rows:
            return
        statement = insert(_TABLE)
        new = statement.excluded
        with self._transaction() as connection:
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["id"], set_={"state": new.state, "content": new.content}
                ),
                rows,
            )

    def all(self, *states: TrialState) -> list[Trial]:
        """Return the trials in the given states (any, if none is given), by id."""
        query = sql.select(_TABLE).order_by(_TABLE.c.id)
        if states:
            query = query.where(_TABLE.c.state.in_([str(state) for state in states]))
        with self._transaction() as connection:
            return [Trial.from_json(*row) for row in connection.execute(query)]

    def get(self, ids: Sequence[int]) -> list[Trial]:
        """Return the trials with these ids that exist, by id."""
        query = sql.select(_TABLE).where(_TABLE.c.id.in_(ids)).order_by(_TABLE.c.id)
        with self._transaction() as connection:
            return [Trial.from_json(*row) for row in connection.execute(query)]

    def count(self) -> int:
        """Return the number of trials."""
        with self._transaction() as connection:
            return connection.execute(sql.select(sql.func.count()).select_from(_TABLE)).scalar_one()

    def delete_after(self, id: int) -> None:
        """Delete all trials with an id above `id`: the way back to a checkpoint."""
        with self._transaction() as connection:
            connection.execute(_TABLE.delete().where(_TABLE.c.id > id))

    def sync(self) -> None:
        """Wait until the disk has all trials."""
        with self._reported(), self._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(FULL)")

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sql.Connection]:
        with self._reported(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, ValueError, KeyError, TypeError) as error:
            raise _database_error(self.path, error) from error


def _url(path: Path, is_read_only: bool) -> str:
    if not is_read_only:
        return f"sqlite:///{path}"
    # WAL needs a side file even for reading; on read-only media only `immutable` avoids it.
    has_log = path.with_name(path.name + "-wal").exists()
    is_frozen = not has_log and not os.access(path.parent, os.W_OK, effective_ids=True)
    return f"sqlite:///file:{path}?mode=ro&uri=true" + ("&immutable=1" if is_frozen else "")


def _database_error(path: Path, error: Exception) -> RunFolderError:
    reason = str(getattr(error, "orig", error)).split("\n")[0]
    if "full" in reason or "disk I/O" in reason:
        remedy = "free some space on that disk, then continue with --resume"
    elif "readonly" in reason or "unable to open" in reason:
        remedy = "check that the folder exists and its permissions"
    else:
        remedy = "the file is damaged; restore it from a copy, or start in a new folder"
    return RunFolderError(f"cannot use {path}: {reason}", remedy)
