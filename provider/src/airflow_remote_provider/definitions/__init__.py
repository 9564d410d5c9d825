"""What a task's definition says to the Remote Executor: options, needs, grants."""
