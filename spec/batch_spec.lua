-- What ip.udp.batch promises: memory for many datagrams, and what travels beside them.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local batches = require "spec.support.batches"
local memory = require "spec.support.memory"

local byte_span, udp = ip.byte_span, ip.udp
local with_loop, error_of, dead_port = support.with_loop, support.error_of, support.dead_port
local assert_bad_argument, assert_message = assertions.assert_bad_argument, assertions.assert_message
local assert_bad_method_argument, assert_contains = assertions.assert_bad_method_argument, assertions.assert_contains
local contents, filled = batches.contents, batches.filled

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
      assert_bad_argument(1, "to 'new'", function()
        local batch = udp.batch.new(table.unpack(arguments))
        return batch
      end)
    end
    for _, capacity in ipairs { -1, 65536, 0.5, "1", {}, false } do
      assert_bad_argument(2, "to 'new'", function()
        local batch = udp.batch.new(1, capacity)
        return batch
      end)
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
    assert.equal(0, #batch[2])
  end)

  it("are not resized by their spans, which says what does it", function()
    local batch = udp.batch.new(2, 8)
    batch:set(1, "entry")
    for _, span in ipairs { batch[1], batch[2], (batch:get(1)) } do
      local ok, message = pcall(span.resize, span, 2)
      assert.is_false(ok)
      assert_contains(message, "batch:resize(i, length)")
    end
    assert.equal("entry", tostring(batch[1]))
    batch:resize(1, 2)
    assert.equal("en", tostring(batch[1]))
  end)

  it("have slices that are resized as any span is", function()
    local batch = udp.batch.new(1, 8)
    batch:set(1, "entry")
    assert.equal("en", tostring(batch[1]:slice(1, 4):resize(2)))
    assert.equal("entry", tostring(batch[1]))
  end)

  it("refuses entries that it does not have", function()
    local batch = udp.batch.new(2, 8)
    for _, index in ipairs { 0, 3, -1, 1.5 } do
      assert.is_false(pcall(function() return batch[index] end))
      assert_bad_method_argument(1, batch, "get", index)
      assert_bad_method_argument(1, batch, "set", index, "")
      assert_bad_method_argument(1, batch, "resize", index, 0)
    end
  end)

  it("raises for names it does not know, on read and on write", function()
    local batch = udp.batch.new(1)
    assert_message("has no property 'length'", function() return batch.length end)
    assert_message("'length'", function() batch.length = 1 end)
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
      assert_bad_method_argument(2, batch, "set", 1, data)
    end
    assert_bad_method_argument(2, batch, "set", 1)
    assert_bad_method_argument(4, batch, "set", 1, "x", "127.0.0.1")
    assert_bad_method_argument(4, batch, "set", 1, "x", nil, 5)
    assert_bad_method_argument(4, batch, "set", 1, "x", "127.0.0.1", 65536)
    assert_bad_method_argument(3, batch, "set", 1, "x", "nowhere", 5)
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
      assert_bad_method_argument(2, batch, "resize", 1, length)
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

describe("a batch on a socket that reports errors, or uses segmentation or GRO", function()
  it("receives the datagrams of a joined buffer as entries of their own, in order", with_loop(function()
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

  it("segments entries that are longer than the option says", with_loop(function()
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

  it("sends on past an older error, which waits for a receive", with_loop(function()
    local server <close> = ip.udp.bind("127.0.0.1", 0)
    local client <close> = ip.udp.bind("127.0.0.1", 0)
    client:set_option("receive_errors", true)
    client:send_to("refused", "127.0.0.1", dead_port())
    local batch = ip.udp.batch.new(2)
    batch:set(1, "a", "127.0.0.1", server.local_port)
    batch:set(2, "b", "127.0.0.1", server.local_port)
    assert.equal(2, client:send_many(batch))
    assert.equal("a", (server:receive_string()))
    assert.equal("b", (server:receive_string()))
    assert.equal(ip.error.ECONNREFUSED, error_of(client.receive_many, client, batch))
    client.receive_timeout = 0.02
    assert.equal(ip.error.ETIMEDOUT, error_of(client.receive_many, client, batch))
  end))
end)

describe("what travels beside the entries of a batch", function()
  local function reporting(options)
    local server = ip.udp.bind("127.0.0.1", 0)
    for _, name in ipairs(options) do server:set_option(name, true) end
    return server, ip.udp.bind("127.0.0.1", 0)
  end

  local all = { "receive_packet_info", "receive_hops", "receive_traffic_class", "receive_timestamp" }

  it("is told entry by entry by info", with_loop(function()
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

  it("is absent where no option asks for it, and what a reused table held is gone", with_loop(function()
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

  it("makes no garbage into a reused table", with_loop(function()
    local server, client = reporting(all)
    local batch, info = ip.udp.batch.new(2), {}
    local function round()
      client:send_to("x", "127.0.0.1", server.local_port)
      server:receive_many(batch)
      batch:info(1, info)
    end
    assert.equal(0, memory.garbage_of(round, 50, 5))
    server:close()
    client:close()
  end))

  it("is sent with the entries that were set with an info table", with_loop(function()
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

  it("does not outlive the entry: what was received goes back plain", with_loop(function()
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

  it("is a bad argument where it is no table, or has a wrong value when it is sent", with_loop(function()
    local batch = ip.udp.batch.new(1)
    local sock <close> = ip.udp.bind("127.0.0.1", 0)
    assert_bad_method_argument(5, batch, "set", 1, "x", "::1", 1, 5)
    assert_bad_method_argument(2, batch, "info", 1, 5)
    assert_bad_method_argument(1, batch, "info", 2)
    batch:set(1, "x", "127.0.0.1", sock.local_port, { hops = 256 })
    for _, method in ipairs { "send_many", "try_send_many" } do
      local problem = ("bad argument #1 to '%s' (entry 1: field 'hops': 256 is outside 1..255)"):format(method)
      assert_message(problem, sock[method], sock, batch)
    end
    batch:set(1, "x", nil, nil, { hops = 5 })
    assert.equal(ip.error.EDESTADDRREQ, error_of(sock.send_many, sock, batch))
  end))
end)
