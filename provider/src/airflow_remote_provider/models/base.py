"""The declarative base of all our tables, and column types with variants for MySQL."""

from __future__ import annotations

from sqlalchemy import Float, MetaData, String
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeEngine


class Base(DeclarativeBase):
    """Names all constraints, so that every database can drop them in a migration."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def exact(length: int) -> TypeEngine[str]:
    """Return a string type that compares case and accents on every database; MySQL's usual collations equate `GPU` and `gpu`."""
    return String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def seconds() -> TypeEngine[float]:
    """Return a float type with double precision; MySQL's own FLOAT shows six digits."""
    return Float().with_variant(mysql.DOUBLE(asdecimal=False), "mysql")
