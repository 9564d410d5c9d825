"""Files that contain a worker and need only Python: `worker.pyz`, and installers for machines without a package index."""
