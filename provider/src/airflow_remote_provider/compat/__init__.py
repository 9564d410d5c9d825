"""The only place that touches Airflow's private or version-dependent names (Airflow 3.3 and 3.4).

Imports of Airflow's are inside the functions: importing this module reads no configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from airflow.utils.sqlalchemy import UtcDateTime
from sqlalchemy import Connection, Engine, func, literal, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from airflow_remote_provider.sqlite_lock import locking

__all__ = ["UtcDateTime"]

T = TypeVar("T")


def engine() -> Engine:
    """Return Airflow's SQLAlchemy engine."""
    from airflow import settings

    if settings.engine is None:
        settings.configure_orm()
    return settings.engine  # type: ignore[no-any-return]


def connect() -> Connection:
    """Return a connection to run several transactions on; the caller closes it."""
    return _ours(engine()).connect()


@contextmanager
def transaction(connection: Connection | None = None, *, lock_wait_s: float | None = None) -> Iterator[Session]:
    """One session, one transaction of our own on Airflow's engine, or on a *connection* of it; never the scheduler's session.

    With *lock_wait_s* it fails rather than wait longer for somebody's lock (SQLite: as long as its connections wait anyway).
    """
    bind = engine()
    if lock_wait_s is None or bind.dialect.name == "sqlite":
        with _new_session(bind, connection) as session, session.begin():
            yield session
    elif bind.dialect.name == "mysql":
        with _impatient_connection(bind, lock_wait_s) as connection, _new_session(bind, connection) as session, session.begin():
            yield session
    else:
        with _new_session(bind) as session, session.begin():
            session.execute(select(func.set_config("lock_timeout", str(int(lock_wait_s * 1000)), True)))
            yield session


def in_transaction(verb: Callable[[Session], T], connection: Connection | None = None, *, lock_wait_s: float | None = None) -> T:
    """Return what *verb* returns, run in a :func:`transaction`. If the database breaks that off to resolve a deadlock: again.

    MySQL locks index entries and rows one after the other, so two verbs that lock in the same order may still meet.
    """
    for tries_left in reversed(range(DEADLOCK_TRIES)):
        try:
            with transaction(connection, lock_wait_s=lock_wait_s) as session:
                return verb(session)
        except DBAPIError as error:
            if not (tries_left and _is_deadlock(error)):
                raise
    raise AssertionError("the last try returns or raises")


DEADLOCK_TRIES = 3
_MYSQL_DEADLOCK = 1213
_POSTGRES_DEADLOCK = "40P01"


def _is_deadlock(error: DBAPIError) -> bool:
    driver: Any = error.orig
    codes = (driver.args[:1] or (None,))[0], getattr(driver, "pgcode", None), getattr(driver, "sqlstate", None)
    return codes[0] == _MYSQL_DEADLOCK or _POSTGRES_DEADLOCK in codes[1:]


@cache
def _ours(bind: Engine) -> Engine:
    """Return Airflow's engine with our locking rules, where it needs them."""
    return locking(bind) if bind.dialect.name == "sqlite" else bind


@cache
def _session_factory(bind: Engine) -> sessionmaker[Session]:
    return sessionmaker(_ours(bind), expire_on_commit=False, autoflush=False)


def _new_session(bind: Engine, connection: Connection | None = None) -> Session:
    factory = _session_factory(bind)
    return factory() if connection is None else factory(bind=connection)


@contextmanager
def _impatient_connection(bind: Engine, seconds: float) -> Iterator[Connection]:
    """A connection to MySQL that waits no longer than *seconds* (at least one) for a lock; patient again for its next user."""
    with bind.connect() as connection:
        connection.exec_driver_sql(f"SET SESSION innodb_lock_wait_timeout = {max(1, int(seconds))}")
        connection.commit()
        try:
            yield connection
        finally:
            if not connection.invalidated:
                try:
                    connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = DEFAULT")
                    connection.commit()
                except DBAPIError:
                    connection.invalidate()


def database_now(session: Session) -> datetime:
    """Return the database's clock (UTC). SQLite has none but this machine's."""
    name = session.get_bind().dialect.name
    if name == "postgresql":
        return session.scalar(select(func.clock_timestamp())).astimezone(timezone.utc)  # type: ignore[union-attr,no-any-return]
    if name == "mysql":
        return session.scalar(select(func.utc_timestamp(6))).replace(tzinfo=timezone.utc)  # type: ignore[union-attr,no-any-return]
    return datetime.now(timezone.utc)


