"""What tests of the ledger need: Airflow's settings out of the way, a stand-in for its task instances, jobs to queue.

Import this before anything of Airflow's: it points Airflow at a directory of its own.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

_HOME = tempfile.mkdtemp(prefix="remote-provider-tests-")
os.environ.update(
    AIRFLOW_HOME=_HOME,
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__API_AUTH__JWT_SECRET="a secret of these tests, long enough for HS512 without a word of warning from anybody",
)

import pytest  # noqa: E402
from airflow_remote_provider import compat  # noqa: E402
from airflow_remote_provider.compat import UtcDateTime  # noqa: E402
from airflow_remote_provider.ledger import jobs  # noqa: E402
from airflow_remote_provider.models import Base  # noqa: E402
from sqlalchemy import Engine, String, Text, Uuid, create_engine  # noqa: E402
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column  # noqa: E402
from sqlalchemy.pool import NullPool  # noqa: E402


class AirflowBase(DeclarativeBase):
    pass


class TaskInstance(AirflowBase):
    """What our code knows of Airflow's table. The real one is met in e2e."""

    __tablename__ = "task_instance"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    state: Mapped[str | None] = mapped_column(String(20))
    external_executor_id: Mapped[str | None] = mapped_column(Text)
    last_heartbeat_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


def make_engine(url: str) -> Engine:
    """An engine on *url* with all tables made."""
    engine = create_engine(url, **({"poolclass": NullPool} if url.startswith("sqlite") else {}))
    Base.metadata.create_all(engine)
    AirflowBase.metadata.create_all(engine)
    return engine


@contextmanager
def installed(engine: Engine, logs: Path) -> Iterator[None]:
    """Make *engine* and *logs* what all our code uses."""

    def log_file(path: str) -> Path:
        file = logs / path
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compat, "engine", lambda: engine)
        patch.setattr(compat, "task_instance_model", lambda: TaskInstance)
        patch.setattr(compat, "base_log_folder", lambda: logs)
        patch.setattr(compat, "log_file", log_file)
        yield


def new_job(queue: str = "q", **changes: object) -> jobs.NewJob:
    """A job as the executor hands it in."""
    values: dict[str, object] = {
        "job_id": str(uuid.uuid4()),
        "queue": queue,
        "team": None,
        "priority": 1,
        "slots": 1,
        "owner": "1/",
        "ti_id": uuid.uuid4(),
        "dag_id": "dag",
        "run_id": "run",
        "task_id": "task",
        "map_index": -1,
        "try_number": 1,
        "workload": "{}",
        "log_path": f"{uuid.uuid4()}.log",
        "lost_after_s": 3600.0,
    }
    return jobs.NewJob(**{**values, **changes})  # type: ignore[arg-type]


def queue_job(session: Session, queue: str = "q", *, with_task: bool = True, **changes: object) -> jobs.NewJob:
    """Queue a job, with its task instance in Airflow's table."""
    job = new_job(queue, **changes)
    if with_task:
        session.add(TaskInstance(id=job.ti_id, state="queued", external_executor_id=job.job_id))
    jobs.enqueue(session, [job])
    return job
