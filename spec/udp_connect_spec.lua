-- What connect and disconnect promise, and what is heard of the peer between them.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local platform = require "spec.support.platform"
local sockets = require "spec.support.sockets"
local support = require "spec.support"

local byte_span = ip.byte_span
local new_socket = ip.udp.socket.new
local bound = support.bound
local with_loop = support.with_loop
local assert_raises, assert_method_raises = assertions.assert_raises, assertions.assert_method_raises
local assert_bad_method_argument = assertions.assert_bad_method_argument
local it_v6 = platform.it_v6
local suspended = support.suspended
local get, drain, bad_ports = sockets.get, sockets.drain, sockets.bad_ports
local bad_addresses = sockets.bad_addresses

describe("connect", function()
  it("opens the socket and sets the peer", with_loop(function()
    local peer <close>, port = bound()
    local sock <close> = new_socket()
    assert.is_nil(sock:connect("127.0.0.1", port))
    assert.equal("v4", sock.family)
    assert.equal("127.0.0.1", tostring(sock.remote_address))
    assert.equal(port, sock.remote_port)
    assert.equal("127.0.0.1", tostring(sock.local_address))
    assert.is_true(sock.local_port > 0)
    sock:send("hello")
    local text, address, from = peer:receive_string()
    assert.equal("hello", text)
    assert.equal(sock.local_address, address)
    assert.equal(sock.local_port, from)
  end))

  it("takes an ip.address, and an open socket", with_loop(function()
    local peer <close>, port = bound()
    local sock <close> = new_socket()
    sock:open("v4")
    sock:connect(peer.local_address, port)
    assert.equal(peer.local_address, sock.remote_address)
  end))

  it_v6("opens a v6 socket for a v6 address", with_loop(function()
    local peer <close>, port = bound("v6")
    local sock <close> = new_socket()
    sock:connect("::1", port)
    assert.equal("v6", sock.family)
    assert.equal(peer.local_address, sock.remote_address)
  end))

  it_v6("takes a v4 address on a v6 socket v4-mapped", with_loop(function()
    local peer <close>, port = bound()
    local sock <close> = new_socket()
    sock:open("v6")
    sock:connect("127.0.0.1", port)
    assert.equal("::ffff:127.0.0.1", tostring(sock.remote_address))
    assert.equal("::ffff:127.0.0.1", tostring(sock.local_address))
    sock:send("over v4")
    local _, address, from = peer:receive_string()
    assert.equal("127.0.0.1", tostring(address))
    peer:send_to("back", address, from)
    assert.equal("back", (sock:receive_string()))
  end))

  it("takes a v4-mapped address on a v4 socket for the v4 address in it", with_loop(function()
    local peer <close>, port = bound()
    local sock <close> = new_socket()
    sock:open("v4")
    sock:connect("::ffff:127.0.0.1", port)
    assert.equal("127.0.0.1", tostring(sock.remote_address))
    sock:send("x")
    assert.equal("x", (peer:receive_string()))
  end))

  it("is told by is_connected", with_loop(function()
    local peer <close>, port = bound()
    local sock = new_socket()
    assert.is_false(sock.is_connected)
    sock:open("v4")
    assert.is_false(sock.is_connected)
    sock:connect("127.0.0.1", port)
    assert.is_true(sock.is_connected)
    assert.is_false(pcall(sock.connect, sock, "::1", port))
    assert.is_true(sock.is_connected)
    local heir <close> = new_socket()
    heir:assign(sock:release())
    assert.is_true(heir.is_connected)
    assert.is_false(sock.is_connected)
    heir:disconnect()
    assert.is_false(heir.is_connected)
    assert.is_false(peer.is_connected)
    heir:connect("127.0.0.1", port)
    heir:close()
    assert.is_false(heir.is_connected)
    assert.is_false(pcall(function() heir.is_connected = true end))
  end))

  it("raises EAFNOSUPPORT for a v6 address on a v4 socket and keeps the peer", with_loop(function()
    local peer <close>, port = bound()
    local sock <close> = ip.udp.connect("127.0.0.1", port)
    assert_method_raises("EAFNOSUPPORT", sock, "connect", "::1", port)
    assert.equal(port, sock.remote_port)
    sock:send("still")
    assert.equal("still", (peer:receive_string()))
  end))

  it("raises EINVAL for port 0 and keeps the peer", with_loop(function()
    local peer <close>, port = bound()
    local sock <close> = ip.udp.connect("127.0.0.1", port)
    assert_method_raises("EINVAL", sock, "connect", "127.0.0.1", 0)
    assert.equal(port, sock.remote_port)
    sock:send("still")
    assert.equal("still", (peer:receive_string()))
    local unconnected <close> = bound()
    assert_method_raises("EINVAL", unconnected, "connect", "127.0.0.1", 0)
    assert_raises("ENOTCONN", "remote_address", get, unconnected, "remote_address")
  end))

  it("replaces the peer when connected again", with_loop(function()
    local first <close>, first_port = bound()
    local second <close>, second_port = bound()
    local sock <close>, port = bound()
    sock:connect("127.0.0.1", first_port)
    sock:connect("127.0.0.1", second_port)
    assert.equal(second_port, sock.remote_port)
    assert.equal(port, sock.local_port)
    sock:send("to the second")
    assert.equal("to the second", (second:receive_string()))
    assert.same({}, drain(first))
    first:send_to("from the first", "127.0.0.1", port)
    second:send_to("from the second", "127.0.0.1", port)
    assert.same({ "from the second" }, drain(sock))
  end))

  it("refuses what is no port or no address, and does not open the socket for it", with_loop(function()
    local sock = new_socket()
    for _, port in ipairs(bad_ports) do assert_bad_method_argument(2, sock, "connect", "127.0.0.1", port) end
    for _, address in ipairs(bad_addresses) do assert_bad_method_argument(1, sock, "connect", address, 1) end
    assert.is_false(sock.is_open)
  end))
end)

