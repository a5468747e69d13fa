# A contender for a lock with redis-py. Arguments: host:port, the lock's name, how long to hold it in
# microseconds. It prints "ready", begins at the line "go", and at "stop" prints its turns, each with the
# nanoseconds at which it asked, was granted, and called the release.
import os
import sys
import threading
import time

import redis

host, port = sys.argv[1].rsplit(":", 1)
name, hold = sys.argv[2], int(sys.argv[3]) / 1e6
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


print("ready", flush=True)
sys.stdin.readline()
threading.Thread(target=listen).start()
while True:
    lock = client.lock(name, timeout=10)
    asked = time.monotonic_ns()
    lock.acquire()
    granted = time.monotonic_ns()
    if hold:
        time.sleep(hold)
    releasing = time.monotonic_ns()
    lock.release()
    turns.append((asked, granted, releasing))
