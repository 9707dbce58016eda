"""What the figures depend on: the machine, its load, and the time that its processors have worked."""
import os
import platform
import time


def described():
    """Returns the machine as a dictionary: processor, cores, memory in bytes, kernel, load of the last minute."""
    processor = value_of("/proc/cpuinfo", "model name")
    memory = int(value_of("/proc/meminfo", "MemTotal").split()[0]) * 1024
    return {
        "processor": processor or platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "kernel": platform.release(),
        "load_at_start": os.getloadavg()[0],
    }


def value_of(path, name):
    """Returns what follows a name and a colon in a file, the first time."""
    return next((line.split(":", 1)[1].strip() for line in lines(path) if line.startswith(name)), "")


def cpu_seconds():
    """Returns the seconds that all cores have worked since the machine started, for all programs but this one."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, lines("/proc/stat")[0].split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK") - time.process_time()


def lines(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().splitlines()