def clock_beside(session: Session, fact: Any, *effects: Any) -> tuple[datetime, Any]:
    """Return the database's clock and the value of *fact*, with one statement that also has these *effects* (none on SQLite)."""
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(timezone.utc), session.scalar(select(fact))
    now, value, *_ = session.execute(select(database_clock(session), fact, *effects)).one()
    return (now.replace(tzinfo=timezone.utc) if now.tzinfo is None else now.astimezone(timezone.utc)), value


def database_clock(session: Session, after: timedelta = timedelta()) -> Any:
    """Return the database's clock, *after* later, as what a statement can store or compare with: no round trip of its own."""
    from sqlalchemy import func, text

    name = session.get_bind().dialect.name
    if name == "postgresql":
        return func.clock_timestamp() + after if after else func.clock_timestamp()
    if name == "mysql":
        return func.timestampadd(text("MICROSECOND"), int(after.total_seconds() * 1e6), func.utc_timestamp(6))
    return datetime.now(timezone.utc) + after


def latest_clock(session: Session) -> Any:
    """Return the later of the database's and this machine's clock, as what a statement can store."""
    mine = datetime.now(timezone.utc)
    if session.get_bind().dialect.name == "sqlite":
        return mine
    return func.greatest(database_clock(session), literal(mine, UtcDateTime()))


def task_instance_model() -> Any:
    """Return Airflow's TaskInstance ORM class."""
    from airflow.models.taskinstance import TaskInstance

    return TaskInstance


def dag_run_model() -> Any:
    """Return Airflow's DagRun ORM class."""
    from airflow.models.dagrun import DagRun

    return DagRun


def callback_model() -> Any:
    """Return Airflow's Callback ORM class."""
    from airflow.models.callback import Callback

    return Callback


def connection_test_model() -> Any:
    """Return Airflow's ConnectionTestRequest ORM class."""
    from airflow.models.connection_test import ConnectionTestRequest

    return ConnectionTestRequest


ENDED_CALLBACK = frozenset({"success", "failed"})
ENDED_CONNECTION_TEST = frozenset({"success", "failed"})
"""States of theirs that nothing follows."""


def living_schedulers(session: Session, job_ids: list[int]) -> set[int]:
    """Return those of the scheduler jobs whose heart has beaten within `[scheduler] scheduler_health_check_threshold`."""
    from airflow.configuration import conf
    from airflow.jobs.job import Job

    oldest = database_now(session) - timedelta(seconds=conf.getfloat("scheduler", "scheduler_health_check_threshold"))
    return set(session.scalars(select(Job.id).where(Job.id.in_(job_ids), Job.state == "running", Job.latest_heartbeat > oldest)))


def fail_connection_test(session: Session, connection_test_id: str, reason: str) -> None:
    """Tell whoever asked for a connection test why there is no result, unless there is one."""
    # Through the ORM: Airflow's model frees the connection for the next test when the state is set.
    test = session.get(connection_test_model(), UUID(connection_test_id), with_for_update=True)
    if test is not None and test.state not in ENDED_CONNECTION_TEST:
        test.state = "failed"
        test.result_message = reason[:2000]


def executor_names(executor: Any) -> frozenset[str | None]:
    """Return how task instances name *executor*: alias, class, path; None as well if it is its team's default."""
    from airflow.executors.executor_loader import ExecutorLoader

    name = executor.name
    names: set[str | None] = {type(executor).__name__}
    if name is not None:
        names |= {text for text in (name.alias, name.module_path) if text}
        if ExecutorLoader.get_default_executor_name(executor.team_name) == name:
            names.add(None)
    return frozenset(names)


@cache
def names_of_subclasses(path: str) -> frozenset[str | None]:
    """Return how a task may name the executor at this *path*, or one derived from it; None if it is some team's default."""
    from airflow.executors.executor_loader import ExecutorLoader

    names: set[str | None] = set()
    teams: set[str | None] = set()
    for name in ExecutorLoader.get_executor_names(validate_teams=False):
        is_default = name.team_name not in teams
        teams.add(name.team_name)
        if name.module_path == path or _is_derived(name.module_path, path):
            names |= {text for text in (name.alias, name.module_path, name.module_path.rpartition(".")[2]) if text}
            names |= {None} if is_default else set()
    return frozenset(names)


