// Node's dgram: node.js ROLE PEER_PORT SOCKETS
"use strict";
const dgram = require("dgram");

const [role, peerPort, sockets] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const count = role === "sockets" ? sockets : 1;
let ready = 0;

const roles = {
  echo(sock) {
    sock.on("message", (data, peer) => sock.send(data, peer.port, peer.address));
  },
  connected(sock) {
    sock.on("message", (data) => sock.send(data));
  },
  receive(sock) {
    let total = 0;
    sock.on("message", (data, peer) => {
      if (data.length > 1) {
        total++;
        return;
      }
      sock.send(String(total), peer.port, peer.address);
      total = 0;
    });
  },
  bulk(sock) {
    sock.setRecvBufferSize(4 << 20);
    roles.receive(sock);
  },
  // A callback for each datagram would report errors. Here only every 64th send has a callback, and the next
  // send waits for it; otherwise all datagrams would be in memory together.
  send(sock) {
    sock.on("message", (data, peer) => {
      let [left, size, target] = String(data).split(" ").map(Number);
      const payload = Buffer.alloc(size);
      const more = () => {
        for (let i = Math.min(left, 64); i > 0; i--) {
          left--;
          sock.send(payload, target, "127.0.0.1", i === 1 ? more : undefined);
        }
        if (left === 0) {
          left = -1;
          sock.send("done", peer.port, peer.address);
        }
      };
      more();
    });
  },
};
roles.sockets = roles.echo;

function announce(sock) {
  console.log(`port ${sock.address().port}`);
  if (++ready === count) console.log("ready");
}

for (let i = 0; i < count; i++) {
  // An address needs no resolver.
  const sock = dgram.createSocket({ type: "udp4", lookup: (host, options, callback) => callback(null, host, 4) });
  sock.bind(0, "127.0.0.1", () => {
    roles[role](sock);
    if (role === "connected") sock.connect(peerPort, "127.0.0.1", () => announce(sock));
    else announce(sock);
  });
}
