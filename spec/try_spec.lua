-- What the try_ forms of receive_string, receive_message, receive_many, send_message and send_many promise.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local batches = require "spec.support.batches"
local memory = require "spec.support.memory"
local programs = require "spec.support.blocked_programs"
local support = require "spec.support"

local fiber, udp, byte_span, flag = ip.fiber, ip.udp, ip.byte_span, ip.message_flag
local with_loop, bound, pair = support.with_loop, support.bound, support.pair
local assert_raises, assert_bad_method_argument = assertions.assert_raises, assertions.assert_bad_method_argument
local it_blocked, passes = programs.it_blocked, programs.passes

local EAGAIN = ip.error.EAGAIN

-- The arguments of the receives; the batch, span and info are reused.
local function receives()
  return {
    try_receive_string = {},
    try_receive_message = { byte_span.new(10) },
    try_receive_many = { udp.batch.new(4, 10) },
  }
end

local function sends()
  local batch = udp.batch.new(2, 10)
  batch:set(1, "one")
  batch:set(2, "two")
  return { try_send_message = { "x", {} }, try_send_many = { batch } }
end

describe("a try_ receive", function()
  it("returns what its namesake returns", with_loop(function()
    local a, b = pair()
    a:send("string")
    local text, address, port, truncated = b:try_receive_string()
    assert.same({ "string", "127.0.0.1", a.local_port, false }, { text, tostring(address), port, truncated })
    a:send("string")
    assert.same({ "str", "127.0.0.1", true }, (function(cut, from, _, is_cut)
      return { cut, tostring(from), is_cut }
    end)(b:try_receive_string(3)))
    a:send("message")
    local span, info = byte_span.new(10), { left = "alone", hops = 3 }
    local n, got = b:try_receive_message(span, info)
    assert.equal("message", span:sub(1, n))
    assert.is_true(rawequal(info, got))
    assert.same({ "127.0.0.1", a.local_port, false, "alone" },
      { tostring(info.address), info.port, info.truncated, info.left })
    assert.is_nil(info.hops)
    a:send("")
    n, got = b:try_receive_message(span)
    assert.same({ 0, a.local_port }, { n, got.port })
    for i = 1, 3 do a:send(tostring(i)) end
    local batch = udp.batch.new(2, 10)
    assert.equal(2, b:try_receive_many(batch))
    assert.same({ "1", "2" }, batches.contents(batch))
    assert.equal(1, b:try_receive_many(batch))
    assert.same({ "3" }, batches.contents(batch))
    a:close() b:close()
  end))

  it("reports ancillary data", with_loop(function()
    local a, b = pair()
    b:set_option("receive_hops", true)
    a:send("x")
    a:send("y")
    assert.equal("integer", math.type((select(2, b:try_receive_message(byte_span.new(1)))).hops))
    local batch = udp.batch.new(1)
    b:try_receive_many(batch)
    assert.equal("integer", math.type(batch:info(1).hops))
    a:close() b:close()
  end))

  it("looks at a datagram with peek, and refuses flags of sends", with_loop(function()
    local a, b = pair()
    a:send("peeked")
    assert.equal("peeked", (b:try_receive_string(nil, flag.peek)))
    assert.equal(6, (b:try_receive_message(byte_span.new(9), nil, flag.peek)))
    assert.equal(1, b:try_receive_many(udp.batch.new(9), flag.peek))
    assert_raises("ENOTSUP", "try_receive_string", b.try_receive_string, b, nil, flag.do_not_route)
    assert_raises("ENOTSUP", "try_receive_message", b.try_receive_message, b, byte_span.new(1), nil, flag.do_not_route)
    assert_raises("ENOTSUP", "try_receive_many", b.try_receive_many, b, udp.batch.new(1), flag.do_not_route)
    assert.equal("peeked", (b:try_receive_string()))
    a:close() b:close()
  end))

  it("returns nil and the shared EAGAIN where it would have to wait, and makes no garbage", with_loop(function()
    local sock = bound()
    local info, left = {}, udp.batch.new(2)
    left:set(1, "kept")
    for name, arguments in pairs(receives()) do
      local method = sock[name]
      local function try() return method(sock, table.unpack(arguments)) end
      local nothing, err = try()
      assert.is_nil(nothing)
      assert.is_true(rawequal(EAGAIN, err), name)
      local first = arguments[1]
      assert.equal(0, memory.garbage_of(function() method(sock, first) end, 1000, 10), name)
    end
    local span = byte_span.new(1)
    assert.equal(0, memory.garbage_of(function() sock:try_receive_message(span, info) end, 1000, 10))
    assert.is_nil((sock:try_receive_many(left)))
    assert.same({ "kept" }, batches.contents(left))
    sock:close()
  end))

  it("takes nothing from those who wait", with_loop(function()
    local a, b = pair()
    local waiting = support.suspended(b, "receive_string")
    a:send("for who waits")
    for name, arguments in pairs(receives()) do
      assert.is_true(rawequal(EAGAIN, (select(2, b[name](b, table.unpack(arguments))))), name)
    end
    assert.equal("for who waits", (select(2, waiting:join())))
    a:close() b:close()
  end))

  it("works where Lua cannot suspend, after its fiber was interrupted, and without any time left", with_loop(function()
    local a, b = pair()
    a:send("1")
    a:send("2")
    a:send("3")
    local got
    string.gsub("x", "x", function() got = b:try_receive_string() end)
    assert.equal("1", got)
    fiber.with_timeout(0, function() got = b:try_receive_string() end)
    assert.equal("2", got)
    local one
    one = fiber.spawn(function()
      one:interrupt()
      got = b:try_receive_string()
    end)
    one:join()
    assert.equal("3", got)
    a:close() b:close()
  end))

  it("raises what is no lack of datagrams", with_loop(function()
    local sock = udp.connect("127.0.0.1", support.dead_port())
    for name, arguments in pairs(receives()) do
      sock:send("x")
      assert_raises("ECONNREFUSED", name, sock[name], sock, table.unpack(arguments))
    end
    sock:shutdown("receive")
    for name, arguments in pairs(receives()) do
      assert_raises("ESHUTDOWN", name, sock[name], sock, table.unpack(arguments))
    end
    sock:close()
    for name, arguments in pairs(receives()) do
      assert_raises("EBADF", name, sock[name], sock, table.unpack(arguments))
    end
  end))

  it("refuses wrong arguments", with_loop(function()
    local sock = bound()
    assert_bad_method_argument(1, sock, "try_receive_string", "1")
    assert_bad_method_argument(1, sock, "try_receive_string", -1)
    assert_bad_method_argument(1, sock, "try_receive_message")
    assert_bad_method_argument(1, sock, "try_receive_message", "x")
    assert_bad_method_argument(2, sock, "try_receive_message", byte_span.new(1), 1)
    assert_bad_method_argument(3, sock, "try_receive_message", byte_span.new(1), {}, -1)
    assert_bad_method_argument(1, sock, "try_receive_many")
    assert_bad_method_argument(1, sock, "try_receive_many", {})
    assert_bad_method_argument(2, sock, "try_receive_many", udp.batch.new(1), -1)
    sock:close()
  end))
end)