def _is_derived(executor: str, path: str) -> bool:
    if executor.startswith("airflow."):  # not worth the import
        return False
    try:
        return issubclass(_class_at(executor), _class_at(path))
    except (ImportError, AttributeError):  # somebody else's, installed in the scheduler's environment alone
        return False


def _class_at(path: str) -> type:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)  # type: ignore[no-any-return]


def policy_violation(text: str) -> Exception:
    """Return what a cluster policy raises to refuse a Dag; *text* is shown as its import error."""
    from airflow.exceptions import AirflowClusterPolicyViolation

    return AirflowClusterPolicyViolation(text)  # type: ignore[no-any-return]


def set_executor_config(task: Any, config: dict[str, Any]) -> None:
    """Give a task of a Dag file another `executor_config`."""
    if hasattr(task, "partial_kwargs"):
        task.partial_kwargs["executor_config"] = config
    else:
        task.executor_config = config


def source_of_dag_file(path: str) -> str:
    """Return the text of a Dag file, which may be in a zip.

    Raises:
        OSError, UnicodeDecodeError: it can't be read.
    """
    from airflow.utils.file import open_maybe_zipped

    with open_maybe_zipped(path) as file:
        text = file.read()
    return text.decode() if isinstance(text, bytes) else str(text)


def start_on_worker(task: Any) -> None:
    """Let a task of a Dag file that would start in the triggerer start on its worker, which then defers it."""
    if not getattr(task, "start_from_trigger", False):
        return
    task.start_from_trigger = False
    if hasattr(task, "partial_kwargs"):
        task.partial_kwargs["start_from_trigger"] = False


@cache
def dag_bag() -> Any:
    """Return this process's bag of Dags read from the database, by version; it forgets those long unused."""
    from airflow.api_fastapi.common.dagbag import create_dag_bag

    return create_dag_bag()


def task_definition(session: Session, dag_version_id: UUID, task_id: str) -> Any:
    """Return the serialized task of that version of its Dag, mapped or not; None if there is none any more."""
    dag = dag_bag().get_dag(version_id=dag_version_id, session=session)
    return None if dag is None else dag.task_dict.get(task_id)


def date_range() -> tuple[datetime, datetime] | None:
    """Return the first and the last date that Airflow's columns can store; None if every date. On MySQL they are TIMESTAMPs."""
    return MYSQL_TIMESTAMPS if engine().dialect.name == "mysql" else None


MYSQL_TIMESTAMPS = (datetime(1970, 1, 2, tzinfo=timezone.utc), datetime(2038, 1, 19, tzinfo=timezone.utc))
"""https://dev.mysql.com/doc/refman/8.4/en/datetime.html, less a day for time zones."""


def is_triggered_by(session: Session, run: tuple[str, str], source: tuple[str, str]) -> bool:
    """Say whether an asset event of the Dag run *source* triggered the Dag run *run*; of each the Dag id and the run id."""
    from airflow.models.asset import AssetEvent
    from airflow.models.dagrun import DagRun

    query = (
        select(AssetEvent.id)
        .join(AssetEvent.created_dagruns)
        .where(DagRun.dag_id == run[0], DagRun.run_id == run[1])
        .where(AssetEvent.source_dag_id == source[0], AssetEvent.source_run_id == source[1])
    )
    return session.scalar(query.limit(1)) is not None


def downstream_of(task: Any) -> frozenset[str]:
    """Return the ids of all tasks that are downstream of this serialized task, directly or through others."""
    return frozenset(task.get_flat_relative_ids(upstream=False))


def are_mapped_together(task: Any, other_id: str) -> bool:
    """Whether this serialized task and another one of its Dag are in the same mapped task group."""
    groups = {group.group_id for group in task.iter_mapped_task_groups()}
    return any(group.group_id in groups for group in task.dag.task_dict[other_id].iter_mapped_task_groups())


def newest_definitions(session: Session, dag_id: str) -> dict[str, Any]:
    """Return the serialized tasks of the newest version of the Dag, by task id; none if there is no such Dag (any more)."""
    dag = dag_bag().get_latest_version_of_dag(dag_id, session=session)
    return {} if dag is None else dict(dag.task_dict)


def execution_token_generator() -> Any:
    """Return what mints the short tokens with which the gateway calls the Execution API."""
    from airflow.api_fastapi.auth.tokens import JWTGenerator, get_signing_args
    from airflow.configuration import conf

    return JWTGenerator(
        valid_for=60,
        audience=conf.get_mandatory_list_value("execution_api", "jwt_audience")[0],
        issuer=conf.get("api_auth", "jwt_issuer", fallback=None),
        **get_signing_args(make_secret_key_if_needed=False),
    )


