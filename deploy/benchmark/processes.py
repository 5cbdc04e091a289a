"""Runs one process per measurement and records its peak memory.

Resident memory is read from /proc, the sum over a process and all it started of what each had at its peak. A GPU's memory
is read from nvidia-smi, the most that was in use above what was before. Allocators of libtorch and PyTorch keep what they
took, so that looking a few times a second misses little.
"""

import os
import signal
import subprocess
import threading
from pathlib import Path

INTERVAL_S = 0.2
LINES_SHOWN = 20
ENDS_WITHIN_S = 60


class Failed(Exception):
    """A process failed; the message has its command and its last lines."""


def run(command, log, environment, gpu, timeout_s):
    """The command's standard output and its peak memory in bytes. `log` receives its standard error."""
    with log.open("w") as errors, Memory(gpu) as memory:
        try:
            process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors, text=True, env=environment, start_new_session=True)
        except OSError as error:
            raise Failed(f"cannot start {command[0]}: {error}") from error
        memory.watch(process.pid)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except BaseException as error:
            end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"{name(command)} did not end within {timeout_s:.0f} s; see {log}") from error
            raise
    if process.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-LINES_SHOWN:])
        raise Failed(f"{name(command)} failed with exit code {process.returncode}; the end of {log}:\n{last}")
    return output, memory.peaks()


def end(process):
    """Terminates the process and its descendants; kills them after a timeout."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def name(command):
    """A short name of the command."""
    return " ".join(Path(str(word)).name for word in command[:3])


class Memory:
    """Polls the memory of a process and its descendants inside a `with` block."""

    def __init__(self, gpu):
        self.resident, self.gpu, self.pid = {}, gpu, None
        self.before_mib = self.peak_mib = None
        self.over = threading.Event()

    def __enter__(self):
        if self.gpu is not None:
            command = ["nvidia-smi", f"--id={self.gpu}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
            try:
                self.before_mib = self.peak_mib = int(subprocess.check_output(command, text=True))
                self.smi = subprocess.Popen([*command, f"--loop-ms={int(INTERVAL_S * 1000)}"],
                                            stdout=subprocess.PIPE, text=True)
            except (OSError, ValueError, subprocess.CalledProcessError) as error:
                raise Failed(f"nvidia-smi does not report the used memory: {error}") from error
            threading.Thread(target=self.follow_gpu, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        if self.gpu is not None:
            self.smi.terminate()
            self.smi.wait()
        if self.pid is not None:
            self.thread.join()

    def watch(self, pid):
        """Starts with the process of this id."""
        self.pid = pid
        self.thread = threading.Thread(target=self.follow_processes)
        self.thread.start()

    def follow_gpu(self):
        for line in self.smi.stdout:
            if line.strip().isdigit():
                self.peak_mib = max(self.peak_mib, int(line))

    def follow_processes(self):
        while True:
            for pid in [self.pid, *descendants(self.pid)]:
                peak = peak_resident(pid)
                self.resident[pid] = max(peak, self.resident.get(pid, 0))
            if self.over.wait(INTERVAL_S):
                return

    def peaks(self):
        """Bytes by kind."""
        peaks = {"resident_bytes": sum(self.resident.values())}
        if self.gpu is not None:
            peaks["gpu_bytes"] = (self.peak_mib - self.before_mib) << 20
        return peaks


def descendants(pid):
    """The process's living descendants."""
    try:
        children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir()
                    for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return children + [below for child in children for below in descendants(child)]


def peak_resident(pid):
    """Its peak memory so far, in bytes; 0 if it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0
