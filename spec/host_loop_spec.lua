-- What ip.fiber.loop promises: another loop drives this library's fibers, beside its own work and without spinning.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"

local fiber = ip.fiber
local loop = fiber.loop
local error_of, bound = support.error_of, support.bound
local assert_contains = assertions.assert_contains

-- A module of another loop, or nil with the spec pending.
local function need(name)
  local ok, module = pcall(require, name)
  if ok then return module end
  pending(("the module %s is not installed"):format(name))
  return nil
end

-- The descriptors that these modules keep are made by their first use.
pcall(function() require("cqueues").poll(0.001) end)
pcall(function()
  local uv = require "luv"
  uv.new_timer():close()
  uv.new_signal():close()
  uv.run()
end)

-- Like support.on_main, without a deadline around it: that would be a timer which loop:timeout() tells.
local function by_hand(fn)
  return support.on_main(fn, math.huge)
end

-- Answers `count` datagrams with their upper case.
local function serve(sock, count)
  for _ = 1, count do
    local text, address, port = sock:receive_string()
    sock:send_to(text:upper(), address, port)
  end
end

describe("ip.fiber.loop", function()
  it("has nothing to do when nobody waits", by_hand(function()
    assert.is_nil(loop:timeout())
    local start = fiber.now()
    assert.is_false(loop:step())
    assert.is_false(loop:step(100))
    assert.is_true(fiber.now() - start < 50)
  end))

  it("tells when it has to be stepped at the latest", by_hand(function()
    local long = fiber.spawn(pcall, fiber.sleep, 100)
    assert.equal(0, loop:timeout())
    assert.is_true(loop:step())
    local seconds = loop:timeout()
    assert.is_true(seconds > 0 and seconds <= 100.001, tostring(seconds))
    assert.is_true(loop:step())
    assert.equal("waiting", long.status)
    long:interrupt()
    assert.is_false(loop:step())
    local sleeping = fiber.spawn(fiber.sleep, 0.02)
    assert.is_true(loop:step())
    assert.is_false(loop:step(10))
    assert.equal("done", sleeping.status)
    assert.is_nil(loop:timeout())
    sleeping:join()
  end))

  it("waits no longer than it is told", by_hand(function()
    local sock = bound()
    local waiting = fiber.spawn(sock.receive_string, sock)
    loop:step()
    local start = fiber.now()
    assert.is_true(loop:step(0.01))
    assert.is_true(fiber.now() - start >= 0.01)
    assert.is_true(loop:step(-1))
    waiting:interrupt()
    assert.is_false(loop:step())
    waiting:join()
    sock:close()
  end))

  it("a step blocks for at most its seconds, with or without spin #slow", support.with_loop(function()
    -- In a process of its own, which can be ended when a step never returns. There are many steps, because the end of
    -- one may fall before, into or behind the moment in which libuv looks at its timers.
    local path = support.write_file [[
      local ip = require "ip"
      local loop = ip.fiber.loop
      local sock = ip.udp.bind("127.0.0.1", 0)
      ip.fiber.spawn(sock.receive_string, sock):detach()
      for _, each in ipairs { { 0, 1e-9, 2000 }, { 1e-4, 1e-4, 1000 }, { 1e-3, 1e-3, 1000 } } do
        loop.spin = each[1]
        for _ = 1, each[3] do assert(loop:step(each[2])) end
      end
      print "done"
    ]]
    local ok, output, errors = pcall(process.run, process.lua(path), 60 * support.patience)
    os.remove(path)
    assert.equal("done\n", output, errors)
    assert.is_true(ok)
  end, 100))

  it("names no time when only a descriptor is waited for, and zero when that is ready", by_hand(function()
    local sock, port = bound()
    local waiting = fiber.spawn(sock.receive_string, sock)
    loop:step()
    assert.is_true((loop:timeout() or math.huge) > 1)
    sock:send_to("x", "127.0.0.1", port)
    assert.equal(0, loop:timeout())
    assert.equal("waiting", waiting.status) -- timeout() serves nobody
    loop:step()
    assert.equal("done", waiting.status)
    assert.equal("x", (waiting:join()))
    sock:close()
  end))

  it("has a descriptor that becomes readable when something is ready", by_hand(function()
    local cqueues = need("cqueues")
    if not cqueues then return end
    local sock, port = bound()
    local waiting = fiber.spawn(sock.receive_string, sock)
    loop:step()
    loop:timeout() -- registers what is waited for
    local watched = { pollfd = loop.pollfd, events = loop.events }
    assert.equal(0.01, (cqueues.poll(watched, 0.01)))
    sock:send_to("x", "127.0.0.1", port)
    assert.equal(watched, (cqueues.poll(watched, 10)))
    loop:step()
    assert.equal("x", (waiting:join()))
    sock:close()
  end))

  it("runs fibers on the stack of a coroutine, too", by_hand(function()
    local done = false
    fiber.spawn(function()
      fiber.sleep(0.001)
      done = true
    end)
    coroutine.wrap(function() while loop:step(1) do end end)() -- luacheck: ignore 542
    assert.is_true(done)
  end))

  it("cannot be stepped by what it runs", support.with_loop(function()
    assert_contains(error_of(loop.step, loop), "already being driven")
    assert_contains(error_of(loop.step, loop, 1), "already being driven")
    assert_contains(error_of(loop.timeout, loop), "already being driven")
    assert.equal("number", type(loop.pollfd))
  end))

  it("cannot be stepped by what a step runs", by_hand(function()
    local err
    fiber.spawn(function() err = error_of(loop.step, loop) end)
    loop:step()
    assert_contains(err, "already being driven")
  end))

  it("goes on after a fiber has failed", by_hand(function()
    local reported
    fiber.on_error(function(err) reported = err end)
    fiber.spawn(error, "broken", 0)
    assert.is_false(loop:step())
    fiber.on_error(nil)
    assert.equal("broken", reported)
  end))

  it("refuses wrong arguments and unknown names", by_hand(function()
    assert_contains(error_of(loop.step, loop, "1"), "bad argument")
    assert_contains(error_of(loop.step, loop, {}), "bad argument")
    assert_contains(error_of(loop.step, loop, 0 / 0), "bad argument")
    assert_contains(error_of(function() return loop.nothing end), "ip.fiber.loop has no property 'nothing'")
    assert_contains(error_of(function() loop.nothing = 1 end), "ip.fiber.loop has no property 'nothing'")
    assert_contains(error_of(function() loop.pollfd = 1 end), "cannot be written")
    assert_contains(error_of(function() loop.step = print end), "cannot be written")
    assert.equal("r", loop.events)
    assert.equal("integer", math.type(loop.pollfd))
  end))

  it("lets Ctrl-C end a step that waits", function()
    local output, code = support.run_program([[
      local ip = require "ip"
      local stat <close> = assert(io.open("/proc/self/stat"))
      local killer = io.popen("sleep 0.1; kill -INT " .. stat:read("n"))
      local sock = ip.udp.bind("127.0.0.1", 0)
      ip.fiber.spawn(sock.receive_string, sock)
      while ip.fiber.loop:step(20) do end]])
    assert_contains(output, "interrupted!")
    assert.are_not.equal(0, code)
  end)
end)

