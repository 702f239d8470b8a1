-- What ip.fiber.wait_signal promises. Programs that catch signals run in a process of their own.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local process = require "spec.support.process"

local with_loop = support.with_loop
local assert_contains, assert_bad_argument = assertions.assert_contains, assertions.assert_bad_argument

local NAMES = { "SIGABRT", "SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGINT", "SIGPIPE", "SIGQUIT", "SIGTERM",
  "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGXCPU", "SIGXFSZ", "SIGIO",
  "SIGWINCH" }

-- What the programs begin with. kill(name) sends a signal to the program itself; it is pending when kill
-- returns.
local PROLOGUE = [[
local ip = require "ip"
local fiber = ip.fiber
local wait_signal = fiber.wait_signal
local stat <close> = assert(io.open("/proc/self/stat"))
local pid = stat:read("n")
-- not os.execute, which has SIGINT and SIGQUIT ignored meanwhile
local function kill(name) assert(io.popen(("kill -%s %d"):format(name:sub(4), pid)):close()) end
io.stdout:setvbuf("line")
]]

local function run(program)
  return support.run_program(PROLOGUE .. program)
end

-- Expects what a program prints, and that it ends well.
local function prints(expected, program)
  assertions.assert_prints(expected, PROLOGUE .. program)
end

-- Runs a program in the background, `steps` beside it, with its process.
local function beside(program, steps)
  local path = support.write_file(PROLOGUE .. program)
  local child = process.start(process.lua(path))
  local ok, err = pcall(steps, child)
  child:stop()
  os.remove(path)
  if not ok then error(err, 0) end
end

