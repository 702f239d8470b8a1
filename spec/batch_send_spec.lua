-- What send_many promises, also where the system takes a batch in parts.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local batches = require "spec.support.batches"
local programs = require "spec.support.blocked_programs"
local platform = require "spec.support.platform"

local udp = ip.udp
local with_loop, error_of = support.with_loop, support.error_of
local bound, pair, dead_port = support.bound, support.pair, support.dead_port
local assert_bad_method_argument, assert_empty = assertions.assert_bad_method_argument, assertions.assert_empty
local filled, receive_texts = batches.filled, batches.receive_texts
local it_v6, it_blocked = platform.it_v6, programs.it_blocked

describe("send_many", function()
  it("takes v4-mapped addresses on a v4 socket for the v4 addresses in them, and leaves the entries alone", with_loop(
    function()
      local sock, port = bound()
      local batch = udp.batch.new(6)
      for i = 1, 5 do batch:set(i, tostring(i), (i == 1 or i == 4) and "127.0.0.1" or "::ffff:127.0.0.1", port) end
      batch:set(6, "6", "::ffff:127.0.0.1", port, { hops = 3 })
      assert.equal(6, sock:send_many(batch))
      assert.same({ "1", "2", "3", "4", "5", "6" }, receive_texts(sock, 6))
      for i = 2, 6 do
        if i ~= 4 then assert.equal("::ffff:127.0.0.1", tostring((select(2, batch:get(i))))) end
      end
      batch:set(2, "2", "::1", port)
      local err = error_of(sock.send_many, sock, batch)
      assert.same({ "EAFNOSUPPORT", 1 }, { err.name, err.sent })
      sock:close()
    end))

  it("sends all entries in order to the connected peer, or a range of them", with_loop(function()
    local a, b = pair()
    local batch = filled({ "1", "22", "", "4" }, 6)
    assert.equal(4, a:send_many(batch))
    assert.same({ "1", "22", "", "4" }, receive_texts(b, 4))
    assert.equal(2, a:send_many(batch, 2, 3))
    assert.same({ "22", "" }, receive_texts(b, 2))
    assert.equal(3, a:send_many(batch, 2))
    assert.same({ "22", "", "4" }, receive_texts(b, 3))
    assert.equal(2, a:send_many(batch, nil, 2))
    assert.same({ "1", "22" }, receive_texts(b, 2))
    assert.equal(0, a:send_many(batch, 3, 2))
    assert.equal(0, a:send_many(batch, 1, 0))
    assert.equal(2, a:send_many(batch, 4, 5))
    assert.same({ "4", "" }, receive_texts(b, 2))
    batch:clear()
    assert.equal(0, a:send_many(batch))
    assert_empty(b)
    assert_bad_method_argument(2, a, "send_many", batch, 0, 1)
    assert_bad_method_argument(2, a, "send_many", batch, 4, 2)
    assert_bad_method_argument(3, a, "send_many", batch, 1, 7)
    assert_bad_method_argument(1, a, "send_many", {})
    a:close() b:close()
  end))

  it("sends each entry to its own address", with_loop(function()
    local out = bound()
    local a, a_port = bound()
    local b, b_port = bound()
    local batch = udp.batch.new(5, 10)
    for i = 1, 5 do batch:set(i, "n" .. i, "127.0.0.1", i % 2 == 1 and a_port or b_port) end
    assert.equal(5, out:send_many(batch))
    assert.same({ "n1", "n3", "n5" }, receive_texts(a, 3))
    assert.same({ "n2", "n4" }, receive_texts(b, 2))
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
    assert.same({ "n1", "n2", "n3", "n1", "n2", "n3" }, receive_texts(sink, 6))
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
      assert.same({ "from " .. i, "" }, receive_texts(clients[i], 2))
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
    assert.same({ "x", "x", "x" }, receive_texts(sink, 3))
    batch:set(3, ("x"):rep(65508), "127.0.0.1", port)
    err = error_of(out.send_many, out, batch)
    assert.same({ "EMSGSIZE", 2 }, { err.name, err.sent })
    batch:set(3, "no address")
    err = error_of(out.send_many, out, batch)
    assert.same({ "EDESTADDRREQ", 2 }, { err.name, err.sent })
    assert.same({ "x", "x", "x", "x" }, receive_texts(sink, 4))
    assert_empty(sink)
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

  -- Sends texts of these sizes, alternating between peers where `peers` is more than 1; each arrives as one
  -- datagram.
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
      assert_empty(sink)
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

describe("in a network of its own,", function()
  -- A sender whose buffer is empty, so that the system takes a part of a batch.
  local prelude = [[
    local ip = require "ip"
    local fiber = ip.fiber
    local link = require "spec.support.blocked_link"
    local sink, equal = link.sink, link.equal
    local out = ip.udp.connect("127.0.0.1", sink.local_port, { send_buffer_size = 1 })
    local batch = ip.udp.batch.new(40, 600)
    for i = 1, 40 do batch:set(i, ("%03d"):format(i) .. ("."):rep(400 + i % 3)) end
    local function start()
      return link.waiting(out.send_many, out, batch)
    end
    -- Exactly the first `count` entries arrive, in order: they are ahead of a datagram that is sent behind
    -- them.
    local function arrive(count)
      local last = ip.udp.connect("127.0.0.1", sink.local_port)
      last:send("the last")
      link.skip()
      for i = 1, count do equal(tostring(batch[i]), (sink:receive_string())) end
      equal("the last", (sink:receive_string()))
    end
  ]]

  local function blocked(body)
    return programs.passes(prelude .. "fiber.run(function()\n" .. body .. "\nend)")
  end

  it_blocked("a send that is taken in parts goes on where it stopped", blocked [[
    local sending = start()
    equal(1, out.send_queue_count)
    assert(out.send_queue_size > 0 and out.send_queue_size <= 40 * 405)
    link.unblock()
    local ok, count = sending:join()
    equal(true, ok)
    equal(40, count)
    equal(0, out.send_queue_count)
    arrive(40)
  ]])

  it_blocked("a with_timeout ends it by its own name, with the number of entries that were sent", blocked [[
    local ok, err = pcall(fiber.with_timeout, 0.05, out.send_many, out, batch)
    equal(false, ok)
    equal("ETIMEDOUT", err.name)
    equal("with_timeout", err.operation)
    assert(err.sent > 0 and err.sent < 40)
    link.unblock()
    arrive(err.sent)
  ]])

  it_blocked("send_timeout bounds the whole call", blocked [[
    out.send_timeout = 0.05
    local before = fiber.now()
    local ok, err = pcall(out.send_many, out, batch)
    equal(false, ok)
    equal("ETIMEDOUT", err.name)
    equal("send_many", err.operation)
    assert(fiber.now() - before >= 0.05)
    equal(0, out.send_queue_count)
    link.unblock()
    assert(err.sent > 0 and err.sent < 40, err.sent)
    arrive(err.sent)
  ]])

  it_blocked("send_timeout 0 sends what the system takes at once, and tells how many", blocked [[
    out.send_timeout = 0
    local ok, err = pcall(out.send_many, out, batch)
    equal(false, ok)
    equal("ETIMEDOUT", err.name)
    assert(err.sent > 0 and err.sent < 40, err.sent)
    link.unblock()
    arrive(err.sent)
  ]])

  it_blocked("cancel and close end it", blocked [[
    local sending = start()
    out:cancel()
    local _, err = sending:join()
    equal("ECANCELED", err.name)
    assert(err.sent > 0 and err.sent < 40, err.sent)
    local again = start()
    out:close()
    equal("ECANCELED", select(2, again:join()).name)
    link.unblock()
  ]])

  it_blocked("it is not overtaken by a plain send, and shutdown ends it with EPIPE", blocked [[
    local sending = start()
    equal(nil, (out:try_send("x")))
    out:shutdown("send")
    equal("EPIPE", select(2, sending:join()).name)
    link.unblock()
  ]])

  -- Segments of 1000 bytes through an MTU of 600: single datagrams are fragmented, segments refused.
  it_blocked("segments larger than the path carries leave as single datagrams", programs.passes [[
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
