"""A switch between the client's side of a port and the port: the client's end is an access port of a
VLAN, the other a trunk. Frames to the port get the tag; those from it must have it.
"""

import socket
import struct

from lib.bad_link import BadLink

SOL_PACKET, PACKET_AUXDATA = 263, 8
VLAN_VALID = 0x10  # in the status of struct tpacket_auxdata: the kernel has taken the tag off


class Trunk(BadLink):
    def __init__(self, ends, vlan):
        self.vlan, self.others = vlan, 0
        super().__init__(ends, seed=0)

    def open(self, end):
        one = super().open(end)
        one.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        return one

    def read(self, side):
        frame, beside, _, address = self.sockets[side].recvmsg(65536, socket.CMSG_SPACE(20))
        if side == 1:
            return frame[:12] + struct.pack("!HH", 0x8100, self.vlan) + frame[12:], address
        for level, kind, data in beside:
            status, tci = struct.unpack_from("I12xH", data)
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and status & VLAN_VALID:
                frame = frame[:12] + struct.pack("!HH", 0x8100, tci) + frame[12:]
        return frame, address

    def judge(self, side, frame):
        if side == 1:
            self.send(0, frame)
        elif frame[12:16] == struct.pack("!HH", 0x8100, self.vlan):
            self.send(1, frame[:12] + frame[16:])
        else:
            self.others += 1