describe("a connected socket", function()
  -- A socket, its coming peer and a stranger; both have queued datagrams on the socket, which is not connected yet.
  local function queued(texts)
    local sock, port = bound()
    local peer, stranger = bound(), bound()
    for _, text in ipairs(texts) do
      local from = text:find("^peer") and peer or stranger
      from:send_to(text, "127.0.0.1", port)
    end
    return sock, peer, stranger
  end

  local receivers = {
    receive = function(sock)
      local buf = byte_span.new(64)
      return buf:sub(1, (sock:receive(buf)))
    end,
    receive_from = function(sock)
      local buf = byte_span.new(64)
      return buf:sub(1, (sock:receive_from(buf)))
    end,
    receive_string = function(sock) return (sock:receive_string()) end,
    try_receive = function(sock)
      local buf = byte_span.new(64)
      return buf:sub(1, (assert(sock:try_receive(buf))))
    end,
    try_receive_from = function(sock)
      local buf = byte_span.new(64)
      return buf:sub(1, (assert(sock:try_receive_from(buf))))
    end,
  }

  for name, receive in pairs(receivers) do
    it("does not return from " .. name .. " what strangers had queued before connect", with_loop(function()
      local sock, peer = queued { "a", "peer 1", "b", "c", "peer 2", "d" }
      sock:connect("127.0.0.1", peer.local_port)
      assert.equal("peer 1", receive(sock))
      assert.equal("peer 2", receive(sock))
      assert.same({}, drain(sock))
      peer:send_to("peer 3", "127.0.0.1", sock.local_port)
      assert.equal("peer 3", receive(sock))
    end))
  end

  it("does not show to peek what strangers had queued before connect", with_loop(function()
    local sock, peer = queued { "a", "peer 1", "b" }
    sock:connect("127.0.0.1", peer.local_port)
    local peek = ip.message_flag.peek
    assert.equal("peer 1", (sock:receive_string(64, peek)))
    assert.equal("peer 1", (sock:receive_string(64, peek)))
    assert.same({ "peer 1" }, drain(sock))
    local buf = byte_span.new(8)
    assert.is_nil((sock:try_receive(buf, peek)))
  end))

  it("does not tell truncated, or an empty datagram, because of a stranger's", with_loop(function()
    local sock, peer = queued { ("long"):rep(100), "", "peer 1", ("long"):rep(100) }
    sock:connect("127.0.0.1", peer.local_port)
    local buf = byte_span.new(6)
    local n, truncated = sock:receive(buf)
    assert.equal(6, n)
    assert.is_false(truncated)
    assert.equal("peer 1", tostring(buf))
  end))

  it("counts no stranger's bytes as readable", with_loop(function()
    local sock, peer = queued { "a stranger's" }
    sock:connect("127.0.0.1", peer.local_port)
    assert.equal(0, sock:io_control("bytes_readable"))
    peer:send_to("peer", "127.0.0.1", sock.local_port)
    assert.equal(4, sock:io_control("bytes_readable"))
  end))

  it("does not wake a suspended receive for a stranger who sent just before connect", with_loop(function()
    local sock, peer, stranger = queued {}
    local waiting = suspended(sock, "receive_string")
    stranger:send_to("stranger", "127.0.0.1", sock.local_port)
    sock:connect("127.0.0.1", peer.local_port)
    peer:send_to("peer", "127.0.0.1", sock.local_port)
    local _, text = waiting:join()
    assert.equal("peer", text)
  end))

  it("does not return what the former peer had queued before connect", with_loop(function()
    local sock, former, peer = queued {}
    sock:connect("127.0.0.1", former.local_port)
    former:send_to("former", "127.0.0.1", sock.local_port)
    sock:connect("127.0.0.1", peer.local_port)
    peer:send_to("peer", "127.0.0.1", sock.local_port)
    assert.same({ "peer" }, drain(sock))
  end))

  it("returns nothing that strangers send later", with_loop(function()
    local sock, peer, stranger = queued {}
    sock:connect("127.0.0.1", peer.local_port)
    for i = 1, 5 do
      stranger:send_to("stranger", "127.0.0.1", sock.local_port)
      peer:send_to("peer " .. i, "127.0.0.1", sock.local_port)
    end
    assert.same({ "peer 1", "peer 2", "peer 3", "peer 4", "peer 5" }, drain(sock))
  end))

  it_v6("returns only the peer's datagrams on a v6 socket, too", with_loop(function()
    local sock <close> = ip.udp.bind("::", 0)
    local peer <close> = bound()
    local stranger <close> = bound("v6")
    stranger:send_to("stranger", "::1", sock.local_port)
    peer:send_to("peer", "127.0.0.1", sock.local_port)
    sock:connect("127.0.0.1", peer.local_port)
    assert.same({ "peer" }, drain(sock))
  end))
end)

