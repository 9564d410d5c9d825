"""The parameters and the answer of paged lists, with a cursor."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel

from airflow_remote_provider.ledger.views.page import MOST_ROWS, Page, Slice

T = TypeVar("T")


class Listed(BaseModel, Generic[T]):
    """One page of a list."""

    items: list[T]
    next: str | None
    """The value of `after` for the next page; null on the last page."""

    @classmethod
    def of(cls, found: Slice[T]) -> Listed[T]:
        return cls.model_construct(items=found.rows, next=found.next)


def _page(
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS, description="rows of the page")] = 100,
    after: Annotated[str, Query(max_length=2000, description="`next` of the previous page")] = "",
    order: Annotated[str, Query(max_length=50, description="a column; with `-` before it in descending order")] = "",
) -> Page:
    return Page(limit, after, order)


PageDep = Annotated[Page, Depends(_page)]
