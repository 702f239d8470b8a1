"""Python's asyncio: python_asyncio.py ROLE PEER_PORT SOCKETS"""
import asyncio
import socket
import sys

role, peer_port, sockets = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)


class Connected(Echo):
    def datagram_received(self, data, addr):
        self.transport.sendto(data)


class Receive(Echo):
    total = 0

    def datagram_received(self, data, addr):
        if len(data) > 1:
            self.total += 1
        else:
            self.transport.sendto(str(self.total).encode(), addr)
            self.total = 0


class Bulk(Receive):
    def connection_made(self, transport):
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)


class Send(Echo):
    def datagram_received(self, data, addr):
        count, size, target = map(int, data.split())
        payload, peer = bytes(size), ("127.0.0.1", target)
        for _ in range(count):
            self.transport.sendto(payload, peer)
        self.transport.sendto(b"done", addr)


ROLES = {"echo": Echo, "sockets": Echo, "connected": Connected, "receive": Receive, "bulk": Bulk, "send": Send}


async def main():
    loop = asyncio.get_running_loop()
    peer = ("127.0.0.1", peer_port) if role == "connected" else None
    for _ in range(sockets if role == "sockets" else 1):
        transport, _protocol = await loop.create_datagram_endpoint(
            ROLES[role], local_addr=("127.0.0.1", 0), remote_addr=peer
        )
        print("port", transport.get_extra_info("sockname")[1])
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