describe("receive_from names the sender", function()
  it("also after connect, connect again and disconnect", with_loop(function()
    local sock <close>, port = bound()
    local peer <close>, peer_port = bound()
    local buf = byte_span.new(8)
    local function exchange()
      peer:send_to("x", "127.0.0.1", port)
      local _, address, from = sock:receive_from(buf)
      assert.equal(ip.address.loopback_v4(), address)
      assert.equal(peer_port, from)
    end
    exchange()
    sock:connect("127.0.0.1", peer_port)
    exchange()
    sock:connect("127.0.0.1", peer_port)
    exchange()
    sock:disconnect()
    exchange()
    sock:close()
    sock:bind("127.0.0.1", port)
    exchange()
  end))
end)

describe("disconnect", function()
  it("keeps a port that the system chose, and the socket receives on it from everybody", with_loop(function()
    local sock <close>, port = bound()
    local peer <close>, peer_port = bound()
    local other <close> = bound()
    sock:connect("127.0.0.1", peer_port)
    assert.is_nil(sock:disconnect())
    assert.equal(port, sock.local_port)
    assert_raises("ENOTCONN", "remote_address", get, sock, "remote_address")
    assert_raises("ENOTCONN", "remote_port", get, sock, "remote_port")
    assert_method_raises("EDESTADDRREQ", sock, "send", "x")
    other:send_to("other", "127.0.0.1", port)
    peer:send_to("peer", "127.0.0.1", port)
    assert.same({ "other", "peer" }, drain(sock))
  end))

  it("keeps a port that was asked for", with_loop(function()
    local former, port = bound()
    former:close()
    local sock <close> = ip.udp.bind("127.0.0.1", port)
    local other <close> = bound()
    sock:connect("127.0.0.1", other.local_port)
    sock:disconnect()
    assert.equal(port, sock.local_port)
    other:send_to("heard", "127.0.0.1", port)
    assert.same({ "heard" }, drain(sock))
  end))

  it("goes back to the address that the socket was bound to", with_loop(function()
    local sock <close> = ip.udp.bind("0.0.0.0", 0)
    local port = sock.local_port
    local peer <close> = bound()
    sock:connect("127.0.0.1", peer.local_port)
    assert.equal("127.0.0.1", tostring(sock.local_address))
    sock:disconnect()
    assert.equal("0.0.0.0", tostring(sock.local_address))
    assert.equal(port, sock.local_port)
  end))

  it_v6("keeps the port on a v6 socket, too", with_loop(function()
    for _, address in ipairs { "::1", "::" } do
      local sock <close> = ip.udp.bind(address, 0)
      local port = sock.local_port
      local peer <close> = bound("v6")
      sock:connect("::1", peer.local_port)
      sock:disconnect()
      assert.equal(port, sock.local_port)
      assert.equal(address, tostring(sock.local_address))
      peer:send_to("heard", "::1", port)
      assert.same({ "heard" }, drain(sock))
    end
  end))

  it("keeps it through several connections", with_loop(function()
    local sock <close>, port = bound()
    local peer <close>, peer_port = bound()
    for i = 1, 3 do
      sock:connect("127.0.0.1", peer_port)
      sock:connect("127.0.0.1", peer_port)
      sock:disconnect()
      peer:send_to("round " .. i, "127.0.0.1", port)
      assert.same({ "round " .. i }, drain(sock))
    end
  end))

  it("does not lose what the peer has sent already", with_loop(function()
    local sock <close>, port = bound()
    local peer <close>, peer_port = bound()
    sock:connect("127.0.0.1", peer_port)
    peer:send_to("early", "127.0.0.1", port)
    sock:disconnect()
    assert.same({ "early" }, drain(sock))
  end))

  it("leaves a socket that was never bound usable", with_loop(function()
    local peer <close>, port = bound()
    local sock <close> = ip.udp.connect("127.0.0.1", port)
    sock:disconnect()
    sock:send_to("hello", "127.0.0.1", port)
    local text, address, from = peer:receive_string()
    assert.equal("hello", text)
    peer:send_to("back", address, from)
    assert.equal("back", (sock:receive_string()))
  end))

  it("does nothing on a socket that is not connected", with_loop(function()
    local sock <close>, port = bound()
    sock:disconnect()
    sock:disconnect()
    assert.equal(port, sock.local_port)
    local open <close> = new_socket()
    open:open("v4")
    open:disconnect()
    assert.is_true(open.is_open)
  end))

  it("leaves a suspended receive waiting, for anybody now", with_loop(function()
    local sock <close>, port = bound()
    local peer <close>, peer_port = bound()
    local other <close> = bound()
    sock:connect("127.0.0.1", peer_port)
    local waiting = suspended(sock, "receive_string")
    sock:disconnect()
    other:send_to("other", "127.0.0.1", port)
    local _, text = waiting:join()
    assert.equal("other", text)
    assert.is_true(peer.is_open)
  end))
end)