-- How often this process has gone to sleep by itself.
local function times_slept()
  for line in io.lines("/proc/self/status") do
    local count = line:match("^voluntary_ctxt_switches:%s*(%d+)")
    if count then return tonumber(count) end
  end
end

describe("ip.fiber.loop.spin", function()
  after_each(function() loop.spin = 0 end)

  local NAPS = 20

  -- How often the process sleeps while a fiber naps NAPS times.
  local function slept_in_naps()
    local before = times_slept()
    for _ = 1, NAPS do fiber.sleep(0.002) end
    return times_slept() - before
  end

  local it_counts = platform.it_where(platform.is_linux and platform.mode ~= "valgrind")

  it("is 0 at first, takes any number of seconds and tells it", function()
    assert.equal(0, loop.spin)
    loop.spin = 2
    assert.equal(2, loop.spin)
    loop.spin = 0.25
    assert.equal(0.25, loop.spin)
    loop.spin = math.huge
    assert.equal(math.huge, loop.spin)
    loop.spin = 0
    assert.equal(0, loop.spin)
  end)

  it("refuses what is not a number of at least 0, and keeps its value", function()
    loop.spin = 0.5
    for _, wrong in ipairs { -1, -0.001, 0 / 0, "1", {}, true } do
      local err = error_of(function() loop.spin = wrong end)
      assert_contains(err, "property 'spin' of ip.fiber.loop: seconds of at least 0")
    end
    assert_contains(error_of(function() loop.spin = nil end), "got nil")
    assert.equal(0.5, loop.spin)
  end)

  it_counts("0 lets the process sleep whenever nothing is ready", by_hand(function()
    local tries, count = 0
    repeat -- where other processes have the core for longer than a nap, that nap is over without a sleep
      tries, count = tries + 1, slept_in_naps()
    until count >= NAPS or tries == 20
    assert.is_true(count >= NAPS, "slept " .. count .. " times")
  end))

  it_counts("keeps the process awake while it waits", by_hand(function()
    loop.spin = 10
    local count = slept_in_naps()
    assert.is_true(count < NAPS, "slept " .. count .. " times")
  end))

  it("takes datagrams and ends of time as they come, and gives up spinning after its seconds", by_hand(function()
    for _, seconds in ipairs { 1e-6, 0.001, math.huge } do
      loop.spin = seconds
      local server, port = bound()
      local serving = fiber.spawn(serve, server, 100)
      local client = ip.udp.connect("127.0.0.1", port)
      for i = 1, 100 do
        client:send("text " .. i)
        assert.equal("TEXT " .. i, (client:receive_string()))
      end
      serving:join()
      client.receive_timeout = 0.01
      assert.equal(ip.error.ETIMEDOUT, error_of(client.receive_string, client))
      server:close()
      client:close()
    end
  end))

  it("does not make step wait longer than it was told", by_hand(function()
    loop.spin = math.huge
    local sock <close> = bound()
    local waiting = fiber.spawn(function() return pcall(sock.receive_string, sock) end)
    assert.is_true(loop:step())
    assert.is_true(loop:step(0.01))
    assert.equal("waiting", waiting.status)
    sock:close()
    assert.is_false(loop:step())
  end))

  it("lets Ctrl-C end the wait of a loop that never sleeps", function()
    local output, code = support.run_program([[
      local ip = require "ip"
      ip.fiber.loop.spin = math.huge
      local stat <close> = assert(io.open("/proc/self/stat"))
      local killer = io.popen("sleep 0.1; kill -INT " .. stat:read("n"))
      ip.udp.bind("127.0.0.1", 0):receive_string()]])
    assert_contains(output, "interrupted!")
    assert.are_not.equal(0, code)
  end)
end)

