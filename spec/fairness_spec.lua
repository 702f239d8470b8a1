-- What those who wait are promised: order, a share for each beside a flood, little memory and no processor time.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local platform = require "spec.support.platform"
local support = require "spec.support"
local trace = require "spec.support.trace"

local fiber, byte_span = ip.fiber, ip.byte_span
local with_loop, on_main = support.with_loop, support.on_main
local error_of, wait_until, bound = support.error_of, support.wait_until, support.bound
local send, run_program = support.send, support.run_program

describe("a send that may not wait", function()
  it("is made all the same where it gives way, also behind another one that gives way", with_loop(function()
    local sock <close> = bound()
    local peer <close> = ip.udp.connect("127.0.0.1", sock.local_port)
    local lock = fiber.semaphore(1)
    local function spend_turn() -- 128 transfers and permits
      for _ = 1, 128 do
        lock:acquire()
        lock:release()
      end
    end
    for _, call in ipairs {
      function() peer:send("x") end,
      function() peer:send_message("x", {}) end,
      function() peer:send_many(ip.udp.batch.new(1)) end,
    } do
      local fibers = {}
      for i = 1, 3 do
        fibers[i] = fiber.spawn(function()
          spend_turn()
          return pcall(fiber.with_timeout, i == 1 and 10 or 0, call)
        end)
      end
      for i = 1, 3 do assert.same({ true }, { fibers[i]:join() }, i) end
    end
  end))
end)

