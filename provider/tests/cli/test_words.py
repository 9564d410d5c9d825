"""What users type, and how a command ends that reads an invalid setting."""

from __future__ import annotations

from argparse import Namespace

import pytest
from airflow_remote_provider.cli.words import action
from airflow_remote_provider.settings import BadSetting


def test_an_invalid_setting_ends_a_command_with_its_name() -> None:
    def command(args: Namespace) -> None:
        raise BadSetting("[remote] poll_seconds = 'x' is no number; set one from 1 to 300")

    with pytest.raises(SystemExit, match=r"\[remote\] poll_seconds .* Correct it in Airflow's configuration"):
        action("list", "List them.", command).func(Namespace())
