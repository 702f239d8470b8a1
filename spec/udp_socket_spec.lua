-- What ip.udp.socket promises about itself: new, open, bind, properties, timeouts, io_control, both families.
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
local assert_message, assert_bad_method_argument = assertions.assert_message, assertions.assert_bad_method_argument
local it_linux, it_v6 = platform.it_linux, platform.it_v6
local suspended = support.suspended
local get, set, drain = sockets.get, sockets.set, sockets.drain
local bad_ports, bad_addresses = sockets.bad_ports, sockets.bad_addresses

-- Every method that needs an open socket, with arguments that are all wrong.
local methods_of_open_sockets = {
  "disconnect", "shutdown", "cancel", "io_control", "receive", "receive_from", "receive_string", "send", "send_to",
  "try_receive", "try_receive_from", "try_receive_string", "try_receive_message", "try_receive_many", "try_send",
  "try_send_to", "try_send_message", "try_send_many", "set_option", "get_option",
  "set_raw_option", "get_raw_option",
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

  it("takes a v4-mapped address on a v4 socket for the v4 address in it", with_loop(function()
    local sock <close> = new_socket()
    sock:open("v4")
    sock:bind("::ffff:127.0.0.1", 0)
    assert.equal("127.0.0.1", tostring(sock.local_address))
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
    local has_lfs, lfs = pcall(require, "lfs")
    if not has_lfs then return pending("LuaFileSystem is not installed") end
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
        assert_message(("property '%s' of ip.udp.socket: "):format(name), set, sock, name, value)
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
