"""Ends every Python process that begins to use the network; on the path of all real workflows."""

import os
import sys


def _end(event, arguments):
    named = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
    if named or (event == "socket.connect" and not isinstance(arguments[1], str | bytes)):
        # an exception might be caught
        os.write(2, f"uses the network: {event} {arguments!r}\n".encode())
        os._exit(99)


sys.addaudithook(_end)
