"""A bad link between the client's side of a port and the port: loses, repeats, delays, reorders.

A veth pair more than usual: frames go from one pair to the other by packet sockets. What happens to
a frame is drawn from a seed, in the order of arrival of its direction.
"""

import heapq
import random
import select
import socket
import threading
import time

PACKET_OUTGOING = 4


class BadLink:
    def __init__(self, ends, seed, lose=0.0, repeat=0.0, delay=0.0, delay_s=0.01):
        self.sockets = [self.open(end) for end in ends]
        self.chances = [random.Random(seed), random.Random(seed + 1)]
        self.lose, self.repeat, self.delay, self.delay_s = lose, repeat, delay, delay_s
        self.counts = {"passed": 0, "lost": 0, "repeated": 0, "delayed": 0}
        self.waiting = []
        self.number = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def open(self, end):
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        one.bind((end, 0))
        one.setblocking(False)
        return one

    def stop(self):
        self.over.set()
        self.thread.join()
        for one in self.sockets:
            one.close()

    def send(self, to, frame):
        try:
            self.sockets[to].send(frame)
            self.counts["passed"] += 1
        except OSError:
            pass  # a full queue loses, too

    def take(self, side):
        for _ in range(64):
            try:
                frame, address = self.read(side)
            except OSError:
                return
            if address[2] != PACKET_OUTGOING:
                self.judge(side, frame)

    def read(self, side):
        return self.sockets[side].recvfrom(65536)

    def judge(self, side, frame):
        chance = self.chances[side]
        lost, repeated, delayed = (chance.random() for _ in range(3))
        if lost < self.lose:
            self.counts["lost"] += 1
            return
        for _ in range(2 if repeated < self.repeat else 1):
            if delayed < self.delay:
                self.counts["delayed"] += 1
                self.number += 1
                heapq.heappush(self.waiting, (time.monotonic() + self.delay_s * chance.random(),
                                              self.number, 1 - side, frame))
            else:
                self.send(1 - side, frame)
        self.counts["repeated"] += repeated < self.repeat

    def run(self):
        while not self.over.is_set():
            wait = 0.05
            if self.waiting:
                wait = max(0.0, min(wait, self.waiting[0][0] - time.monotonic()))
            for one in select.select(self.sockets, [], [], wait)[0]:
                self.take(self.sockets.index(one))
            while self.waiting and self.waiting[0][0] <= time.monotonic():
                self.send(*heapq.heappop(self.waiting)[2:])