describe("waiters on one socket", function()
  it("are served first come, first served: a hundred fibers", with_loop(function()
    local sock, port = bound()
    local got, fibers = {}, {}
    for i = 1, 100 do
      fibers[i] = fiber.spawn(function() got[i] = sock:receive_string() end)
    end
    fiber.yield()
    for i = 1, 100 do
      send(sock, port, tostring(i))
      if i % 7 == 0 then fiber.yield() end
    end
    for i = 1, 100 do
      fibers[i]:join()
      assert.equal(tostring(i), got[i])
    end
    sock:close()
  end))

  it("are served in order whatever they are: fibers, coroutines of others, the main thread", on_main(function()
    local sock, port = bound()
    local order = {}
    local function wait(name)
      local text = sock:receive_string()
      order[#order + 1] = name .. text
    end
    local first = fiber.spawn(wait, "fiber ")
    fiber.yield()
    coroutine.wrap(wait)("coroutine ")
    fiber.spawn(function()
      for i = 1, 3 do send(sock, port, tostring(i)) end
    end)
    wait("main ")
    first:join()
    assert.same({ "fiber 1", "coroutine 2", "main 3" }, order)
    sock:close()
  end))

  it("keep their places when one in the middle is withdrawn", with_loop(function()
    local sock, port = bound()
    local got, fibers = {}, {}
    for i = 1, 10 do
      fibers[i] = fiber.spawn(function() got[i] = sock:receive_string() end)
    end
    fiber.yield()
    for i = 2, 10, 2 do fibers[i]:interrupt() end
    for i = 1, 5 do send(sock, port, tostring(i)) end
    for i = 1, 10 do fibers[i]:join() end
    assert.same({ "1", nil, "2", nil, "3", nil, "4", nil, "5" }, got)
    sock:close()
  end))

  it("come before a call that arrives later and could complete at once", with_loop(function()
    local sock, port = bound()
    local first = fiber.spawn(function() return (sock:receive_string()) end)
    fiber.yield()
    send(sock, port, "1")
    send(sock, port, "2")
    assert.equal("2", (sock:receive_string()))
    assert.equal("1", first:join())
    sock:close()
  end))

  it("get one datagram each: none is lost or doubled when they come back at once", with_loop(function()
    local sock, port = bound()
    local seen, total = {}, 0
    local fibers = {}
    for i = 1, 10 do
      fibers[i] = fiber.spawn(function()
        while true do
          local text = sock:receive_string()
          assert(not seen[text])
          seen[text] = true
          total = total + 1
        end
      end)
    end
    for i = 1, 1000 do
      send(sock, port, tostring(i))
      -- the socket's buffer holds that many; more would be dropped where the waiters are slow
      if i % 50 == 0 then wait_until(function() return total == i end) end
    end
    for _, one in ipairs(fibers) do
      one:interrupt()
      one:join()
    end
    sock:close()
  end))
end)

describe("a flood on one socket", function()
  -- Sends to itself and receives, for ever: every call can complete at once.
  local function flood(sock, port)
    local buffer = byte_span.new(16)
    while true do
      sock:send_to("x", "127.0.0.1", port)
      sock:receive_from(buffer)
    end
  end

  it("in a fiber starves neither timers, nor another fiber, nor another socket", with_loop(function()
    local sock, port = bound()
    local other, other_port = bound()
    local flooding = fiber.spawn(flood, sock, port)
    local received
    local receiver = fiber.spawn(function() received = other:receive_string() end)
    local turns = 0
    local yielder = fiber.spawn(function()
      for _ = 1, 100 do
        fiber.yield()
        turns = turns + 1
      end
    end)
    fiber.sleep(0.005)
    send(other, other_port, "through")
    receiver:join()
    yielder:join()
    assert.equal("through", received)
    assert.equal(100, turns)
    assert.equal("ETIMEDOUT", error_of(fiber.with_timeout, 0.002, flood, sock, port).name)
    flooding:interrupt()
    flooding:join()
    sock:close()
    other:close()
  end))

  it("on the main thread starves neither timers nor fibers", on_main(function()
    local sock, port = bound()
    local slept, turns = false, 0
    local sleeping = fiber.spawn(function()
      fiber.sleep(0.005)
      slept = true
    end)
    local yielding = fiber.spawn(function()
      while not slept do
        fiber.yield()
        turns = turns + 1
      end
    end)
    local buffer = byte_span.new(16)
    while not slept do
      send(sock, port, "x")
      sock:receive_from(buffer)
    end
    assert.is_true(turns > 0)
    sleeping:join()
    yielding:join()
    sock:close()
  end))

  it("in a coroutine of others starves nobody", on_main(function()
    local sock, port = bound()
    local one = coroutine.create(flood)
    assert.is_true(coroutine.resume(one, sock, port)) -- it has given way by itself
    fiber.sleep(0.002)
    coroutine.close(one)
    sock:close()
  end))

  it("of datagrams of many parts gives way all the same", with_loop(function()
    local sock, port = bound()
    local parts = {}
    for i = 1, 200 do parts[i] = "x" end
    local connected = ip.udp.connect("127.0.0.1", port)
    local buffer = byte_span.new(300)
    local turns = support.turns_during(function()
      for _ = 1, 300 do
        assert.equal(200, sock:send_to(parts, "127.0.0.1", port))
        assert.equal(200, connected:send(parts))
        assert.equal(200, (sock:try_receive(buffer)))
        assert.equal(200, (sock:try_receive(buffer)))
      end
    end)
    assert.is_true(turns > 1)
    connected:close()
    sock:close()
  end))

  it("may be ended by close, cancel, interruption and deadline, though it never waits", with_loop(function()
    local sock, port = bound()
    local flooding = fiber.spawn(function() return error_of(flood, sock, port) end)
    fiber.sleep(0.002)
    sock:cancel()
    assert.equal(ip.error.ECANCELED, flooding:join())
    flooding = fiber.spawn(function() return error_of(flood, sock, port) end)
    fiber.sleep(0.002)
    sock:close()
    assert.is_truthy(flooding:join() == ip.error.ECANCELED)
  end))
end)

describe("ten thousand fibers", function()
  local count = 10000
  local more_descriptors = "ulimit -n " .. count + 100

  local function permitted()
    local output = run_program("print('permitted')", nil, more_descriptors)
    return output:find("permitted", 1, true) ~= nil
  end

  -- Where the system has many loopback addresses, each program takes one for itself: the ports of one suffice for two.
  local choose_address = [[
    local ip = require "ip"
    local host = ("127.%d.%d.%d"):format(math.random(1, 254), math.random(1, 254), math.random(1, 254))
    if not pcall(ip.udp.bind, host, 0) then host = "127.0.0.1" end
  ]]

  it("each waiting on its own socket, all get their datagram", function()
    if not permitted() then return pending("the system permits no " .. count .. " descriptors") end
    assertions.assert_prints(count .. "\n", choose_address .. [[
      local count = ]] .. count .. [[

      local ports, got, buffer = {}, 0, ip.byte_span.new(16)
      for i = 1, count do
        local sock = ip.udp.bind(host, 0)
        ports[i] = sock.local_port
        ip.fiber.spawn(function()
          local n = sock:receive(buffer)
          if buffer:sub(1, n) == tostring(i) then got = got + 1 end
          sock:close()
        end)
      end
      ip.fiber.yield()
      local sender = ip.udp.bind(host, 0)
      ip.fiber.with_timeout(30, function()
        for i = count, 1, -1 do sender:send_to(tostring(i), host, ports[i]) end
        while got < count do ip.fiber.yield() end
      end)
      ip.fiber.run()
      print(got)
    ]], nil, more_descriptors)
  end)

  it("idle on a socket each cost at most 2048 bytes of memory each", function()
    if platform.is_watched then return pending("a tool has memory of its own") end
    if not permitted() then return pending("the system permits no " .. count .. " descriptors") end
    local output, code = run_program(choose_address .. [[
      local count = ]] .. count .. [[

      local resident = require "spec.support.resident"
      if not resident() then print "unknown" os.exit(0) end
      local buffer = ip.byte_span.new(1500)
      local function wait(sock) sock:receive_from(buffer) end
      local before = resident()
      for _ = 1, count do ip.fiber.spawn(wait, ip.udp.bind(host, 0)) end
      ip.fiber.yield()
      print(math.floor((resident() - before) / count))
    ]], nil, more_descriptors)
    if output:find("unknown", 1, true) then return pending("the system does not tell the size of a process") end
    assert.equal(0, code)
    local bytes = tonumber(output)
    assert.is_true(bytes ~= nil and bytes <= 2048, output)
  end)
end)

describe("a program that waits", function()
  local it_traced = platform.it_where(platform.can_trace(), "strace")

  it_traced("is not woken before something comes", function()
    local counts, output = trace.count [[
      local ip = require "ip"
      local sock = ip.udp.bind("127.0.0.1", 0)
      for _ = 1, 100 do
        ip.fiber.spawn(function() sock:receive_string() end)
        ip.fiber.spawn(ip.fiber.sleep, 100)
      end
      ip.fiber.yield()
      ip.fiber.sleep(1)
      print "done"
    ]]
    assert.equal("done\n", output)
    local polls = counts.epoll_wait + counts.epoll_pwait
    assert.is_true(polls > 0 and polls <= 10, "polls: " .. polls)
  end)
end)
