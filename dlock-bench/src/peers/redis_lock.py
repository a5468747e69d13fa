# A contender for a lock with redis-py. Arguments: host:port, and the lock's name. It prints "ready", begins at the line "go", and at "stop" prints its turns, each with the
# nanoseconds at which it asked, was granted, and called the release. Or it is told "ask" and "release", and
# prints the nanoseconds at which it was granted or called the release.
import os
import sys
import threading
import time

import redis

host, port = sys.argv[1].rsplit(":", 1)
name = sys.argv[2]
client = redis.Redis(
    host=host,
    port=int(port),
    username=os.environ.get("DLOCK_BENCH_USER") or None,
    password=os.environ.get("DLOCK_BENCH_PASSWORD"),
)
client.ping()
turns = []


def listen():
    for line in sys.stdin:
        if line.strip() == "stop":
            break
    sys.stdout.write("".join(f"{a} {g} {r}\n" for a, g, r in list(turns)) + "end\n")
    sys.stdout.flush()
    os._exit(0)


def step_by_step(word):
    lock = client.lock(name, timeout=10)
    while word:
        if word == "ask":
            lock.acquire()
            at = time.monotonic_ns()
        else:
            at = time.monotonic_ns()
            lock.release()
        print(at, flush=True)
        word = sys.stdin.readline().strip()
    os._exit(0)


print("ready", flush=True)
word = sys.stdin.readline().strip()
if word != "go":
    step_by_step(word)
threading.Thread(target=listen).start()
while True:
    lock = client.lock(name, timeout=10)
    asked = time.monotonic_ns()
    lock.acquire()
    granted = time.monotonic_ns()
    releasing = time.monotonic_ns()
    lock.release()
    turns.append((asked, granted, releasing))