describe("a try_ send", function()
  it("returns what its namesake returns", with_loop(function()
    local a, b = pair()
    local other, port = bound()
    assert.equal(7, a:try_send_message("message", {}))
    assert.equal("message", (b:receive_string()))
    assert.equal(2, other:try_send_message({ "a", "b" }, { address = "127.0.0.1", port = port, hops = 3 }))
    assert.equal("ab", (other:receive_string()))
    local batch = batches.filled({ "1", "2", "3" })
    assert.equal(3, a:try_send_many(batch))
    assert.equal(2, a:try_send_many(batch, 2))
    assert.equal(1, a:try_send_many(batch, 1, 1))
    assert.equal(0, a:try_send_many(batch, 2, 1))
    assert.same({ "1", "2", "3", "2", "3", "1" }, batches.receive_texts(b, 6))
    a:close() b:close() other:close()
  end))

  it("of many raises the failure of an entry, with the number of those before it", with_loop(function()
    local sock, port = bound()
    local batch = udp.batch.new(3)
    batch:set(1, "one", "127.0.0.1", port)
    batch:set(2, "two", "127.0.0.1", 0)
    batch:set(3, "three", "127.0.0.1", port)
    local err = assert_raises("EINVAL", "try_send_many", sock.try_send_many, sock, batch)
    assert.equal(1, err.sent)
    assert.equal("one", (sock:try_receive_string()))
    assert.is_nil((sock:try_receive_string()))
    batch:set(1, "one", "127.0.0.1", port, { hops = 300 })
    assertions.assert_message("field 'hops'", sock.try_send_many, sock, batch)
    sock:close()
  end))

  it("raises what is no lack of space", with_loop(function()
    local a, b = pair()
    local loose = bound()
    assert_raises("EDESTADDRREQ", "try_send_message", loose.try_send_message, loose, "x", {})
    local batch = sends().try_send_many[1]
    assert.equal(0, assert_raises("EDESTADDRREQ", "try_send_many", loose.try_send_many, loose, batch).sent)
    assert_raises("EMSGSIZE", "try_send_message", a.try_send_message, a, ("x"):rep(70000), {})
    a:shutdown("send")
    for name, arguments in pairs(sends()) do
      assert_raises("EPIPE", name, a[name], a, table.unpack(arguments))
    end
    a:close()
    for name, arguments in pairs(sends()) do
      assert_raises("EBADF", name, a[name], a, table.unpack(arguments))
    end
    b:close() loose:close()
  end))

  it("refuses wrong arguments", with_loop(function()
    local sock = bound()
    assert_bad_method_argument(1, sock, "try_send_message", 1, {})
    assert_bad_method_argument(2, sock, "try_send_message", "x", 1)
    assert_bad_method_argument(1, sock, "try_send_many", {})
    assert_bad_method_argument(2, sock, "try_send_many", udp.batch.new(2), 3)
    assert_bad_method_argument(3, sock, "try_send_many", udp.batch.new(2), 1, 3)
    sock:close()
  end))

  local FULL = [[
    local ip = require "ip"
    local fiber = ip.fiber
    local link = require "spec.support.blocked_link"
    local memory = require "spec.support.memory"
    local out, equal, EAGAIN = link.out, link.equal, ip.error.EAGAIN
    local batch = ip.udp.batch.new(40, 600)
    for i = 1, 40 do batch:set(i, ("%03d"):format(i) .. ("."):rep(400 + i % 3)) end
  ]]

  it_blocked("returns nil and the shared EAGAIN where it would have to wait, and makes no garbage", passes(FULL .. [[
    fiber.run(function()
      local info = {}
      for name, arguments in pairs { try_send_message = { "x", info }, try_send_many = { batch } } do
        local method, first, second = out[name], arguments[1], arguments[2]
        local nothing, err = method(out, first, second)
        equal(nil, nothing)
        equal(true, rawequal(EAGAIN, err))
        equal(0, memory.garbage_of(function() method(out, first, second) end, 1000, 10))
      end
      equal(0, out:try_send_many(batch, 2, 1))
      equal(0, out.send_queue_count)
      link.unblock()
      equal("", link.arriving(0))
    end)
  ]]))

  it_blocked("does not overtake those that wait", passes(FULL .. [[
    fiber.run(function()
      local waiting = link.waiting(out.send, out, "first")
      equal(nil, (out:try_send_message("x", {})))
      equal(nil, (out:try_send_many(batch)))
      equal(0, out:try_send_many(batch, 2, 1))
      link.unblock()
      waiting:join()
      equal("first", link.arriving(1))
    end)
  ]]))

  it_blocked("of many that got somewhere returns how far", passes(FULL .. [[
    fiber.run(function()
      local some = ip.udp.connect("127.0.0.1", link.sink.local_port, { send_buffer_size = 1 })
      local count = some:try_send_many(batch)
      assert(math.type(count) == "integer" and count > 0 and count < 40, count)
      equal(true, rawequal(EAGAIN, (select(2, some:try_send_many(batch, count + 1)))))
      link.unblock()
      link.skip()
      for i = 1, count do equal(tostring(batch[i]), (link.sink:receive_string())) end
      link.sink.receive_timeout = 0.05
      equal(ip.error.ETIMEDOUT, select(2, pcall(link.sink.receive_string, link.sink)))
    end)
  ]]))
end)
