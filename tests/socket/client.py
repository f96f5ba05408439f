"""A client of ioasd in plain Python: allocates an address space, maps a memfd, unmaps it.

It is written from docs/protocol.md alone. Usage: client.py SOCKET
"""

import array
import os
import select
import socket
import struct
import sys

REQUEST = struct.Struct("<4sIQHHI")
REPLY = struct.Struct("<4sIQIIHHI")
IOAS_ALLOC, IOAS_UNMAP, IOAS_MAP_FILE = 0x3B81, 0x3B86, 0x3B8F
ACCESS_CREATE, ACCESS_PIN, ACCESS_UNPIN = 0x3BC5, 0x3BC6, 0x3BC7
CHANNEL_OPEN, NOTICE = 0x3BD0, 0x3BD1
FIXED, WRITEABLE, READABLE = 1, 2, 4
MAY_PIN, NOTICES = 1, 2
EVERYTHING = 2**64 - 1


class Refused(Exception):
    """The agent understood a request and refused it."""

    def __init__(self, errno, code, text):
        super().__init__(f"{code}: {text}")
        self.errno, self.code = errno, code


class Channel:
    """A channel: the connected socket, or one from CHANNEL_OPEN."""

    def __init__(self, connected):
        self.socket, self.tag = connected, 0

    def send(self, command, layout, *fields, files=()):
        """Sends a request whose struct is `size` and `fields`; gives its tag."""
        self.tag += 1
        argument = struct.pack("<I" + layout, 4 + struct.calcsize("<" + layout), *fields)
        header = REQUEST.pack(b"IOAS", command, self.tag, 1, 0, REQUEST.size + len(argument))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
        self.socket.sendmsg([header + argument], rights)
        return self.tag

    def receive(self, layout):
        """The next reply: its tag, the fields of its struct, its descriptors."""
        space = socket.CMSG_SPACE(253 * 4)
        message, control, _, _ = self.socket.recvmsg(65536, space, socket.MSG_CMSG_CLOEXEC)
        if not message:
            raise EOFError("the agent hung up")
        files = array.array("i")
        for _, _, data in control:
            files.frombytes(data)
        magic, _, tag, errno, body, code, text, payload = REPLY.unpack_from(message)
        assert magic == b"IOAS" and len(message) == REPLY.size + body + payload + code + text
        words = message[REPLY.size + body + payload :]
        if errno:
            raise Refused(errno, words[:code].decode(), words[code:].decode())
        struct_back = message[REPLY.size : REPLY.size + body]
        return tag, struct.unpack("<I" + layout, struct_back)[1:], list(files)

    def call(self, command, layout, *fields, files=()):
        """Sends a request and waits for its reply."""
        tag = self.send(command, layout, *fields, files=files)
        back, fields, files = self.receive(layout)
        assert back == tag, (back, tag)
        return fields, files


def next_notice(notices):
    """The next notice: its tag, and the range to let go of."""
    message = notices.recv(4096)
    magic, command, tag, _, _, length = REQUEST.unpack_from(message)
    assert (magic, command, length) == (b"IOAS", NOTICE, len(message))
    _, _, access, _, iova, last = struct.unpack_from("<IIIIQQ", message, REQUEST.size)
    return tag, access, iova, last


def acknowledge(notices, tag):
    """Answers a notice."""
    notices.send(REPLY.pack(b"IOAS", NOTICE, tag, 0, 0, 0, 0, 0))


def connected(path):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(path)
    return client


def main(path):
    lease = Channel(connected(path))
    (_, ioas), _ = lease.call(IOAS_ALLOC, "II", 0, 0)
    memory = os.memfd_create("client.py")
    os.pwrite(memory, b"x" * 0x4000, 0)
    flags = FIXED | READABLE | WRITEABLE
    mapped, _ = lease.call(IOAS_MAP_FILE, "IIiQQQ", flags, ioas, 0, 0, 0x4000, 0x100000, files=[memory])
    assert mapped[5] == 0x100000, mapped
    try:
        lease.call(IOAS_MAP_FILE, "IIiQQQ", flags, ioas, 0, 0, 0x1000, 0x100000, files=[memory])
        raise AssertionError("mapped twice")
    except Refused as refused:
        assert refused.errno == 17, refused
    _, files = lease.call(CHANNEL_OPEN, "III", 0, 0, 0)
    second = Channel(socket.socket(fileno=files[0]))
    (_, _, access), files = second.call(ACCESS_CREATE, "III", MAY_PIN | NOTICES, ioas, 0)
    notices = socket.socket(fileno=files[0])
    second.call(ACCESS_PIN, "IIIQQ", 0, access, 0, 0x100000, 0x4000)
    unmapping = lease.send(IOAS_UNMAP, "IQQ", ioas, 0, EVERYTHING)
    select.select([notices], [], [])
    tag, named, iova, last = next_notice(notices)
    assert (named, iova, last) == (access, 0x100000, 0x103FFF)
    second.call(ACCESS_UNPIN, "IIIQQ", 0, access, 0, iova, last - iova + 1)
    acknowledge(notices, tag)
    back, unmapped, _ = lease.receive("IQQ")
    assert (back, unmapped[2]) == (unmapping, 0x4000), unmapped
    print("done")


if __name__ == "__main__":
    main(sys.argv[1])