describe("wait_signal", function()
  after_each(process.stop_all)

  it("waits for each signal by its name", function()
    prints(table.concat(NAMES, "\n") .. "\n", ([[
      for name in ("%s"):gmatch("%%S+") do
        local waiting = fiber.spawn(wait_signal, name)
        fiber.yield()
        kill(name)
        print(fiber.run(waiting.join, waiting))
      end]]):format(table.concat(NAMES, " ")))
  end)

  it("waits in a fiber, on the main thread, in a coroutine made by others, and in a generator", function()
    prints("SIGUSR1\nSIGUSR2\nSIGHUP\nSIGTERM\n", [[
      local function later(name) fiber.spawn(function() fiber.sleep(0.005) kill(name) end) end
      later("SIGUSR1")
      print(fiber.run(wait_signal, "SIGUSR1"))
      later("SIGUSR2")
      print(wait_signal("SIGUSR2"))
      coroutine.wrap(function() print(wait_signal("SIGHUP")) end)()
      later("SIGHUP")
      fiber.run()
      later("SIGTERM")
      print(fiber.run(fiber.coroutine.wrap(function() return wait_signal("SIGTERM") end)))]])
  end)

  it("waits for several, and tells which has come", function()
    prints("SIGUSR2\nSIGHUP\nSIGUSR1\n", [[
      for _, name in ipairs({ "SIGUSR2", "SIGHUP", "SIGUSR1" }) do
        fiber.spawn(function() fiber.sleep(0.002) kill(name) end)
        print(wait_signal("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGUSR1"))
      end]])
  end)

  it("remembers what comes between two waits, each signal once", function()
    prints("SIGUSR1\nSIGUSR1\nSIGUSR2\nfalse\tETIMEDOUT\n", [[
      fiber.spawn(function() fiber.sleep(0.002) kill("SIGUSR1") end)
      print(wait_signal("SIGUSR1", "SIGUSR2"))
      for _ = 1, 3 do
        kill("SIGUSR1")
        kill("SIGUSR2")
        fiber.sleep(0.005)
      end
      print(wait_signal("SIGUSR1"))
      print(wait_signal("SIGUSR2", "SIGUSR1"))
      local ok, err = pcall(fiber.with_timeout, 0.02, wait_signal, "SIGUSR1", "SIGUSR2")
      print(ok, err == ip.error.ETIMEDOUT and "ETIMEDOUT")]])
  end)

  it("wakes every waiter of the signal that has come, in the order in which they came, and no other", function()
    prints("1\tSIGUSR1\n2\tSIGUSR1\n3\tSIGUSR1\n4\tSIGUSR2\n", [[
      fiber.spawn(function() print(2, wait_signal("SIGUSR1")) end)
      fiber.spawn(function() print(3, wait_signal("SIGHUP", "SIGUSR1")) end)
      fiber.spawn(function() print(4, wait_signal("SIGHUP", "SIGUSR2")) end)
      fiber.spawn(function() fiber.yield() kill("SIGUSR1") end)
      print(1, wait_signal("SIGUSR1")) -- waits before any of the fibers has begun
      fiber.yield()
      kill("SIGUSR2")
      fiber.run()]])
  end)

  it("remembers nothing of a signal that somebody waited for", function()
    prints("SIGUSR1\tSIGUSR1\nfalse\tETIMEDOUT\n", [[
      local one, two = fiber.spawn(wait_signal, "SIGUSR1"), fiber.spawn(wait_signal, "SIGUSR1")
      fiber.yield()
      kill("SIGUSR1")
      print(one:join(), (two:join()))
      local ok, err = pcall(fiber.with_timeout, 0.02, wait_signal, "SIGUSR1")
      print(ok, err == ip.error.ETIMEDOUT and "ETIMEDOUT")]])
  end)

  it("wakes the waiters of each of several signals that come at once, and remembers what is left", function()
    prints("SIGUSR1\tSIGUSR2\nSIGHUP\n", [[
      local one = fiber.spawn(wait_signal, "SIGUSR1")
      local two = fiber.spawn(wait_signal, "SIGUSR2")
      fiber.yield()
      kill("SIGUSR1")
      kill("SIGUSR2")
      pcall(fiber.with_timeout, 0, wait_signal, "SIGHUP") -- catches it
      kill("SIGHUP")
      print(one:join(), (two:join()))
      print(wait_signal("SIGHUP", "SIGUSR1", "SIGUSR2"))]])
  end)

  it("that somebody closes after it was woken takes none: it is remembered, or wakes who waits by then", function()
    prints("SIGUSR1\nSIGUSR1\n", [[
      -- both signals come at once, and the fiber that waits for the first is served before `woken`
      local function close_woken(steps)
        local woken = coroutine.create(wait_signal)
        local closer = fiber.spawn(function()
          wait_signal("SIGUSR2")
          steps()
          assert(coroutine.close(woken))
        end)
        fiber.yield()
        coroutine.resume(woken, "SIGUSR1")
        kill("SIGUSR2")
        kill("SIGUSR1")
        closer:join()
      end
      close_woken(function() end)
      print(fiber.with_timeout(1, wait_signal, "SIGUSR1"))
      close_woken(function() coroutine.wrap(function() print(wait_signal("SIGUSR1")) end)() end)
      fiber.run()]])
  end)

  it("is not remembered where one of those that it woke has returned it", function()
    prints("false\tETIMEDOUT\n", [[
      local closed = {}
      local function wait(i)
        closed[i] = coroutine.create(wait_signal)
        coroutine.resume(closed[i], "SIGUSR1")
      end
      local closer = fiber.spawn(function()
        wait(1)
        fiber.spawn(function() wait(2) end)
        wait_signal("SIGUSR1")
        assert(coroutine.close(closed[2]))
      end)
      fiber.yield()
      fiber.yield()
      kill("SIGUSR1")
      closer:join()
      local ok, err = pcall(fiber.with_timeout, 0.02, wait_signal, "SIGUSR1")
      print(ok, err == ip.error.ETIMEDOUT and "ETIMEDOUT")]])
  end)

  it("that gave up takes none: the next waiter gets it", function()
    prints("ETIMEDOUT\ninterrupted\nclosed\tresumed while waiting in wait_signal\nSIGUSR1\n", [[
      local ok, err = pcall(fiber.with_timeout, 0.002, wait_signal, "SIGUSR1")
      print(not ok and err == ip.error.ETIMEDOUT and "ETIMEDOUT")
      local one = fiber.spawn(wait_signal, "SIGUSR1")
      fiber.yield()
      one:interrupt()
      one:join()
      print(one.status)
      local closed = coroutine.create(wait_signal)
      coroutine.resume(closed, "SIGUSR1")
      local resumed = coroutine.create(wait_signal)
      coroutine.resume(resumed, "SIGUSR1")
      print(coroutine.close(closed) and "closed", select(2, coroutine.resume(resumed)))
      local last = fiber.spawn(wait_signal, "SIGUSR1")
      fiber.yield()
      kill("SIGUSR1")
      print(last:join())]])
  end)

  it("raises EINVAL for what cannot be caught, and nothing is left of it", function()
    prints("EINVAL\twait_signal\nEINVAL\twait_signal\nEINVAL\twait_signal\n", [[
      for _, names in ipairs({ { "SIGKILL" }, { "SIGSTOP" }, { "SIGUSR1", "SIGKILL" } }) do
        local ok, err = pcall(wait_signal, table.unpack(names))
        print(not ok and err == ip.error.EINVAL and "EINVAL", err.operation)
      end]])
  end)

  it("refuses unknown names before it catches anything", with_loop(function()
    local wait_signal = ip.fiber.wait_signal
    assert_bad_argument(1, nil, wait_signal)
    assert_bad_argument(1, nil, wait_signal, 15)
    assert_bad_argument(1, "unknown signal 'SIGNONE'", wait_signal, "SIGNONE")
    assert_bad_argument(1, "unknown signal 'TERM'", wait_signal, "TERM")
    assert_bad_argument(1, "unknown signal", wait_signal, "SIGTERM\0")
    assert_bad_argument(2, nil, wait_signal, "SIGTERM", "sigint")
  end))

  it("raises where Lua cannot suspend, before it catches anything", function()
    local output, code = run([[
      local ok, err = fiber.run(pcall, table.sort, { 2, 1 }, function() wait_signal("SIGTERM") end)
      print(ok, err)
      kill("SIGTERM")
      fiber.sleep(1)
      print("still there")]])
    assert_contains(output, "cannot wait in wait_signal")
    assert.is_nil(output:find("still there", 1, true))
    assert.are_not.equal(0, code)
  end)

  it("takes SIGINT over from Ctrl-C", with_loop(function()
    beside([[
      fiber.spawn(function() print("ready") end) -- runs when the main thread waits
      print(wait_signal("SIGINT"))
      print(wait_signal("SIGINT"))]], function(child)
      child:wait_for("ready")
      child:signal("INT")
      child:wait_for("SIGINT")
      child:signal("INT")
      assert.equal(0, child:wait())
      assert.equal("ready\nSIGINT\nSIGINT\n", child:output())
    end)
  end, 30))

  it("leaves Ctrl-C alone in programs that wait for others", with_loop(function()
    beside([[
      fiber.spawn(function() print("ready") end)
      print(wait_signal("SIGTERM"))]], function(child)
      child:wait_for("ready")
      child:signal("INT")
      assert.are_not.equal(0, child:wait())
      assert_contains(child:errors(), "interrupted!\nstack traceback")
    end)
  end, 30))

  it("raises EDEADLK for nothing: a signal may always come", with_loop(function()
    beside([[
      fiber.spawn(function() print("ready") end)
      print(wait_signal("SIGHUP"))]], function(child)
      child:wait_for("ready")
      support.wait_until(function() return process.is_asleep(child.pid) end)
      assert.is_true(child:is_running())
      child:signal("HUP")
      assert.equal(0, child:wait())
    end)
  end, 30))

  it("lets a server end gracefully", with_loop(function()
    beside([[
      local server <close> = ip.udp.bind("127.0.0.1", 0)
      local serving = fiber.spawn(function()
        while true do
          local text, address, port = server:receive_string()
          server:send_to(text:upper(), address, port)
        end
      end)
      print("port " .. server.local_port)
      print(wait_signal("SIGTERM", "SIGINT"))
      serving:interrupt()
      serving:join()
      print(serving.status)]], function(child)
      local sock = ip.udp.connect("127.0.0.1", tonumber(child:wait_for("port (%d+)\n")))
      sock:send("hello")
      assert.equal("HELLO", (sock:receive_string()))
      child:signal("TERM")
      assert.equal(0, child:wait())
      assert_contains(child:output(), "SIGTERM\ninterrupted\n")
      sock:close()
    end)
  end, 30))

  it("ends with the program, whoever waits", function()
    prints("end\n", [[
      fiber.spawn(wait_signal, "SIGTERM", "SIGUSR1")
      fiber.sleep(0.001)
      print("end")]])
  end)
end)
