"""The parts of a task's definition that the Remote Executor reads: options, needs, grants."""
