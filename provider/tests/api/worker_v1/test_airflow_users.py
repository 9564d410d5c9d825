"""Users who enrol workers with their own permission: Airflow identifies them and decides what they may do."""

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
    """An auth manager with ann, who has the permission, and bob, who does not."""

    async def user_of(token: str) -> Any:
        if token not in ("ann.x.y", "bob.x.y"):
            raise compat.NoSuchUser("no")
        return SimpleNamespace(get_name=lambda: token.partition(".")[0])

    monkeypatch.setattr(compat, "user_of", user_of)
    monkeypatch.setattr(compat, "may_manage_workers", lambda user: user.get_name() == "ann")


def _name(authorization: str) -> str:
    return asyncio.run(airflow_users.authorize_manager(authorization))


@pytest.mark.usefixtures("airflow")
def test_the_name_of_a_manager_is_returned() -> None:
    assert _name("Bearer ann.x.y") == "ann"


@pytest.mark.usefixtures("airflow")
@pytest.mark.parametrize(("token", "code"), [("bob.x.y", ProblemCode.TOKEN_REFUSED), ("eve.x.y", ProblemCode.UNAUTHORIZED)])
def test_other_users_are_refused(token: str, code: ProblemCode) -> None:
    with pytest.raises(Refusal) as refused:
        _name(f"Bearer {token}")
    assert refused.value.code is code and token not in str(refused.value)


@pytest.mark.parametrize(
    ("header", "is_one"),
    [("Bearer a.b.c", True), ("bearer a.b.c", True), ("Bearer arenr_x_1", False), ("Basic a.b.c", False), (None, False)],
)
def test_airflows_tokens_are_recognized_by_their_format(header: str | None, is_one: bool) -> None:
    assert airflow_users.is_airflow_token(header) is is_one
