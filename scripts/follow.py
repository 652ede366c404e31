#!/usr/bin/python3
"""Follow the events of VMs in Redis: one JSON object a line.

An example of a consumer, for Debian's python3-redis and python3-bson. With --group several
processes share the work: each event goes to one of them, and one that is not acknowledged (its
process died before it was done) is handed out again.
"""
import argparse
import json
import os
import sys
import time

import bson
import redis


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vm", help="name of the VM")
    parser.add_argument("--redis", metavar="URL", default=os.environ.get("GAMMARAY_REDIS", "redis://127.0.0.1:6379"))
    parser.add_argument("--from", dest="start", default="$", metavar="ID", help="entry after which to begin; 0: all (default: the next)")
    parser.add_argument("--group", help="name of a consumer group: share the events with its other members")
    parser.add_argument("--name", default=f"follow-{os.getpid()}", help="name within the group")
    parser.add_argument("--bson", action="store_true", help="decode the BSON form in place of the JSON one")
    parser.add_argument("--count", type=int, help="end after so many")
    return parser.parse_args()


def plain(value):
    """What JSON cannot hold, as text."""
    return value.hex() if isinstance(value, bytes) else str(value)


def line(fields, as_bson):
    if as_bson:
        return json.dumps(bson.decode(fields[b"bson"]), default=plain)
    return fields[b"event"].decode()


def read(server, key, args, after):
    """Some entries, as (id, fields); waits up to a second for them."""
    if args.group:
        # First what this member got before and did not acknowledge, then what is new.
        found = server.xreadgroup(args.group, args.name, {key: after}, count=500, block=1000)
    else:
        found = server.xread({key: after}, count=500, block=1000)
    return found[0][1] if found else []


def main():
    args = arguments()
    key = f"gammaray:{{{args.vm}}}:events"
    server = redis.Redis.from_url(args.redis)
    if args.group:
        try:
            server.xgroup_create(key, args.group, id=args.start, mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        after = "0"
    else:
        after = args.start
    left = args.count
    while left is None or left > 0:
        try:
            entries = read(server, key, args, after)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            print(f"follow.py: {error}: waiting", file=sys.stderr)
            time.sleep(0.5)
            continue
        if args.group and not entries:
            after = ">"
        for entry, fields in entries[:left]:
            if fields:
                print(line(fields, args.bson))
            if args.group:
                server.xack(key, args.group, entry)
            if not args.group or after != ">":
                after = entry.decode()
            if left is not None:
                left -= 1
        sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        # Nobody reads any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except redis.RedisError as problem:
        sys.exit(f"follow.py: {problem}")
