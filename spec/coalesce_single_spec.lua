-- The option coalesce where it has nothing to gain: where datagrams come one at a time, and iterations of the loop
-- bring one send. Then receives read one datagram and sends leave at once, at the cost of plain ones, and all promises
-- of spec/coalesce_spec.lua and spec/flush_spec.lua stand.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local kinds = require "spec.support.kinds"
local platform = require "spec.support.platform"
local support = require "spec.support"
local trace = require "spec.support.trace"

local byte_span, fiber, message_flag = ip.byte_span, ip.fiber, ip.message_flag
local error_of, with_loop, on_main = support.error_of, support.with_loop, support.on_main
local assert_empty = assertions.assert_empty
local is_linux = platform.is_linux
local open_socket, segments = kinds.open, kinds.segments

-- Datagrams that come one at a time, or sends that are alone in their iteration, until the option knows.
local SOME = 8

-- A socket to which datagrams have come one at a time.
local function receiving_singly(kind, sender, options)
  local receiver, port = kinds.coalescing(kind, options)
  for i = 1, SOME do
    sender:send_to("alone " .. i, kind.loopback, port)
    assert.equal("alone " .. i, (receiver:receive_string()))
  end
  return receiver, port
end

-- A socket that has sent one datagram in each of some iterations.
local function sending_singly(kind, receiver, port, options)
  local sender = kinds.coalescing(kind, options)
  for i = 1, SOME do
    sender:send_to("alone " .. i, kind.loopback, port)
    assert.equal("alone " .. i, (receiver:receive_string()))
    fiber.yield()
  end
  return sender
end

