"""`airflow remote workers rotate|suspend|unsuspend|acknowledge|rebind|queues|labels|bundles`: what one worker may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

LONGEST_LABEL = 100


def trust_commands() -> list[Any]:
    """Return the commands; like :mod:`.cli`, it imports nothing of the ledger."""
    from airflow.cli.cli_config import ActionCommand, Arg

    name = Arg(("name",), help="the worker's name")
    reason = Arg(("--reason",), default="", help="why; shown to people")

    def action(name: str, text: str, func: Callable[..., None], *args: Any) -> Any:
        return ActionCommand(name=name, help=text, func=func, args=args)

    return [
        action("rotate", "have it replace its credential now", rotate, name),
        action("suspend", "refuse it until that is lifted; its jobs run on until they are lost", suspend, name, reason),
        action("unsuspend", "let a suspended worker speak again, and clear its alarm", unsuspend, name),
        action("acknowledge", "clear its alarm, which somebody has looked at", acknowledge, name),
        action("rebind", "let it be bound to another client certificate: that of its next session", rebind, name),
        action(
            "queues",
            "set the queues that it may serve, in place of those it has",
            set_queues,
            name,
            Arg(("queues",), help="queues, separated by commas"),
        ),
        action(
            "labels",
            "set its labels, in place of those it has",
            set_labels,
            name,
            Arg(("labels",), help="labels such as site=kiel,gpu=yes; '' for none"),
        ),
        action(
            "bundles",
            "set the Dag bundles of whose jobs it may be offered, in place of those it has",
            set_bundles,
            name,
            Arg(("bundles",), help="names or globs, separated by commas; '*' for any"),
        ),
    ]


def rotate(args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli import _ledger, _me
    from airflow_remote_provider.ledger import rotation

    _ledger(rotation.ask_to_rotate, args.name, by=_me())
    print(f"{args.name}: replaces its credential as soon as it hears of it")


def suspend(args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli import _ledger, _me
    from airflow_remote_provider.ledger import rotation

    _ledger(rotation.suspend, args.name, by=_me(), reason=args.reason)
    print(f"{args.name}: suspended; its jobs run on until they are lost")


def unsuspend(args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli import _ledger, _me
    from airflow_remote_provider.ledger import rotation

    _ledger(rotation.unsuspend, args.name, by=_me())
    print(f"{args.name}: may speak again")


def acknowledge(args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli import _ledger, _me
    from airflow_remote_provider.ledger import workers

    _ledger(workers.acknowledge, args.name, by=_me())
    print(f"{args.name}: its alarm is cleared")


def rebind(args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli import _ledger, _me
    from airflow_remote_provider.ledger import certificates

    _ledger(certificates.rebind, args.name, by=_me())
    print(f"{args.name}: is bound to the certificate that it comes with next")


def set_queues(args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli import _ledger, _me
    from airflow_remote_provider.ledger import workers

    queues = parse_names(args.queues)
    _ledger(workers.set_queues, args.name, queues, by=_me())
    print(f"{args.name}: serves {', '.join(queues)}")


def set_labels(args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli import _ledger, _me
    from airflow_remote_provider.ledger import workers

    labels = parse_labels(args.labels)
    _ledger(workers.set_labels, args.name, labels, by=_me())
    print(f"{args.name}: {', '.join(f'{key}={value}' for key, value in labels.items()) or 'no labels'}")


def set_bundles(args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli import _ledger, _me
    from airflow_remote_provider.ledger import workers

    bundles = parse_names(args.bundles)
    _ledger(workers.set_bundles, args.name, bundles, by=_me())
    print(f"{args.name}: may be offered jobs of {', '.join(bundles)}")


def parse_names(text: str) -> list[str]:
    """Return the names in `a, b,…`."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_labels(text: str) -> dict[str, str]:
    """Return the labels in `key=value,…`; ends the command if it is something else."""
    labels = {}
    for pair in (pair.strip() for pair in text.split(",") if pair.strip()):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key or not value or max(len(key), len(value)) > LONGEST_LABEL:
            raise SystemExit(f"{pair[:50]!r} is no label; write key=value, each of at most {LONGEST_LABEL} characters")
        labels[key] = value
    return labels
