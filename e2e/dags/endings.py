"""Tasks whose worker loses its disk or its computer, and tasks that ignore a stop."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, task

REMOTE = "RemoteExecutor"
DIRECTORY = {"directory": Param("", type="string")}


@dag(schedule=None, params=DIRECTORY)
def chatty():
    """Prints many lines once `full` exists, then waits for `go`."""

    @task(executor=REMOTE, queue="small-disk")
    def talk(params: dict | None = None) -> str:
        import time
        from pathlib import Path

        directory = Path(params["directory"])

        def wait_for(name: str) -> None:
            while not (directory / name).exists():
                time.sleep(0.05)

        print("before", flush=True)
        (directory / "begun").touch()
        wait_for("full")
        for number in range(3000):
            print(f"line {number} {'x' * 200}", flush=True)
        (directory / "printed").touch()
        wait_for("go")
        print("after", flush=True)
        return "unharmed"

    talk()


@dag(schedule=None)
def brief():
    @task(executor=REMOTE, queue="small-disk")
    def say() -> str:
        return "said"

    say()


@dag(schedule=None, params=DIRECTORY)
def daemonising():
    """Starts a daemon that leaves its session and ignores SIGTERM; the task ignores SIGTERM too."""

    @task(executor=REMOTE, queue="endings")
    def linger(params: dict | None = None) -> None:
        import os
        import signal
        import subprocess
        import sys
        import time
        from pathlib import Path

        directory = Path(params["directory"])
        daemon = (
            "import os, signal, sys, time\n"
            "if os.fork(): os._exit(0)\n"
            "os.setsid()\n"
            "if os.fork(): os._exit(0)\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
            "os.rename(sys.argv[1], sys.argv[2])\n"
            "time.sleep(600)\n"
        )
        subprocess.run([sys.executable, "-c", daemon, directory / "writing", directory / "daemon"], check=True)
        while not (directory / "daemon").exists():
            time.sleep(0.05)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (directory / "pids.part").write_text(f"{os.getpid()} {(directory / 'daemon').read_text()}")
        (directory / "pids.part").rename(directory / "pids")
        time.sleep(600)

    linger()


@dag(schedule=None, params=DIRECTORY)
def patient():
    """Each try records its pid; the second one ends soon."""

    @task(executor=REMOTE, queue="endings", retries=1, retry_delay=timedelta(seconds=0.5))
    def wait(params: dict | None = None) -> str:
        import os
        import time
        from pathlib import Path

        tries = Path(params["directory"]) / "tries"
        first = not tries.exists()
        with tries.open("a") as file:
            file.write(f"{os.getpid()}\n")
        print("the try has begun", flush=True)
        for _ in range(600 if first and not (tries.parent / "short").exists() else 6):
            time.sleep(0.5)
        print("the try has ended", flush=True)
        return "first" if first else "second"

    wait()


chatty()
brief()
daemonising()
patient()
