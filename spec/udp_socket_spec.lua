-- What ip.udp.socket promises about its life: open, bind, connect, disconnect, shutdown, cancel, close, collection,
-- properties, and the short cuts ip.udp.bind and ip.udp.connect.
local ip = require "ip"
local core = require "ip.core"
local assertions = require "spec.support.assertions"
local platform = require "spec.support.platform"
local support = require "spec.support"

local byte_span, fiber = ip.byte_span, ip.fiber
local new_socket = ip.udp.socket.new
local bound, error_of = support.bound, support.error_of
local with_loop, on_main = support.with_loop, support.on_main
local assert_raises, assert_method_raises = assertions.assert_raises, assertions.assert_method_raises
local assert_message, assert_bad_method_argument = assertions.assert_message, assertions.assert_bad_method_argument
local it_linux, it_v6 = platform.it_linux, platform.it_v6
local suspended = support.suspended

local function get(sock, property)
  return sock[property]
end

local function set(sock, property, value)
  sock[property] = value
end

-- All that can be taken from the socket without waiting, as strings.
local function drain(sock)
  local buf, list = byte_span.new(64), {}
  while true do
    local n = sock:try_receive(buf)
    if n == nil then return list end
    list[#list + 1] = buf:sub(1, n)
  end
end

local function assert_ends_with(name, waiting)
  local ok, err = waiting:join()
  assert.is_false(ok)
  assert.equal(ip.error[name], err)
end

local bad_ports = { -1, 65536, 1.5, "80", math.huge, true }
local bad_addresses = { "", "localhost", "127.0.0", "127.0.0.1 ", 5, true, {} }

-- Every method that needs an open socket, with arguments that are all wrong.
local methods_of_open_sockets = {
  "disconnect", "shutdown", "cancel", "io_control", "receive", "receive_from", "receive_string", "send", "send_to",
  "try_receive", "try_receive_from", "try_send", "try_send_to", "set_option", "get_option",
}

describe("a new socket", function()
  it("is not open and has no descriptor", with_loop(function()
    local before = support.descriptors()
    local sock = new_socket()
    assert.is_false(sock.is_open)
    assert.equal(before, support.descriptors())
  end))

  it("may be closed, which does nothing", with_loop(function()
    local sock = new_socket()
    sock:close()
    sock:close()
    assert.is_false(sock.is_open)
  end))

  it("says what it is in text, open and closed", with_loop(function()
    local sock = new_socket()
    assert.is_truthy(tostring(sock):find("^ip.udp.socket"))
    sock:open("v6")
    assert.is_truthy(tostring(sock):find("^ip.udp.socket"))
    sock:close()
    assert.is_truthy(tostring(sock):find("^ip.udp.socket"))
  end))
end)

describe("on a socket that is not open", function()
  for _, method in ipairs(methods_of_open_sockets) do
    it(method .. " raises EBADF before it looks at its arguments", with_loop(function()
      local never, closed = new_socket(), bound()
      closed:close()
      for _, sock in ipairs { never, closed } do
        assert_method_raises("EBADF", sock, method)
        assert_method_raises("EBADF", sock, method, false, {}, -1, "x", 1.5)
      end
    end))
  end

  for _, property in ipairs {
    "local_address", "local_port", "remote_address", "remote_port", "family", "native_handle",
  } do
    it(property .. " raises EBADF", with_loop(function()
      local closed = bound()
      closed:close()
      assert_raises("EBADF", property, get, closed, property)
      assert_raises("EBADF", property, get, new_socket(), property)
    end))
  end

  it("the queue is empty and the timeouts can be set", with_loop(function()
    local sock = new_socket()
    assert.equal(0, sock.send_queue_size)
    assert.equal(0, sock.send_queue_count)
    sock.receive_timeout, sock.send_timeout = 1, 2
    assert.equal(1, sock.receive_timeout)
    assert.equal(2, sock.send_timeout)
  end))
end)

describe("open", function()
  for family, opener in pairs { v4 = ip.address.any_v4(), v6 = ip.address.loopback_v6() } do
    local it_family = family == "v6" and it_v6 or it

    it_family("opens a " .. family .. " socket by name", with_loop(function()
      local sock <close> = new_socket()
      assert.is_nil(sock:open(family))
      assert.is_true(sock.is_open)
      assert.equal(family, sock.family)
    end))

    it_family("takes " .. family .. " from an address", with_loop(function()
      local sock <close> = new_socket()
      sock:open(opener)
      assert.equal(family, sock.family)
    end))
  end

  it("binds nothing", with_loop(function()
    local sock <close> = new_socket()
    sock:open("v4")
    assert.equal(ip.address.any_v4(), sock.local_address)
    assert.equal(0, sock.local_port)
    assert_raises("ENOTCONN", "remote_port", get, sock, "remote_port")
  end))

  it("sets no option", with_loop(function()
    local sock <close> = new_socket()
    sock:open("v4")
    for _, option in ipairs { "reuse_address", "reuse_port", "broadcast", "debug", "do_not_route" } do
      assert.is_false(sock:get_option(option), option)
    end
  end))

  it("raises EALREADY on an open socket, which stays as it is", with_loop(function()
    local sock <close>, port = bound()
    assert_method_raises("EALREADY", sock, "open", "v4")
    assert_method_raises("EALREADY", sock, "open", "v6")
    assert.equal(port, sock.local_port)
    assert.equal("v4", sock.family)
  end))

  it("opens a closed socket again, also with the other family", with_loop(function()
    local sock <close> = new_socket()
    for _, family in ipairs { "v4", "v4", "v6", "v4" } do
      sock:open(family)
      assert.equal(family, sock.family)
      assert.equal(0, sock.local_port)
      sock:close()
      assert.is_false(sock.is_open)
    end
  end))

  it("refuses what is no family", with_loop(function()
    local sock = new_socket()
    for _, value in ipairs { "v5", "V4", "127.0.0.1", "", 4, true, {} } do
      assert_bad_method_argument(1, sock, "open", value)
    end
    assert_bad_method_argument(1, sock, "open")
    assert.is_false(sock.is_open)
  end))

  it_linux("makes descriptors that children do not inherit and that do not block", with_loop(function()
    local sock <close> = new_socket()
    sock:open("v4")
    local info = assert(io.open("/proc/self/fdinfo/" .. sock.native_handle)):read("a")
    local flags = tonumber(info:match("flags:%s*(%d+)"), 8)
    assert.is_truthy(flags & tonumber("2000000", 8) ~= 0, "close-on-exec")
    assert.is_truthy(flags & tonumber("4000", 8) ~= 0, "non-blocking")
  end))
end)

describe("bind", function()
  it("opens the socket and binds it to an address given as text", with_loop(function()
    local sock <close> = new_socket()
    assert.is_nil(sock:bind("127.0.0.1", 0))
    assert.is_true(sock.is_open)
    assert.equal("127.0.0.1", tostring(sock.local_address))
    assert.is_true(sock.local_port > 0)
  end))

  it("takes an ip.address, and an open socket", with_loop(function()
    local sock <close> = new_socket()
    sock:open("v4")
    sock:bind(ip.address.loopback_v4(), 0)
    assert.equal(ip.address.loopback_v4(), sock.local_address)
  end))

  it("binds to the port that is asked for", with_loop(function()
    local first, port = bound()
    first:close()
    local sock <close> = new_socket()
    sock:bind("127.0.0.1", port)
    assert.equal(port, sock.local_port)
  end))

  it("raises EADDRINUSE for a port that is taken", with_loop(function()
    local first <close>, port = bound()
    local second <close> = new_socket()
    assert_method_raises("EADDRINUSE", second, "bind", "127.0.0.1", port)
    assert.equal(port, first.local_port)
  end))

  it("raises EINVAL on a bound socket, which stays bound where it is", with_loop(function()
    local sock <close>, port = bound()
    assert_method_raises("EINVAL", sock, "bind", "127.0.0.1", 0)
    assert.equal(port, sock.local_port)
  end))

  it("raises EADDRNOTAVAIL for an address of another machine", with_loop(function()
    local sock <close> = new_socket()
    assert_method_raises("EADDRNOTAVAIL", sock, "bind", "203.0.113.77", 0)
  end))

  it("raises EAFNOSUPPORT for a v6 address on a v4 socket", with_loop(function()
    local sock <close> = new_socket()
    sock:open("v4")
    assert_method_raises("EAFNOSUPPORT", sock, "bind", "::1", 0)
  end))

  it_v6("takes a v4 address on a v6 socket v4-mapped", with_loop(function()
    local sock <close> = new_socket()
    sock:open("v6")
    sock:bind("127.0.0.1", 0)
    assert.equal("::ffff:127.0.0.1", tostring(sock.local_address))
    local client <close> = ip.udp.connect("127.0.0.1", sock.local_port)
    client:send("over v4")
    assert.equal("over v4", (sock:receive_string()))
  end))

  it("refuses what is no port or no address, and does not open the socket for it", with_loop(function()
    local sock = new_socket()
    for _, port in ipairs(bad_ports) do assert_bad_method_argument(2, sock, "bind", "127.0.0.1", port) end
    for _, address in ipairs(bad_addresses) do assert_bad_method_argument(1, sock, "bind", address, 0) end
    assert_bad_method_argument(2, sock, "bind", "127.0.0.1")
    assert_bad_method_argument(1, sock, "bind")
    assert.is_false(sock.is_open)
  end))
end)

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

describe("shutdown", function()
  local function connected()
    local sock, peer = support.pair()
    return sock, peer, byte_span.new(16)
  end

  it("of the receiving side makes every receive raise ESHUTDOWN", with_loop(function()
    local sock, peer, buf = connected()
    assert.is_nil(sock:shutdown("receive"))
    peer:send("late")
    assert_method_raises("ESHUTDOWN", sock, "receive", buf)
    assert_method_raises("ESHUTDOWN", sock, "receive_from", buf)
    assert_method_raises("ESHUTDOWN", sock, "receive_string")
    assert_method_raises("ESHUTDOWN", sock, "try_receive", buf)
    assert_method_raises("ESHUTDOWN", sock, "try_receive_from", buf)
    sock:send("the other side works")
    assert.equal("the other side works", (peer:receive_string()))
  end))

  it("of the sending side makes every send raise EPIPE, and no signal comes", with_loop(function()
    local sock, peer = connected()
    sock:shutdown("send")
    assert_method_raises("EPIPE", sock, "send", "x")
    assert_method_raises("EPIPE", sock, "send_to", "x", "127.0.0.1", peer.local_port)
    assert_method_raises("EPIPE", sock, "try_send", "x")
    assert_method_raises("EPIPE", sock, "try_send_to", "x", "127.0.0.1", peer.local_port)
    peer:send("the other side works")
    assert.equal("the other side works", (sock:receive_string()))
  end))

  it("of both sides does both", with_loop(function()
    local sock, _, buf = connected()
    sock:shutdown("both")
    assert_method_raises("ESHUTDOWN", sock, "receive", buf)
    assert_method_raises("EPIPE", sock, "send", "x")
  end))

  it("adds up", with_loop(function()
    local sock, _, buf = connected()
    sock:shutdown("receive")
    sock:shutdown("send")
    sock:shutdown("receive")
    assert_method_raises("ESHUTDOWN", sock, "receive", buf)
    assert_method_raises("EPIPE", sock, "send", "x")
  end))

  it("ends all suspended receives with ESHUTDOWN", with_loop(function()
    local sock, _, buf = connected()
    local first, second = suspended(sock, "receive", buf), suspended(sock, "receive_string")
    sock:shutdown("receive")
    assert_ends_with("ESHUTDOWN", first)
    assert_ends_with("ESHUTDOWN", second)
  end))

  it("of the sending side leaves a suspended receive alone", with_loop(function()
    local sock, peer = connected()
    local waiting = suspended(sock, "receive_string")
    sock:shutdown("send")
    peer:send("still")
    local _, text = waiting:join()
    assert.equal("still", text)
  end))

  it("is over after close and open", with_loop(function()
    local sock, peer = connected()
    sock:shutdown("both")
    sock:close()
    sock:connect("127.0.0.1", peer.local_port)
    peer:connect("127.0.0.1", sock.local_port)
    sock:send("again")
    assert.equal("again", (peer:receive_string()))
    peer:send("back")
    assert.equal("back", (sock:receive_string()))
  end))

  for _, side in ipairs { "receive", "send", "both" } do
    it("of " .. side .. " leaves the event loop idle", on_main(function()
      local sock, peer, buf = connected()
      local waiting = suspended(sock, "receive", buf) -- so that the descriptor is in the loop
      sock:shutdown(side)
      peer:send("late")
      pcall(peer.send, peer, "later")
      assertions.assert_sleeps(function() fiber.sleep(0.2) end)
      sock:close()
      waiting:join()
    end))

    it("of " .. side .. " raises ENOTCONN on a socket that is not connected, and changes nothing", on_main(function()
      local sock <close>, port = bound()
      local other <close>, other_port = bound()
      assert_method_raises("ENOTCONN", sock, "shutdown", side)
      sock:send_to("out", "127.0.0.1", other_port)
      assert.equal("out", (other:receive_string()))
      local waiting = suspended(sock, "receive_string")
      assertions.assert_sleeps(function() fiber.sleep(0.2) end)
      other:send_to("in", "127.0.0.1", port)
      local _, text = waiting:join()
      assert.equal("in", text)
    end))
  end

  it("refuses what is no side", with_loop(function()
    local sock = connected()
    for _, value in ipairs { "read", "", 0, true, {} } do assert_bad_method_argument(1, sock, "shutdown", value) end
    assert_bad_method_argument(1, sock, "shutdown")
  end))
end)

describe("cancel", function()
  it("ends every pending operation with ECANCELED, each exactly once", with_loop(function()
    local sock <close> = bound()
    local ended = {}
    local fibers = {}
    for i = 1, 5 do
      fibers[i] = fiber.spawn(function()
        local err = error_of(sock.receive_string, sock)
        ended[#ended + 1] = i
        assert.equal(ip.error.ECANCELED, err)
        assert.equal("receive_string", err.operation)
      end)
    end
    support.wait_until(function() return fibers[5].status == "waiting" end)
    assert.is_nil(sock:cancel())
    sock:cancel()
    for _, waiting in ipairs(fibers) do waiting:join() end
    assert.same({ 1, 2, 3, 4, 5 }, ended)
  end))

  it("leaves the socket usable, and what has arrived in it", with_loop(function()
    local sock <close>, port = bound()
    local client <close> = ip.udp.connect("127.0.0.1", port)
    local waiting = suspended(sock, "receive_string")
    client:send("kept")
    sock:cancel()
    assert_ends_with("ECANCELED", waiting)
    assert.equal("kept", (sock:receive_string()))
    client:send("next")
    assert.equal("next", (sock:receive_string()))
  end))

  it("does not concern what begins afterwards", with_loop(function()
    local sock <close>, port = bound()
    local client <close> = ip.udp.connect("127.0.0.1", port)
    sock:cancel()
    local waiting = suspended(sock, "receive_string")
    client:send("later")
    local _, text = waiting:join()
    assert.equal("later", text)
  end))

  it("lets a fiber that it ended wait again at once", with_loop(function()
    local sock <close>, port = bound()
    local client <close> = ip.udp.connect("127.0.0.1", port)
    local waiting = fiber.spawn(function()
      local err = error_of(sock.receive_string, sock)
      return err, (sock:receive_string())
    end)
    support.wait_until(function() return waiting.status == "waiting" end)
    sock:cancel()
    fiber.yield()
    client:send("second try")
    local err, text = waiting:join()
    assert.equal(ip.error.ECANCELED, err)
    assert.equal("second try", text)
  end))

  it("does not concern other sockets", with_loop(function()
    local sock <close> = bound()
    local other <close>, port = bound()
    local waiting = suspended(other, "receive_string")
    sock:cancel()
    sock:send_to("x", "127.0.0.1", port)
    local _, text = waiting:join()
    assert.equal("x", text)
  end))
end)

describe("close", function()
  it("is idempotent and gives the descriptor back at once", with_loop(function()
    local before = support.descriptors()
    local sock = bound()
    sock:close()
    assert.equal(before, support.descriptors())
    sock:close()
    assert.is_false(sock.is_open)
  end))

  it("gives the descriptor back at once also where the loop has watched it", with_loop(function()
    local before = support.descriptors()
    local sock = bound()
    local waiting = suspended(sock, "receive_string")
    sock:close()
    assert.equal(before, support.descriptors())
    waiting:join()
  end))

  it("ends every pending operation with ECANCELED", with_loop(function()
    local sock = bound()
    local buf = byte_span.new(8)
    local waiting = {
      suspended(sock, "receive", buf), suspended(sock, "receive_from", buf), suspended(sock, "receive_string"),
    }
    sock:close()
    for _, each in ipairs(waiting) do assert_ends_with("ECANCELED", each) end
  end))

  it("happens at the end of a block that declares the socket <close>", with_loop(function()
    local kept
    do
      local sock <close> = bound()
      kept = sock
      assert.is_true(kept.is_open)
    end
    assert.is_false(kept.is_open)
  end))

  it("happens when an error leaves such a block", with_loop(function()
    local kept
    pcall(function()
      local sock <close> = bound()
      kept = sock
      error("out")
    end)
    assert.is_false(kept.is_open)
  end))

  it("lets the port be taken again at once", with_loop(function()
    local sock, port = bound()
    for _ = 1, 10 do
      sock:close()
      sock:bind("127.0.0.1", port)
    end
    assert.equal(port, sock.local_port)
    sock:close()
  end))

  it("and open again in the same turn mix up no descriptors", with_loop(function()
    local client <close> = bound()
    local sock = new_socket()
    for i = 1, 200 do
      sock:bind("127.0.0.1", 0)
      local canceled = suspended(sock, "receive_string")
      sock:close()
      sock:bind("127.0.0.1", 0) -- as a rule with the descriptor's number of before
      local waiting = suspended(sock, "receive_string")
      client:send_to("round " .. i, "127.0.0.1", sock.local_port)
      local _, text = waiting:join()
      assert.equal("round " .. i, text)
      assert_ends_with("ECANCELED", canceled)
      sock:close()
    end
  end))

  it("forgets peer, addresses and connection", with_loop(function()
    local sock, peer = support.pair()
    sock:close()
    sock:open("v4")
    assert.equal(0, sock.local_port)
    assert.equal("0.0.0.0", tostring(sock.local_address))
    assert_raises("ENOTCONN", "remote_address", get, sock, "remote_address")
    assert_method_raises("EDESTADDRREQ", sock, "send", "x")
    assert.is_true(peer.is_open)
  end))

  it("keeps the timeouts, which are the object's", with_loop(function()
    local sock <close> = bound()
    sock.receive_timeout = 0
    sock:close()
    sock:bind("127.0.0.1", 0)
    assert.equal(0, sock.receive_timeout)
    assert_method_raises("ETIMEDOUT", sock, "receive_string")
  end))
end)

describe("a socket that nobody refers to", function()
  it("is closed by the collector", with_loop(function()
    local before = support.descriptors()
    local open = core.fiber.statistics().sockets
    for _ = 1, 10 do bound() end
    collectgarbage()
    collectgarbage()
    assert.equal(open, core.fiber.statistics().sockets)
    assert.equal(before, support.descriptors())
  end))

  it("is closed by the collector also after the loop has watched it", with_loop(function()
    local before = support.descriptors()
    for _ = 1, 10 do
      local sock = bound()
      sock.receive_timeout = 0.001
      pcall(sock.receive_string, sock)
    end
    collectgarbage()
    collectgarbage()
    assert.equal(before, support.descriptors())
  end))

  it("is alive while an operation on it is suspended", with_loop(function()
    local client <close> = bound()
    local sock, port = bound()
    local waiting = suspended(sock, "receive_string")
    local watch = setmetatable({ sock }, { __mode = "v" })
    sock = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    client:send_to("alive", "127.0.0.1", port)
    local _, text = waiting:join()
    assert.equal("alive", text)
    collectgarbage()
    collectgarbage()
    assert.is_nil(watch[1])
  end))
end)

describe("properties", function()
  it("tell an unknown name on reading, and name it", with_loop(function()
    local open <close> = bound()
    for _, sock in ipairs { open, new_socket() } do
      for _, name in ipairs { "local_adress", "recieve", "", "options" } do
        assert_message(("'%s'"):format(name), get, sock, name)
      end
      assert_message("'1'", get, sock, 1)
      assert_message("'true'", get, sock, true)
    end
  end))

  it("tell an unknown name on writing, and name it", with_loop(function()
    local open <close> = bound()
    for _, sock in ipairs { open, new_socket() } do
      assert_message("'recieve_timeout'", set, sock, "recieve_timeout", 1)
      assert_message("'1'", set, sock, 1, 1)
    end
  end))

  for _, name in ipairs {
    "is_open", "local_address", "local_port", "remote_address", "remote_port", "family", "native_handle",
    "send_queue_size", "send_queue_count", "receive", "close",
  } do
    it(name .. " cannot be written, and the message names it", with_loop(function()
      local sock <close>, port = bound()
      assert_message(("'%s'"):format(name), set, sock, name, 1)
      assert.is_true(sock.is_open)
      assert.equal(port, sock.local_port)
    end))
  end

  it("tell of a socket that is not connected that it is not", with_loop(function()
    local sock <close> = bound()
    assert_raises("ENOTCONN", "remote_address", get, sock, "remote_address")
    assert_raises("ENOTCONN", "remote_port", get, sock, "remote_port")
  end))

  it("show the port that the first send made the system choose", with_loop(function()
    local peer <close>, port = bound()
    local sock <close> = new_socket()
    sock:open("v4")
    assert.equal(0, sock.local_port)
    assert.equal("0.0.0.0", tostring(sock.local_address))
    sock:send_to("x", "127.0.0.1", port)
    local _, _, from = peer:receive_string()
    assert.equal(from, sock.local_port)
  end))

  it("follow bind, connect and disconnect", with_loop(function()
    local peer_port = support.dead_port()
    local sock <close> = new_socket()
    sock:open("v4")
    assert.equal("0.0.0.0", tostring(sock.local_address))
    sock:bind("0.0.0.0", 0)
    assert.equal("0.0.0.0", tostring(sock.local_address))
    sock:connect("127.0.0.1", peer_port)
    assert.equal("127.0.0.1", tostring(sock.local_address))
    assert.equal("127.0.0.1", tostring(sock.remote_address))
    sock:connect("127.0.0.2", peer_port)
    assert.equal("127.0.0.2", tostring(sock.remote_address))
    sock:disconnect()
    assert.equal("0.0.0.0", tostring(sock.local_address))
  end))

  it("give the same address object when read again", with_loop(function()
    local sock = support.pair()
    assert.is_true(rawequal(sock.local_address, sock.local_address))
    assert.is_true(rawequal(sock.remote_address, sock.remote_address))
  end))

  it("native_handle is the descriptor, an integer", with_loop(function()
    local sock <close> = bound()
    assert.equal("integer", math.type(sock.native_handle))
    local other <close> = bound()
    assert.are_not.equal(sock.native_handle, other.native_handle)
  end))

  it_linux("native_handle is a descriptor of a socket", with_loop(function()
    local lfs = require "lfs"
    local sock <close> = bound()
    assert.equal("socket", lfs.attributes("/proc/self/fd/" .. sock.native_handle, "mode"))
  end))

  it("the send queue is empty while nothing waits", with_loop(function()
    local sock, peer = support.pair()
    sock:send("x")
    assert.equal(0, sock.send_queue_size)
    assert.equal(0, sock.send_queue_count)
    assert.equal("x", (peer:receive_string()))
  end))

  it("methods refuse a self that is no socket", with_loop(function()
    local sock <close> = bound()
    for _, method in ipairs(methods_of_open_sockets) do
      for _, self in ipairs { 1, "x", {}, byte_span.new(1), ip.address.any_v4(), io.stdout } do
        assert_message("ip.udp.socket", sock[method], self)
      end
      assert_message("ip.udp.socket", sock[method])
    end
    for _, method in ipairs { "open", "bind", "connect", "close" } do
      assert_message("ip.udp.socket", sock[method], byte_span.new(1))
    end
  end))
end)

describe("timeouts", function()
  for _, name in ipairs { "receive_timeout", "send_timeout" } do
    it(name .. " is nil to begin with, and takes seconds from 0 up", with_loop(function()
      local sock <close> = bound()
      assert.is_nil(sock[name])
      for _, seconds in ipairs { 0, 0.25, 3, 1e9, math.huge } do
        sock[name] = seconds
        assert.equal(seconds, sock[name])
      end
      sock[name] = nil
      assert.is_nil(sock[name])
    end))

    it(name .. " refuses what is no time and stays as it is", with_loop(function()
      local sock <close> = bound()
      sock[name] = 7
      for _, value in ipairs { -1, -0.001, -math.huge, 0 / 0, "1", true, {} } do
        assert_message("bad argument", set, sock, name, value)
        assert.equal(7, sock[name])
      end
    end))
  end

  it("of one side does not concern the other", with_loop(function()
    local sock, peer = support.pair()
    sock.send_timeout = 0
    local waiting = suspended(sock, "receive_string")
    peer:send("in time")
    local _, text = waiting:join()
    assert.equal("in time", text)
    sock.receive_timeout = 0
    sock:send("out")
    assert.equal("out", (peer:receive_string()))
  end))
end)

describe("io_control", function()
  it("tells the size of the next datagram", with_loop(function()
    local sock, peer = support.pair()
    assert.equal(0, sock:io_control("bytes_readable"))
    peer:send("12345")
    peer:send("123")
    assert.equal(5, sock:io_control("bytes_readable"))
    sock:receive_string()
    assert.equal(3, sock:io_control("bytes_readable"))
    sock:receive_string()
    assert.equal(0, sock:io_control("bytes_readable"))
    peer:send("")
    assert.equal(0, sock:io_control("bytes_readable"))
    assert.equal("", (sock:receive_string()))
  end))

  it("raises ENOTSUP for an unknown command", with_loop(function()
    local sock <close> = bound()
    assert_method_raises("ENOTSUP", sock, "io_control", "bytes_written")
    assert_method_raises("ENOTSUP", sock, "io_control", "")
    assert_method_raises("ENOTSUP", sock, "io_control", "bytes_readable\0")
    for _, value in ipairs { 1, true, {} } do assert_bad_method_argument(1, sock, "io_control", value) end
    assert_bad_method_argument(1, sock, "io_control")
  end))
end)

describe("ip.udp.bind", function()
  it("gives a bound socket", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0)
    assert.equal("127.0.0.1", tostring(sock.local_address))
    assert.is_true(sock.local_port > 0)
    local other <close> = ip.udp.bind(ip.address.any_v4(), 0)
    assert.equal("0.0.0.0", tostring(other.local_address))
  end))

  it_v6("gives a v6 socket for a v6 address", with_loop(function()
    local sock <close> = ip.udp.bind("::1", 0)
    assert.equal("v6", sock.family)
  end))

  it("sets options before it binds", with_loop(function()
    local first <close> = ip.udp.bind("127.0.0.1", 0, { reuse_port = true })
    local second <close> = ip.udp.bind("127.0.0.1", first.local_port, { reuse_port = true, broadcast = true })
    assert.equal(first.local_port, second.local_port)
    assert.is_true(second:get_option("broadcast"))
  end))

  it("takes timeouts", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 0, send_timeout = 2.5 })
    assert.equal(0, sock.receive_timeout)
    assert.equal(2.5, sock.send_timeout)
    assert_method_raises("ETIMEDOUT", sock, "receive_string")
  end))

  it("sets nothing that was not asked for", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, {})
    for _, option in ipairs { "reuse_address", "reuse_port", "broadcast" } do
      assert.is_false(sock:get_option(option), option)
    end
    assert.is_nil(sock.receive_timeout)
  end))

  it("raises and leaks no descriptor", with_loop(function()
    local taken <close>, port = bound()
    local before = support.descriptors()
    local function fails(...) return error_of(ip.udp.bind, ...) end
    assert.equal(ip.error.EADDRINUSE, fails("127.0.0.1", port))
    assert.equal("bind", fails("127.0.0.1", port).operation)
    assert.equal(ip.error.ENOTSUP, fails("127.0.0.1", 0, { no_such_option = true }))
    assert.is_string(fails("127.0.0.1", 0, { broadcast = 1 }))
    assert.is_string(fails("127.0.0.1", 0, { receive_timeout = -1 }))
    assert.is_string(fails("127.0.0.1", 0, { [1] = "broadcast" }))
    assert.equal(ip.error.EADDRNOTAVAIL, fails("203.0.113.77", 0))
    assert.is_string(fails("127.0.0.1", -1))
    assert.equal(before, support.descriptors())
    assert.is_true(taken.is_open)
  end))

  it("names itself in complaints about its arguments", with_loop(function()
    local bind = ip.udp.bind
    for _, address in ipairs(bad_addresses) do
      assert_message("bad argument #1 to 'bind'", function() bind(address, 0) end)
    end
    assert_message("bad argument #1 to 'bind'", function() bind() end)
    for _, port in ipairs(bad_ports) do
      assert_message("bad argument #2 to 'bind'", function() bind("127.0.0.1", port) end)
    end
    for _, options in ipairs { 1, "reuse_address", true } do
      assert_message("bad argument #3 to 'bind'", function() bind("127.0.0.1", 0, options) end)
    end
  end))