for _, kind in ipairs(kinds.all) do
  local it_kind = platform.it_family(kind.family)
  local it_joined = is_linux and it_kind or pending

  describe("where single datagrams came, a receive with coalesce, " .. kind.name, function()
    it_kind("gets a burst in order, and single ones after it", with_loop(function()
      local sender <close> = open_socket(kind)
      local receiver <close>, port = receiving_singly(kind, sender)
      for _ = 1, 3 do
        for i = 1, 40 do sender:send_to(("x"):rep(i % 7) .. i, kind.loopback, port) end
        for i = 1, 40 do assert.equal(("x"):rep(i % 7) .. i, (receiver:receive_string())) end
        assert_empty(receiver)
        for i = 1, SOME do
          sender:send_to("again " .. i, kind.loopback, port)
          assert.equal("again " .. i, (receiver:receive_string()))
        end
      end
    end))

    it_joined("keeps the boundaries of what the system has joined", with_loop(function()
      for _, connected in ipairs { false, true } do
        local sender <close>, from = open_socket(kind)
        local receiver <close>, port = receiving_singly(kind, sender)
        if connected then receiver:connect(kind.loopback, from) end
        local list, data = segments(20, 100)
        for _ = 1, 2 do
          sender:send_message(data, { address = kind.loopback, port = port, segment_size = 100 })
          for _, text in ipairs(list) do
            local got, _, source, truncated = receiver:receive_string(1000)
            assert.equal(text, got)
            assert.equal(from, source)
            assert.is_false(truncated)
          end
          assert_empty(receiver)
        end
      end
    end))

    it_kind("tells sender and truncation, and takes any size", with_loop(function()
      local sender <close>, from = open_socket(kind)
      local receiver <close>, port = receiving_singly(kind, sender)
      for _, size in ipairs { 0, 1, 100, 1400, 9000, kind.largest } do
        sender:send_to(("x"):rep(size), kind.loopback, port)
        local text, _, source, truncated = receiver:receive_string(100)
        assert.equal(("x"):rep(math.min(size, 100)), text)
        assert.equal(from, source)
        assert.equal(size > 100, truncated)
        sender:send_to(("y"):rep(size), kind.loopback, port)
        assert.equal(size, #receiver:receive_string())
      end
    end))

    it_kind("peeks, counts bytes, and is busy for release meanwhile", with_loop(function()
      local sender <close> = open_socket(kind)
      local receiver <close>, port = receiving_singly(kind, sender)
      sender:send_to("first", kind.loopback, port)
      assert.equal(5, receiver:io_control("bytes_readable"))
      if is_linux then assert.equal(ip.error.EBUSY, error_of(receiver.release, receiver)) end
      sender:send_to("second", kind.loopback, port)
      for _ = 1, 2 do assert.equal("first", (receiver:receive_string(nil, message_flag.peek))) end
      assert.equal("first", (receiver:receive_string()))
      for _ = 1, 2 do assert.equal("second", (receiver:receive_string(nil, message_flag.peek))) end
      assert.equal(6, receiver:io_control("bytes_readable"))
      assert.equal("second", (receiver:receive_string()))
      assert_empty(receiver)
    end))

    it_kind("after connect gets only the peer's datagrams", with_loop(function()
      local other <close> = open_socket(kind)
      local peer <close> = open_socket(kind)
      local receiver <close>, port = receiving_singly(kind, other)
      for i = 1, 3 do
        other:send_to("other " .. i, kind.loopback, port)
        peer:send_to("peer " .. i, kind.loopback, port)
      end
      receiver:connect(kind.loopback, peer.local_port)
      for i = 1, 3 do assert.equal("peer " .. i, (receiver:receive_string())) end
      assert_empty(receiver)
    end))

    it_joined("may be switched off and on with joined datagrams in hand and in the socket", with_loop(function()
      local sender <close> = open_socket(kind)
      local receiver <close>, port = receiving_singly(kind, sender)
      local list, data = segments(4, 40)
      local info = { address = kind.loopback, port = port, segment_size = 40 }
      for _, on in ipairs { false, true, false } do
        for _ = 1, 2 do sender:send_message(data, info) end
        assert.equal(list[1], (receiver:receive_string()))
        receiver:set_option("coalesce", on)
        sender:send_message(data, info)
        for i = 2, 12 do assert.equal(list[(i - 1) % 4 + 1], (receiver:receive_string())) end
        assert_empty(receiver)
      end
    end))

    it_kind("serves several fibers that wait, in their order", with_loop(function()
      local sender <close> = open_socket(kind)
      local receiver <close>, port = receiving_singly(kind, sender)
      local fibers = {}
      for i = 1, 20 do fibers[i] = fiber.spawn(function() return (receiver:receive_string()) end) end
      fiber.yield()
      for i = 1, 20 do sender:send_to("text " .. i, kind.loopback, port) end
      for i = 1, 20 do assert.equal("text " .. i, fibers[i]:join()) end
    end))
  end)

  describe("where iterations bring one send, a send with coalesce, " .. kind.name, function()
    it_kind("leaves at once, and those after it at the end of the iteration", with_loop(function()
      local receiver <close>, port = open_socket(kind)
      local sender <close> = sending_singly(kind, receiver, port)
      for _ = 1, 3 do
        sender:send_to("first", kind.loopback, port)
        assert.equal(0, sender.send_queue_count)
        assert.equal("first", (receiver:receive_string()))
        fiber.yield()
      end
      sender:send_to("first", kind.loopback, port)
      sender:send_to("second", kind.loopback, port)
      sender:send_to("third", kind.loopback, port)
      assert.equal(2, sender.send_queue_count)
      assert.equal(5, (receiver:try_receive(byte_span.new(10))))
      assert_empty(receiver)
      fiber.yield()
      for _, text in ipairs { "second", "third" } do assert.equal(text, (receiver:receive_string())) end
      sender:send_to("a", kind.loopback, port)
      assert.equal(1, sender.send_queue_count)
    end))

    it_kind("keeps the order with flags, messages and batches", with_loop(function()
      local receiver <close>, port = open_socket(kind)
      local sender <close> = sending_singly(kind, receiver, port)
      local batch = ip.udp.batch.new(2, 10)
      batch:set(1, "4", kind.loopback, port)
      batch:set(2, "5", kind.loopback, port)
      sender:send_to("1", kind.loopback, port)
      sender:send_message("2", { address = kind.loopback, port = port, hops = 7 })
      sender:send_to("3", kind.loopback, port, message_flag.do_not_route)
      assert.equal(2, sender:send_many(batch))
      sender:send_to("6", kind.loopback, port)
      sender:flush()
      for i = 1, 6 do assert.equal(tostring(i), (receiver:receive_string())) end
    end))

    it_kind("reports an older refusal at the next send, and is sent again", with_loop(function()
      if not is_linux then return pending("what other systems report is not known") end
      local receiver, port = open_socket(kind)
      local sender <close> = sending_singly(kind, receiver, port)
      receiver:close()
      sender:connect(kind.loopback, port)
      sender:send("refused")
      sender:flush()
      receiver = ip.udp.socket.new()
      receiver:open(kind.any == "::" and "v6" or "v4")
      if kind.any == "::" then receiver:set_option("v6_only", false) end
      receiver:bind(kind.any, port)
      receiver.receive_timeout = 2
      fiber.yield()
      sender:send("again")
      assert.equal("send: connection refused (ECONNREFUSED)",
        support.text_of(error_of(sender.send, sender, "not sent")))
      sender:send("after")
      sender:flush()
      for _, text in ipairs { "again", "after" } do assert.equal(text, (receiver:receive_string())) end
      assert_empty(receiver)
      receiver:close()
    end))
  end)
end

describe("where iterations bring one send, a send with coalesce", function()
  it("that the system refuses is reported at the next one, and raises at once what shows before", with_loop(function()
    if not is_linux then return pending("whose broadcast address is not known") end
    local kind = kinds.all[1]
    local receiver <close>, port = open_socket(kind)
    local sender <close> = sending_singly(kind, receiver, port)
    assert.equal(ip.error.EINVAL, error_of(sender.send_to, sender, "x", "127.0.0.1", 0))
    assert.equal(ip.error.EMSGSIZE, error_of(sender.send_to, sender, ("x"):rep(65508), "127.0.0.1", port))
    assert.equal(ip.error.EACCES, error_of(sender.send_to, sender, "x", "255.255.255.255", port))
    for _ = 1, SOME do
      sender:send_to("alone", "127.0.0.1", port)
      assert.equal("alone", (receiver:receive_string()))
      fiber.yield()
    end
    sender:send_to("refused", "127.255.255.255", port) -- a broadcast address by its route alone
    assert.equal("send_to: permission denied (EACCES)",
      support.text_of(error_of(sender.send_to, sender, "not sent", "127.0.0.1", port)))
    sender:send_to("behind", "127.0.0.1", port)
    sender:flush()
    assert.equal("behind", (receiver:receive_string()))
  end))
end)

-- Programs in processes of their own ----------------------------------------------------------------------------

describe("the system calls of single datagrams with coalesce", function()
  local it_traced = platform.it_where(platform.can_trace(), "strace")

  -- The calls of the server are its own: recvmsg or recvmmsg, and sendmsg.
  local count = trace.count_echoes

  local by_datagrams = "for data, address, port in server:datagrams() do server:send_to(data, address, port) end"
  local by_batch = trace.serve_by_batch(16)

  it_traced("are as many as without, one recvmsg and one sendto for each", on_main(function()
    local rounds = 200
    local plain = count(rounds, false, by_datagrams).total - count(0, false, by_datagrams).total
    local before, after = count(0, true, by_datagrams), count(rounds, true, by_datagrams)
    assert.is_true(after.total - before.total <= 1.02 * plain,
      ("%d with coalesce, %d without"):format(after.total - before.total, plain))
    local reads = after.recvmsg - before.recvmsg
    assert.is_true(reads >= rounds - SOME and reads <= 1.1 * rounds, "recvmsg: " .. reads)
    assert.is_true(after.recvmmsg <= SOME, "recvmmsg: " .. after.recvmmsg)
    assert.equal(2 * rounds, after.sendto - before.sendto)
  end, 60))

  it_traced("are one read for each batch of one", on_main(function()
    local rounds = 200
    local plain = count(rounds, false, by_batch).total - count(0, false, by_batch).total
    local coalesce = count(rounds, true, by_batch).total - count(0, true, by_batch).total
    assert.is_true(coalesce <= 1.02 * plain, ("%d with coalesce, %d without"):format(coalesce, plain))
  end, 60))

  it_traced("are few again for a burst", on_main(function()
    local calls = trace.count([[
      local ip = require "ip"
      local server = ip.udp.bind("127.0.0.1", 0, { coalesce = true })
      local client = ip.udp.connect("127.0.0.1", server.local_port)
      for _ = 1, 20 do
        client:send("alone")
        server:receive_string()
      end
      for _ = 1, 100 do
        for i = 1, 20 do client:send(("x"):rep(i)) end
        for i = 1, 20 do assert(#server:receive_string() == i) end
      end]])
    assert.is_true(calls.recvmmsg >= 90 and calls.recvmmsg <= 120, "recvmmsg: " .. calls.recvmmsg)
    assert.is_true(calls.recvmsg <= 30, "recvmsg: " .. calls.recvmsg)
  end, 60))

  it_traced("make a datagram wait that the system does not take at once", on_main(function()
    local log, output = trace.log([[
      local ip = require "ip"
      local sink = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 5 })
      local out = ip.udp.connect("127.0.0.1", sink.local_port, { coalesce = true })
      ip.fiber.run(function()
        for i = 1, 10 do
          out:send("text " .. i)
          assert(sink:receive_string() == "text " .. i)
          ip.fiber.yield()
        end
      end)
      print(out.send_queue_count)]], "-e trace=sendto -e inject=sendto:error=EAGAIN:when=8")
    assert.equal("0\n", output)
    assert.same({ "sendto 6", "sendto -1 EAGAIN", "sendto 6" }, table.move(trace.results(log), 7, 9, 1, {}))
  end, 60))
end)

describe("an idle socket with coalesce #slow", function()
  it("holds no buffer", function()
    if not is_linux or platform.is_watched then return pending("the memory of a process is not known") end
    local output, code = support.run_program([[
      local ip = require "ip"
      local resident = require "spec.support.resident"
      local count = 400
      local function bytes_of(options)
        local sockets, before = {}, resident()
        local client = ip.udp.bind("127.0.0.1", 0)
        for i = 1, count do
          local sock = ip.udp.bind("127.0.0.1", 0, options)
          for _ = 1, 5 do client:send_to("payload", "127.0.0.1", sock.local_port) end
          for _ = 1, 5 do
            local data, address, port = sock:receive_string()
            sock:send_to(data, address, port)
          end
          sock:flush()
          for _ = 1, 5 do client:receive_string() end
          sockets[i] = sock
        end
        return (resident() - before) // count
      end
      bytes_of { coalesce = true } -- what all sockets share
      local plain = bytes_of {}
      print(bytes_of { coalesce = true } - plain)]])
    assert.equal(0, code, output)
    local each = tonumber(output)
    assert.is_true(each <= 1024, "more bytes than a plain socket: " .. output)
  end)
end)