@cache
def has_callback_start() -> bool:
    """Whether this Airflow's Execution API lets a callback's supervisor start it (`callbacks/{callback_id}/run`, since 3.4)."""
    return find_spec("airflow.api_fastapi.execution_api.routes.callbacks") is not None


@cache
def _fields_of_states() -> frozenset[str]:
    from airflow.api_fastapi.execution_api.datamodels import taskinstance as models

    payloads = [getattr(models, name) for name in dir(models) if name.endswith("StatePayload")]
    return frozenset(field for payload in payloads for field in payload.model_fields)


def state_for_this_airflow(said: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a `state` call without empty fields that this Airflow does not know.

    A newer Task SDK sends its new fields with each state. Airflow refuses a field that it does not know, also an empty one.
    """
    return {name: value for name, value in said.items() if value is not None or name in _fields_of_states()}


def refuses_token(status: int, body: bytes) -> bool:
    """Say whether this answer of the Execution API's is about the token itself, not about what it may do."""
    return status == 403 and body.startswith(b'{"detail":"Invalid auth token')


def execution_api_app() -> Any:
    """Return a Task Execution API application of our own, ready for its lifespan to be entered."""
    from airflow.api_fastapi.execution_api.app import create_task_execution_api_app

    app = create_task_execution_api_app()
    app.state.dag_bag = dag_bag()
    return app


class NoSuchUser(Exception):
    """Airflow does not take this for a user's token."""


async def user_of(token: str) -> Any:
    """Return the user whose token for Airflow's public API this is; raises NoSuchUser."""
    from airflow.api_fastapi.app import get_auth_manager
    from jwt import InvalidTokenError

    try:
        return await get_auth_manager().get_user_from_token(token)
    except InvalidTokenError as error:
        raise NoSuchUser(str(error)) from None


def emit(kind: str, name: str, value: Any, tags: dict[str, str] | None) -> None:
    """Tell Airflow's metrics of a `counter`, `gauge` or `timer`."""
    from airflow._shared.observability.metrics import stats

    if kind == "counter":
        stats.incr(name, value, tags=tags)
    elif kind == "gauge":
        stats.gauge(name, value, tags=tags)
    else:
        stats.timing(name, value, tags=tags)


def metric_part(text: str) -> str:
    """Return *text* as one part of a metric's name."""
    from airflow._shared.observability.metrics.stats import normalize_name_for_stats

    return str(normalize_name_for_stats(text, log_warning=False)).replace(".", "_")


def metrics_are_on() -> bool:
    from airflow.configuration import conf

    return any(conf.getboolean("metrics", name) for name in ("statsd_on", "statsd_datadog_enabled", "otel_on"))


def user_of_request() -> Callable[..., Any]:
    """Return the FastAPI dependency that says whose request this is, by bearer token or session cookie; 401 if nobody's."""
    from airflow.api_fastapi.core_api.security import get_user

    return get_user  # type: ignore[no-any-return]


def base_url() -> str:
    """Return `[api] base_url`: where browsers reach the API server; empty if that is not set."""
    from airflow.configuration import conf

    return conf.get("api", "base_url", fallback="") or ""


def may_see_workers(user: Any) -> bool:
    """Ask the auth manager. Auth managers know no workers: who may see what Airflow's own processes do may see ours."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView

    return bool(get_auth_manager().is_authorized_view(access_view=AccessView.JOBS, user=user))


def may_manage_workers(user: Any, team: str | None = None) -> bool:
    """Ask the auth manager whether this user may create connections, of the team: that decides what tasks reach."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails

    details = None if team is None else ConnectionDetails(team_name=team)
    return bool(get_auth_manager().is_authorized_connection(method="POST", details=details, user=user))


def may_end_tasks(user: Any, dag_id: str) -> bool:
    """Ask the auth manager whether this user may change the task instances of the Dag, as marking one failed does."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails

    details = DagDetails(id=dag_id)
    return bool(
        get_auth_manager().is_authorized_dag(
            method="PUT", access_entity=DagAccessEntity.TASK_INSTANCE, details=details, user=user
        )
    )


def readable_dags(session: Session, user: Any) -> frozenset[str] | None:
    """Return the Dags that this user may read; None if that is all there are."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.models.dag import DagModel

    readable = frozenset(get_auth_manager().get_authorized_dag_ids(user=user, session=session))
    known = session.scalar(select(func.count()).select_from(DagModel))
    return None if readable and len(readable) == known else readable


def readable_teams(session: Session, user: Any) -> frozenset[str] | None:
    """Return the teams that this user belongs to; None where there are no teams."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import TeamDetails
    from airflow.configuration import conf
    from airflow.models.team import Team

    if not conf.getboolean("core", "multi_team"):
        return None
    manager = get_auth_manager()
    names = Team.get_all_team_names(session=session)
    return frozenset(
        name for name in names if manager.is_authorized_team(method="GET", details=TeamDetails(name=name), user=user)
    )


def log_file(relative_path: str) -> Path:
    """Return the path where Airflow's UI looks for this log (`[logging] base_log_folder`), made with Airflow's permissions."""
    from airflow.sdk.log import init_log_file

    return init_log_file(relative_path)  # type: ignore[no-any-return]


def base_log_folder() -> Path:
    from airflow.configuration import conf

    return Path(conf.get_mandatory_value("logging", "base_log_folder"))


# Waits of deferred tasks


def trigger_model() -> Any:
    """Return Airflow's Trigger ORM class."""
    from airflow.models.trigger import Trigger

    return Trigger


def waits_on(session: Session, ti_id: UUID, queue: str) -> int | None:
    """Return the id of the trigger that a deferred task instance waits for, if that has the trigger queue *queue*."""
    ti, trigger = task_instance_model(), trigger_model()
    query = select(ti.trigger_id).join(trigger, trigger.id == ti.trigger_id)
    return session.scalar(query.where(ti.id == ti_id, ti.state == "deferred", trigger.queue == queue))


def resume(session: Session, ti_id: UUID, trigger_id: int) -> bool:
    """Let a task go on that waits for this trigger, as Airflow's `Trigger.submit_event` does, but without decoding anything.

    What it goes on with is not Airflow's to know. Return whether it still waited.
    """
    ti = task_instance_model()
    resumed = session.execute(
        update(ti)
        .where(ti.id == ti_id, ti.state == "deferred", ti.trigger_id == trigger_id)
        .values(state="scheduled", trigger_id=None, scheduled_dttm=datetime.now(timezone.utc))
        .execution_options(synchronize_session=False)
    )
    return bool(resumed.rowcount == 1)  # type: ignore[attr-defined]


def end_waiting(session: Session, ti_id: UUID, trigger_id: int, state: str, xcoms: Mapping[str, Any]) -> bool:
    """End a task that waits for this trigger in *state*, as Airflow does for a `TaskSuccessEvent` and its like.

    *xcoms* are encoded values, stored as they are. Return whether it still waited.
    """
    from airflow.models.trigger import handle_event_submit
    from airflow.models.xcom import XComModel
    from airflow.triggers.base import TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent

    ti = task_instance_model()
    waiting = select(ti).where(ti.id == ti_id, ti.state == "deferred", ti.trigger_id == trigger_id)
    task = session.scalar(waiting.with_for_update(of=ti))
    if task is None:
        return False
    events = {"success": TaskSuccessEvent, "failed": TaskFailedEvent, "skipped": TaskSkippedEvent}
    task.clear_next_method_args()
    handle_event_submit(events[state](), task_instance=task, session=session)
    for key, value in xcoms.items():
        XComModel.set(
            key=key,
            value=value,
            dag_id=task.dag_id,
            task_id=task.task_id,
            run_id=task.run_id,
            map_index=task.map_index,
            serialize=False,
            session=session,
        )
    return True


def forget_unused_triggers() -> None:
    """Let Airflow drop the trigger rows that no task waits for. Its triggerer does; a deployment needs none for ours."""
    trigger_model().clean_unused()


def airflow_version() -> str:
    """Return the version of this central's Airflow."""
    from airflow import __version__

    return str(__version__)


def code_hashes(session: Session, dag_version_ids: Collection[UUID]) -> dict[UUID, str]:
    """Return the MD5 of the Dag file of each Dag version, as it was parsed last."""
    from airflow.models.dagcode import DagCode

    if not dag_version_ids:
        return {}
    query = select(DagCode.dag_version_id, DagCode.source_code_hash).where(DagCode.dag_version_id.in_(dag_version_ids))
    return {version: digest for version, digest in session.execute(query)}
