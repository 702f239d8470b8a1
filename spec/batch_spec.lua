-- ip.udp.batch, receive_many and send_many.
local ip = require "ip"
local support = require "spec.support"
local namespace = require "spec.support.namespace"

local fiber, byte_span, udp = ip.fiber, ip.byte_span, ip.udp
local with_loop, on_main, error_of = support.with_loop, support.on_main, support.error_of
local bound, pair, dead_port = support.bound, support.pair, support.dead_port

local has_v6 = pcall(function() bound("v6"):close() end)
local it_v6 = has_v6 and it or pending
local mode = os.getenv("LUA_IP_MODE")

-- Receives `count` datagrams one by one, as strings.
local function texts(sock, count)
  local list = {}
  for i = 1, count do list[i] = sock:receive_string() end
  return list
end

-- The contents of a batch as strings.
local function contents(batch)
  local list = {}
  for i = 1, batch.count do list[i] = tostring(batch[i]) end
  return list
end

local function filled(list, slots, capacity)
  local batch = udp.batch.new(slots or math.max(#list, 1), capacity)
  for i, text in ipairs(list) do batch:set(i, text) end
  return batch
end

local function nothing_left(sock)
  local _, err = sock:try_receive(byte_span.new(1))
  assert.equal(ip.error.EAGAIN, err)
end

local function waiting(fn, ...)
  local it_waits = fiber.spawn(pcall, fn, ...)
  support.wait_until(function() return it_waits.status == "waiting" end)
  return it_waits
end

describe("ip.udp.batch.new", function()
  it("has the slots and the capacity asked for, and no entries", function()
    local batch = udp.batch.new(3, 10)
    assert.same({ 3, 10, 0 }, { batch.slots, batch.capacity, batch.count })
    assert.equal(udp.default_capacity, udp.batch.new(1).capacity)
    assert.equal(0, udp.batch.new(1, 0).capacity)
    assert.equal(65535, udp.batch.new(1, 65535).capacity)
    assert.equal(65536, udp.batch.new(65536, 1).slots)
  end)

  it("refuses sizes out of range and other types", function()
    for _, arguments in ipairs { { 0 }, { 65537 }, { -1 }, { 1.5 }, { "1" }, {}, { {} } } do
      assert.matches("bad argument #1 to 'new'", error_of(function()
        local batch = udp.batch.new(table.unpack(arguments))
        return batch
      end))
    end
    for _, capacity in ipairs { -1, 65536, 0.5, "1", {}, false } do
      assert.matches("bad argument #2 to 'new'", error_of(function()
        local batch = udp.batch.new(1, capacity)
        return batch
      end))
    end
  end)

  it("starts with zeroed memory", function()
    local batch = udp.batch.new(2, 8)
    batch:resize(2, 8)
    assert.equal(("\0"):rep(8), tostring(batch[2]))
  end)

  it("makes memory that spans keep when the batch is gone", function()
    local span = (function()
      local batch = udp.batch.new(2, 8)
      batch:set(2, "kept")
      return batch[2]
    end)()
    collectgarbage()
    collectgarbage()
    assert.equal("kept", tostring(span))
  end)
end)

describe("a batch", function()
  it("gives the same span for an entry each time, of exactly its bytes, over its memory", function()
    local batch = udp.batch.new(2, 8)
    batch:set(1, "one")
    local span = batch[1]
    assert.equal("one", tostring(span))
    assert.equal(3, #span)
    batch:set(1, "other")
    assert.is_true(rawequal(span, batch[1]))
    assert.equal("other", tostring(span))
    span[1] = ("O"):byte()
    assert.equal("Other", tostring((batch:get(1))))
    span:resize(1)
    assert.equal("Other", tostring(batch[1]))
    assert.equal(0, #batch[2])
  end)

  it("refuses entries that it does not have", function()
    local batch = udp.batch.new(2, 8)
    for _, index in ipairs { 0, 3, -1, 1.5 } do
      assert.is_false(pcall(function() return batch[index] end))
      assert.matches("bad argument #1 to 'get'", error_of(function() batch:get(index) end))
      assert.matches("bad argument #1 to 'set'", error_of(function() batch:set(index, "") end))
      assert.matches("bad argument #1 to 'resize'", error_of(function() batch:resize(index, 0) end))
    end
  end)

  it("raises for names it does not know, on read and on write", function()
    local batch = udp.batch.new(1)
    assert.matches("has no property 'length'", error_of(function() return batch.length end))
    assert.matches("'length'", error_of(function() batch.length = 1 end))
    assert.is_false(pcall(function() batch.count = 1 end))
    assert.is_false(pcall(function() batch[1] = "x" end))
  end)

  it("is set with strings, spans and sequences of them; count is the highest entry set", function()
    local batch = udp.batch.new(4, 8)
    batch:set(2, "text")
    assert.equal(2, batch.count)
    batch:set(1, byte_span.append("span"))
    batch:set(3, { "a", byte_span.append("bc"), "", "d" })
    assert.same({ "span", "text", "abcd" }, contents(batch))
    batch:set(1, {})
    batch:set(2, "")
    assert.same({ "", "", "abcd" }, contents(batch))
  end)

  it("may be set with what lies in the slot itself, also in several parts", function()
    local batch = udp.batch.new(1, 16)
    batch:set(1, "abcdef")
    batch:set(1, batch[1])
    assert.equal("abcdef", tostring(batch[1]))
    batch:set(1, batch[1]:slice(3, 6))
    assert.equal("cdef", tostring(batch[1]))
    batch:set(1, { "head ", batch[1] })
    assert.equal("head cdef", tostring(batch[1]))
    local whole = batch[1]
    batch:set(1, { whole:slice(6, 9), whole:slice(1, 5), "!" })
    assert.equal("cdefhead !", tostring(batch[1]))
    batch:set(1, { "(", batch[1]:slice(1, 4), "," , batch[1]:slice(5, 8), ")" })
    assert.equal("(cdef,head)", tostring(batch[1]))
  end)

  it("refuses data that does not fit, of another type, and half an endpoint, and is as it was", function()
    local batch = udp.batch.new(1, 4)
    batch:set(1, "full", "127.0.0.1", 9)
    for _, data in ipairs { "12345", 5, { "123", "45" }, { 1 }, { a = 1 }, { batch[1], "x" } } do
      assert.matches("bad argument #2 to 'set'", error_of(function() batch:set(1, data) end))
    end
    assert.matches("bad argument #2 to 'set'", error_of(function() batch:set(1) end))
    assert.matches("bad argument #4 to 'set'", error_of(function() batch:set(1, "x", "127.0.0.1") end))
    assert.matches("bad argument #4 to 'set'", error_of(function() batch:set(1, "x", nil, 5) end))
    assert.matches("bad argument #4 to 'set'", error_of(function() batch:set(1, "x", "127.0.0.1", 65536) end))
    assert.matches("bad argument #3 to 'set'", error_of(function() batch:set(1, "x", "nowhere", 5) end))
    local span, address, port = batch:get(1)
    assert.equal("full 127.0.0.1 9", ("%s %s %d"):format(span, address, port))
  end)

  it("tells each entry's address and port, and nil where it has none", function()
    local batch = udp.batch.new(4, 4)
    batch:set(1, "a", "127.0.0.1", 1)
    batch:set(2, "b", ip.address.new("127.0.0.1"), 2)
    batch:set(3, "c", "::1", 3)
    batch:set(4, "d")
    for i, expected in ipairs { "a 127.0.0.1 1 false", "b 127.0.0.1 2 false", "c ::1 3 false", "d nil nil false" } do
      local span, address, port, truncated = batch:get(i)
      assert.equal(expected, ("%s %s %s %s"):format(span, address, port, truncated))
    end
    batch:set(1, "z")
    assert.is_nil((select(2, batch:get(1))))
  end)

  it("resizes entries within the capacity, which shows and hides bytes", function()
    local batch = filled({ "abcd" }, 2, 4)
    batch:resize(1, 2)
    assert.equal("ab", tostring(batch[1]))
    batch:resize(1, 4)
    assert.equal("abcd", tostring(batch[1]))
    for _, length in ipairs { -1, 5, 1.5, "1" } do
      assert.matches("bad argument #2 to 'resize'", error_of(function() batch:resize(1, length) end))
    end
    assert.equal(1, batch.count)
    assert.equal(1, #batch)
  end)

  it("is empty and without addresses after clear", function()
    local batch = udp.batch.new(2, 4)
    batch:set(2, "x", "127.0.0.1", 1)
    batch:clear()
    assert.equal(0, batch.count)
    assert.equal(0, #batch[2])
    assert.is_nil((select(2, batch:get(2))))
  end)
end)

describe("receive_many", function()
  it("takes what is there, with its sources, in order", with_loop(function()
    local sock, port = bound()
    local a, a_port = bound()
    local b, b_port = bound()
    a:send_to("one", "127.0.0.1", port)
    b:send_to("", "127.0.0.1", port)
    a:send_to("three", "127.0.0.1", port)
    local batch = udp.batch.new(8, 100)
    batch:set(5, "kept", "127.0.0.9", 9)
    assert.equal(3, sock:receive_many(batch))
    assert.same({ "one", "", "three" }, contents(batch))
    local ports = {}
    for i = 1, 3 do
      local _, address, from, truncated = batch:get(i)
      assert.equal("127.0.0.1", tostring(address))
      assert.is_false(truncated)
      ports[i] = from
    end
    assert.same({ a_port, b_port, a_port }, ports)
    assert.equal(0, #batch[4])
    local span, address = batch:get(5)
    assert.equal("kept 127.0.0.9", ("%s %s"):format(span, address))
    sock:close() a:close() b:close()
  end))

  it("takes no more than there are slots, and leaves the rest", with_loop(function()
    local a, b = pair()
    for i = 1, 5 do a:send(tostring(i)) end
    local batch = udp.batch.new(2, 10)
    local span = batch[1]
    assert.equal(2, b:receive_many(batch))
    assert.same({ "1", "2" }, contents(batch))
    assert.equal(2, b:receive_many(batch))
    assert.equal("3", tostring(span))
    assert.equal(1, b:receive_many(batch))
    assert.same({ "5" }, contents(batch))
    a:close() b:close()
  end))

  it("waits for at least one datagram, in fibers and on the main thread", on_main(function()
    local a, b = pair()
    local batch = udp.batch.new(4, 10)
    local sender = fiber.spawn(function() a:send("x") a:send("y") end)
    assert.equal(2, b:receive_many(batch))
    assert.same({ "x", "y" }, contents(batch))
    sender:join()
    local reader = waiting(b.receive_many, b, batch)
    a:send("z")
    assert.same({ true, 1 }, { reader:join() })
    a:close() b:close()
  end))

  it("fills more than 1024 slots", with_loop(function()
    local sock, port = bound()
    sock:set_option("receive_buffer_size", 4 << 20)
    local out = udp.connect("127.0.0.1", port)
    local batch = udp.batch.new(1500, 8)
    local sent = 0
    while sent < 1500 and sock:get_option("receive_buffer_size") > (sent + 1) * 1100 do
      sent = sent + 1
      out:send(tostring(sent))
    end
    assert.is_true(sent > 100)
    assert.equal(sent, sock:receive_many(batch))
    for i = 1, sent do assert.equal(tostring(i), tostring(batch[i])) end
    sock:close() out:close()
  end))

  it("tells truncation of each entry", with_loop(function()
    local a, b = pair()
    for _, text in ipairs { "fits", "too long", "", "exact" } do a:send(text) end
    local batch = udp.batch.new(4, 5)
    assert.equal(4, b:receive_many(batch))
    assert.same({ "fits", "too l", "", "exact" }, contents(batch))
    for i, expected in ipairs { false, true, false, false } do
      assert.equal(expected, (select(4, batch:get(i))))
    end
    batch = udp.batch.new(2, 0)
    a:send("x")
    a:send("")
    assert.equal(2, b:receive_many(batch))
    assert.is_true((select(4, batch:get(1))))
    assert.is_false((select(4, batch:get(2))))
    a:close() b:close()
  end))

  it_v6("tells v6 sources, and v4 ones on a dual-stack socket", with_loop(function()
    local sock = udp.bind("::", 0)
    local v4, v4_port = bound()
    local v6, v6_port = bound("v6")
    v4:send_to("4", "127.0.0.1", sock.local_port)
    v6:send_to("6", "::1", sock.local_port)
    local batch = udp.batch.new(4, 10)
    assert.equal(2, sock:receive_many(batch))
    for i, expected in ipairs { { "::ffff:127.0.0.1", v4_port }, { "::1", v6_port } } do
      local _, address, port = batch:get(i)
      assert.same(expected, { tostring(address), port })
    end
    assert.equal(2, sock:send_many(batch))
    assert.equal("4", (v4:receive_string()))
    assert.equal("6", (v6:receive_string()))
    sock:close() v4:close() v6:close()
  end))

  it("looks at one datagram with peek, and refuses flags of sends", with_loop(function()
    local a, b = pair()
    a:send("one")
    a:send("two")
    local batch = udp.batch.new(4, 10)
    assert.equal(1, b:receive_many(batch, ip.message_flag.peek))
    assert.equal(1, b:receive_many(batch, ip.message_flag.peek))
    assert.same({ "one" }, contents(batch))
    assert.equal(2, b:receive_many(batch))
    assert.equal(ip.error.ENOTSUP, error_of(b.receive_many, b, batch, ip.message_flag.do_not_route))
    assert.matches("bad argument #1", error_of(function() b:receive_many({}) end))
    assert.matches("bad argument #1", error_of(function() b:receive_many() end))
    assert.matches("bad argument #2", error_of(function() b:receive_many(batch, -1) end))
    a:close() b:close()
  end))

  it("drops what strangers had sent before connect", with_loop(function()
    local sock, port = bound()
    local friend, friend_port = bound()
    local stranger = bound()
    for i = 1, 3 do
      stranger:send_to("bad", "127.0.0.1", port)
      friend:send_to(tostring(i), "127.0.0.1", port)
    end
    sock:connect("127.0.0.1", friend_port)
    local batch = udp.batch.new(8, 10)
    assert.equal(3, sock:receive_many(batch))
    assert.same({ "1", "2", "3" }, contents(batch))
    sock:disconnect()
    for _ = 1, 10 do stranger:send_to("bad", "127.0.0.1", port) end
    friend:send_to("late", "127.0.0.1", port)
    sock:connect("127.0.0.1", friend_port)
    local small = udp.batch.new(4, 10)
    assert.equal(1, sock:receive_many(small))
    assert.same({ "late" }, contents(small))
    local reader = waiting(sock.receive_many, sock, batch)
    friend:send_to("4", "127.0.0.1", port)
    assert.same({ true, 1 }, { reader:join() })
    sock:close() friend:close() stranger:close()
  end))

  it("raises ECONNREFUSED once, suspended or not", with_loop(function()
    local sock = udp.connect("127.0.0.1", dead_port())
    local batch = udp.batch.new(4, 10)
    sock:send("x")
    assert.equal("receive_many: connection refused (ECONNREFUSED)", tostring(error_of(sock.receive_many, sock, batch)))
    local reader = waiting(sock.receive_many, sock, batch)
    sock:send("x")
    local ok, err = reader:join()
    assert.is_false(ok)
    assert.equal(ip.error.ECONNREFUSED, err)
    sock:close()
  end))

  it("raises EBADF when not open and ESHUTDOWN after shutdown", with_loop(function()
    local a, b = pair()
    local batch = udp.batch.new(4, 10)
    a:shutdown("receive")
    assert.equal(ip.error.ESHUTDOWN, error_of(a.receive_many, a, batch))
    a:close() b:close()
    assert.equal("EBADF receive_many", (function(err) return err.name .. " " .. err.operation end)(
      error_of(a.receive_many, a, batch)))
  end))

  it("ends with receive_timeout, and leaves the batch as it was", with_loop(function()
    local sock = bound()
    local batch = filled({ "kept" }, 4, 10)
    for _, timeout in ipairs { 0, 0.01 } do
      sock.receive_timeout = timeout
      assert.equal(ip.error.ETIMEDOUT, error_of(sock.receive_many, sock, batch))
      assert.same({ "kept" }, contents(batch))
      assert.equal(0, #batch[2])
    end
    sock:close()
  end))

  it("is ended by cancel, close, with_timeout and interruption, and has taken nothing", with_loop(function()
    local a, b = pair()
    local batch = udp.batch.new(4, 10)
    local reader = waiting(b.receive_many, b, batch)
    b:cancel()
    assert.equal(ip.error.ECANCELED, (select(2, reader:join())))
    assert.equal("with_timeout", error_of(fiber.with_timeout, 0.01, b.receive_many, b, batch).operation)
    reader = waiting(b.receive_many, b, batch)
    reader:interrupt()
    a:send("x")
    assert.equal(ip.error.INTERRUPTED, (select(2, reader:join())))
    assert.equal(1, b:receive_many(batch))
    reader = waiting(b.receive_many, b, batch)
    b:close()
    assert.equal(ip.error.ECANCELED, (select(2, reader:join())))
    a:close()
  end))

  it("leaves the datagrams to the next waiter when its coroutine is closed", with_loop(function()
    local a, b = pair()
    local batch = udp.batch.new(4, 20)
    local closed = coroutine.create(function() b:receive_many(batch) end)
    coroutine.resume(closed)
    local reader = waiting(b.receive_many, b, batch)
    coroutine.close(closed)
    a:send("for the next")
    assert.same({ true, 1 }, { reader:join() })
    assert.same({ "for the next" }, contents(batch))
    a:close() b:close()
  end))

  it("is served in turn with plain receives", with_loop(function()
    local a, b = pair()
    local batch = udp.batch.new(2, 10)
    local first = waiting(b.receive_string, b)
    local second = waiting(b.receive_many, b, batch)
    local third = waiting(b.receive_string, b)
    for i = 1, 4 do a:send(tostring(i)) end
    assert.equal("1", (select(2, first:join())))
    assert.equal(2, (select(2, second:join())))
    assert.same({ "2", "3" }, contents(batch))
    assert.equal("4", (select(2, third:join())))
    a:close() b:close()
  end))

  it("starves no timer under a flood", with_loop(function()
    local a, b = pair()
    local over = false
    local timer = fiber.spawn(function() fiber.sleep(0.02) over = true end)
    local out, into = filled { "1", "2", "3", "4" }, udp.batch.new(4)
    local rounds = 0
    while not over do
      a:send_many(out)
      b:receive_many(into)
      rounds = rounds + 1
      assert(rounds < 1000000, "the timer never came")
    end
    timer:join()
    a:close() b:close()
  end))
end)

describe("send_many", function()
  it("sends all entries in order to the connected peer, or a range of them", with_loop(function()
    local a, b = pair()
    local batch = filled({ "1", "22", "", "4" }, 6)
    assert.equal(4, a:send_many(batch))
    assert.same({ "1", "22", "", "4" }, texts(b, 4))
    assert.equal(2, a:send_many(batch, 2, 3))
    assert.same({ "22", "" }, texts(b, 2))
    assert.equal(3, a:send_many(batch, 2))
    assert.same({ "22", "", "4" }, texts(b, 3))
    assert.equal(2, a:send_many(batch, nil, 2))
    assert.same({ "1", "22" }, texts(b, 2))
    assert.equal(0, a:send_many(batch, 3, 2))
    assert.equal(0, a:send_many(batch, 1, 0))
    assert.equal(2, a:send_many(batch, 4, 5))
    assert.same({ "4", "" }, texts(b, 2))
    batch:clear()
    assert.equal(0, a:send_many(batch))
    nothing_left(b)
    assert.matches("bad argument", error_of(function() a:send_many(batch, 0, 1) end))
    assert.matches("bad argument", error_of(function() a:send_many(batch, 4, 2) end))
    assert.matches("bad argument", error_of(function() a:send_many(batch, 1, 7) end))
    assert.matches("bad argument", error_of(function() a:send_many({}) end))
    a:close() b:close()
  end))

  it("sends each entry to its own address", with_loop(function()
    local out = bound()
    local a, a_port = bound()
    local b, b_port = bound()
    local batch = udp.batch.new(5, 10)
    for i = 1, 5 do batch:set(i, "n" .. i, "127.0.0.1", i % 2 == 1 and a_port or b_port) end
    assert.equal(5, out:send_many(batch))
    assert.same({ "n1", "n3", "n5" }, texts(a, 3))
    assert.same({ "n2", "n4" }, texts(b, 2))
    out:close() a:close() b:close()
  end))

  it_v6("sends v4 entries from a v6 socket, and the batch keeps showing v4", with_loop(function()
    local out6, out4 = udp.bind("::", 0), bound()
    local sink, port = bound()
    local batch = udp.batch.new(3, 10)
    for i = 1, 3 do batch:set(i, "n" .. i, "127.0.0.1", port) end
    assert.equal(3, out6:send_many(batch))
    assert.equal("127.0.0.1", tostring((select(2, batch:get(1)))))
    assert.equal(3, out4:send_many(batch))
    assert.same({ "n1", "n2", "n3", "n1", "n2", "n3" }, texts(sink, 6))
    out6:close() out4:close() sink:close()
  end))

  it("echoes a received batch as it stands", with_loop(function()
    local server, port = bound()
    local clients = {}
    for i = 1, 3 do
      clients[i] = udp.connect("127.0.0.1", port)
      clients[i]:send("from " .. i)
      clients[i]:send("")
    end
    local batch = udp.batch.new(8, 100)
    assert.equal(6, server:receive_many(batch))
    assert.equal(6, server:send_many(batch))
    for i = 1, 3 do
      assert.same({ "from " .. i, "" }, texts(clients[i], 2))
      clients[i]:close()
    end
    server:close()
  end))

  it("tells with `sent` how many went before the one that failed", with_loop(function()
    local out = bound()
    local sink, port = bound()
    local batch = udp.batch.new(4, 65535)
    for i = 1, 4 do batch:set(i, "x", "127.0.0.1", i == 3 and 0 or port) end
    local err = error_of(out.send_many, out, batch)
    assert.same({ "EINVAL", "send_many", 2 }, { err.name, err.operation, err.sent })
    assert.equal(1, error_of(out.send_many, out, batch, 2).sent)
    assert.equal(0, error_of(out.send_many, out, batch, 3).sent)
    assert.same({ "x", "x", "x" }, texts(sink, 3))
    batch:set(3, ("x"):rep(65508), "127.0.0.1", port)
    err = error_of(out.send_many, out, batch)
    assert.same({ "EMSGSIZE", 2 }, { err.name, err.sent })
    batch:set(3, "no address")
    err = error_of(out.send_many, out, batch)
    assert.same({ "EDESTADDRREQ", 2 }, { err.name, err.sent })
    assert.same({ "x", "x", "x", "x" }, texts(sink, 4))
    nothing_left(sink)
    out:connect("127.0.0.1", port)
    out:shutdown("send")
    err = error_of(out.send_many, out, batch)
    assert.same({ "EPIPE", 0 }, { err.name, err.sent })
    out:close() sink:close()
    assert.equal(ip.error.EBADF, error_of(out.send_many, out, batch))
    assert.is_nil(ip.error.EBADF.sent)
  end))

  it("raises ECONNREFUSED of an earlier datagram, and works on", with_loop(function()
    local out = udp.connect("127.0.0.1", dead_port())
    local batch = filled { "1", "2" }
    out:send("x")
    local err = error_of(out.send_many, out, batch)
    assert.same({ "ECONNREFUSED", 0 }, { err.name, err.sent })
    out:close()
  end))

  -- Sends texts of these sizes, alternating between peers where `peers` is more than 1; each arrives as one datagram.
  local function keeps_boundaries(sizes, peers, family)
    local out = bound(family)
    local sinks = {}
    for i = 1, peers or 1 do
      sinks[i] = bound(family)
      sinks[i]:set_option("receive_buffer_size", 1 << 20)
    end
    local batch = udp.batch.new(#sizes, 65507)
    local expected = {}
    for i, size in ipairs(sizes) do
      local text = (string.char(i % 256)):rep(size)
      local sink = sinks[(i - 1) % #sinks + 1]
      batch:set(i, text, sink.local_address, sink.local_port)
      expected[i] = { sink, text }
    end
    local done = 0
    while done < #sizes do -- in portions that the receive buffer takes
      local last, bytes = done, 0
      repeat
        last = last + 1
        bytes = bytes + sizes[last] + 1000
      until last == #sizes or bytes + sizes[last + 1] > 130000
      assert.equal(last - done, out:send_many(batch, done + 1, last))
      for i = done + 1, last do
        assert.is_true(expected[i][1]:receive_string() == expected[i][2], "entry " .. i)
      end
      done = last
    end
    for _, sink in ipairs(sinks) do
      nothing_left(sink)
      sink:close()
    end
    out:close()
  end

  local function many(size, count, ...)
    local list = {}
    for i = 1, count do list[i] = size end
    for _, last in ipairs { ... } do list[#list + 1] = last end
    return list
  end

  it("keeps boundaries of equal sizes with a shorter last", with_loop(function()
    keeps_boundaries(many(100, 10, 7))
  end))
  it("keeps boundaries where a longer one follows", with_loop(function() keeps_boundaries(many(100, 3, 101, 5)) end))
  it("keeps empty datagrams between others", with_loop(function() keeps_boundaries { 5, 5, 0, 5, 0, 0, 5, 5 } end))
  it("keeps what goes to alternating peers apart", with_loop(function() keeps_boundaries(many(50, 21), 2) end))
  it("sends more than 64 of a size", with_loop(function() keeps_boundaries(many(20, 200, 3, 20, 20)) end))
  it("sends more than 64 KiB of a size", with_loop(function() keeps_boundaries(many(1400, 100, 9)) end))
  it_v6("sends more than 64 KiB of a size over v6", with_loop(function()
    keeps_boundaries(many(1400, 100, 9), 1, "v6")
    keeps_boundaries(many(30000, 2, 5487, 30000, 30000, 5488), 1, "v6") -- 65487 bytes are the most one message may have
  end))
  it("sends datagrams of the largest size", with_loop(function()
    keeps_boundaries { 65507, 65507, 1, 40000, 40000 }
  end))
  it("sends more than 64 messages of different sizes", with_loop(function()
    local sizes = {}
    for i = 1, 150 do sizes[i] = i end
    keeps_boundaries(sizes)
  end))
end)

describe("batches in the steady state", function()
  -- Bytes that 1000 rounds leave, with the collector stopped.
  local function bytes_of(round)
    for _ = 1, 300 do round() end
    collectgarbage()
    collectgarbage("stop")
    local before = collectgarbage("count")
    for _ = 1, 1000 do round() end
    local after = collectgarbage("count")
    collectgarbage("restart")
    return (after - before) * 1024
  end

  it("make no garbage", with_loop(function()
    local server, port = bound()
    local client = udp.connect("127.0.0.1", port)
    local out, batch, back = filled { "a", "b", "c", "d" }, udp.batch.new(8, 64), udp.batch.new(8, 64)
    local function round()
      client:send_many(out)
      server:receive_many(batch)
      for i = 1, batch.count do
        local span, address, from = batch:get(i)
        batch:set(i, span, address, from)
        batch:resize(i, #batch[i])
      end
      server:send_many(batch)
      client:receive_many(back)
    end
    assert.equal(0, bytes_of(round))
    server:close() client:close()
  end))

  it("make no garbage where they wait for each other", with_loop(function()
    local server, port = bound()
    local client = udp.connect("127.0.0.1", port)
    local waits = 0
    local echo = fiber.spawn(function()
      local batch = udp.batch.new(8, 64)
      while server:receive_many(batch) do server:send_many(batch) end
    end)
    local out, back = filled { "a", "b", "c", "d" }, udp.batch.new(8, 64)
    assert.equal(0, bytes_of(function()
      client:send_many(out)
      if echo.status == "waiting" then waits = waits + 1 end
      local missing = 4
      while missing > 0 do missing = missing - client:receive_many(back) end
    end))
    assert.is_true(waits > 1000, "the other side has not waited")
    echo:interrupt()
    echo:join()
    server:close() client:close()
  end))

  it("survive a collection at every hundred instructions", with_loop(function()
    local server, port = bound()
    local client = udp.connect("127.0.0.1", port)
    fiber.spawn(function()
      debug.sethook(function() collectgarbage() end, "", 100)
      local echo = fiber.spawn(function()
        debug.sethook(function() collectgarbage() end, "", 100)
        for _ = 1, 5 do
          local batch = udp.batch.new(4, 64)
          server:receive_many(batch)
          server:send_many(batch)
        end
      end)
      for i = 1, 5 do
        local batch = udp.batch.new(4, 64)
        batch:set(1, { "round ", byte_span.append(tostring(i)) })
        client:send_many(batch)
        batch = udp.batch.new(4, 64)
        assert(client:receive_many(batch) == 1)
        assert(tostring(batch[1]) == "round " .. i)
      end
      echo:join()
    end):join()
    server:close() client:close()
  end))

  it("survive a finalizer that closes the socket while a call is about to wait", function()
    local output, code = support.run_program [[
      local ip = require "ip"
      local batch, out = ip.udp.batch.new(2, 8), ip.udp.batch.new(200, 1)
      local target = ip.udp.bind("127.0.0.1", 0)
      for i = 1, 200 do out:set(i, "x", "127.0.0.1", target.local_port) end
      collectgarbage("incremental", 0, 1000, 1)
      local seen = {}
      local function try(fn, ...)
        local ok, err = pcall(fn, ...)
        seen[ok and "ok" or err.name or tostring(err)] = true
      end
      local function closes_later(sock)
        for _ = 1, 3 do setmetatable({}, { __gc = function() sock:close() end }) end
      end
      KEPT = {}
      for i = 1, 300 do
        local sock = ip.udp.bind("127.0.0.1", 0)
        for n = 1, 6 do
          coroutine.wrap(function()
            closes_later(sock)
            if n % 2 == 0 then return try(sock.receive_many, sock, batch) end
            try(sock.send_many, sock, out)
            try(sock.send_many, sock, out) -- gives way: a wait
          end)()
        end
        local other = ip.udp.bind("127.0.0.1", 0) -- keeps an operation, so that the next round needs new ones
        KEPT[i] = other
        coroutine.wrap(function() try(other.receive_many, other, batch) end)()
      end
      seen.ok, seen.ECANCELED = nil, nil
      assert(seen.EBADF, "no finalizer came in between")
      seen.EBADF = nil
      print(next(seen) or "survived")
    ]]
    assert.equal("survived\n", output)
    assert.equal(0, code)
  end)
end)

-- Programs in processes of their own ----------------------------------------------------------------------------

local function succeeds(command)
  return os.execute("(env -u LD_PRELOAD " .. command .. ") >/dev/null 2>&1") == true
end

-- Runs a program under a tool, which runs without what may be preloaded into this process; the program with it.
local function run_under(tool, program)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(program)
  file:close()
  local pipe = assert(io.popen(('env -u LD_PRELOAD %s env LD_PRELOAD="$LD_PRELOAD" "%s" %s %s 2>&1'):format(
    tool, "ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0", os.getenv("LUA_IP_LUA") or "lua5.4", path)))
  local output = pipe:read("a")
  pipe:close()
  os.remove(path)
  return output
end

describe("system calls of batches", function()
  local can_trace = mode ~= "valgrind" and succeeds("strace -f -c -o /dev/null true")
  local it_traced = can_trace and it or pending

  -- In a fiber: a call on the main thread that has to go through the loop asks for the handler of SIGINT first.
  local echo = [[
    local ip = require "ip"
    local server = ip.udp.bind("127.0.0.1", 0)
    local client = ip.udp.connect("127.0.0.1", server.local_port)
    local out, batch = ip.udp.batch.new(64, 100), ip.udp.batch.new(64, 100)
    for i = 1, 64 do out:set(i, "payload") end
    ip.fiber.run(function()
      for _ = 1, ROUNDS do
        client:send_many(out)
        local n = server:receive_many(batch)
        assert(n == 64, n)
        server:send_many(batch)
        assert(client:receive_many(batch) == 64)
      end
    end)
    print "done"
  ]]

  local function count_calls(rounds)
    local counts = os.tmpname()
    assert.equal("done\n", run_under("strace -f -c -o " .. counts, (echo:gsub("ROUNDS", rounds))))
    local total = 0
    for line in io.lines(counts) do
      local number, name = line:match("^%s*[%d.]+%s+[%d.]+%s+%d+%s+(%d+)%s.-([%w_]+)%s*$")
      if name and name ~= "total" and name ~= "sigaltstack" then total = total + tonumber(number) end -- a sanitizer's
    end
    os.remove(counts)
    return total
  end

  it_traced("are at most 0.08 per datagram in a batch echo of 64", on_main(function()
    -- The least for a round of 64 echoes is one call for each side and direction: 0.0625.
    local per_datagram = (count_calls(200) - count_calls(0)) / (200 * 64)
    assert.is_true(per_datagram >= 0.06, "not all system calls were counted: " .. per_datagram)
    assert.is_true(per_datagram <= 0.08, "system calls per datagram: " .. per_datagram)
  end, 60))

  it_traced("send a run of equal datagrams as one message", on_main(function()
    local log = os.tmpname()
    assert.equal("done\n", run_under("strace -f -e trace=sendmmsg -o " .. log, (echo:gsub("ROUNDS", 1))))
    local file <close> = assert(io.open(log))
    local text = file:read("a")
    os.remove(log)
    local messages = {}
    for count in text:gmatch("= (%-?%d+)") do messages[#messages + 1] = count end
    assert.equal("1", messages[#messages])
  end, 60))

  it_traced("that fail behind datagrams which were taken lose neither those nor the error", on_main(function()
    local output = run_under("strace -f -o /dev/null -e trace=recvmmsg -e inject=recvmmsg:error=ECONNREFUSED:when=2", [[
      local ip = require "ip"
      local sock = ip.udp.bind("127.0.0.1", 0, { receive_buffer_size = 8 << 20 })
      local out = ip.udp.connect("127.0.0.1", sock.local_port)
      if sock:get_option("receive_buffer_size") < (2 << 20) then
        pcall(sock.set_option, sock, "receive_buffer_size", 8 << 20)
      end
      if sock:get_option("receive_buffer_size") < (1 << 20) then print "too small" return end
      for _ = 1, 1030 do out:send("") end
      local batch = ip.udp.batch.new(1030, 1)
      print(sock:receive_many(batch))
      print(select(2, pcall(sock.receive_many, sock, batch)))
      print(sock:receive_many(batch))
    ]])
    if output == "too small\n" then return pending("the receive buffer is too small here") end
    assert.equal("1024\nreceive_many: connection refused (ECONNREFUSED)\n6\n", output)
  end, 60))

  it_traced("fall back to single datagrams where segments are refused, which is remembered", on_main(function()
    local log = os.tmpname()
    local output = run_under("strace -f -o " .. log .. " -e trace=sendmmsg -e inject=sendmmsg:error=EIO:when=1", [[
      local ip = require "ip"
      local sink = ip.udp.bind("127.0.0.1", 0)
      local out = ip.udp.connect("127.0.0.1", sink.local_port)
      local batch = ip.udp.batch.new(3, 10)
      for i = 1, 3 do batch:set(i, "n" .. i) end
      print(out:send_many(batch), out:send_many(batch))
      for _ = 1, 6 do io.write((sink:receive_string()), " ") end
    ]])
    assert.equal("3\t3\nn1 n2 n3 n1 n2 n3 ", output)
    local calls = {}
    for line in io.lines(log) do
      if line:find("sendmmsg") then calls[#calls + 1] = line:match("= (%-?%d+)") end
    end
    os.remove(log)
    assert.same({ "-1", "3", "3" }, calls)
  end, 60))
end)

describe("in a network of its own,", function()
  local it_there = namespace.can_be_slow() and it or pending

  local slow_prelude = [[
    local ip = require "ip"
    local fiber = ip.fiber
    local sink = ip.udp.bind("127.0.0.1", 0)
    local out = ip.udp.connect("127.0.0.1", sink.local_port, { send_buffer_size = 1 })
    local function open_the_road()
      assert(os.execute('env -u LD_PRELOAD tc qdisc change dev lo root tbf rate 100mbit burst 20000 limit 1000000'))
    end
    local function equal(expected, value)
      if expected ~= value then error(("expected %s, got %s"):format(expected, value), 2) end
    end
    local batch = ip.udp.batch.new(40, 600)
    for i = 1, 40 do batch:set(i, ("%03d"):format(i) .. ("."):rep(400 + i % 3)) end
    local function start()
      local sending = fiber.spawn(pcall, out.send_many, out, batch)
      while sending.status ~= "waiting" do fiber.yield() end
      return sending
    end
    -- Exactly the first `count` entries arrive, in order.
    local function arrive(count)
      sink.receive_timeout = 10
      for i = 1, count do equal(tostring(batch[i]), (sink:receive_string())) end
      sink.receive_timeout = 0.5
      local ok, text = pcall(sink.receive_string, sink)
      if ok then error("more than " .. count .. " arrived: " .. text:sub(1, 10)) end
    end
  ]]

  local function run_there(body)
    return on_main(function()
      local network <close> = assert(namespace.slow())
      assert.equal("passed\n", run_under(network:inside(), body .. "\nprint('passed')"))
    end, 60)
  end

  local function slow(body)
    return run_there(slow_prelude .. "fiber.run(function()\n" .. body .. "\nend)")
  end

  it_there("a send that is taken in parts goes on where it stopped", slow [[
    local sending = start()
    equal(1, out.send_queue_count)
    assert(out.send_queue_size > 0 and out.send_queue_size <= 40 * 405)
    open_the_road()
    local ok, count = sending:join()
    equal(true, ok)
    equal(40, count)
    equal(0, out.send_queue_count)
    arrive(40)
  ]])

  it_there("send_timeout bounds the whole call", slow [[
    out.send_timeout = 0.05
    local before = fiber.now()
    local ok, err = pcall(out.send_many, out, batch)
    equal(false, ok)
    equal("ETIMEDOUT", err.name)
    equal("send_many", err.operation)
    assert(fiber.now() - before >= 0.05)
    equal(0, out.send_queue_count)
    open_the_road()
    assert(err.sent > 0 and err.sent < 40, err.sent)
    arrive(err.sent)
  ]])

  it_there("send_timeout 0 sends what the system takes at once, and tells how many", slow [[
    out.send_timeout = 0
    local ok, err = pcall(out.send_many, out, batch)
    equal(false, ok)
    equal("ETIMEDOUT", err.name)
    assert(err.sent > 0 and err.sent < 40, err.sent)
    open_the_road()
    arrive(err.sent)
  ]])

  it_there("cancel and close end it", slow [[
    local sending = start()
    out:cancel()
    local _, err = sending:join()
    equal("ECANCELED", err.name)
    assert(err.sent > 0 and err.sent < 40, err.sent)
    local again = start()
    out:close()
    equal("ECANCELED", select(2, again:join()).name)
    open_the_road()
  ]])

  it_there("it is not overtaken by a plain send, and shutdown ends it with EPIPE", slow [[
    local sending = start()
    equal(nil, (out:try_send("x")))
    out:shutdown("send")
    equal("EPIPE", select(2, sending:join()).name)
    open_the_road()
  ]])

  -- Segments of 1000 bytes through an MTU of 600: single datagrams are fragmented, segments refused.
  it_there("segments larger than the path carries leave as single datagrams", run_there [[
    assert(os.execute("env -u LD_PRELOAD sh -c 'tc qdisc del dev lo root; ip link set lo mtu 600'"))
    local ip = require "ip"
    local sink = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 5 })
    local out = ip.udp.connect("127.0.0.1", sink.local_port)
    local batch = ip.udp.batch.new(6)
    for i = 1, 6 do batch:set(i, tostring(i):rep(1000)) end
    for _ = 1, 2 do
      assert(out:send_many(batch) == 6)
      for i = 1, 6 do assert(sink:receive_string() == tostring(i):rep(1000), i) end
    end
    assert(not sink:try_receive(ip.byte_span.new(1)))
  ]])
end)

describe("a batch on a socket that reports errors, splits or joins", function()
  it("receives joined datagrams as entries of their own, in order", support.with_loop(function()
    local server <close> = ip.udp.bind("127.0.0.1", 0)
    server:set_option("receive_offload", true)
    local client <close> = ip.udp.connect("127.0.0.1", server.local_port)
    client:set_option("segment_size", 4)
    client:send("one.two.six")
    local batch = ip.udp.batch.new(8)
    local got = {}
    while #got < 3 do
      for i = 1, server:receive_many(batch) do got[#got + 1] = tostring(batch[i]) end
    end
    assert.same({ "one.", "two.", "six" }, got)
  end))

  it("splits entries that are longer than the option says", support.with_loop(function()
    local server <close> = ip.udp.bind("127.0.0.1", 0)
    local client <close> = ip.udp.bind("127.0.0.1", 0)
    client:set_option("segment_size", 3)
    local batch = ip.udp.batch.new(2)
    batch:set(1, "abcdef", "127.0.0.1", server.local_port)
    batch:set(2, "xy", "127.0.0.1", server.local_port)
    assert.equal(2, client:send_many(batch))
    assert.equal("abc", (server:receive_string()))
    assert.equal("def", (server:receive_string()))
    assert.equal("xy", (server:receive_string()))
  end))

  it("sends on past an older error, which waits for a receive", support.with_loop(function()
    local server <close> = ip.udp.bind("127.0.0.1", 0)
    local client <close> = ip.udp.bind("127.0.0.1", 0)
    client:set_option("receive_errors", true)
    client:send_to("refused", "127.0.0.1", support.dead_port())
    local batch = ip.udp.batch.new(2)
    batch:set(1, "a", "127.0.0.1", server.local_port)
    batch:set(2, "b", "127.0.0.1", server.local_port)
    assert.equal(2, client:send_many(batch))
    assert.equal("a", (server:receive_string()))
    assert.equal("b", (server:receive_string()))
    assert.equal(ip.error.ECONNREFUSED, support.error_of(client.receive_many, client, batch))
    client.receive_timeout = 0.02
    assert.equal(ip.error.ETIMEDOUT, support.error_of(client.receive_many, client, batch))
  end))
end)

describe("what travels beside the entries of a batch", function()
  local function reporting(options)
    local server = ip.udp.bind("127.0.0.1", 0)
    for _, name in ipairs(options) do server:set_option(name, true) end
    return server, ip.udp.bind("127.0.0.1", 0)
  end

  local all = { "receive_packet_info", "receive_hops", "receive_traffic_class", "receive_timestamp" }

  it("is told entry by entry by info", support.with_loop(function()
    for _, more in ipairs { {}, { "receive_errors" } } do
      local server, client = reporting({ table.unpack(all) })
      for _, name in ipairs(more) do server:set_option(name, true) end
      client:send_message("one", { address = "127.0.0.1", port = server.local_port, hops = 9, ecn = 1 })
      client:send_message("two", { address = "127.0.0.1", port = server.local_port, hops = 8, traffic_class = 40 })
      local batch = ip.udp.batch.new(4)
      local before = ip.fiber.time()
      assert.equal(2, server:receive_many(batch))
      local first, second = batch:info(1), batch:info(2)
      assert.equal(ip.address.new("127.0.0.1"), first.address)
      assert.equal(client.local_port, first.port)
      assert.equal(ip.address.new("127.0.0.1"), first.destination)
      assert.equal(1, first.interface_index)
      assert.same({ 9, 1, 8, 40 }, { first.hops, first.ecn, second.hops, second.traffic_class })
      assert.is_true(math.abs(first.timestamp - before) < 10e9)
      assert.is_false(first.truncated)
      server:close()
      client:close()
    end
  end))

  it("is absent where no option asks for it, and what a reused table held is gone", support.with_loop(function()
    local server, client = reporting {}
    client:send_to("x", "127.0.0.1", server.local_port)
    local batch = ip.udp.batch.new(2)
    server:receive_many(batch)
    local info = { hops = 3, destination = "old", mine = true }
    assert.equal(info, batch:info(1, info))
    assert.is_nil(info.hops)
    assert.is_nil(info.destination)
    assert.is_true(info.mine)
    assert.is_nil(batch:info(2).address)
    assert.is_nil(batch:info(2).port)
    server:close()
    client:close()
  end))

  it("makes no garbage into a reused table", support.with_loop(function()
    local server, client = reporting(all)
    local batch, info = ip.udp.batch.new(2), {}
    local function round()
      client:send_to("x", "127.0.0.1", server.local_port)
      server:receive_many(batch)
      batch:info(1, info)
    end
    for _ = 1, 5 do round() end
    collectgarbage()
    collectgarbage("stop")
    local before = collectgarbage("count")
    for _ = 1, 50 do round() end
    local after = collectgarbage("count")
    collectgarbage("restart")
    assert.equal(before, after)
    server:close()
    client:close()
  end))

  it("is sent with the entries that were set with an info table", support.with_loop(function()
    local server, client = reporting(all)
    local batch = ip.udp.batch.new(5)
    for i = 1, 5 do
      local info = i % 2 == 0 and { hops = 10 + i, ecn = 2, source = "127.0.0.1", unknown = {} } or nil
      batch:set(i, "entry " .. i, "127.0.0.1", server.local_port, info)
    end
    assert.equal(5, client:send_many(batch))
    local got = ip.udp.batch.new(8)
    assert.equal(5, server:receive_many(got))
    for i = 1, 5 do
      assert.equal("entry " .. i, tostring(got[i]))
      assert.equal(i % 2 == 0 and 10 + i or 64, got:info(i).hops)
      assert.equal(i % 2 == 0 and 2 or 0, got:info(i).ecn)
    end
    batch:set(2, "plain", "127.0.0.1", server.local_port)
    client:send_many(batch, 2, 2)
    server:receive_many(got)
    assert.equal(64, got:info(1).hops)
    server:close()
    client:close()
  end))

  it("does not outlive the entry: what was received goes back plain", support.with_loop(function()
    local server, client = reporting(all)
    local batch = ip.udp.batch.new(1)
    batch:set(1, "ping", "127.0.0.1", server.local_port, { hops = 7 })
    client:send_many(batch)
    server:receive_many(batch)
    assert.equal(7, batch:info(1).hops)
    client:set_option("receive_hops", true)
    server:send_many(batch)
    local _, info = client:receive_message(ip.byte_span.new(9))
    assert.equal(64, info.hops)
    server:close()
    client:close()
  end))

  it("is a bad argument where it is no table, or has a wrong value when it is sent", support.with_loop(function()
    local batch = ip.udp.batch.new(1)
    local sock <close> = ip.udp.bind("127.0.0.1", 0)
    assert.matches("bad argument #5 to 'set'", support.error_of(function() batch:set(1, "x", "::1", 1, 5) end))
    assert.matches("bad argument #2 to 'info'", support.error_of(function() batch:info(1, 5) end))
    assert.matches("bad argument #1 to 'info'", support.error_of(function() batch:info(2) end))
    batch:set(1, "x", "127.0.0.1", sock.local_port, { hops = 256 })
    assert.matches("field 'hops': 256 is outside 1..255", support.error_of(sock.send_many, sock, batch))
    batch:set(1, "x", nil, nil, { hops = 5 })
    assert.equal(ip.error.EDESTADDRREQ, support.error_of(sock.send_many, sock, batch))
  end))
end)
