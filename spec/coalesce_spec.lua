-- What the option coalesce promises of receives: they are served from one read, and nobody notices; and what both
-- directions promise together. The sends are in spec/flush_spec.lua.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local kinds = require "spec.support.kinds"
local garbage_of = require "spec.support.memory".garbage_of
local platform = require "spec.support.platform"
local support = require "spec.support"
local trace = require "spec.support.trace"

local byte_span, fiber, message_flag = ip.byte_span, ip.fiber, ip.message_flag
local error_of, with_loop, on_main = support.error_of, support.with_loop, support.on_main
local assert_contains, assert_empty = assertions.assert_contains, assertions.assert_empty
local is_linux = platform.is_linux
local open_socket, coalescing, segments = kinds.open, kinds.coalescing, kinds.segments

local mixed = { "one", "", ("x"):rep(1400), "two", "two", ("y"):rep(9000), "", "", "z" }

-- The kernel switches timestamps on in the background (net/core/dev.c, net_enable_timestamp); before, a datagram
-- has the time of its read. Returns when datagrams have the time of their arrival.
local function await_arrival_times(receiver, sender, address, port)
  local buf, info = byte_span.new(1), {}
  repeat
    sender:send_to("?", address, port)
    local before = fiber.time()
    receiver:receive_message(buf, info)
  until info.timestamp <= before
end

