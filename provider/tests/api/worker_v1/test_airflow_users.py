"""Who joins a worker by his own right: Airflow says who he is and what he may."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_provider import compat
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.worker_v1 import airflow_users


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An auth manager that knows ann, who may, and bob, who may not."""

    async def user_of(token: str) -> Any:
        if token not in ("ann.x.y", "bob.x.y"):
            raise compat.NoSuchUser("no")
        return SimpleNamespace(get_name=lambda: token.partition(".")[0])

    monkeypatch.setattr(compat, "user_of", user_of)
    monkeypatch.setattr(compat, "may_manage_workers", lambda user: user.get_name() == "ann")


def _name(authorization: str) -> str:
    return asyncio.run(airflow_users.manager_of_workers(authorization))


@pytest.mark.usefixtures("airflow")
def test_who_may_manage_workers_is_known_by_name() -> None:
    assert _name("Bearer ann.x.y") == "ann"


@pytest.mark.usefixtures("airflow")
@pytest.mark.parametrize(("token", "code"), [("bob.x.y", ProblemCode.TOKEN_REFUSED), ("eve.x.y", ProblemCode.UNAUTHORIZED)])
def test_nobody_else_is(token: str, code: ProblemCode) -> None:
    with pytest.raises(Refusal) as refused:
        _name(f"Bearer {token}")
    assert refused.value.code is code and token not in str(refused.value)


@pytest.mark.parametrize(
    ("header", "is_one"),
    [("Bearer a.b.c", True), ("bearer a.b.c", True), ("Bearer arenr_x_1", False), ("Basic a.b.c", False), (None, False)],
)
def test_a_users_token_is_told_from_ours_by_its_shape(header: str | None, is_one: bool) -> None:
    assert airflow_users.looks_like_a_users(header) is is_one
