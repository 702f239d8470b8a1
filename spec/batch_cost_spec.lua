-- What batches cost: memory and system calls.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local batches = require "spec.support.batches"
local memory = require "spec.support.memory"
local platform = require "spec.support.platform"
local trace = require "spec.support.trace"

local fiber, byte_span, udp = ip.fiber, ip.byte_span, ip.udp
local with_loop, on_main, bound = support.with_loop, support.on_main, support.bound
local garbage_of, filled = memory.garbage_of, batches.filled

describe("batches in the steady state", function()
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
    assert.equal(0, garbage_of(round, 1000, 300))
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
    assert.equal(0, garbage_of(function()
      client:send_many(out)
      if echo.status == "waiting" then waits = waits + 1 end
      local missing = 4
      while missing > 0 do missing = missing - client:receive_many(back) end
    end, 1000, 300))
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
    assertions.assert_prints("survived\n", [[
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
            try(sock.send_many, sock, out) -- yields: a wait
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
    ]])
  end)
end)

describe("system calls of batches", function()
  local it_traced = platform.it_where(platform.can_trace())

  -- In a fiber: a call on the main thread that has to go through the loop asks for the handler of SIGINT
  -- first.
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
    local counts, output = trace.count((echo:gsub("ROUNDS", rounds)))
    assert.equal("done\n", output)
    return counts.total
  end

  it_traced("are at most 0.08 per datagram in a batch echo of 64", on_main(function()
    -- The least for a round of 64 echoes is one call for each side and direction: 0.0625.
    local per_datagram = (count_calls(200) - count_calls(0)) / (200 * 64)
    assert.is_true(per_datagram >= 0.06, "not all system calls were counted: " .. per_datagram)
    assert.is_true(per_datagram <= 0.08, "system calls per datagram: " .. per_datagram)
  end, 60))

  it_traced("send a run of equal datagrams as one message", on_main(function()
    local log, output = trace.log((echo:gsub("ROUNDS", 1)), "-e trace=sendmmsg")
    assert.equal("done\n", output)
    local messages = {}
    for count in log:gmatch("= (%-?%d+)") do messages[#messages + 1] = count end
    assert.equal("1", messages[#messages])
  end, 60))

  it_traced("that fail behind datagrams which were taken lose neither those nor the error", on_main(function()
    local _, output = trace.log([[
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
    ]], "-e trace=recvmmsg -e inject=recvmmsg:error=ECONNREFUSED:when=2")
    if output == "too small\n" then return pending("the receive buffer is too small here") end
    assert.equal("1024\nreceive_many: connection refused (ECONNREFUSED)\n6\n", output)
  end, 60))

  it_traced("are three for an echo of one datagram, as without batches", on_main(function()
    local rounds = 200
    local serve = trace.serve_by_batch(64)
    local before, after = trace.count_echoes(0, false, serve), trace.count_echoes(rounds, false, serve)
    local receives, sends = after.recvmmsg - before.recvmmsg, after.sendto - before.sendto
    assert.is_true(receives >= rounds and receives <= 1.1 * rounds, "recvmmsg: " .. receives)
    assert.equal(2 * rounds, sends) -- of the client and the server: sendmmsg takes longer for one
    assert.equal(0, after.sendmmsg)
  end, 60))

  it_traced("fall back to single datagrams where segments are refused, which is remembered", on_main(function()
    local log, output = trace.log([[
      local ip = require "ip"
      local sink = ip.udp.bind("127.0.0.1", 0)
      local out = ip.udp.connect("127.0.0.1", sink.local_port)
      local batch = ip.udp.batch.new(3, 10)
      for i = 1, 3 do batch:set(i, "n" .. i) end
      print(out:send_many(batch), out:send_many(batch))
      for _ = 1, 6 do io.write((sink:receive_string()), " ") end
    ]], "-e trace=sendmmsg -e inject=sendmmsg:error=EIO:when=1")
    assert.equal("3\t3\nn1 n2 n3 n1 n2 n3 ", output)
    local calls = {}
    for line in log:gmatch("[^\n]+") do
      if line:find("sendmmsg") then calls[#calls + 1] = line:match("= (%-?%d+)") end
    end
    assert.same({ "-1", "3", "3" }, calls)
  end, 60))
end)
