-- What datagrams and receive_loop promise both, and receive_loop by itself.
local ip = require "ip"
local longest_row = require "spec.support.loops".longest_row
local support = require "spec.support"

local byte_span, fiber = ip.byte_span, ip.fiber
local bound, error_of = support.bound, support.error_of
local with_loop, on_main = support.with_loop, support.on_main
local receiver, waiting = support.receiver, support.waiting

-- Sends each of these texts.
local function send_all(client, texts)
  for _, text in ipairs(texts) do client:send(text) end
end

-- Both loops, as functions from (sock, take, config): take(text, address, port, truncated) is called for each datagram.
local loops = {
  datagrams = function(sock, take, config)
    for data, address, port, truncated in sock:datagrams(config) do
      take(tostring(data), address, port, truncated)
    end
  end,
  receive_loop = function(sock, take, config)
    return sock:receive_loop(function(data, address, port, truncated)
      take(tostring(data), address, port, truncated)
    end, config)
  end,
}

-- What a loop takes until `count` datagrams have come.
local function collect(loop, sock, count, config)
  local taken = {}
  loops[loop](sock, function(text)
    taken[#taken + 1] = text
    if #taken == count then sock:close() end
  end, config)
  return taken
end

for name, loop in pairs(loops) do
  describe(name, function()
    it("gives each datagram whole, with its sender, the empty one too", with_loop(function()
      local sock, client = receiver()
      send_all(client, { "one", "", "three" })
      local seen = {}
      loop(sock, function(text, address, port, truncated)
        assert.equal(client.local_address, address)
        assert.equal(client.local_port, port)
        assert.is_false(truncated)
        seen[#seen + 1] = text
        if #seen == 3 then sock:close() end
      end)
      assert.same({ "one", "", "three" }, seen)
      client:close()
    end))

    it("tells truncation, and is not shortened by an earlier short datagram", with_loop(function()
      local sock, client = receiver()
      send_all(client, { "x", "12345678", "123456789" })
      local seen = {}
      loop(sock, function(text, _, _, truncated)
        seen[#seen + 1] = { text, truncated }
        if #seen == 3 then sock:close() end
      end, { capacity = 8 })
      assert.same({ { "x", false }, { "12345678", false }, { "12345678", true } }, seen)
      client:close()
    end))

    it("ends when the socket is closed while it waits", with_loop(function()
      local sock = bound()
      local looping = waiting(loop, sock, error)
      sock:close()
      local reason = looping:join()
      if name == "receive_loop" then assert.equal("closed", reason) end
    end))

    it("ends when the socket was closed and opened again before it came to run", with_loop(function()
      local sock = bound()
      local looping = waiting(loop, sock, error)
      sock:close()
      sock:bind("127.0.0.1", 0)
      looping:join()
      assert.is_true(sock.is_open)
      sock:close()
    end))

    it("ends when its own turn closes the socket and opens it again, and takes nothing more", with_loop(function()
      local sock, client = receiver()
      client:send("first")
      loop(sock, function()
        sock:close()
        sock:bind("127.0.0.1", 0)
        client:connect("127.0.0.1", sock.local_port)
        client:send("for the next life")
      end)
      assert.equal("for the next life", (sock:receive_string()))
      sock:close()
      client:close()
    end))

    it("ends when the descriptor is released", with_loop(function()
      local sock = bound()
      local looping = waiting(loop, sock, error)
      sock:release():close()
      looping:join()
    end))

    it("raises on cancel and goes on when it is called again", with_loop(function()
      local sock, client = receiver()
      local looping = waiting(pcall, loop, sock, error)
      sock:cancel()
      local ok, err = looping:join()
      assert.is_false(ok)
      assert.equal(ip.error.ECANCELED, err)
      assert.equal(name, err.operation)
      client:send("still here")
      assert.same({ "still here" }, collect(name, sock, 1))
      client:close()
    end))

    it("raises receive_timeout, a with_timeout and an interruption", with_loop(function()
      local sock = bound()
      sock.receive_timeout = 0.01
      local err = error_of(loop, sock, error)
      assert.equal(ip.error.ETIMEDOUT, err)
      assert.equal(name, err.operation)
      sock.receive_timeout = nil
      err = error_of(fiber.with_timeout, 0.01, loop, sock, error)
      assert.equal("with_timeout", err.operation)
      local looping = waiting(loop, sock, error)
      looping:interrupt()
      looping:join()
      assert.is_true(looping.interruption_caught)
      sock:close()
    end))

    it("raises what the network reports, and ESHUTDOWN", with_loop(function()
      local sock = ip.udp.connect("127.0.0.1", support.dead_port())
      sock:send("to nobody")
      assert.equal(ip.error.ECONNREFUSED, error_of(loop, sock, error))
      sock:shutdown("receive")
      assert.equal(ip.error.ESHUTDOWN, error_of(loop, sock, error))
      sock:close()
    end))

    it("raises EBADF on a socket that is not open, before it looks at its arguments", with_loop(function()
      for _, sock in ipairs { ip.udp.socket.new(), (bound()) } do
        sock:close()
        local err = error_of(sock[name], sock, 17, 17)
        assert.equal(ip.error.EBADF, err)
        assert.equal(name, err.operation)
      end
    end))

    it("passes on an error of its turn and leaves the socket as it is", with_loop(function()
      local sock, client = receiver()
      send_all(client, { "a", "b" })
      assert.equal("mine", error_of(loop, sock, function() error("mine", 0) end))
      assert.equal("b", (sock:receive_string()))
      sock:close()
      client:close()
    end))

    it("stops when a function says so, asked after each datagram, and leaves the rest", with_loop(function()
      local sock, client = receiver()
      send_all(client, { "a", "b", "c" })
      local asked, seen = 0, {}
      local reason = loop(sock, function(text) seen[#seen + 1] = text end, { stop = function()
        asked = asked + 1
        assert.equal(asked, #seen)
        return asked == 2
      end })
      assert.same({ "a", "b" }, seen)
      assert.equal("c", (sock:receive_string()))
      if name == "receive_loop" then assert.equal("stopped", reason) end
      sock:close()
      client:close()
    end))

    it("is woken by the end of a stop fiber, which can still be joined", with_loop(function()
      local sock = bound()
      local stop = fiber.spawn(function()
        fiber.sleep(0.01)
        return "its result"
      end)
      local reason = loop(sock, error, { stop = stop })
      if name == "receive_loop" then assert.equal("stopped", reason) end
      assert.equal("its result", stop:join())
      sock:close()
    end))

    it("takes nothing when the stop fiber has ended before", with_loop(function()
      local sock, client = receiver()
      client:send("kept")
      local stop = fiber.spawn(function() end)
      stop:join()
      loop(sock, error, { stop = stop })
      assert.equal("kept", (sock:receive_string()))
      sock:close()
      client:close()
    end))

    it("does not swallow the error of a stop fiber", with_loop(function()
      local sock = bound()
      local reported
      fiber.on_error(function(err) reported = err end)
      local stop = fiber.spawn(function()
        fiber.yield()
        error("not swallowed", 0)
      end)
      loop(sock, error, { stop = stop })
      fiber.on_error(nil)
      assert.equal("not swallowed", reported)
      assert.equal("not swallowed", error_of(stop.join, stop))
      sock:close()
    end))

    it("stops for a fiber that was interrupted or closed by somebody else, too", with_loop(function()
      local sock = bound()
      local sleeper = waiting(fiber.sleep, 60)
      local looping = waiting(loop, sock, error, { stop = sleeper })
      sleeper:interrupt()
      looping:join()
      local thread
      local closed = waiting(function()
        thread = coroutine.running()
        fiber.sleep(60)
      end)
      looping = waiting(loop, sock, error, { stop = closed })
      coroutine.close(thread)
      looping:join()
      assert.equal(ip.error.ECANCELED, error_of(closed.join, closed))
      sock:close()
    end))

    it("may be closed by somebody else while what it uses is collected", with_loop(function()
      local sock = bound()
      local stop = fiber.spawn(fiber.sleep, 60)
      local thread
      local looping = fiber.spawn(function()
        thread = coroutine.running()
        -- its __close runs before the library's, when the values of the frames below are gone already
        local collects <close> = setmetatable({}, { __close = function() collectgarbage() end }) -- luacheck: ignore
        loop(sock, error, { stop = stop })
      end)
      fiber.yield()
      assert.is_true(coroutine.close(thread))
      assert.equal(ip.error.ECANCELED, error_of(looping.join, looping))
      stop:interrupt()
      stop:join()
      support.send(sock, sock.local_port, "next")
      assert.equal("next", (sock:receive_string()))
      sock:close()
    end))

    it("lets one fiber stop several loops", with_loop(function()
      local enough = false
      local stop = fiber.spawn(support.wait_until, function() return enough end)
      local loopers, socks = {}, {}
      for i = 1, 3 do
        socks[i] = bound()
        loopers[i] = waiting(loop, socks[i], error, { stop = stop })
      end
      loopers[2]:interrupt() -- one of them leaves before
      loopers[2]:join()
      enough = true
      loopers[1]:join()
      loopers[3]:join()
      for i = 1, 3 do socks[i]:close() end
      stop:join()
    end))

    it("loses nothing when datagrams and the end of the stop fiber come together", with_loop(function()
      local sock, client = receiver()
      for round = 1, 50 do
        local seen = 0
        local stop = fiber.spawn(function()
          for _ = 1, round % 5 do
            client:send("x")
            fiber.yield()
          end
          client:send("x")
        end)
        loop(sock, function() seen = seen + 1 end, { stop = stop })
        local left = byte_span.new(1)
        while sock:try_receive(left) do seen = seen + 1 end
        assert.equal(round % 5 + 1, seen)
        stop:join()
      end
      sock:close()
      client:close()
    end))

    it("works on the main thread, with a stop fiber too", on_main(function()
      local sock, client = receiver()
      local seen = {}
      local stop = fiber.spawn(function()
        client:send("to the main thread")
        support.wait_until(function() return #seen == 1 end)
      end)
      loop(sock, function(text) seen[#seen + 1] = text end, { stop = stop })
      assert.same({ "to the main thread" }, seen)
      stop:join()
      sock:close()
      client:close()
    end))

    it("works in a coroutine of somebody else, with a stop fiber too", with_loop(function()
      local sock, client = receiver()
      local seen, over = {}, false
      local stop = fiber.spawn(function()
        client:send("hello")
        support.wait_until(function() return #seen == 1 end)
      end)
      coroutine.wrap(function()
        loop(sock, function(text) seen[#seen + 1] = text end, { stop = stop })
        over = true
      end)()
      support.wait_until(function() return over end)
      assert.same({ "hello" }, seen)
      stop:join()
      sock:close()
      client:close()
    end))

    it("is withdrawn when its coroutine is closed: the next waiter gets the datagram", with_loop(function()
      local sock, client = receiver()
      local stop = waiting(fiber.sleep, 0.05)
      local co = coroutine.create(loop)
      assert(coroutine.resume(co, sock, error, { stop = stop }))
      coroutine.close(co)
      client:send("for the next")
      assert.equal("for the next", (sock:receive_string()))
      stop:join()
      sock:close()
      client:close()
    end))

    it("lets other fibers run after max_ready datagrams in a row, 12 without one", with_loop(function()
      for max_ready, config in pairs { [12] = {}, [3] = { max_ready = 3 }, [1] = { max_ready = 1 } } do
        assert.equal(max_ready, longest_row(loop, config))
      end
    end))

    it("keeps deadlines and cancellation while it gives way", with_loop(function()
      local sock, client = receiver()
      for _ = 1, 10 do client:send("x") end
      local seen = 0
      local looping = fiber.spawn(pcall, loop, sock, function() seen = seen + 1 end, { max_ready = 1 })
      fiber.yield()
      sock:cancel()
      local ok, err = looping:join()
      assert.is_false(ok)
      assert.equal(ip.error.ECANCELED, err)
      local left = byte_span.new(1)
      while sock:try_receive(left) do seen = seen + 1 end
      assert.equal(10, seen)
      sock:close()
      client:close()
    end))

    it("uses a buffer that it is given, within its length", with_loop(function()
      local sock, client = receiver()
      local block = byte_span.new(12):fill(0x2e)
      client:send("12345678")
      assert.same({ "1234" }, collect(name, sock, 1, { buffer = block:slice(1, 4) }))
      assert.equal("1234........", tostring(block))
      sock:bind("127.0.0.1", 0)
      client:connect("127.0.0.1", sock.local_port)
      client:send("12345678")
      assert.same({ "123456" }, collect(name, sock, 1, { buffer = byte_span.new(2, 12), capacity = 6 }))
      client:close()
    end))

    it("takes datagrams of 1472 bytes without a configuration", with_loop(function()
      assert.equal(1472, ip.udp.default_capacity)
      local sock, client = receiver()
      client:send(("x"):rep(1473))
      assert.same({ ("x"):rep(1472) }, collect(name, sock, 1))
      client:close()
    end))

    it("refuses a configuration that it does not understand", with_loop(function()
      local sock = bound()
      local position = name == "datagrams" and 1 or 2
      local function refuse(config, text)
        local message = error_of(loop, sock, error, config)
        assert.is_string(message)
        local start = ("bad argument #%d to '%s' ("):format(position, name)
        assert.is_truthy(message:find(start, 1, true), message)
        assert.is_truthy(message:find(text, 1, true), message)
      end
      refuse(17, "table expected, got number")
      refuse({ capcity = 17 }, "unknown option 'capcity'")
      refuse({ [1] = 17 }, "unknown option '1'")
      for _, value in ipairs { "17", -1, 1.5, 1 << 40, true } do refuse({ capacity = value }, "option 'capacity'") end
      for _, value in ipairs { "17", 0, -1, 1.5, true } do refuse({ max_ready = value }, "option 'max_ready'") end
      for _, value in ipairs { "text", 17, {}, true } do refuse({ buffer = value }, "option 'buffer'") end
      for _, value in ipairs { "text", 17, {}, true } do refuse({ stop = value }, "option 'stop'") end
      refuse({ buffer = byte_span.new(4), capacity = 5 }, "option 'capacity'")
      sock:close()
    end))

    it("names a bad self", function()
      local message = error_of(ip.udp.socket.new()[name], 17)
      assert.is_truthy(message:find("calling '" .. name .. "' on bad self", 1, true), message)
    end)

    it("refuses to wait where Lua cannot suspend", with_loop(function()
      local sock = bound()
      local message
      table.sort({ 1, 2 }, function()
        message = error_of(loop, sock, error)
        return false
      end)
      assert.is_truthy(message:find("cannot wait in " .. name, 1, true), message)
      sock:close()
    end))
  end)
end

describe("receive_loop", function()
  it("goes on with a span that the callback returns, and leaves it the old one", with_loop(function()
    local sock, client = receiver()
    send_all(client, { "one", "two", "three" })
    local kept = {}
    local reason = sock:receive_loop(function(span)
      kept[#kept + 1] = span
      if #kept == 3 then sock:close() end
      return byte_span.new(1472)
    end)
    assert.equal("closed", reason)
    assert.same({ "one", "two", "three" }, { tostring(kept[1]), tostring(kept[2]), tostring(kept[3]) })
    client:close()
  end))

  it("may swap two buffers though each was shortened to its datagram", with_loop(function()
    local sock, client = receiver()
    send_all(client, { "x", "y", "a longer one", "another long one" })
    local spare, seen = byte_span.new(1472), {}
    sock:receive_loop(function(span, _, _, truncated)
      seen[#seen + 1] = tostring(span)
      assert.is_false(truncated)
      if #seen == 4 then sock:close() end
      local next_one = spare
      spare = span
      return next_one
    end)
    assert.same({ "x", "y", "a longer one", "another long one" }, seen)
    client:close()
  end))

  it("takes larger datagrams into a larger span", with_loop(function()
    local sock, client = receiver()
    send_all(client, { "123456789", "123456789" })
    local seen = {}
    sock:receive_loop(function(span)
      seen[#seen + 1] = tostring(span)
      if #seen == 2 then sock:close() end
      return byte_span.new(9)
    end, { capacity = 4 })
    assert.same({ "1234", "123456789" }, seen)
    client:close()
  end))

  it("raises when the callback returns anything else", with_loop(function()
    local sock, client = receiver()
    for got, value in pairs { ["string 'text'"] = "text", ["number 17"] = 17, ["boolean false"] = false } do
      client:send("x")
      local message = error_of(sock.receive_loop, sock, function() return value end)
      assert.is_truthy(message:find("may return a byte_span or nil, not " .. got, 1, true), message)
    end
    sock:close()
    client:close()
  end))

  it("refuses a callback that is no function", with_loop(function()
    local sock = bound()
    for _, value in ipairs { 17, "text", {} } do
      local message = error_of(sock.receive_loop, sock, value)
      assert.is_truthy(message:find("bad argument #1 to 'receive_loop' (function expected", 1, true), message)
    end
    assert.is_truthy(error_of(sock.receive_loop, sock):find("got no value", 1, true))
    sock:close()
  end))
end)

describe("the methods written in Lua", function()
  it("cannot be replaced", function()
    local sock = ip.udp.socket.new()
    for _, name in ipairs { "datagrams", "receive_loop", "send_with", "send_to_with" } do
      assert.is_truthy(error_of(function() sock[name] = print end):find("cannot be written", 1, true))
    end
    assert.is_nil(require("ip.core").add_methods)
  end)

  it("stay when the module is loaded once more", function()
    local output = support.run_program [[
      local before = require("ip").udp.socket.new().datagrams
      for name in pairs(package.loaded) do
        if name:find("^ip") then package.loaded[name] = nil end
      end
      print(require("ip").udp.socket.new().datagrams == before)
    ]]
    assert.equal("true\n", output)
  end)
end)
