-- What receive_many promises.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local batches = require "spec.support.batches"
local platform = require "spec.support.platform"

local fiber, udp = ip.fiber, ip.udp
local with_loop, on_main, error_of = support.with_loop, support.on_main, support.error_of
local bound, pair, dead_port = support.bound, support.pair, support.dead_port
local assert_bad_method_argument = assertions.assert_bad_method_argument
local contents, filled, suspended = batches.contents, batches.filled, support.suspended
local it_v6 = platform.it_v6

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
    local reader = suspended(b, "receive_many", batch)
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
    assert_bad_method_argument(1, b, "receive_many", {})
    assert_bad_method_argument(1, b, "receive_many")
    assert_bad_method_argument(2, b, "receive_many", batch, -1)
    a:close() b:close()
  end))

  it("drops non-peer datagrams that came before connect", with_loop(function()
    local sock, port = bound()
    local friend, friend_port = bound()
    local other = bound()
    for i = 1, 3 do
      other:send_to("bad", "127.0.0.1", port)
      friend:send_to(tostring(i), "127.0.0.1", port)
    end
    sock:connect("127.0.0.1", friend_port)
    local batch = udp.batch.new(8, 10)
    assert.equal(3, sock:receive_many(batch))
    assert.same({ "1", "2", "3" }, contents(batch))
    sock:disconnect()
    for _ = 1, 10 do other:send_to("bad", "127.0.0.1", port) end
    friend:send_to("late", "127.0.0.1", port)
    sock:connect("127.0.0.1", friend_port)
    local small = udp.batch.new(4, 10)
    assert.equal(1, sock:receive_many(small))
    assert.same({ "late" }, contents(small))
    local reader = suspended(sock, "receive_many", batch)
    friend:send_to("4", "127.0.0.1", port)
    assert.same({ true, 1 }, { reader:join() })
    sock:close() friend:close() other:close()
  end))

  it("raises ECONNREFUSED once, suspended or not", with_loop(function()
    local sock = udp.connect("127.0.0.1", dead_port())
    local batch = udp.batch.new(4, 10)
    sock:send("x")
    local text = support.text_of(error_of(sock.receive_many, sock, batch))
    assert.equal("receive_many: connection refused (ECONNREFUSED)", text)
    local reader = suspended(sock, "receive_many", batch)
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
    local reader = suspended(b, "receive_many", batch)
    b:cancel()
    assert.equal(ip.error.ECANCELED, (select(2, reader:join())))
    assert.equal("with_timeout", error_of(fiber.with_timeout, 0.01, b.receive_many, b, batch).operation)
    reader = suspended(b, "receive_many", batch)
    reader:interrupt()
    a:send("x")
    assert.equal(ip.error.INTERRUPTED, (select(2, reader:join())))
    assert.equal(1, b:receive_many(batch))
    reader = suspended(b, "receive_many", batch)
    b:close()
    assert.equal(ip.error.ECANCELED, (select(2, reader:join())))
    a:close()
  end))

  it("leaves the datagrams to the next waiter when its coroutine is closed", with_loop(function()
    local a, b = pair()
    local batch = udp.batch.new(4, 20)
    local closed = coroutine.create(function() b:receive_many(batch) end)
    coroutine.resume(closed)
    local reader = suspended(b, "receive_many", batch)
    coroutine.close(closed)
    a:send("for the next")
    assert.same({ true, 1 }, { reader:join() })
    assert.same({ "for the next" }, contents(batch))
    a:close() b:close()
  end))

  it("is served in turn with plain receives", with_loop(function()
    local a, b = pair()
    local batch = udp.batch.new(2, 10)
    local first = suspended(b, "receive_string")
    local second = suspended(b, "receive_many", batch)
    local third = suspended(b, "receive_string")
    for i = 1, 4 do a:send(tostring(i)) end
    assert.equal("1", (select(2, first:join())))
    assert.equal(2, (select(2, second:join())))
    assert.same({ "2", "3" }, contents(batch))
    assert.equal("4", (select(2, third:join())))
    a:close() b:close()
  end))

  -- Receives all that is queued in batches of one datagram. Returns the most batches in a row, with nothing of another
  -- fiber in between.
  local function longest_row(batch, datagrams, receive)
    local a, b = pair()
    for _ = 1, datagrams do a:send("x") end
    local row, longest, received = 0, 0, 0
    local other = fiber.spawn(function()
      while received < datagrams do
        row = 0
        fiber.yield()
      end
    end)
    while received < datagrams do
      received = received + receive(b, batch)
      row = row + 1
      longest = math.max(longest, row)
    end
    other:join()
    a:close() b:close()
    return longest
  end

  local function receive_many(sock, batch) return sock:receive_many(batch) end

  it("lets other fibers run after max_ready batches in a row, 12 without one", with_loop(function()
    local batch = udp.batch.new(1, 8)
    assert.equal(12, batch.max_ready)
    assert.equal(12, longest_row(batch, 40, receive_many))
    for _, max_ready in ipairs { 1, 3, 40 } do
      batch.max_ready = max_ready
      assert.equal(max_ready, batch.max_ready)
      assert.equal(max_ready, longest_row(batch, 40, receive_many))
    end
  end))

  it("lets them run on the main thread, too", on_main(function()
    local batch = udp.batch.new(1, 8)
    batch.max_ready = 3
    assert.equal(3, longest_row(batch, 20, receive_many))
  end))

  it("lets them run after the bound on datagrams in a row, where that comes first", with_loop(function()
    local batch = udp.batch.new(100, 8)
    batch.max_ready = math.maxinteger
    assert.equal(2, longest_row(batch, 250, receive_many))
    batch = udp.batch.new(1, 8)
    batch.max_ready = math.maxinteger
    assert.equal(128, longest_row(batch, 250, receive_many))
  end))

  it("keeps deadlines, cancellation and interruption while it gives way", with_loop(function()
    local a, b = pair()
    local batch = udp.batch.new(1, 8)
    batch.max_ready = 1
    for _ = 1, 3 do a:send("x") end
    local reader = fiber.spawn(function()
      return b:receive_many(batch) + b:receive_many(batch) -- the second gives way first
    end)
    fiber.yield()
    reader:interrupt()
    reader:join()
    assert.is_true(reader.interruption_caught)
    assert.equal(1, b:receive_many(batch))
    local left = 0
    while b:try_receive(ip.byte_span.new(8)) do left = left + 1 end
    assert.equal(1, left)
    a:close() b:close()
  end))

  it("has a max_ready of at least 1", function()
    local batch = udp.batch.new(1, 8)
    for _, value in ipairs { 0, -1, 1.5, "17", {}, true } do
      assert.is_false(pcall(function() batch.max_ready = value end))
    end
    assert.is_false(pcall(function() batch.max_ready = nil end))
    assert.equal(12, batch.max_ready)
    batch.max_ready = 2.0
    assert.equal("integer", math.type(batch.max_ready))
  end)

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
