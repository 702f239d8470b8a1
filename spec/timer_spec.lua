-- What deadlines promise: kept on a grid of at most 100 microseconds on Linux, of a millisecond elsewhere and where no
-- fine timer can be had, never early, and as a rule without a system call of their own.

local ip = require "ip"
local process = require "spec.support.process"
local support = require "spec.support"

local fiber = ip.fiber
local with_loop = support.with_loop

local mode = os.getenv("LUA_IP_MODE") or "plain"
local can_trace = (mode == "plain" or mode == "coverage")
  and os.execute("strace -f -c -o /dev/null true >/dev/null 2>&1") == true
local it_traced = can_trace and it or function(name) pending(name .. " (needs strace)") end

local PRELUDE = "local ip = require 'ip' local fiber = ip.fiber io.stdout:setvbuf 'no'\n"

-- Runs a program under strace with `options`; returns its output, and what strace has written.
local function trace(options, program)
  local path, log = os.tmpname(), os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(PRELUDE, program)
  file:close()
  local words = { "strace", "-f", "-o", log }
  table.move(options, 1, #options, #words + 1, words)
  table.move(process.lua(path), 1, 2, #words + 1, words)
  local output, errors, code = process.run(words, 60)
  local traced <close> = assert(io.open(log))
  local calls = traced:read("a")
  os.remove(path)
  os.remove(log)
  assert.equal(0, code, output .. errors)
  return output, calls
end

local function count(calls, name)
  return select(2, calls:gsub(name .. "%(", ""))
end

-- What the alarm was set for, in nanoseconds, one for each call; 0 switches it off.
local function alarms(calls)
  local found = {}
  for seconds, nanoseconds in calls:gmatch("timerfd_settime%(.-it_value={tv_sec=(%d+), tv_nsec=(%d+)}") do
    table.insert(found, math.tointeger(seconds) * 1000000000 + math.tointeger(nanoseconds))
  end
  return found
end

local function greatest_common_divisor(a, b)
  while b ~= 0 do a, b = b, a % b end
  return a
end

local ONLY_ALARMS = { "-e", "trace=timerfd_create,timerfd_settime" }

describe("deadlines", function()
  teardown(process.stop_all)

  it_traced("are given to the system on a grid of at most 100 microseconds, and never early", with_loop(function()
    local output, calls = trace(ONLY_ALARMS, [[
      fiber.run(function()
        for i = 1, 50 do
          local seconds = 0.0003 * i
          print(("%d"):format((fiber.now() + seconds) * 1e9 // 1))
          fiber.sleep(seconds)
        end
      end)
    ]])
    local set, grid = alarms(calls), 0
    local i = 0
    for wanted in output:gmatch("%d+") do
      i = i + 1
      local late = set[i] - math.tointeger(wanted)
      assert.is_true(late >= -1, late) -- the text has lost a fraction of a nanosecond
      grid = greatest_common_divisor(grid, set[i])
    end
    assert.equal(50, i)
    assert.is_true(grid <= 100000, "a grid of " .. grid .. " ns")
  end, 60))

  it_traced("of receives that get their datagram cost one system call for all of them", with_loop(function()
    local output, calls = trace(ONLY_ALARMS, [[
      local sock = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 60 })
      local sender = ip.udp.connect("127.0.0.1", sock.local_port)
      local buffer = ip.byte_span.new(9)
      fiber.run(function()
        for _ = 1, 1000 do
          fiber.spawn(sender.send, sender, "x")
          sock:receive_from(buffer)
        end
      end)
      print "done"
    ]])
    assert.equal("done\n", output)
    assert.equal(1, count(calls, "timerfd_create"))
    assert.equal(1, count(calls, "timerfd_settime"))
  end, 60))

  it_traced("cost nothing where nothing has one", with_loop(function()
    local _, calls = trace(ONLY_ALARMS, [[
      local sock = ip.udp.bind("127.0.0.1", 0)
      fiber.spawn(function() sock:send_to("x", "127.0.0.1", sock.local_port) end)
      fiber.run(sock.receive_string, sock)
    ]])
    assert.equal(0, count(calls, "timerfd_create"))
  end, 60))

  it_traced("that come one after the other need one system call each", with_loop(function()
    local _, calls = trace(ONLY_ALARMS, "fiber.run(function() for _ = 1, 100 do fiber.sleep(0.0001) end end)")
    assert.is_true(count(calls, "timerfd_settime") <= 101, calls)
  end, 60))

  it_traced("an alarm that finds nothing due is set for the next deadline", with_loop(function()
    local output = trace(ONLY_ALARMS, [[
      fiber.run(function()
        local late = fiber.spawn(function()
          local start = fiber.now()
          fiber.sleep(0.05)
          return fiber.now() - start
        end)
        fiber.yield()
        pcall(fiber.with_timeout, 0.01, fiber.yield) -- stopped, and the alarm stays set
        local seconds = late:join()
        print(seconds >= 0.05 and seconds < 5)
      end)
    ]])
    assert.equal("true\n", output)
  end, 60))

  local COARSE = [[
    local function timed(seconds)
      local start = fiber.now()
      fiber.sleep(seconds)
      local took = fiber.now() - start
      assert(took >= seconds and took < seconds + 5, took)
    end
    for i = 1, 20 do timed(0.0007 * i) end
    local sleepers = {}
    for i = 1, 20 do sleepers[i] = fiber.spawn(timed, 0.001 * (21 - i)) end
    for i = 1, 20 do sleepers[i]:join() end
    fiber.spawn(fiber.sleep, 0.02)
    fiber.loop:step()
    for _ = 1, 200 do fiber.loop:step(1e-5) end
    local seconds = fiber.loop:timeout()
    assert(seconds == nil or seconds <= 0.021)
    print(not pcall(fiber.with_timeout, 0.002, fiber.sleep, 60))
  ]]

  for call, error in pairs { timerfd_create = "EMFILE", timerfd_settime = "EBADF" } do
    it_traced(("are kept by a timer of libuv's where %s fails"):format(call), with_loop(function()
      local output = trace({ "-e", "trace=" .. call, "-e", ("inject=%s:error=%s"):format(call, error) }, COARSE)
      assert.equal("true\n", output)
    end, 60))
  end

  it("that are the same or in any order end in their order", with_loop(function()
    local order, fibers = {}, {}
    for i = 1, 500 do
      local seconds = (i * 7919 % 500) * 1e-5 + 1e-4
      fibers[i] = fiber.spawn(function()
        local deadline = fiber.now() + seconds
        fiber.sleep(seconds)
        assert.is_true(fiber.now() >= deadline)
        table.insert(order, deadline)
      end)
    end
    for i = 1, 500 do fibers[i]:join() end
    for i = 2, 500 do assert.is_true(order[i] > order[i - 1] - 1e-4, i) end
  end))

  it("may be given up in any order", with_loop(function()
    local fibers = {}
    for i = 1, 1000 do fibers[i] = fiber.spawn(fiber.sleep, 60 + (i * 7919 % 1000)) end
    fiber.yield()
    for i = 1, 1000 do
      fibers[i * 331 % 1000 + 1]:interrupt()
      if i % 100 == 0 then fiber.sleep(1e-4) end
    end
    for i = 1, 1000 do fibers[i]:join() end
  end))
end)
