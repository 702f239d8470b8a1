-- What ip.error promises: values that say what failed, and that can be compared.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"

local fiber, errors = ip.fiber, ip.error
local with_loop, on_main = support.with_loop, support.on_main
local error_of, bound = support.error_of, support.bound

local assert_contains, assert_message = assertions.assert_contains, assertions.assert_message

-- An error value that a call has raised.
local function raised()
  return error_of(ip.udp.socket.new().receive, ip.udp.socket.new(), ip.byte_span.new(1))
end

describe("an error value", function()
  it("has code, name, message, category and operation", function()
    local err = raised()
    assert.equal("userdata", type(err))
    assert.equal("integer", math.type(err.code))
    assert.equal("EBADF", err.name)
    assert.equal("bad file descriptor", err.message)
    assert.equal("system", err.category)
    assert.equal("receive", err.operation)
  end)

  it("becomes the text `place: operation: message (NAME)`", function()
    local sock = ip.udp.socket.new()
    local _, err = pcall(sock.receive, sock, ip.byte_span.new(1))
    local expected = "spec/error_spec.lua:30: receive: bad file descriptor (EBADF): the socket is not open"
    assert.equal(expected, tostring(err):match("spec/error_spec.*"))
  end)

  it("without an operation becomes the text `message (NAME)`", function()
    assert.is_nil(errors.ECONNREFUSED.operation)
    assert.equal("connection refused (ECONNREFUSED)", tostring(errors.ECONNREFUSED))
    assert.equal("interrupted (INTERRUPTED)", tostring(errors.INTERRUPTED))
  end)

  it("gives its text where it is concatenated", function()
    local err = errors.ECONNREFUSED
    assert.equal("failed: connection refused (ECONNREFUSED)", "failed: " .. err)
    assert.equal("connection refused (ECONNREFUSED)!", err .. "!")
    assert.equal("1connection refused (ECONNREFUSED)2", 1 .. err .. 2)
    assert.equal(tostring(err) .. tostring(raised()), err .. raised())
    assert.equal("::1 connection refused (ECONNREFUSED)", ip.address.new("::1") .. " " .. err)
    assert_message("attempt to concatenate a nil value", function() return err .. nil end)
    assert_message("attempt to concatenate a table value", function() return {} .. err end)
  end)

  it("is immutable", function()
    local err = raised()
    for _, name in ipairs { "code", "name", "message", "category", "operation", "mtu", "togeneric", "unknown" } do
      assert_message(name, function() err[name] = 1 end)
    end
    assert.equal("EBADF", err.name)
    assert.equal("receive", err.operation)
  end)

  it("reads nil for fields it does not have, so that handlers may probe any error object", function()
    local err = raised()
    assert.is_nil(err.unknown)
    assert.is_nil(err[1])
    assert.is_nil(err.mtu)
    assert.is_nil(err[{}])
  end)

  it("hides its metatable", function()
    assert.equal("ip.error", getmetatable(raised()))
    assert.is_false((pcall(setmetatable, raised(), {})))
  end)

  it("its fields are the same every time", function()
    local err = raised()
    for _ = 1, 3 do
      for _, name in ipairs { "code", "name", "message", "category", "operation" } do
        assert.equal(err[name], err[name])
      end
    end
  end)
end)

