-- What a raised error tells beside its code: the place in the program, the endpoint of the call, and whether a
-- server goes on after it.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local without_collector = require "spec.support.memory".without_collector
local netns = require "spec.support.netns"
local support = require "spec.support"

local byte_span, errors, fiber = ip.byte_span, ip.error, ip.fiber
local on_main, with_loop, bound, error_of = support.on_main, support.with_loop, support.bound, support.error_of
local assert_contains, assert_message = assertions.assert_contains, assertions.assert_message

-- The place of the caller, as errors write it.
local function here(level)
  local info = debug.getinfo((level or 1) + 1, "Sl")
  return info.short_src .. ":" .. info.currentline
end

describe("the place of an error", function()
  it("is the line that called", with_loop(function()
    local sock <close> = bound()
    local ok, err, place
    local function call()
      place = here() sock:receive(byte_span.new(1), ip.message_flag.more)
    end
    ok, err = pcall(call)
    assert.is_false(ok)
    assert.equal(place, err.where)
    assert.equal(place .. ": receive 'more': operation not supported on socket (ENOTSUP): a flag of sends",
      tostring(err))
  end))

  it("is the line of the pcall where that calls the method itself", with_loop(function()
    local sock <close> = bound()
    local place, _, err = here(), pcall(sock.bind, sock, "127.0.0.1", 0)
    assert.equal(place, err.where)
  end))

  it("is outside the library's own files", with_loop(function()
    local sock <close>, port = bound()
    local config = { capacity = 1, stop = function() return true end }
    sock.receive_timeout = 0
    for name, call in pairs {
      bind = function() return here(), pcall(ip.udp.bind, "127.0.0.1", port) end,
      connect = function() return here(), pcall(ip.udp.connect, "127.0.0.1", 0) end,
      with_timeout = function() return here(), pcall(fiber.with_timeout, 0, fiber.sleep, 1) end,
      send_with = function() return here(), pcall(sock.send_with, sock, 1, function() end) end,
      receive_loop = function() return here(), pcall(sock.receive_loop, sock, function() end, config) end,
      datagrams = function() return here(), pcall(function() for _ in sock:datagrams(config) do end end) end,
    } do
      local place, ok, err = call()
      assert.is_false(ok, name)
      assert.equal(place, err.where, name)
    end
  end))

  it("of a deadline is that of the call that was waiting", with_loop(function()
    local place
    local err = error_of(fiber.with_timeout, 0.001, function()
      place = here() fiber.sleep(10)
    end)
    assert.equal(place, err.where)
  end))

  it("is nil where no function of Lua is on the stack", with_loop(function()
    local failed = fiber.spawn(fiber.wait_fd, 1 << 20, "r")
    local err = error_of(failed.join, failed)
    assert.equal(errors.EBADF, err)
    assert.is_nil(err.where)
    assert.equal("wait_fd '1048576': bad file descriptor (EBADF)", tostring(err))
  end))

  it("is noted where a fiber raised it, and survives join and run", on_main(function()
    local place
    local function fails()
      place = here() fiber.wait_fd(1 << 20, "r")
    end
    local err = error_of(fiber.run, fails)
    assert.equal(place, err.where)
    local failed = fiber.spawn(fails)
    assert.equal(place, error_of(failed.join, failed).where)
  end))

  it("is nil in the values of ip.error, in those that try_ calls return, and in reports of the network", with_loop(
    function()
      local sock <close> = bound()
      assert.is_nil(errors.ECONNREFUSED.where)
      assert.is_nil((select(2, sock:try_receive(byte_span.new(1)))).where)
    end))

  it("is in the texts of argument errors, too", with_loop(function()
    local sock <close> = bound()
    local place, _, message = here(), pcall(sock.send_to, sock, "x", 1, 9)
    assert.equal(place .. ": bad argument #2 to 'send_to' (ip.address or string expected, got number 1)", message)
  end))

  it("costs no memory: a timeout under pcall makes no more garbage than the error value", on_main(function()
    local sock <close> = bound()
    local buf = byte_span.new(1)
    sock.receive_timeout = 0
    local function round()
      for _ = 1, 1000 do pcall(sock.receive, sock, buf) end
    end
    local stopped <close> = without_collector() -- luacheck: ignore stopped
    round() -- by then the stack has grown
    local before = collectgarbage("count")
    round()
    local each = (collectgarbage("count") - before) * 1.024
    -- a userdata without user values: 32 bytes of Lua's and 24 of the error
    assert.is_true(each <= 56, ("%.1f bytes each"):format(each))
  end))

  it("is known for many files, and at last forgotten, never another, where names are made up without end", on_main(
    function()
      local first, last
      for i = 1, 2000 do
        local call = load("local fn = ... local ok, err = pcall(fn, 1 << 20, 'r') return err", "=made up " .. i)
        last = call(fiber.wait_fd)
        first = first or last
        assert.equal(("made up %d:1"):format(i), last.where)
      end
      assert.is_nil(first.where)
      assert.equal("wait_fd '1048576': bad file descriptor (EBADF)", tostring(first))
    end))
end)

