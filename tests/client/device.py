"""A device that reports events through an outbox until it is killed. Prints their numbers.

Called with the path of the outbox and the first number; TETHER_URL and TETHER_API_KEY are set.
"""

import sys
from itertools import count

from tests.client.devices import update, vehicles
from tether.client import Client, Outbox

FLEET = vehicles(3)


def main(path: str, first: int) -> None:
    """Reports until it is killed."""
    with Client() as client, Outbox(path, client) as outbox:
        for number in count(first):
            outbox.put(update(number, FLEET[number % len(FLEET)]))
            print(number, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