for _, kind in ipairs(kinds.all) do
  local it_kind = platform.it_family(kind.family)
  local it_joined = is_linux and it_kind or pending

  describe("a receive with coalesce, " .. kind.name, function()
    it_kind("gets one datagram, whole, whatever came with it", with_loop(function()
      local receiver <close>, port = coalescing(kind)
      local sender <close> = open_socket(kind)
      assert.is_true(receiver:get_option("coalesce"))
      local buf = byte_span.new(9000)
      local function with_buffer(method)
        return function()
          local n = receiver[method](receiver, buf)
          return buf:sub(1, n)
        end
      end
      local ways = { function() return (receiver:receive_string()) end }
      for _, method in ipairs { "receive", "receive_from", "try_receive", "try_receive_from", "receive_message" } do
        ways[#ways + 1] = with_buffer(method)
      end
      for _, receive in ipairs(ways) do
        for _, text in ipairs(mixed) do sender:send_to(text, kind.loopback, port) end
        for _, text in ipairs(mixed) do assert.equal(text, receive()) end
        assert_empty(receiver)
      end
      for _, text in ipairs(mixed) do sender:send_to(text, kind.loopback, port) end
      for i, text in ipairs(mixed) do assert.equal(text, ways[i % #ways + 1]()) end
      assert_empty(receiver)
    end))

    it_kind("tells sender and truncation for each", with_loop(function()
      local receiver <close>, port = coalescing(kind)
      local senders = { (open_socket(kind)), (open_socket(kind)), (open_socket(kind)) }
      for i = 1, 60 do senders[i % 3 + 1]:send_to(("n"):rep(i), kind.loopback, port) end
      for i = 1, 60 do
        local text, address, from, truncated = receiver:receive_string(30)
        assert.equal(math.min(i, 30), #text)
        assert.equal(senders[i % 3 + 1].local_port, from)
        assert.equal(i > 30, truncated)
        assert.is_true(address == ip.address.new(kind.loopback) or address:to_v4() == ip.address.new(kind.loopback))
      end
      for _, each in ipairs(senders) do each:close() end
    end))

    it_joined("keeps the boundaries of what the system has joined, beside what it has not", with_loop(function()
      local receiver <close>, port = coalescing(kind, { receive_buffer_size = 4000000 })
      local sender <close> = open_socket(kind)
      local list, data = segments(20, 100)
      local longer = ("longer than those"):rep(50)
      local function send()
        sender:send_to("before", kind.loopback, port)
        sender:send_message(data, { address = kind.loopback, port = port, segment_size = 100 })
        sender:send_to("", kind.loopback, port)
        sender:send_to(longer, kind.loopback, port)
      end
      for _ = 1, 3 do send() end
      for _ = 1, 3 do
        assert.equal("before", (receiver:receive_string()))
        for _, text in ipairs(list) do assert.equal(text, (receiver:receive_string())) end
        assert.equal("", (receiver:receive_string()))
        assert.equal(longer, (receiver:receive_string()))
      end
      assert_empty(receiver)
    end))

    it_kind("peeks, counts bytes and consumes with an empty buffer what was read ahead", with_loop(function()
      local receiver <close>, port = coalescing(kind)
      local sender <close> = open_socket(kind)
      for _, text in ipairs { "first", "second", "", "fourth" } do sender:send_to(text, kind.loopback, port) end
      assert.equal(5, receiver:io_control("bytes_readable"))
      assert.equal("first", (receiver:receive_string(nil, message_flag.peek)))
      assert.equal("first", (receiver:receive_string(nil, message_flag.peek)))
      assert.equal("first", (receiver:receive_string()))
      assert.equal(6, receiver:io_control("bytes_readable"))
      local n, truncated = receiver:receive(byte_span.new(0), message_flag.peek)
      assert.equal(0, n)
      assert.is_true(truncated)
      n, truncated = receiver:receive(byte_span.new(0))
      assert.equal(0, n)
      assert.is_true(truncated)
      assert.equal(0, receiver:io_control("bytes_readable"))
      assert.equal("", (receiver:receive_string()))
      assert.equal("fourth", (receiver:receive_string(nil, message_flag.peek)))
      assert.equal("fourth", (receiver:receive_string()))
      assert.equal(0, receiver:io_control("bytes_readable"))
      assert_empty(receiver)
    end))

    it_joined("by receive_message tells what travelled beside that very datagram", with_loop(function()
      local receiver <close>, port = coalescing(kind, { receive_hops = true, receive_packet_info = true,
        receive_timestamp = true, receive_dropped = true })
      local sender <close> = open_socket(kind)
      await_arrival_times(receiver, sender, kind.loopback, port)
      for hops = 1, 40 do
        sender:send_message("to " .. hops, { address = kind.loopback, port = port, hops = hops, ecn = hops % 4 })
      end
      local list, data = segments(3, 10)
      sender:send_message(data, { address = kind.loopback, port = port, hops = 99, segment_size = 10 })
      local buf, info, last = byte_span.new(100), {}, 0
      for hops = 1, 40 do
        local n = receiver:receive_message(buf, info)
        assert.equal("to " .. hops, buf:sub(1, n))
        assert.equal(hops, info.hops)
        assert.equal(0, info.dropped)
        assert.is_nil(info.segment_size)
        assert.is_not_nil(info.destination)
        assert.equal(sender.local_port, info.port)
        assert.is_true(info.timestamp >= last)
        last = info.timestamp
      end
      for _, text in ipairs(list) do
        local n = receiver:receive_message(buf, info)
        assert.equal(text, buf:sub(1, n))
        assert.equal(99, info.hops)
        assert.is_nil(info.segment_size)
      end
      assert_empty(receiver)
    end))

    it_joined("by receive_message gives all that was joined where receive_offload is on, too", with_loop(function()
      local receiver <close>, port = coalescing(kind, { receive_offload = true })
      local sender <close> = open_socket(kind, { segment_size = 10 })
      local list, data = segments(5, 10)
      sender:send_to(data, kind.loopback, port)
      sender:send_to(data, kind.loopback, port)
      local buf = byte_span.new(1000)
      local n, info = receiver:receive_message(buf)
      assert.equal(data, buf:sub(1, n))
      assert.equal(10, info.segment_size)
      assert.equal(list[1], (receiver:receive_string()))
      n = receiver:receive_message(buf, info)
      assert.equal(data:sub(11), buf:sub(1, n))
      assert.equal(10, info.segment_size)
      receiver:set_option("coalesce", false)
      sender:send_to(data, kind.loopback, port)
      receiver:set_option("receive_offload", false)
      for _, text in ipairs(list) do assert.equal(text, (receiver:receive_string())) end
    end))

    it_kind("by receive_many takes what was read ahead, and what was not", with_loop(function()
      local receiver <close>, port = coalescing(kind, { receive_buffer_size = 4000000 })
      local sender <close> = open_socket(kind)
      for i = 1, 50 do sender:send_to("entry " .. i, kind.loopback, port) end
      assert.equal("entry 1", (receiver:receive_string()))
      local batch, got = ip.udp.batch.new(20, 100), {}
      while #got < 49 do
        for i = 1, receiver:receive_many(batch) do
          got[#got + 1] = tostring(batch[i])
          assert.equal(sender.local_port, (select(3, batch:get(i))))
        end
      end
      for i = 1, 49 do assert.equal("entry " .. i + 1, got[i]) end
      assert_empty(receiver)
    end))

    it_kind("serves those who wait in order, also those who come back at once", with_loop(function()
      local receiver <close>, port = coalescing(kind)
      local sender <close> = open_socket(kind)
      local got, expected = {}, {}
      local function reader()
        for _ = 1, 10 do
          local text = receiver:receive_string()
          got[#got + 1] = text
        end
      end
      local readers = { fiber.spawn(reader), fiber.spawn(reader), fiber.spawn(reader) }
      fiber.yield()
      for i = 1, 30 do
        expected[i] = "text " .. i
        sender:send_to(expected[i], kind.loopback, port)
      end
      for _, each in ipairs(readers) do each:join() end
      assert.same(expected, got)
    end))

    it_kind("ends by cancel, interruption and deadlines, which swallow nothing", with_loop(function()
      local receiver <close>, port = coalescing(kind)
      local sender <close> = open_socket(kind)
      local first = fiber.spawn(pcall, receiver.receive_string, receiver)
      local second = fiber.spawn(pcall, receiver.receive_string, receiver)
      fiber.yield()
      second:interrupt()
      second:join()
      for i = 1, 4 do sender:send_to("text " .. i, kind.loopback, port) end
      assert.equal("text 1", select(2, first:join()))
      receiver:cancel() -- nobody waits, and what was read ahead stays
      assert.equal("text 2", (fiber.with_timeout(0, receiver.receive_string, receiver)))
      receiver.receive_timeout = 0
      assert.equal("text 3", (receiver:receive_string()))
      assert.equal("text 4", (receiver:receive_string()))
      assert.equal(ip.error.ETIMEDOUT, error_of(receiver.receive_string, receiver))
      receiver.receive_timeout = 0.01
      assert.equal(ip.error.ETIMEDOUT, error_of(receiver.receive_string, receiver))
      receiver.receive_timeout = nil
      local third = fiber.spawn(pcall, receiver.receive_string, receiver)
      fiber.yield()
      receiver:cancel()
      local _, err = third:join()
      assert.equal(ip.error.ECANCELED, err)
      sender:send_to("last", kind.loopback, port)
      assert.equal("last", (receiver:receive_string()))
    end))

    it_kind("lets other fibers run while what was read lasts", with_loop(function()
      local receiver <close>, port = coalescing(kind, { receive_buffer_size = 4000000 })
      local sender <close> = open_socket(kind)
      for _ = 1, 600 do sender:send_to("x", kind.loopback, port) end
      local turns = support.turns_during(function()
        for _ = 1, 600 do receiver:receive_string() end
      end)
      assert.is_true(turns >= 3, "turns: " .. turns)
    end))

    it_kind("after connect gets only the peer's datagrams, of what was read ahead, too", with_loop(function()
      local receiver <close>, port = coalescing(kind)
      local stranger <close> = open_socket(kind)
      local peer <close> = open_socket(kind)
      for i = 1, 4 do
        stranger:send_to("strange " .. i, kind.loopback, port)
        peer:send_to("known " .. i, kind.loopback, port)
      end
      assert.equal("strange 1", (receiver:receive_string()))
      receiver:connect(kind.loopback, peer.local_port)
      stranger:send_to("strange 5", kind.loopback, port)
      assert.equal(7, receiver:io_control("bytes_readable"))
      for i = 1, 4 do
        local text, _, from = receiver:receive_string()
        assert.equal("known " .. i, text)
        assert.equal(peer.local_port, from)
      end
      assert_empty(receiver)
    end))

    it_joined("keeps boundaries when it is switched off with datagrams in hand and in the socket", with_loop(function()
      local receiver <close>, port = coalescing(kind)
      local sender <close> = open_socket(kind, { segment_size = 40 })
      local list, data = segments(4, 40)
      for _ = 1, 3 do sender:send_to(data, kind.loopback, port) end
      assert.equal(list[1], (receiver:receive_string()))
      receiver:set_option("coalesce", false)
      assert.is_false(receiver:get_option("coalesce"))
      sender:send_to(data, kind.loopback, port)
      for i = 2, 16 do assert.equal(list[(i - 1) % 4 + 1], (receiver:receive_string())) end
      assert_empty(receiver)
      receiver:set_option("coalesce", true)
      sender:send_to(data, kind.loopback, port)
      for i = 1, 4 do assert.equal(list[i], (receiver:receive_string())) end
    end))

    it_kind("close drops what was read ahead, also with somebody waiting", with_loop(function()
      local receiver, port = coalescing(kind)
      local sender <close> = open_socket(kind)
      for _ = 1, 5 do sender:send_to("x", kind.loopback, port) end
      receiver:receive_string()
      receiver:close()
      assert.equal(ip.error.EBADF, error_of(receiver.receive_string, receiver))
      receiver = coalescing(kind)
      local waiting = fiber.spawn(pcall, receiver.receive_string, receiver)
      fiber.yield()
      receiver:close()
      local ok, err = waiting:join()
      assert.is_false(ok)
      assert.equal(ip.error.ECANCELED, err)
    end))

    it_kind("shutdown refuses what was read ahead like what was not", with_loop(function()
      local receiver <close>, port = coalescing(kind)
      local sender <close> = open_socket(kind)
      for _ = 1, 3 do sender:send_to("x", kind.loopback, port) end
      receiver:connect(kind.loopback, sender.local_port)
      receiver:receive_string()
      receiver:shutdown("receive")
      assert.equal(ip.error.ESHUTDOWN, error_of(receiver.receive_string, receiver))
      assert.equal(ip.error.ESHUTDOWN, error_of(receiver.try_receive, receiver, byte_span.new(1)))
    end))

    it_kind("release is busy until what was read ahead is received, and loses nothing", with_loop(function()
      local receiver <close>, port = coalescing(kind)
      local sender <close> = open_socket(kind)
      for i = 1, 3 do sender:send_to("text " .. i, kind.loopback, port) end
      assert.equal("text 1", (receiver:receive_string()))
      if is_linux then assert.equal(ip.error.EBUSY, error_of(receiver.release, receiver)) end
      assert.is_true(receiver.is_open)
      assert.equal("text 2", (receiver:receive_string()))
      assert.equal("text 3", (receiver:receive_string()))
      for i = 4, 6 do sender:send_to("text " .. i, kind.loopback, port) end
      local fd = receiver:release()
      local heir <close> = ip.udp.socket.new()
      heir:assign(kind.any == "::" and "v6" or "v4", fd)
      heir.receive_timeout = 2
      assert.is_false(heir:get_option("coalesce"))
      for i = 4, 6 do assert.equal("text " .. i, (heir:receive_string())) end
    end))

    it_joined("release of an empty socket leaves a descriptor that joins nothing", with_loop(function()
      local receiver <close>, port = coalescing(kind)
      local sender <close> = open_socket(kind, { segment_size = 10 })
      local fd = receiver:release()
      local heir <close> = ip.udp.socket.new()
      heir:assign(kind.any == "::" and "v6" or "v4", fd)
      assert.is_false(heir:get_option("receive_offload"))
      local list, data = segments(3, 10)
      sender:send_to(data, kind.loopback, port)
      for _, text in ipairs(list) do assert.equal(text, (heir:receive_string())) end
    end))

    it_kind("serves the loops", with_loop(function()
      local receiver <close>, port = coalescing(kind)
      local sender <close> = open_socket(kind)
      local expected, got = {}, {}
      for i = 1, 70 do
        expected[i] = "text " .. i
        sender:send_to(expected[i], kind.loopback, port)
      end
      for data in receiver:datagrams() do
        got[#got + 1] = tostring(data)
        if #got == 35 then break end
      end
      receiver:receive_loop(function(data)
        got[#got + 1] = tostring(data)
      end, { stop = function() return #got == 70 end })
      assert.same(expected, got)
    end))

    it_joined("is told an ICMP error once, and loses no datagram by it", with_loop(function()
      for _, options in ipairs { {}, { receive_errors = true } } do
        local receiver <close>, port = coalescing(kind, options)
        local peer = open_socket(kind)
        local peer_port = peer.local_port
        receiver:connect(kind.loopback, peer_port)
        for i = 1, 3 do peer:send_to("text " .. i, kind.loopback, port) end
        assert.equal("text 1", (receiver:receive_string()))
        peer:close()
        receiver:send("refused")
        receiver:flush()
        local texts, errors = {}, {}
        for _ = 1, 3 do
          local ok, what = pcall(receiver.receive_string, receiver)
          local list = ok and texts or errors
          list[#list + 1] = what
        end
        assert.same({ "text 2", "text 3" }, texts)
        assert.equal(ip.error.ECONNREFUSED, errors[1])
      end
    end))
  end)
end

describe("coalesce", function()
  it("is off, takes a boolean, and can be set again", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0)
    assert.is_false(sock:get_option("coalesce"))
    sock:set_option("coalesce", false)
    for _, value in ipairs { 1, "on" } do assert.is_string(error_of(sock.set_option, sock, "coalesce", value)) end
    for _ = 1, 3 do
      sock:set_option("coalesce", true)
      sock:set_option("coalesce", true)
      assert.is_true(sock:get_option("coalesce"))
      if is_linux then assert.is_false(sock:get_option("receive_offload")) end
      sock:set_option("coalesce", false)
      assert.is_false(sock:get_option("coalesce"))
    end
    sock:close()
    assert.equal(ip.error.EBADF, error_of(sock.set_option, sock, "coalesce", true))
    sock:open("v4")
    assert.is_false(sock:get_option("coalesce"))
  end))

  it("may be switched on while offloaded datagrams are in hand", with_loop(function()
    if not is_linux then return pending("receive_offload is Linux's") end
    local receiver <close> = ip.udp.bind("127.0.0.1", 0, { receive_offload = true, receive_timeout = 2 })
    local sender <close> = ip.udp.connect("127.0.0.1", receiver.local_port, { segment_size = 10 })
    local list, data = segments(5, 10)
    sender:send(data)
    assert.equal(list[1], (receiver:receive_string()))
    receiver:set_option("coalesce", true)
    sender:send(data)
    for i = 2, 10 do
      local text, _, from = receiver:receive_string()
      assert.equal(list[(i - 1) % 5 + 1], text)
      assert.equal(sender.local_port, from)
    end
    assert_empty(receiver)
  end))

  it("echoes in order between fibers of one process, and with several peers", with_loop(function()
    local server <close> = ip.udp.bind("127.0.0.1", 0, { coalesce = true })
    local port = server.local_port
    local echo = fiber.spawn(function()
      local buf = byte_span.new(2000)
      while true do
        local n, address, from = server:receive_from(buf:resize(2000))
        server:send_to(buf:resize(n), address, from)
      end
    end)
    local clients = {}
    for i = 1, 5 do
      clients[i] = fiber.spawn(function()
        local client <close> = ip.udp.connect("127.0.0.1", port, { coalesce = i % 2 == 0, receive_timeout = 5 })
        for round = 1, 20 do
          for each = 1, 12 do client:send(("%d %d %d "):format(i, round, each):rep(each % 4)) end
          for each = 1, 12 do
            assert.equal(("%d %d %d "):format(i, round, each):rep(each % 4), (client:receive_string()))
          end
        end
      end)
    end
    for _, each in ipairs(clients) do each:join() end
    echo:interrupt()
    echo:join()
  end))

  it("makes no garbage in the steady state", with_loop(function()
    local server <close> = ip.udp.bind("127.0.0.1", 0, { coalesce = true })
    local client <close> = ip.udp.connect("127.0.0.1", server.local_port, { coalesce = true })
    local buf = byte_span.new(64)
    local function round()
      for _ = 1, 10 do client:send("payload") end
      for _ = 1, 10 do
        local n, address, port = server:receive_from(buf:resize(64))
        server:send_to(buf:resize(n), address, port)
      end
      for _ = 1, 10 do client:receive(buf:resize(64)) end
      client:flush()
    end
    assert.equal(0, garbage_of(round, 50, 5))
  end))
end)

-- Programs in processes of their own ----------------------------------------------------------------------------

describe("system calls with coalesce", function()
  local it_traced = platform.it_where(platform.can_trace(), "strace")

  local echo = [[
    local ip = require "ip"
    local server = ip.udp.bind("127.0.0.1", 0, { coalesce = true })
    local client = ip.udp.connect("127.0.0.1", server.local_port)
    local out, batch = ip.udp.batch.new(32, 100), ip.udp.batch.new(32, 100)
    for i = 1, 32 do out:set(i, "payload") end
    ip.fiber.run(function()
      local echo = ip.fiber.spawn(function()
        local buf = ip.byte_span.new(64)
        while true do
          local n, address, port = server:receive_from(buf:resize(64))
          server:send_to(buf:resize(n), address, port)
        end
      end)
      for _ = 1, ROUNDS do
        assert(client:send_many(out) == 32)
        local left = 32
        while left > 0 do left = left - client:receive_many(batch) end
      end
      echo:interrupt()
      echo:join()
    end)
    print "done"
  ]]

  local names = { "recvmmsg", "sendmmsg", "recvfrom", "recvmsg", "sendto", "sendmsg", "epoll_wait", "epoll_pwait",
    "epoll_ctl" }

  local function count_calls(rounds, each)
    local program = echo:gsub("ROUNDS", rounds):gsub("32", each or 32)
    local calls, output = trace.count(program)
    assert.equal("done\n", output)
    local total = 0
    for _, name in ipairs(names) do total = total + calls[name] end
    return calls, total
  end

  it_traced("are at most 0.13 per echo, 32 of which come at once", on_main(function()
    local rounds = 100
    local without, total_without = count_calls(0)
    local with, total = count_calls(rounds)
    -- The client's own in a round: one to send, one to wait, and one to receive.
    local client = 3 * rounds
    local per_echo = (total - total_without - client) / (32 * rounds)
    assert.is_true(per_echo <= 0.13, "system calls per echo: " .. per_echo)
    assert.is_true(per_echo >= 1 / 32, "not all system calls were counted: " .. per_echo)
    assert.is_true(with.sendmsg - without.sendmsg <= 1.1 * rounds, "not every round's answers left together")
    assert.equal(0, with.recvfrom + with.sendto - without.recvfrom - without.sendto)
  end, 60))

  it_traced("are one to read what comes, where that is less than a read takes", on_main(function()
    local rounds = 64
    local without, with = count_calls(0, 20), count_calls(rounds, 20)
    -- The client's own is one in a round, and some that find nothing: the first four, and one in 32.
    local reads = with.recvmmsg - without.recvmmsg - rounds - 4 - rounds // 32
    assert.is_true(reads >= rounds and reads <= 1.1 * rounds, "reads: " .. reads)
  end, 60))

  it_traced("work where the kernel can neither join nor cut", on_main(function()
    local log, output = trace.log([[
      local ip = require "ip"
      local a = ip.udp.bind("127.0.0.1", 0, { coalesce = true })
      local b = ip.udp.bind("127.0.0.1", 0)
      for i = 1, 5 do b:send_to("to a", "127.0.0.1", a.local_port) end
      for i = 1, 5 do a:send_to("to b", "127.0.0.1", b.local_port) end
      a:flush()
      for i = 1, 5 do assert(a:receive_string() == "to a") assert(b:receive_string() == "to b") end
      print(a:get_option("coalesce"))
    ]], "-e trace=setsockopt,getsockopt,sendmsg,sendmmsg -e inject=setsockopt,getsockopt:error=ENOPROTOOPT")
    assert.equal("true\n", output)
    assert.is_nil(log:find("SOL_UDP, cmsg_type", 1, true), log) -- nobody was asked to cut
    assert_contains(log, "= 5") -- and still they left together
  end, 60))
end)