describe("the endpoint of an error", function()
  it("is in the text and in address and port, where the call has one", with_loop(function()
    local sock <close>, port = bound()
    local any = ip.address.new("127.0.0.1")
    local batch = ip.udp.batch.new(2, 10)
    batch:set(1, "x", "127.0.0.1", 0)
    for name, call in pairs {
      bind = function() return error_of(ip.udp.bind, "127.0.0.1", port), port end,
      connect = function() return error_of(sock.connect, sock, any, 0), 0 end,
      send_to = function() return error_of(sock.send_to, sock, "x", "127.0.0.1", 0), 0 end,
      try_send_to = function() return error_of(sock.try_send_to, sock, "x", any, 0), 0 end,
      send_to_with = function() return error_of(sock.send_to_with, sock, 1, function() end, any, 0), 0 end,
      send_message = function() return error_of(sock.send_message, sock, "x", { address = any, port = 0 }), 0 end,
      reply_message = function() return error_of(sock.reply_message, sock, "x", { address = any, port = 0 }), 0 end,
      send_many = function() return error_of(sock.send_many, sock, batch, 1, 1), 0 end,
    } do
      local err, expected = call()
      assert.equal(any, err.address, name)
      assert.equal(expected, err.port, name)
      assert_contains(err, (": %s 127.0.0.1:%d: "):format(name, expected))
    end
  end))

  it("of a v6 address is in brackets", with_loop(function()
    local err = error_of(ip.udp.bind, "2001:db8::1", 53)
    assert_contains(err, ": bind [2001:db8::1]:53: ")
  end))

  it("is nil where the call has none", with_loop(function()
    local sock <close> = bound()
    local err = error_of(sock.send, sock, "x")
    assert.is_nil(err.address)
    assert.is_nil(err.port)
    assert.is_nil(errors.EAGAIN.address)
  end))

  it("names what is wrong with it", with_loop(function()
    local sock <close> = bound()
    assert_contains(error_of(sock.send_to, sock, "x", "127.0.0.1", 0), "(EINVAL): port 0 is no destination")
    assert_contains(error_of(sock.connect, sock, "127.0.0.1", 0), "(EINVAL): port 0 is no destination")
    assert_contains(error_of(sock.bind, sock, "127.0.0.1", 0), "(EINVAL): the socket is bound already")
    assert_contains(error_of(sock.send, sock, "x"), "(EDESTADDRREQ): the socket is not connected")
    assert_contains(error_of(sock.send_to, sock, "x", "255.255.255.255", 9),
      "(EACCES): a broadcast address needs the option broadcast")
  end))

  it("does not speak of broadcasts where a route refuses an IPv6 address", function()
    local net = netns.new()
    if not net then return pending("network namespaces are not permitted here") end
    finally(function() net:close() end)
    net:run("ip -6 route add prohibit fd99::/16")
    local path = support.write_file [[
      local ip = require "ip"
      local sock = ip.udp.bind("::", 0)
      print(select(2, pcall(sock.send_to, sock, "x", "fd99::1", 9)))
      print(select(2, pcall(sock.connect, sock, "fd99::1", 9)))
    ]]
    local pipe <close> = assert(io.popen(net:program(support.interpreter .. " " .. path)))
    local output = pipe:read("a")
    os.remove(path)
    local refused = "[^\n]*%s %%[fd99::1%%]:9: permission denied %%(EACCES%%)\n"
    assert.matches("^" .. refused:format("send_to") .. refused:format("connect") .. "$", output)
  end)
end)