end)

describe("ip.udp.connect", function()
  it("gives a connected socket", with_loop(function()
    local peer <close>, port = bound()
    local sock <close> = ip.udp.connect("127.0.0.1", port)
    assert.equal(port, sock.remote_port)
    sock:send("hello")
    assert.equal("hello", (peer:receive_string()))
    local other <close> = ip.udp.connect(ip.address.loopback_v4(), port)
    assert.equal(port, other.remote_port)
  end))

  it("takes a local endpoint, a local address or a local port", with_loop(function()
    local peer <close>, port = bound()
    local former, free = bound()
    former:close()
    local a <close> = ip.udp.connect("127.0.0.1", port, { local_address = "127.0.0.1", local_port = free })
    assert.equal("127.0.0.1", tostring(a.local_address))
    assert.equal(free, a.local_port)
    a:close()
    local b <close> = ip.udp.connect("127.0.0.1", port, { local_port = free })
    assert.equal(free, b.local_port)
    local c <close> = ip.udp.connect("127.0.0.1", port, { local_address = ip.address.loopback_v4() })
    assert.equal("127.0.0.1", tostring(c.local_address))
    c:send("from there")
    local _, address, from = peer:receive_string()
    assert.equal(c.local_address, address)
    assert.equal(c.local_port, from)
  end))

  it("takes options and timeouts", with_loop(function()
    local peer <close>, port = bound()
    local sock <close> = ip.udp.connect("127.0.0.1", port, { unicast_hops = 9, receive_timeout = 0, send_timeout = 1 })
    assert.equal(9, sock:get_option("unicast_hops"))
    assert.equal(0, sock.receive_timeout)
    assert.equal(1, sock.send_timeout)
    assert.is_true(peer.is_open)
  end))

  it("raises and leaks no descriptor", with_loop(function()
    local peer <close>, port = bound()
    local before = support.descriptors()
    local function fails(...) return error_of(ip.udp.connect, ...) end
    assert.equal(ip.error.EINVAL, fails("127.0.0.1", 0))
    assert.equal("connect", fails("127.0.0.1", 0).operation)
    assert.equal(ip.error.ENOTSUP, fails("127.0.0.1", port, { no_such_option = true }))
    assert.equal(ip.error.EADDRINUSE, fails("127.0.0.1", port, { local_address = "127.0.0.1", local_port = port }))
    assert.equal(ip.error.EAFNOSUPPORT, fails("127.0.0.1", port, { local_address = "::1" }))
    assert.is_string(fails("127.0.0.1", port, { local_port = "80" }))
    assert.is_string(fails("127.0.0.1", 70000))
    assert.equal(before, support.descriptors())
    assert.is_true(peer.is_open)
  end))

  it("names itself in complaints about its arguments", with_loop(function()
    local connect = ip.udp.connect
    for _, address in ipairs(bad_addresses) do
      assert_message("bad argument #1 to 'connect'", function() connect(address, 1) end)
    end
    for _, port in ipairs(bad_ports) do
      assert_message("bad argument #2 to 'connect'", function() connect("127.0.0.1", port) end)
    end
    assert_message("bad argument #3 to 'connect'", function() connect("127.0.0.1", 1, true) end)
  end))
end)

