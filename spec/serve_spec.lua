-- What serve promises, but for what the network does to it: see serve_network_spec.lua.
local ip = require "ip"
local blocked_programs = require "spec.support.blocked_programs"
local loops = require "spec.support.loops"
local support = require "spec.support"

local byte_span, fiber = ip.byte_span, ip.fiber
local bound, error_of = support.bound, support.error_of
local with_loop = support.with_loop
local receiver, waiting = support.receiver, support.waiting
local it_blocked = blocked_programs.it_blocked

local function echo(data) return data end

-- Echoes each datagram when take(data) has seen it.
local function serve(sock, take, config)
  return sock:serve(function(data)
    take(data)
    return data
  end, config)
end

-- A fiber that serves.
local function serving(sock, handler, config)
  return waiting(sock.serve, sock, handler, config)
end

for where, run in pairs(support.contexts) do
  for _, workers in ipairs { 1, 3 } do
    local config = { workers = workers }
    local title = ("serve with workers = %d, %s, "):format(workers, where)

    it(title .. "sends what its handler returns to the sender, and ends when the socket is closed", run(function()
      local sock, client = receiver()
      local other = ip.udp.connect("127.0.0.1", sock.local_port)
      local answers = {}
      local asking = fiber.spawn(function()
        for i, text in ipairs { "one", "", "three" } do
          client:send(text)
          answers[#answers + 1] = client:receive_string()
          other:send(i .. "")
          answers[#answers + 1] = other:receive_string()
        end
        sock:close()
      end)
      local reason = sock:serve(function(data, address, port, truncated)
        assert.equal(client.local_address, address)
        assert.is_true(port == client.local_port or port == other.local_port)
        assert.is_false(truncated)
        return { "<", data, ">" }
      end, config)
      assert.equal("closed", reason)
      asking:join()
      assert.same({ "<one>", "<1>", "<>", "<2>", "<three>", "<3>" }, answers)
      client:close()
      other:close()
    end))

    it(title .. "raises an error of its handler", run(function()
      local sock, client = receiver()
      local mine = {}
      client:send("x")
      assert.equal(mine, error_of(sock.serve, sock, function() error(mine) end, config))
      client:send("again")
      assert.equal("again", (sock:receive_string()))
      sock:close()
      client:close()
    end))

    it(title .. "ends by the deadline of a scope and by cancel", run(function()
      local sock = bound()
      local err = error_of(fiber.with_timeout, 0.01, sock.serve, sock, echo, config)
      assert.equal("with_timeout", err.operation)
      local canceling = fiber.spawn(function()
        fiber.sleep(0.001)
        sock:cancel()
      end)
      err = error_of(sock.serve, sock, echo, config)
      assert.equal(ip.error.ECANCELED, err)
      assert.equal("serve", err.operation)
      canceling:join()
      sock:close()
    end))

    it(title .. "is stopped by the end of a fiber and by a function", run(function()
      local sock, client = receiver()
      local stop = fiber.spawn(fiber.sleep, 0.005)
      assert.equal("stopped", sock:serve(echo, { workers = workers, stop = stop }))
      stop:join()
      local asked = 0
      for _ = 1, 3 do client:send("x") end
      assert.equal("stopped", sock:serve(echo, { workers = workers, stop = function()
        asked = asked + 1
        return asked == 3
      end }))
      for _ = 1, 3 do assert.equal("x", (client:receive_string())) end
      sock:close()
      client:close()
    end))

    it(title .. "serves though each datagram has to be waited for", run(function()
      local sock, client = receiver()
      local count = 500
      local asking = fiber.spawn(function()
        for i = 1, count do
          client:send(tostring(i))
          assert(client:receive_string() == tostring(i))
        end
        sock:close()
      end)
      assert.equal("closed", sock:serve(function(data)
        if #data == 2 then fiber.yield() end
        return tostring(data)
      end, config))
      asking:join()
      client:close()
    end))
  end
end

describe("serve", function()
  it("accepts every form of data, and sends nothing for nil", with_loop(function()
    local sock, client = receiver()
    local many = {}
    for i = 1, 40 do many[i] = i % 2 == 0 and "x" or byte_span.append("y") end
    local answers = { "text", byte_span.append("span"), {}, { "a", byte_span.append("b") }, many, "" }
    local server = serving(sock, function(data) return answers[tonumber(tostring(data))] end)
    client:send("100")
    for i, expected in ipairs { "text", "span", "", "ab", ("yx"):rep(20), "" } do
      client:send(tostring(i))
      assert.equal(expected, (client:receive_string()))
    end
    sock:close()
    assert.equal("closed", server:join())
    client:close()
  end))

  it("raises when the handler returns anything else, and names what that was", with_loop(function()
    local sock, client = receiver()
    for _, case in ipairs {
      { 17, "serve: its handler may return data or nil, not number 17" },
      { true, "not boolean true" }, { false, "not boolean false" }, { print, "not function" },
      { sock, "not ip.udp.socket" },
      { { "a", 17 }, "part 2 of its sequence is number 17" }, { { a = 1 }, "a table with other keys" },
    } do
      client:send("x")
      local message = error_of(sock.serve, sock, function() return case[1] end)
      assert.is_truthy(tostring(message):find(case[2], 1, true), message)
      assert.is_truthy(tostring(message):find("%.lua:%d+: "), message)
    end
    sock:close()
    client:close()
  end))

  it("runs the handler in the calling fiber where there is one worker", with_loop(function()
    local sock, client = receiver()
    local ran_in
    local server = serving(sock, function()
      ran_in = fiber.current()
      sock:close()
    end)
    client:send("x")
    server:join()
    assert.equal(server, ran_in)
    client:close()
  end))

  it("gives the handler one span, and its datagram stays while the handler waits", with_loop(function()
    local sock, client = receiver()
    local spans, seen = {}, {}
    local server = serving(sock, function(data)
      spans[data] = true
      fiber.sleep(0.001)
      seen[#seen + 1] = tostring(data)
      if #seen == 3 then sock:close() end
    end)
    for _, text in ipairs { "a long one", "b", "" } do client:send(text) end
    server:join()
    assert.same({ "a long one", "b", "" }, seen)
    assert.is_nil(next(spans, (next(spans))))
    client:close()
  end))

  it("tells truncation, and takes capacity, buffer and max_ready as receive_loop", with_loop(function()
    local sock, client = receiver()
    local block = byte_span.new(12):fill(0x2e)
    for _, text in ipairs { "x", "12345678", "123456789" } do client:send(text) end
    local seen = {}
    sock:serve(function(data, _, _, truncated)
      seen[#seen + 1] = { tostring(data), truncated }
      if #seen == 3 then sock:close() end
    end, { buffer = block, capacity = 8, max_ready = 1 })
    assert.same({ { "x", false }, { "12345678", false }, { "12345678", true } }, seen)
    assert.equal("12345678....", tostring(block:resize(12)))
    client:close()
  end))

  it("ends with the answer of a handler that has closed the socket, which is not sent", with_loop(function()
    local sock, client = receiver()
    client:send("x")
    assert.equal("closed", sock:serve(function(data)
      sock:close()
      sock:bind("127.0.0.1", 0)
      return data
    end))
    assert.is_nil((client:try_receive(byte_span.new(1))))
    sock:close()
    client:close()
  end))

  it("is interrupted where it waits, and sends the answer that was ready", with_loop(function()
    local sock, client = receiver()
    local server = serving(sock, function(data)
      fiber.current():interrupt()
      return data
    end)
    client:send("x")
    server:join()
    assert.is_true(server.interruption_caught)
    assert.equal("x", (client:receive_string()))
    sock:close()
    client:close()
  end))

  it("is withdrawn when its coroutine is closed: the next waiter gets the datagram", with_loop(function()
    local function never() return false end
    for _, config in ipairs { {}, { workers = 2 }, { workers = 2, stop = never } } do
      local sock, client = receiver()
      local co = coroutine.create(sock.serve)
      assert(coroutine.resume(co, sock, error, config))
      fiber.yield()
      assert.is_true(coroutine.close(co))
      fiber.yield()
      fiber.yield()
      client:send("for the next")
      assert.equal("for the next", (sock:receive_string()))
      sock:close()
      client:close()
    end
  end))

  it("may be closed in its handler, too", with_loop(function()
    local sock, client = receiver()
    local co = coroutine.create(sock.serve)
    local inside
    assert(coroutine.resume(co, sock, function()
      local guard <close> = setmetatable({}, { __close = function() inside = false end }) -- luacheck: ignore
      inside = true
      fiber.sleep(60)
    end))
    client:send("x")
    support.wait_until(function() return inside end)
    coroutine.close(co)
    assert.is_false(inside)
    sock:close()
    client:close()
  end))

  it("lets other fibers run after max_ready datagrams in a row, 12 without one", with_loop(function()
    for max_ready, config in pairs { [12] = {}, [3] = { max_ready = 3 } } do
      assert.equal(max_ready, loops.longest_row(serve, config))
    end
  end))

  it("makes no garbage per datagram", with_loop(function()
    assert.equal(0, loops.garbage(serve, { max_ready = 8 }))
  end))

  it("makes no garbage where it waits for each datagram", with_loop(function()
    assert.equal(0, loops.garbage_of_waits(serve))
  end))

  it("serves a connected socket, whose answers go to the peer", with_loop(function()
    local server_sock, client = support.pair()
    local server = serving(server_sock, echo)
    client:send("x")
    assert.equal("x", (client:receive_string()))
    server_sock:close()
    server:join()
    client:close()
  end))

  it("serves with coalesce", with_loop(function()
    local sock = ip.udp.bind("127.0.0.1", 0, { coalesce = true })
    local client = ip.udp.connect("127.0.0.1", sock.local_port)
    local server = serving(sock, echo)
    for i = 1, 30 do client:send(tostring(i)) end
    for i = 1, 30 do assert.equal(tostring(i), (client:receive_string())) end
    sock:close()
    server:join()
    client:close()
  end))

  it("raises EBADF on a socket that is not open, before it looks at its arguments", with_loop(function()
    for _, sock in ipairs { ip.udp.socket.new(), (bound()) } do
      sock:close()
      local err = error_of(sock.serve, sock, 17, 17)
      assert.equal(ip.error.EBADF, err)
      assert.equal("serve", err.operation)
    end
  end))

  it("raises EPIPE and ESHUTDOWN, which the program has caused", with_loop(function()
    local sock, client = support.pair()
    sock:shutdown("send")
    client:send("x")
    assert.equal(ip.error.EPIPE, error_of(sock.serve, sock, echo))
    sock:shutdown("receive")
    assert.equal(ip.error.ESHUTDOWN, error_of(sock.serve, sock, echo))
    sock:close()
    client:close()
  end))

  it("raises EBADF when others have closed the descriptor", with_loop(function()
    local sock = bound()
    ip.file_descriptor.new(sock.native_handle):close()
    assert.equal(ip.error.EBADF, error_of(sock.serve, sock, echo, { on_error = function() error("asked") end }))
    sock:close()
  end))

  it("refuses arguments that it does not understand", with_loop(function()
    local sock = bound()
    assert.matches("bad argument #1 to 'serve' %(function expected, got number", error_of(sock.serve, sock, 17))
    local function refuse(config, text)
      local message = error_of(sock.serve, sock, echo, config)
      assert.is_truthy(tostring(message):find("bad argument #2 to 'serve' (", 1, true), message)
      assert.is_truthy(message:find(text, 1, true), message)
    end
    refuse(17, "table expected, got number")
    refuse({ worker = 2 }, "unknown option 'worker'")
    for _, value in ipairs { 0, -1, 1.5, "2", true } do refuse({ workers = value }, "option 'workers'") end
    refuse({ on_error = 17 }, "option 'on_error'")
    refuse({ workers = 2, buffer = byte_span.new(10) }, "several workers cannot share a buffer")
    assert.matches("calling 'serve' on bad self", error_of(sock.serve, 17))
    sock:close()
  end))

  it("refuses to wait where Lua cannot suspend, and starts no workers there", with_loop(function()
    local sock = bound()
    for _, workers in ipairs { 1, 2 } do
      local message
      table.sort({ 1, 2 }, function()
        message = error_of(sock.serve, sock, echo, { workers = workers })
        return false
      end)
      assert.is_truthy(message:find("cannot wait in serve", 1, true), message)
    end
    sock:close()
  end))
end)

describe("on_error of serve", function()
  -- A socket whose first answer fails: it is larger than any datagram.
  local too_large = ("x"):rep(65508)

  it("hears of an answer that fails, with the sender, and the server goes on", with_loop(function()
    local sock, client = receiver()
    local heard = {}
    local server = serving(sock, function(data) return #data == 0 and too_large or data end, {
      on_error = function(...)
        heard[#heard + 1] = table.pack(...)
        return false -- decides nothing
      end })
    client:send("")
    client:send("x")
    assert.equal("x", (client:receive_string()))
    local err, address, port = table.unpack(heard[1])
    assert.equal(3, heard[1].n)
    assert.equal(ip.error.EMSGSIZE, err)
    assert.equal("serve", err.operation)
    assert.is_true(err.transient)
    assert.equal(client.local_address, address)
    assert.equal(client.local_port, port)
    assert.equal(address, err.address)
    assert.equal(port, err.port)
    sock:close()
    server:join()
    client:close()
  end))

  it("hears of an earlier answer with coalesce, whose error takes no other answer with it", with_loop(function()
    local sock = ip.udp.bind("127.0.0.1", 0, { coalesce = true })
    local client = ip.udp.connect("127.0.0.1", sock.local_port)
    local heard = 0
    local server = serving(sock, function(data) return #data == 0 and ("x"):rep(65508) or data end, {
      on_error = function(err)
        assert.equal(ip.error.EMSGSIZE, err)
        heard = heard + 1
      end })
    for i = 1, 5 do
      client:send("")
      client:send(tostring(i))
      assert.equal(tostring(i), (client:receive_string()))
    end
    support.wait_until(function() return heard == 5 end)
    sock:close()
    server:join()
    client:close()
  end))

  it("hears of a receive that fails, without a sender", with_loop(function()
    local sock = ip.udp.connect("127.0.0.1", support.dead_port())
    local heard
    local server = serving(sock, echo, { on_error = function(...) heard = table.pack(...) end })
    sock:send("to nobody")
    support.wait_until(function() return heard end)
    assert.equal(ip.error.ECONNREFUSED, heard[1])
    assert.is_nil(heard[2])
    assert.is_nil(heard[3])
    sock:close()
    assert.equal("closed", server:join())
  end))

  it("hears of a datagram that is cut, where on_truncation raises", with_loop(function()
    local sock, client = receiver()
    sock.on_truncation = "raise"
    for _, text in ipairs { "too long", "fits" } do client:send(text) end
    local heard
    assert.equal("closed", sock:serve(function(data)
      assert.equal("fits", tostring(data))
      sock:close()
    end, { capacity = 4, on_error = function(err) heard = err end }))
    assert.equal(ip.error.EMSGSIZE, heard)
    client:close()
  end))

  it("hears of the socket's own timeouts", with_loop(function()
    local sock = bound()
    sock.receive_timeout = 0.001
    local heard = 0
    assert.equal("closed", sock:serve(echo, { on_error = function(err)
      assert.equal(ip.error.ETIMEDOUT, err)
      heard = heard + 1
      if heard == 3 then sock:close() end
    end }))
    assert.equal(3, heard)
  end))

  it("may wait, and ends the server when it raises", with_loop(function()
    local sock, client = receiver()
    for _, workers in ipairs { 1, 2 } do
      client:send("")
      local err = error_of(sock.serve, sock, function() return too_large end, { workers = workers, on_error = function()
        fiber.sleep(0.001)
        error("enough", 0)
      end })
      assert.equal("enough", err)
    end
    sock:close()
    client:close()
  end))

  it("is not needed: errors are dropped, and lets other fibers run meanwhile", with_loop(function()
    local sock = bound()
    sock.receive_timeout = 0
    local ran = false
    local other = fiber.spawn(function()
      ran = true
      sock:close()
    end)
    assert.equal("closed", sock:serve(echo))
    assert.is_true(ran)
    other:join()
  end))

  it("does not hear of cancel, an interruption and the deadline of a scope", with_loop(function()
    local config = { on_error = function() error("asked") end }
    local sock = bound()
    local server = waiting(pcall, sock.serve, sock, echo, config)
    sock:cancel()
    local _, err = server:join()
    assert.equal(ip.error.ECANCELED, err)
    for _, seconds in ipairs { 0, 0.01 } do
      err = error_of(fiber.with_timeout, seconds, sock.serve, sock, echo, config)
      assert.equal("with_timeout", err.operation)
    end
    server = serving(sock, echo, config)
    server:interrupt()
    server:join()
    assert.is_true(server.interruption_caught)
    sock:close()
  end))
end)

describe("serve with several workers", function()
  it("serves at once, each with a buffer of its own, first come, first served", with_loop(function()
    local sock, client = receiver()
    local inside, most, order = 0, 0, {}
    local server = serving(sock, function(data)
      inside = inside + 1
      most = math.max(most, inside)
      order[#order + 1] = tostring(data)
      local text = tostring(data)
      fiber.sleep(0.005)
      assert.equal(text, tostring(data))
      inside = inside - 1
      return data
    end, { workers = 3 })
    local sent = {}
    for i = 1, 9 do
      sent[i] = tostring(i)
      client:send(sent[i])
    end
    for _ = 1, 9 do client:receive_string() end
    assert.same(sent, order)
    assert.equal(3, most)
    sock:close()
    assert.equal("closed", server:join())
    client:close()
  end))

  it("interrupts the others at the first error, waits for all, and raises that", with_loop(function()
    local sock, client = receiver()
    local ended = {}
    local server = waiting(pcall, sock.serve, sock, function(data)
      local text = tostring(data)
      if text == "fail" then error("the first", 0) end
      local ok, err = pcall(fiber.sleep, 60)
      assert.is_false(ok)
      fiber.shield(fiber.sleep, 0.005)
      ended[#ended + 1] = text
      error(err, 0)
    end, { workers = 3 })
    for _, text in ipairs { "a", "b", "fail" } do client:send(text) end
    local ok, err = server:join()
    assert.is_false(ok)
    assert.equal("the first", err)
    table.sort(ended)
    assert.same({ "a", "b" }, ended)
    sock:close()
    client:close()
  end))

  it("ends its workers with an interruption and with a deadline of the caller, and waits for them", with_loop(function()
    local sock, client = receiver()
    local began, ended = 0, 0
    local function work()
      began = began + 1
      local ok, err = pcall(fiber.sleep, 60)
      assert.is_false(ok)
      assert.equal(ip.error.INTERRUPTED, err)
      fiber.shield(fiber.sleep, 0.005)
      ended = ended + 1
      error(err, 0)
    end
    local server = serving(sock, work, { workers = 3 })
    for _ = 1, 2 do client:send("x") end
    support.wait_until(function() return began == 2 end)
    server:interrupt()
    server:join()
    assert.is_true(server.interruption_caught)
    assert.equal(2, ended)
    for _ = 1, 2 do client:send("x") end
    local err = error_of(fiber.with_timeout, 0.01, sock.serve, sock, work, { workers = 3 })
    assert.equal("with_timeout", err.operation)
    assert.equal(4, ended)
    sock:close()
    client:close()
  end))

  it("raises an error that a worker meets while it ends", with_loop(function()
    local sock, client = receiver()
    local server = waiting(pcall, sock.serve, sock, function()
      pcall(fiber.sleep, 60)
      error("in the end", 0)
    end, { workers = 2 })
    client:send("x")
    fiber.sleep(0.002)
    server:interrupt()
    local _, err = server:join()
    assert.equal("in the end", err)
    sock:close()
    client:close()
  end))

  it("lets each worker finish its answer when a function stops them", with_loop(function()
    local sock, client = receiver()
    local stop = false
    local server = serving(sock, function(data)
      if #data == 1 then
        fiber.sleep(0.01)
      else
        stop = true
      end
      return data
    end, { workers = 4, stop = function() return stop end })
    client:send("x")
    client:send("stop")
    assert.equal("stop", (client:receive_string()))
    assert.equal("x", (client:receive_string()))
    assert.equal("stopped", server:join())
    sock:close()
    client:close()
  end))

  it("leaves nothing in the socket's queue of waiters", with_loop(function()
    local sock, client = receiver()
    local stop = fiber.spawn(fiber.sleep, 0.005)
    assert.equal("stopped", sock:serve(error, { workers = 5, stop = stop }))
    client:send("next")
    assert.equal("next", (sock:receive_string()))
    stop:join()
    sock:close()
    client:close()
  end))
end)

describe("an answer of serve that has to wait", function()
  -- Three requests have come before the system takes nothing from the server any more.
  local prelude = [[
    local ip = require "ip"
    local fiber = ip.fiber
    local LARGE = ("."):rep(1000)
    local client = ip.udp.bind("127.0.0.1", 0, { receive_buffer_size = 8000000 })
    local server = ip.udp.bind("127.0.0.1", 0, { send_buffer_size = 1 })
    for _, text in ipairs { "a", "b", "c" } do client:send_to(text, "127.0.0.1", server.local_port) end
    while server:io_control("bytes_readable") == 0 do fiber.sleep(0.001) end
    local ahead = 0
    while server:try_send_to(LARGE, "127.0.0.1", client.local_port) do ahead = ahead + 1 end
    local link = require "spec.support.blocked_link"
    local equal, ends_with = link.equal, link.ends_with
    local seen = ""
    local function answer_a(data)
      seen = seen .. tostring(data)
      if tostring(data) == "a" then return { "answer", byte_span.append(" to a") } end
    end
    local function serving(config)
      local started = link.waiting(server.serve, server, answer_a, config)
      while seen == "" do fiber.sleep(0.001) end
      return started
    end
    local function check_answer()
      for _ = 1, ahead do equal(LARGE, (client:receive_string())) end
      equal("answer to a", (client:receive_string()))
    end
  ]]

  local function blocked(body)
    return blocked_programs.passes("local byte_span = require 'byte_span'\n" .. prelude .. body)
  end

  it_blocked("holds its own worker only", blocked [[
    fiber.run(function()
      local started = serving { workers = 2 }
      while #seen < 3 do fiber.sleep(0.001) end
      equal(1, server.send_queue_count)
      link.unblock()
      check_answer()
      server:close()
      equal("closed", select(2, started:join()))
    end)
  ]])

  it_blocked("holds the server where it has one worker, also on the main thread", blocked [[
    local helper = fiber.spawn(function()
      fiber.sleep(0.02)
      equal("a", seen)
      link.unblock()
      check_answer()
      while #seen < 3 do fiber.sleep(0.001) end
      server:close()
    end)
    equal("closed", server:serve(answer_a))
    helper:join()
  ]])

  it_blocked("is dropped after send_timeout, and the server goes on", blocked [[
    fiber.run(function()
      server.send_timeout = 0.01
      local heard
      local started = serving { on_error = function(...) heard = { ... } end }
      while #seen < 3 do fiber.sleep(0.001) end
      equal("ETIMEDOUT", heard[1].name)
      equal("serve", heard[1].operation)
      equal(client.local_port, heard[3])
      started:interrupt()
      ends_with("INTERRUPTED", started)
    end)
  ]])

  it_blocked("is dropped at once with a send_timeout of 0", blocked [[
    fiber.run(function()
      server.send_timeout = 0
      local heard
      local started = serving { on_error = function(...) heard = { ... } end }
      while #seen < 3 do fiber.sleep(0.001) end
      equal("ETIMEDOUT", heard[1].name)
      server:close()
      equal("closed", select(2, started:join()))
    end)
  ]])

  it_blocked("is ended by close, cancel, an interruption and a deadline", blocked [[
    fiber.run(function()
      local started = serving()
      server:cancel()
      ends_with("ECANCELED", started)
      local function again()
        return link.waiting(server.serve, server, function() return "more" end)
      end
      started = again()
      started:interrupt()
      ends_with("INTERRUPTED", started)
      started = again()
      equal(1, server.send_queue_count)
      server:close()
      equal("closed", select(2, started:join()))
    end)
  ]])

  it_blocked("is ended by the deadline of a scope, which on_error does not hear of", blocked [[
    fiber.run(function()
      local config = { on_error = function() error("asked") end }
      for _, seconds in ipairs { 0.01, 0 } do
        local ok, err = pcall(fiber.with_timeout, seconds, server.serve, server, function() return "more" end, config)
        equal(false, ok)
        equal("with_timeout", err.operation)
      end
    end)
  ]])
end)
