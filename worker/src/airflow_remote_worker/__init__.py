"""The Remote Worker: a small daemon that pulls jobs from central over outbound HTTPS. Start reading at :mod:`.daemon`."""

__version__ = "0.1.0"