describe("a dual-stack socket", function()
  it_v6("shows v4 peers v4-mapped, and answers them", with_loop(function()
    local server <close> = ip.udp.bind("::", 0)
    local v4 <close> = ip.udp.connect("127.0.0.1", server.local_port)
    local v6 <close> = ip.udp.connect("::1", server.local_port)
    local buf = byte_span.new(16)
    v4:send("four")
    local _, address, port = server:receive_from(buf)
    assert.equal("::ffff:127.0.0.1", tostring(address))
    assert.is_true(address.is_v4_mapped)
    server:send_to("back", address, port)
    assert.equal("back", (v4:receive_string()))
    v6:send("six")
    _, address, port = server:receive_from(buf)
    assert.equal("::1", tostring(address))
    server:send_to("back", address, port)
    assert.equal("back", (v6:receive_string()))
  end))

  it_v6("sends to v4 addresses", with_loop(function()
    local peer <close>, port = bound()
    local sock <close> = new_socket()
    sock:open("v6")
    sock:send_to("one", "127.0.0.1", port)
    sock:send_to("two", ip.address.loopback_v4(), port)
    sock:send_to("three", "::ffff:127.0.0.1", port)
    assert.same({ "one", "two", "three" }, drain(peer))
  end))

  it_v6("may be connected again to a peer of the other family", with_loop(function()
    local four <close>, four_port = bound()
    local six <close>, six_port = bound("v6")
    local function talk(sock, peer, address, port)
      sock:connect(address, port)
      sock:send("out")
      local text, from_address, from_port = peer:receive_string()
      assert.equal("out", text)
      assert.equal(sock.local_port, from_port)
      peer:send_to("back", from_address, from_port)
      assert.equal("back", (sock:receive_string()))
    end
    local bound_socket, free_socket = ip.udp.bind("::", 0, { receive_timeout = 1 }), new_socket()
    free_socket:open("v6")
    free_socket.receive_timeout = 1
    local port = bound_socket.local_port
    for _, sock in ipairs { bound_socket, free_socket } do
      talk(sock, six, "::1", six_port)
      talk(sock, four, "127.0.0.1", four_port)
      talk(sock, six, "::1", six_port)
    end
    assert.equal(port, bound_socket.local_port)
  end))

  it_v6("is what v6_only makes an end of", with_loop(function()
    local server <close> = ip.udp.bind("::", 0, { v6_only = true })
    local v4 <close> = bound()
    v4:send_to("unheard", "127.0.0.1", server.local_port)
    local v6 <close> = bound("v6")
    v6:send_to("heard", "::1", server.local_port)
    assert.same({ "heard" }, drain(server))
  end))
end)
