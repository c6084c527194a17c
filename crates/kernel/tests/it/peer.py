"""What every Python program of these tests starts with: talking to the test, descriptors, system calls."""
import ctypes
import errno
import os
import socket
import sys

_c = ctypes.CDLL(None, use_errno=True)


def say(*words):
    """Says a line to the test."""
    print(*words, flush=True)


def told():
    """Waits for the test's next line; empty when the test closed its end."""
    return sys.stdin.readline().strip()


def meet():
    """Connects to the test, at the path that is the first argument."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(sys.argv.pop(1))
    return connection


def take(connection):
    """The descriptors that the test gives."""
    return socket.recv_fds(connection, 32, 16)[1]


def give(connection, *fds):
    """Gives the test copies of descriptors."""
    socket.send_fds(connection, [b"descriptors"], fds)


def c(name, *arguments):
    """Calls a function of the C library: what it returns, or the name of its error."""
    result = getattr(_c, name)(*arguments)
    return errno.errorcode[ctypes.get_errno()] if result == -1 else result
