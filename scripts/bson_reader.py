#!/usr/bin/python3
"""Read BSON documents: the messages of 2013 on Redis pub/sub, or those of an index file.

An example of a consumer, for Debian's python3-redis and python3-bson.

  bson_reader.py 'node7:web1:/var/log/*'      messages on the channels HOST:VM:PATH that match
  bson_reader.py --file disk.bson             the documents of a file, one after the other (- is stdin)
"""
import argparse
import os
import sys
import time

import bson
import redis


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("pattern", nargs="?", help="glob of channels")
    what.add_argument("--file", help="file of documents")
    parser.add_argument("--redis", metavar="URL", default=os.environ.get("GAMMARAY_REDIS", "redis://127.0.0.1:6379"))
    parser.add_argument("--data", action="store_true", help="write the bytes of data messages to stdout, and nothing else: tail -f")
    parser.add_argument("--count", type=int, help="end after so many")
    return parser.parse_args()


def show(document):
    def brief(value):
        return f"<{len(value)} bytes>" if isinstance(value, bytes) else ascii(value)

    return " ".join(f"{key}={brief(value)}" for key, value in document.items())


def messages(args):
    """Channel and document of each message, whatever becomes of the connection."""
    while True:
        try:
            heard = redis.Redis.from_url(args.redis).pubsub()
            heard.psubscribe(args.pattern)
            for message in heard.listen():
                if message["type"] == "psubscribe":
                    print("bson_reader.py: listening", file=sys.stderr, flush=True)
                if message["type"] == "pmessage":
                    yield ascii(message["channel"].decode(errors="surrogateescape")), bson.decode(message["data"])
        except (redis.ConnectionError, redis.TimeoutError) as error:
            print(f"bson_reader.py: {error}: waiting", file=sys.stderr)
            time.sleep(0.5)


def documents(path):
    source = sys.stdin.buffer if path == "-" else open(path, "rb")
    with source:
        for document in bson.decode_file_iter(source):
            yield "", document


def main():
    args = arguments()
    left = args.count
    for channel, document in documents(args.file) if args.file else messages(args):
        if not args.data:
            print(f"{channel} {show(document)}".strip(), flush=True)
        elif document["type"] == "data":
            sys.stdout.buffer.write(document["write"])
            sys.stdout.flush()
        if left is not None:
            left -= 1
            if left == 0:
                break


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        # Nobody reads any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (redis.RedisError, bson.errors.BSONError, OSError) as problem:
        sys.exit(f"bson_reader.py: {problem}")