describe("comparing", function()
  it("== looks at category and code, not at operation", function()
    local a = raised()
    local b = error_of(function() return ip.udp.socket.new().local_port end)
    assert.is_false(rawequal(a, b))
    assert.not_equal(a.operation, b.operation)
    assert.is_true(a == b)
    assert.is_true(a == errors.EBADF)
    assert.is_true(errors.EBADF == a)
    assert.is_false(a ~= errors.EBADF)
    assert.is_false(a == errors.EINVAL)
  end)

  it("with values of other types is false, and raises nothing", function()
    local err = raised()
    for _, other in ipairs { 9, "EBADF", true, {}, print, ip.address.new(), ip.byte_span.new(1), io.stdout,
      ip.udp.socket.new() } do
      assert.is_false(err == other)
      assert.is_false(other == err)
    end
    assert.is_false(err == nil)
  end)

  it("tells categories apart, though the codes are equal", function()
    local interrupted = errors.INTERRUPTED
    assert.is_false(interrupted == errors[interrupted.code])
    assert.is_false(errors.EAI_NONAME == errors[math.abs(errors.EAI_NONAME.code)])
  end)

  it("order is not defined", function()
    assert.is_false((pcall(function() return errors.EBADF < errors.EINVAL end)))
  end)

  it("as table keys: values are keys by identity, so code and name serve better", function()
    local a, b = raised(), raised()
    assert.is_true(a == b)
    local count = { [a] = 1 }
    assert.is_nil(count[b])
    count = { [a.name] = 1 }
    assert.equal(1, count[b.name])
    count = { [errors.EBADF] = 1 } -- the values of ip.error are the same object every time
    assert.equal(1, count[errors.EBADF])
  end)
end)