describe("transient", function()
  it("is true for what the network says of one datagram, and for a socket's own deadline", with_loop(function()
    local sock <close> = ip.udp.connect("127.0.0.1", support.dead_port())
    sock:send("x")
    assert.is_true(error_of(sock.receive_string, sock).transient) -- ECONNREFUSED
    sock.receive_timeout = 0
    assert.is_true(error_of(sock.receive_string, sock).transient) -- ETIMEDOUT
    assert.is_true(error_of(sock.send, sock, ("x"):rep(65508)).transient) -- EMSGSIZE
    local other <close> = bound()
    assert.is_true(error_of(other.send_to, other, "x", "127.0.0.1", 0).transient) -- EINVAL, port 0
  end))

  it("is false for what ends a server", with_loop(function()
    local sock <close>, port = bound()
    assert.is_false(error_of(ip.udp.bind, "127.0.0.1", port).transient)
    assert.is_false(error_of(sock.bind, sock, "127.0.0.1", 0).transient) -- EINVAL of another kind
    assert.is_false(error_of(sock.send, sock, "x").transient) -- EDESTADDRREQ
    assert.is_false(error_of(fiber.with_timeout, 0, fiber.sleep, 1).transient)
    local waiting = support.waiting(sock.receive_string, sock)
    sock:close()
    assert.is_false(error_of(waiting.join, waiting).transient) -- ECANCELED
    assert.is_false(error_of(sock.receive_string, sock).transient) -- EBADF
  end))

  it("is false for the values in ip.error", function()
    for _, name in ipairs { "ECONNREFUSED", "ETIMEDOUT", "EAGAIN", "EMSGSIZE", "EPERM", "EAI_AGAIN" } do
      assert.is_false(errors[name].transient)
    end
  end)
end)

describe("a try_ call that would wait", function()
  it("returns the one shared ip.error.EAGAIN and makes no garbage", on_main(function()
    local sock <close> = bound()
    local buf = byte_span.new(1)
    local function round()
      for _ = 1, 1000 do
        local n, err = sock:try_receive(buf)
        assert(n == nil and rawequal(err, errors.EAGAIN))
        n, err = sock:try_receive_from(buf)
        assert(n == nil and rawequal(err, errors.EAGAIN))
      end
    end
    local stopped <close> = without_collector() -- luacheck: ignore stopped
    round() -- by then the stack has grown
    local before = collectgarbage("count")
    round()
    local after = collectgarbage("count")
    assert.equal(0, after - before)
  end))
end)

describe("argument errors", function()
  it("count and name as a method call does, however the function is called", with_loop(function()
    local sock <close> = bound()
    local send_to = sock.send_to
    for _, call in ipairs {
      function() sock:send_to("x", 1, 9) end,
      function() sock.send_to(sock, "x", 1, 9) end,
      function() send_to(sock, "x", 1, 9) end,
      function() error(select(2, pcall(send_to, sock, "x", 1, 9)), 0) end,
      function() local another = { name = sock.send_to } another.name(sock, "x", 1, 9) end,
    } do
      assert_message("bad argument #2 to 'send_to' (ip.address or string expected, got number 1)", call)
    end
    assert_message("bad argument #2 to 'tostring' (integer expected, got string '9')", pcall and ip.tostring, "::", "9")
  end))

  it("say that a method was called without its object", with_loop(function()
    local sock <close> = bound()
    assert_message("calling 'send' on bad self (ip.udp.socket expected, got string 'x')", sock.send, "x")
    assert_message("calling 'close' on bad self (ip.udp.socket expected, got no value)", sock.close)
  end))

  it("show the value in one readable line", with_loop(function()
    local sock <close> = bound()
    assert_message("got string 'a?b')", sock.bind, sock, "127.0.0.1", "a\nb")
    assert_message("got string '" .. ("x"):rep(40) .. "...')", sock.bind, sock, "127.0.0.1", ("x"):rep(1000))
    assert_message("got boolean true)", sock.bind, sock, "127.0.0.1", true)
    assert_message("got table)", sock.bind, sock, "127.0.0.1", {})
    assert_message("got byte_span)", sock.bind, sock, "127.0.0.1", byte_span.new(1))
  end))

  it("name the property and the option", with_loop(function()
    local sock <close> = bound()
    assert_message("property 'receive_timeout' of ip.udp.socket: number expected, got string '5'",
      function() sock.receive_timeout = "5" end)
    assert_message("bad argument #2 to 'set_option' (option 'reuse_address': boolean expected, got number 1)",
      sock.set_option, sock, "reuse_address", 1)
    local err = error_of(sock.set_option, sock, "reuseaddr", true)
    assert.equal(errors.ENOTSUP, err)
    assert_contains(err, ": set_option 'reuseaddr': ")
    assert_contains(err, ": did you mean 'reuse_address'?")
  end))

  it("name the remedy for a host name where an address is meant", function()
    assert_message("bad argument #1 to 'new' ('localhost' is no IP address; ip.udp.get_address_info looks names up)",
      ip.address.new, "localhost")
  end)
end)

describe("ip.message_flag", function()
  it("raises for names that no platform has: a misspelt one would be no flag, silently", function()
    assert_message("ip.message_flag has no flag 'peak'", function() return ip.message_flag.peak end)
    assert_message("ip.message_flag has no flag '1'", function() return ip.message_flag[1] end)
    assert.equal("integer", math.type(ip.message_flag.peek))
  end)
end)
