"""For tests of the worker: a fake central over real HTTP. Start reading at :mod:`.fake_central`."""

from airflow_remote_worker.testing.fake_central import FakeCentral

__all__ = ["FakeCentral"]