describe("ip.error", function()
  it("is the module ip.error", function()
    assert.is_true(rawequal(errors, require "ip.error"))
  end)

  it("knows the names that programs compare with", function()
    for _, name in ipairs { "EACCES", "EADDRINUSE", "EADDRNOTAVAIL", "EAFNOSUPPORT", "EAGAIN", "EALREADY", "EBADF",
      "EBUSY", "ECANCELED", "ECONNREFUSED", "ECONNRESET", "EDEADLK", "EDESTADDRREQ", "EEXIST", "EHOSTUNREACH",
      "EINTR", "EINVAL", "EIO", "EISCONN", "EMFILE", "EMSGSIZE", "ENETDOWN", "ENETUNREACH", "ENFILE", "ENOBUFS",
      "ENODEV", "ENOENT", "ENOMEM", "ENOPROTOOPT", "ENOTCONN", "ENOTSOCK", "ENOTSUP", "ENXIO", "EPERM", "EPIPE",
      "EPROTO", "EPROTONOSUPPORT", "ESHUTDOWN", "ETIMEDOUT" } do
      local err = errors[name]
      assert.is_not_nil(err, name)
      assert.equal(name, err.name)
      assert.equal("system", err.category)
      assert.is_true(err.code > 0)
      assert.is_true(#err.message > 0)
    end
  end)

  it("knows the names of the resolver", function()
    for _, name in ipairs { "EAI_AGAIN", "EAI_BADFLAGS", "EAI_FAIL", "EAI_FAMILY", "EAI_MEMORY", "EAI_NONAME",
      "EAI_SERVICE", "EAI_SOCKTYPE", "EAI_SYSTEM", "EAI_OVERFLOW" } do
      local err = errors[name]
      assert.is_not_nil(err, name)
      assert.equal(name, err.name)
      assert.equal("resolver", err.category)
    end
  end)

  it("knows INTERRUPTED", function()
    assert.equal("INTERRUPTED", errors.INTERRUPTED.name)
    assert.equal("fiber", errors.INTERRUPTED.category)
  end)

  it("gives values by errno too", function()
    for _, name in ipairs { "ECONNREFUSED", "EINVAL", "ETIMEDOUT", "EDEADLK" } do
      assert.equal(errors[name], errors[errors[name].code])
      assert.equal(name, errors[errors[name].code].name)
    end
  end)

  it("111 is ECONNREFUSED on Linux", function()
    if errors.ECONNREFUSED.code ~= 111 then return pending("the system numbers its errors differently") end
    assert.equal(errors.ECONNREFUSED, errors[111])
  end)

  it("takes a float that is an integer for that integer, as tables do", function()
    local code = errors.ENOTCONN.code
    assert.equal(errors.ENOTCONN, errors[code + 0.0])
    assert.equal(errors.ENOTCONN, errors[code])
    assert.equal(errors.ENOTCONN, errors[code + 0.0])
    assert.is_nil(errors[code + 0.5])
  end)

  it("is nil for numbers that are no errno value", function()
    for _, unknown in ipairs { 0, -1, -111, 3001, 4095, 5000, 1000000, math.maxinteger, math.mininteger, 1e300,
      2^53 } do
      assert.is_nil(errors[unknown])
    end
  end)

  it("raises for names that no platform has: a misspelt one would equal nothing, silently", function()
    for _, unknown in ipairs { "ENOSUCH", "econnrefused", "", "ECONNREFUSED ", "interrupted", "EAI_", "111", "EOF",
      "UNKNOWN", true, {}, print } do
      assert_message("ip.error has no error '" .. tostring(unknown) .. "'", function() return errors[unknown] end)
    end
  end)

  it("has a value that no error equals for a name that this platform lacks", function()
    local lacking = errors.EFTYPE -- of the BSDs
    assert.equal("EFTYPE", lacking.name)
    assert.is_nil(errors[lacking.code])
    for _, name in ipairs { "ECONNREFUSED", "EAGAIN", "EAI_NONAME", "INTERRUPTED" } do
      assert.is_false(lacking == errors[name])
    end
  end)

  it("has no error for success", function()
    assert.is_nil(errors[0])
  end)

  it("the aliases EWOULDBLOCK and EOPNOTSUPP have one name", function()
    assert.equal(errors.EAGAIN, errors.EWOULDBLOCK)
    assert.equal(errors.ENOTSUP, errors.EOPNOTSUPP)
    assert.equal("EAGAIN", errors.EWOULDBLOCK.name)
    assert.equal("ENOTSUP", errors.EOPNOTSUPP.name)
    assert.equal("ENOTSUP", errors[errors.EOPNOTSUPP.code].name)
  end)

  it("every number from 1 to 200 is nil or a value of that code with a name of its own", function()
    local names = {}
    for code = 1, 200 do
      local err = errors[code]
      if err ~= nil then
        assert.equal("system", err.category)
        assert.is_nil(names[err.name], err.name)
        names[err.name] = true
        assert.equal(err, errors[err.name])
      end
    end
    assert.is_true(names.EPERM and names.ETIMEDOUT)
  end)
end)

describe("togeneric", function()
  it("gives the same code in category generic, which equals no system error", function()
    local err = raised()
    local generic = err:togeneric()
    assert.equal("generic", generic.category)
    assert.equal(err.code, generic.code)
    assert.equal(err.name, generic.name)
    assert.equal(err.message, generic.message)
    assert.equal(err.operation, generic.operation)
    assert.is_false(generic == err)
    assert.is_true(generic == errors.EBADF:togeneric())
    assert.is_true(generic == generic:togeneric())
    assert.equal(tostring(err), tostring(generic))
  end)

  it("leaves an error as it is that is no errno value, so that it equals none", function()
    for _, err in ipairs { errors.INTERRUPTED, errors.EAI_NONAME } do
      assert.is_true(rawequal(err, err:togeneric()))
    end
    assert.is_false(errors.INTERRUPTED:togeneric() == errors.EPERM:togeneric())
  end)

  it("needs an error value", function()
    local togeneric = errors.EBADF.togeneric
    for _, wrong in ipairs { 1, "EBADF", {}, ip.address.new() } do
      assert_message("ip.error expected", togeneric, wrong)
    end
  end)
end)

describe("errors carry the operation that failed", function()
  local function check(operation, name, fn, ...)
    local err = assertions.assert_raises(name, operation, fn, ...)
    assert.equal(name, err.name)
    assert.equal(operation, support.text_of(err):match("^([%w_]+)"))
  end

  it("of sockets that are not open: every call and property", with_loop(function()
    local sock = ip.udp.socket.new()
    local buffer = ip.byte_span.new(1)
    check("receive", "EBADF", sock.receive, sock, buffer)
    check("receive_from", "EBADF", sock.receive_from, sock, buffer)
    check("receive_string", "EBADF", sock.receive_string, sock)
    check("try_receive", "EBADF", sock.try_receive, sock, buffer)
    check("try_receive_from", "EBADF", sock.try_receive_from, sock, buffer)
    check("send", "EBADF", sock.send, sock, "x")
    check("send_to", "EBADF", sock.send_to, sock, "x", "127.0.0.1", 9)
    check("try_send", "EBADF", sock.try_send, sock, "x")
    check("try_send_to", "EBADF", sock.try_send_to, sock, "x", "127.0.0.1", 9)
    check("cancel", "EBADF", sock.cancel, sock)
    check("shutdown", "EBADF", sock.shutdown, sock, "both")
    check("disconnect", "EBADF", sock.disconnect, sock)
    check("set_option", "EBADF", sock.set_option, sock, "broadcast", true)
    check("get_option", "EBADF", sock.get_option, sock, "broadcast")
    check("io_control", "EBADF", sock.io_control, sock, "bytes_readable")
    for _, property in ipairs { "local_address", "local_port", "remote_address", "remote_port", "family",
      "native_handle" } do
      check(property, "EBADF", function() return sock[property] end)
    end
  end))

  it("of calls that the system refuses", with_loop(function()
    local sock, port = bound()
    check("open", "EALREADY", sock.open, sock, "v4")
    check("bind", "EINVAL", sock.bind, sock, "127.0.0.1", 0)
    check("bind", "EADDRINUSE", ip.udp.bind, "127.0.0.1", port)
    check("connect", "EINVAL", sock.connect, sock, "127.0.0.1", 0)
    check("send", "EDESTADDRREQ", sock.send, sock, "x")
    check("send_to", "EINVAL", sock.send_to, sock, "x", "127.0.0.1", 0)
    check("send_to", "EMSGSIZE", sock.send_to, sock, ("x"):rep(65508), "127.0.0.1", port)
    check("remote_port", "ENOTCONN", function() return sock.remote_port end)
    check("get_option", "ENOTSUP", sock.get_option, sock, "no_such_option")
    sock:close()
  end))

  it("of calls that were cancelled, timed out or closed under the waiter", with_loop(function()
    local sock = bound()
    local function waiter()
      local one = fiber.spawn(function() return error_of(sock.receive_from, sock, ip.byte_span.new(1)) end)
      fiber.yield()
      return one
    end
    local one = waiter()
    sock:cancel()
    local err = one:join()
    assert.same({ "ECANCELED", "receive_from" }, { err.name, err.operation })
    sock.receive_timeout = 0.001
    err = waiter():join()
    assert.same({ "ETIMEDOUT", "receive_from" }, { err.name, err.operation })
    sock.receive_timeout = nil
    one = waiter()
    sock:close()
    err = one:join()
    assert.same({ "ECANCELED", "receive_from" }, { err.name, err.operation })
  end))

  it("of what the network says about earlier datagrams", with_loop(function()
    local sock = ip.udp.connect("127.0.0.1", support.dead_port())
    sock:send("x")
    check("receive_string", "ECONNREFUSED", sock.receive_string, sock)
    sock:close()
  end))

  it("of fibers", with_loop(function()
    local one = fiber.spawn(function() end)
    one:join()
    check("join", "EINVAL", one.join, one)
    check("detach", "EINVAL", one.detach, one)
    check("with_timeout", "ETIMEDOUT", fiber.with_timeout, 0, fiber.sleep, 1)
    local interrupted = fiber.spawn(function() return error_of(fiber.yield) end)
    interrupted:interrupt()
    local err = interrupted:join()
    assert.same({ "INTERRUPTED", "yield" }, { err.name, err.operation })
  end))
end)

describe("an error value that nobody catches", function()
  it("reaches the standalone interpreter as its text", function()
    local output, code = support.run_program [[
      local ip = require "ip"
      ip.udp.socket.new():receive_string()
    ]]
    assert_contains(output, "receive_string: bad file descriptor (EBADF)")
    assert.equal(1, code)
  end)

  it("passes through pcall, coroutine.wrap, join and run as the same object", on_main(function()
    local err = raised()
    assert.is_true(rawequal(err, (select(2, pcall(error, err)))))
    assert.is_true(rawequal(err, error_of(coroutine.wrap(error), err)))
    assert.is_true(rawequal(err, error_of(fiber.run, error, err)))
  end))
end)