describe("cqueues", function()
  -- Runs fibers in a controller of cqueues until none waits; returns the number of steps, which grows.
  local function drive(cqueues, controller)
    local count = { steps = 0 }
    controller:wrap(function()
      repeat
        cqueues.poll(loop)
        count.steps = count.steps + 1
      until not loop:step()
    end)
    return count
  end

  it("runs fibers beside its own coroutines, without spinning", by_hand(function()
    local cqueues = need("cqueues")
    if not cqueues then return end
    local socket = require "cqueues.socket"
    local server, port = bound()
    local serving = fiber.spawn(serve, server, 20)
    local controller = cqueues.new()
    local count = drive(cqueues, controller)
    local answers, ticks = {}, 0
    controller:wrap(function()
      local client = socket.connect({ host = "127.0.0.1", port = port, type = socket.SOCK_DGRAM })
      client:setmode("bn", "bn")
      for i = 1, 20 do
        client:write("question " .. i)
        answers[i] = client:read(-100)
        cqueues.sleep(0.001)
      end
      client:close()
    end)
    controller:wrap(function()
      for _ = 1, 10 do
        cqueues.sleep(0.002)
        ticks = ticks + 1
      end
    end)
    assert(controller:loop())
    for i = 1, 20 do assert.equal("QUESTION " .. i, answers[i]) end
    assert.equal(10, ticks)
    assert.is_true(count.steps <= 80, count.steps)
    serving:join()
    server:close()
  end))

  it("wakes for timers of fibers", by_hand(function()
    local cqueues = need("cqueues")
    if not cqueues then return end
    local controller = cqueues.new()
    local sleeping = fiber.spawn(function() for _ = 1, 5 do fiber.sleep(0.01) end end)
    local count = drive(cqueues, controller)
    local start = fiber.now()
    assert(controller:loop())
    assert.equal("done", sleeping.status)
    assert.is_true(fiber.now() - start >= 0.05)
    assert.is_true(count.steps <= 20, count.steps)
    sleeping:join()
  end))
end)

describe("luv", function()
  -- Lets luv's loop drive the fibers; returns the number of steps, which grows, and a function that ends it.
  local function drive(uv)
    local poll, timer, prepare = uv.new_poll(loop.pollfd), uv.new_timer(), uv.new_prepare()
    local count, more = { steps = 0 }, false
    local function step()
      count.steps = count.steps + 1
      more = loop:step()
    end
    local function prepared()
      local seconds = loop:timeout()
      poll:stop()
      timer:stop()
      if not seconds and not more then return end
      poll:start("r", step)
      if seconds then timer:start(math.ceil(seconds * 1000), 0, step) end
    end
    prepare:start(prepared)
    prepare:unref()
    prepared()
    return count, function()
      poll:close()
      timer:close()
      prepare:close()
      uv.run()
    end
  end

  it("runs fibers beside its own callbacks, without spinning", by_hand(function()
    local uv = need("luv")
    if not uv then return end
    local server, port = bound()
    local serving = fiber.spawn(serve, server, 20)
    local count, stop = drive(uv)
    local client, answers, ticks = uv.new_udp(), {}, 0
    local function ask()
      client:send("question " .. #answers + 1, "127.0.0.1", port)
    end
    client:recv_start(function(_, text)
      if not text then return end
      answers[#answers + 1] = text
      if #answers < 20 then ask() else client:close() end
    end)
    ask()
    local timer = uv.new_timer()
    timer:start(2, 2, function()
      ticks = ticks + 1
      if ticks == 10 then timer:close() end
    end)
    uv.run()
    stop()
    for i = 1, 20 do assert.equal("QUESTION " .. i, answers[i]) end
    assert.equal(10, ticks)
    assert.is_true(count.steps <= 80, count.steps)
    serving:join()
    server:close()
  end))

  it("wakes for timers of fibers", by_hand(function()
    local uv = need("luv")
    if not uv then return end
    local sleeping = fiber.spawn(function() for _ = 1, 5 do fiber.sleep(0.01) end end)
    local count, stop = drive(uv)
    local start = fiber.now()
    uv.run()
    stop()
    assert.equal("done", sleeping.status)
    assert.is_true(fiber.now() - start >= 0.05)
    assert.is_true(count.steps <= 20, count.steps)
    sleeping:join()
  end))
end)
