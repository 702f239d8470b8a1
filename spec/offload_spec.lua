-- What segment_size and receive_offload promise: the system splits and joins, and nobody but receive_message notices.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local kinds = require "spec.support.kinds"
local platform = require "spec.support.platform"
local support = require "spec.support"
local trace = require "spec.support.trace"

local byte_span, fiber, message_flag = ip.byte_span, ip.fiber, ip.message_flag
local error_of, with_loop = support.error_of, support.with_loop
local assert_empty = assertions.assert_empty
local it_linux = platform.it_linux
local open_socket, segments = kinds.open, kinds.segments

local function assert_received(list, receive, first)
  for i = first or 1, #list do assert.equal(list[i], (receive())) end
end

for _, kind in ipairs(kinds.all) do
  local it_kind = platform.it_linux_family(kind.family)

  describe("segment_size, " .. kind.name, function()
    it_kind("as a field splits one send into datagrams", with_loop(function()
      local receiver <close>, port = open_socket(kind)
      local sender <close> = open_socket(kind)
      local list, data = segments(10, 100)
      local fields = { address = kind.loopback, port = port, segment_size = 100, hops = 5 }
      assert.equal(#data, sender:send_message(data, fields))
      assert_received(list, function() return receiver:receive_string() end)
      assert.equal(#data, sender:send_message({ data:sub(1, 33), byte_span.append(data:sub(34, 250)), data:sub(251) },
        fields))
      assert_received(list, function() return receiver:receive_string() end)
      fields.segment_size = 0
      sender:send_message(data, fields)
      assert.equal(data, (receiver:receive_string()))
      assert_empty(receiver)
    end))

    it_kind("as an option splits every send, until it is 0", with_loop(function()
      local receiver <close>, port = open_socket(kind)
      local sender <close> = open_socket(kind)
      assert.equal(0, sender:get_option("segment_size"))
      sender:set_option("segment_size", 64)
      assert.equal(64, sender:get_option("segment_size"))
      local list, data = segments(5, 64)
      assert.equal(#data, sender:send_to(data, kind.loopback, port))
      assert_received(list, function() return receiver:receive_string() end)
      assert.equal(#data, sender:try_send_to(data, kind.loopback, port))
      assert_received(list, function() return receiver:receive_string() end)
      assert.equal(10, sender:send_to(data:sub(1, 10), kind.loopback, port))
      assert.equal(data:sub(1, 10), (receiver:receive_string()))
      assert.equal(0, sender:send_to("", kind.loopback, port))
      assert.equal("", (receiver:receive_string()))
      sender:set_option("segment_size", 0)
      sender:send_to(data, kind.loopback, port)
      assert.equal(data, (receiver:receive_string()))
    end))

    it_kind("splits more than the system takes at once", with_loop(function()
      local receiver <close>, port = open_socket(kind, { receive_buffer_size = 4000000 })
      local sender <close> = open_socket(kind, { segment_size = 8 })
      local list, data = segments(300, 8)
      assert.equal(#data, sender:send_to(data, kind.loopback, port))
      assert_received(list, function() return receiver:receive_string() end)
      assert_empty(receiver)
    end))

    it_kind("does not make a datagram of more than the system takes", with_loop(function()
      local sender <close>, port = open_socket(kind, { segment_size = 1000 })
      assert.equal(ip.error.EMSGSIZE, error_of(sender.send_to, sender, ("x"):rep(65528), kind.loopback, port))
      assert.equal(ip.error.EINVAL, error_of(sender.send_to, sender, ("x"):rep(2000), kind.loopback, 0))
    end))
  end)

  describe("receive_offload, " .. kind.name, function()
    local function offloading(options)
      options = options or {}
      options.receive_offload = true
      return open_socket(kind, options)
    end

    it_kind("receive_message gives what was joined, and the size of its parts", with_loop(function()
      local receiver <close>, port = offloading({ receive_packet_info = true })
      local sender <close> = open_socket(kind, { segment_size = 1000 })
      local list, data = segments(10, 1000)
      assert.is_true(receiver:get_option("receive_offload"))
      sender:send_to(data, kind.loopback, port)
      local buf = byte_span.new(65535)
      local n, info = receiver:receive_message(buf)
      assert.equal(data, buf:sub(1, n))
      assert.equal(1000, info.segment_size)
      assert.is_not_nil(info.destination)
      sender:send_to("single", kind.loopback, port)
      n = receiver:receive_message(buf, info)
      assert.equal("single", buf:sub(1, n))
      assert.is_nil(info.segment_size)
      sender:send_to(data, kind.loopback, port)
      n = receiver:receive_message(byte_span.new(1500), info)
      assert.equal(1500, n)
      assert.is_true(info.truncated)
      assert_empty(receiver)
      assert.equal(#list, 10)
    end))

    it_kind("every other receive gets one datagram at a time", with_loop(function()
      local receiver <close>, port = offloading()
      local sender <close> = open_socket(kind, { segment_size = 100 })
      local list, data = segments(20, 100)
      local buf = byte_span.new(200)
      local function with_buffer(method)
        return function()
          local n = receiver[method](receiver, buf)
          return buf:sub(1, n)
        end
      end
      local ways = { function() return receiver:receive_string() end }
      for _, method in ipairs { "receive", "receive_from", "try_receive", "try_receive_from" } do
        ways[#ways + 1] = with_buffer(method)
      end
      for _, receive in ipairs(ways) do
        sender:send_to(data, kind.loopback, port)
        assert_received(list, receive)
        assert_empty(receiver)
      end
      sender:send_to(data, kind.loopback, port)
      for i, text in ipairs(list) do assert.equal(text, (ways[i % #ways + 1]())) end
      local _, address, from_port = receiver:try_receive_from(buf)
      assert.is_nil(_)
      assert.equal(ip.error.EAGAIN, address)
      assert.is_nil(from_port)
    end))

    it_kind("tells sender and truncation for each, peeks, and consumes with an empty buffer", with_loop(function()
      local receiver <close>, port = offloading()
      local sender <close> = open_socket(kind, { segment_size = 50 })
      local list, data = segments(6, 50)
      sender:send_to(data, kind.loopback, port)
      assert.equal(50, receiver:io_control("bytes_readable"))
      local text, address, from_port, truncated = receiver:receive_string(10)
      assert.equal(list[1]:sub(1, 10), text)
      assert.is_true(truncated)
      assert.equal(sender.local_port, from_port)
      assert.is_not_nil(address)
      assert.equal(list[2], (receiver:receive_string(nil, message_flag.peek)))
      local n
      n, truncated = receiver:receive(byte_span.new(0), message_flag.peek)
      assert.equal(0, n)
      assert.is_true(truncated)
      n, truncated = receiver:receive(byte_span.new(0))
      assert.equal(0, n)
      assert.is_true(truncated)
      local info
      n, info = receiver:receive_message(byte_span.new(1000))
      assert.equal(#data - 100, n)
      assert.equal(50, info.segment_size)
      assert.equal(0, receiver:io_control("bytes_readable"))
      assert_empty(receiver)
      sender:send_to("", kind.loopback, port)
      assert.equal("", (receiver:receive_string()))
      sender:send_to(data, kind.loopback, port)
      for i = 1, 5 do assert.equal(list[i], (receiver:receive_string())) end
      assert.equal(49, receiver:io_control("bytes_readable"))
      n, truncated = receiver:receive(byte_span.new(49))
      assert.equal(49, n)
      assert.is_false(truncated)
    end))

    it_kind("serves those who wait in order, also those who come back at once", with_loop(function()
      local receiver <close>, port = offloading()
      local sender <close> = open_socket(kind, { segment_size = 40 })
      local list, data = segments(30, 40)
      local got = {}
      local function reader(times)
        for _ = 1, times do
          local text = receiver:receive_string()
          got[#got + 1] = text
        end
      end
      local readers = { fiber.spawn(reader, 10), fiber.spawn(reader, 10), fiber.spawn(reader, 10) }
      fiber.yield()
      sender:send_to(data, kind.loopback, port)
      for _, each in ipairs(readers) do each:join() end
      assert.same(list, got)
    end))

    it_kind("a deadline, a cancellation and a timeout swallow nothing of what was read", with_loop(function()
      local receiver <close>, port = offloading()
      local sender <close> = open_socket(kind, { segment_size = 40 })
      local list, data = segments(4, 40)
      local first = fiber.spawn(pcall, receiver.receive_string, receiver)
      local second = fiber.spawn(pcall, receiver.receive_string, receiver)
      fiber.yield()
      second:interrupt()
      second:join()
      sender:send_to(data, kind.loopback, port)
      assert.equal(list[1], select(2, first:join()))
      receiver:cancel()
      assert.equal(list[2], (fiber.with_timeout(0, receiver.receive_string, receiver)))
      receiver.receive_timeout = 0
      assert.equal(list[3], (receiver:receive_string()))
      assert.equal(list[4], (receiver:receive_string()))
      assert.equal(ip.error.ETIMEDOUT, error_of(receiver.receive_string, receiver))
    end))

    it_kind("other fibers run while what was read lasts", with_loop(function()
      local receiver <close>, port = offloading({ receive_buffer_size = 4000000 })
      local sender <close> = open_socket(kind, { segment_size = 8 })
      local _, data = segments(60, 8)
      for _ = 1, 10 do sender:send_to(data, kind.loopback, port) end
      local turns = support.turns_during(function()
        for _ = 1, 600 do receiver:receive_string() end
      end)
      assert.is_true(turns >= 3)
    end))

    it_kind("after connect only the peer's datagrams are left", with_loop(function()
      local receiver <close>, port = offloading()
      local stranger <close> = open_socket(kind, { segment_size = 40 })
      local peer <close> = open_socket(kind, { segment_size = 40 })
      local list, data = segments(4, 40)
      stranger:send_to(data, kind.loopback, port)
      assert.equal(list[1], (receiver:receive_string()))
      peer:send_to(data, kind.loopback, port)
      receiver:connect(kind.loopback, peer.local_port)
      assert.equal(40, receiver:io_control("bytes_readable"))
      for i = 1, 4 do
        local text, _, from = receiver:receive_string()
        assert.equal(list[i], text)
        assert.equal(peer.local_port, from)
      end
      assert_empty(receiver)
    end))

    it_kind("keeps boundaries when it is switched off with datagrams in the socket", with_loop(function()
      local receiver <close>, port = offloading()
      local sender <close> = open_socket(kind, { segment_size = 40 })
      local list, data = segments(4, 40)
      sender:send_to(data, kind.loopback, port)
      sender:send_to(data, kind.loopback, port)
      receiver:set_option("receive_offload", false)
      assert.is_false(receiver:get_option("receive_offload"))
      for i = 1, 8 do
        local buf = byte_span.new(400)
        local n, info = receiver:receive_message(buf)
        assert.equal(list[(i - 1) % 4 + 1], buf:sub(1, n))
        assert.is_nil(info.segment_size)
      end
      assert_empty(receiver)
      sender:send_to(data, kind.loopback, port)
      for i = 1, 4 do assert.equal(list[i], (receiver:receive_string())) end
    end))

    it_kind("close with datagrams in hand leaves nothing behind", with_loop(function()
      local receiver, port = offloading()
      local sender <close> = open_socket(kind, { segment_size = 40 })
      local _, data = segments(4, 40)
      sender:send_to(data, kind.loopback, port)
      receiver:receive_string()
      receiver:close()
      assert.equal(ip.error.EBADF, error_of(receiver.receive_string, receiver))
    end))
  end)
end

describe("segment_size and receive_offload", function()
  local it_traced = platform.it_where(platform.can_trace(), "strace")

  it_linux("refuse wrong values", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0)
    for _, value in ipairs { -1, 65508, 1.5, "100", true } do
      assert.is_string(error_of(sock.set_option, sock, "segment_size", value))
    end
    for _, value in ipairs { 1, "on" } do
      assert.is_string(error_of(sock.set_option, sock, "receive_offload", value))
      assert.is_string(error_of(sock.set_option, sock, "receive_dropped", value))
    end
    assert.is_false(sock:get_option("receive_offload"))
  end))

  it_traced("a path that refuses to split gets each datagram by itself, from then on", with_loop(function()
    local log, output = trace.log([[
      local ip = require "ip"
      local receiver = ip.udp.bind("127.0.0.1", 0)
      local sender = ip.udp.bind("127.0.0.1", 0)
      local function round(expected)
        for _, text in ipairs(expected) do
          local got = receiver:receive_string()
          if got ~= text then error(got) end
        end
      end
      local fields = { address = "127.0.0.1", port = receiver.local_port, segment_size = 3, hops = 9 }
      for _ = 1, 3 do
        if sender:send_message("aaabbbc", fields) ~= 7 then error("n") end
        round { "aaa", "bbb", "c" }
      end
      sender:set_option("segment_size", 2)
      sender:send_to({ "x", "yzw" }, "127.0.0.1", receiver.local_port)
      round { "xy", "zw" }
      print("done")]], "-e trace=sendmsg,sendto -e inject=sendmsg:error=EIO:when=1")
    assert.equal("done\n", output, log)
    local asked = select(2, log:gsub("SOL_UDP", ""))
    assert.equal(1, asked, log) -- the system was asked once, and never again
  end))
end)
