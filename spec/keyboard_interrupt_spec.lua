-- What is promised about Ctrl-C: it ends a program that is blocked in the library. Everything here runs in processes of
-- its own.
local assertions = require "spec.support.assertions"
local hosts = require "spec.support.hosts"
local platform = require "spec.support.platform"
local support = require "spec.support"

local run_program = support.run_program


-- What the programs begin with.
local prologue = [[
  local ip = require "ip"
  local fiber = ip.fiber
  local everything = require "spec.programs.everything_waiting"
  local sock, port, buffer = everything.sock, everything.sock.local_port, everything.buffer
  local leave_everything_waiting = everything.leave_waiting
]]

describe("Ctrl-C", function()
  -- A child of the program sends the signal once the program sleeps in the system.
  local when_blocked = [[
    local function signal_when_blocked()
      SIGNALLER = io.popen("pid=$PPID; while ! grep -q '^State:.S' /proc/$pid/status; do :; done; kill -INT $pid")
    end
  ]]

  local function check(name, program, expect)
    it(name, function()
      if not platform.is_linux then return pending("the system does not tell the state of a process") end
      local output, code = run_program(prologue .. when_blocked .. program)
      expect(output, code)
    end)
  end

  local function is_interrupted(output, code)
    assert.is_truthy(output:match("^[^\n]*: [^\n]*interrupted!\nstack traceback:\n"), output)
    assert.equal(1, code)
  end

  check("ends a script that is blocked in receive", [[
    signal_when_blocked()
    sock:receive_string()
  ]], is_interrupted)

  -- The hook sends the signal when the call has begun; the hook that the interpreter's handler sets then waits for the
  -- next instruction, which comes after the call. Nothing has made the library watch for signals before.
  local when_called = [[
    local function signal_when_called(called)
      debug.sethook(function()
        if debug.getinfo(2, "f").func ~= called then return end
        debug.sethook()
        io.popen("kill -INT $PPID"):close()
      end, "c")
    end
  ]]

  for called, call in pairs {
    ["fiber.sleep"] = "fiber.sleep(100)",
    ["fiber.run"] = "fiber.run()",
    ["sock.receive_string"] = "sock:receive_string()",
    ["fiber.loop.step"] = "fiber.loop:step(100)",
  } do
    check("ends a script that gets it at the beginning of " .. call, when_called .. ([[
      fiber.spawn(fiber.sleep, 100)
      signal_when_called(%s)
      %s
    ]]):format(called, call), is_interrupted)
  end

  check("that a script caught in a step lets later steps block, with spin, too", [[
    fiber.loop.spin = 0.0001
    fiber.spawn(fiber.sleep, 100)
    fiber.loop:step()
    signal_when_blocked()
    print(pcall(function() while fiber.loop:step(100) do end end))
    local start = fiber.now()
    for _ = 1, 4 do fiber.loop:step(0.01) end
    print(fiber.now() - start >= 0.03)
  ]], function(output, code)
    assert.is_truthy(output:match("^false\t[^\n]*interrupted!\ntrue\n$"), output)
    assert.equal(0, code)
  end)

  check("ends a script that is blocked in sleep", [[
    signal_when_blocked()
    fiber.sleep(100)
  ]], is_interrupted)

  check("ends a script that is blocked in fiber.run with waiting fibers", [[
    fiber.spawn(function() sock:receive_string() end)
    fiber.spawn(fiber.sleep, 100)
    signal_when_blocked()
    fiber.run()
  ]], is_interrupted)

  check("ends a script that is blocked in fiber.run with a function", [[
    signal_when_blocked()
    fiber.run(function() sock:receive_string() end)
  ]], is_interrupted)

  check("ends a script that is blocked in join, inside with_timeout", [[
    local one = fiber.spawn(fiber.sleep, 100)
    signal_when_blocked()
    fiber.with_timeout(200, one.join, one)
  ]], is_interrupted)

  check("ends a script whose fibers are busy, if they yield", [[
    local signaller = io.popen("read line; kill -INT $PPID", "w")
    local rounds = 0
    fiber.run(function()
      while true do
        rounds = rounds + 1
        if rounds == 10 then
          signaller:write("go\n")
          signaller:flush()
        end
        fiber.yield()
      end
    end)
  ]], is_interrupted)

  check("ends a script that floods a socket on the main thread", [[
    local signaller = io.popen("read line; kill -INT $PPID", "w")
    local rounds = 0
    while true do
      rounds = rounds + 1
      if rounds == 10 then
        signaller:write("go\n")
        signaller:flush()
      end
      sock:send_to("x", "127.0.0.1", port)
      sock:receive_from(buffer)
    end
  ]], is_interrupted)

  check("raises an error that the script may catch, and the library goes on", [[
    signal_when_blocked()
    print(pcall(sock.receive_string, sock))
    sock:send_to("still there", "127.0.0.1", port)
    print((sock:receive_string()))
    fiber.sleep(0.001)
    print(fiber.run(function() return "fibers too" end))
  ]], function(output, code)
    assert.is_truthy(output:match("^false\t[^\n]*interrupted!\nstill there\nfibers too\n$"), output)
    assert.equal(0, code)
  end)

  check("leaves the fibers waiting when the main thread catches it", [[
    local waiting = fiber.spawn(function() return (sock:receive_string()) end)
    signal_when_blocked()
    print(pcall(fiber.run))
    print(waiting.status)
    sock:send_to("for the fiber", "127.0.0.1", port)
    print(waiting:join())
  ]], function(output, code)
    assert.is_truthy(output:match("^false\t[^\n]*interrupted!\nwaiting\nfor the fiber\n$"), output)
    assert.equal(0, code)
  end)

  check("a second time ends the process at once, as under plain lua", [[
    signal_when_blocked()
    print(pcall(fiber.sleep, 100))
    SIGNALLER:close()
    signal_when_blocked()
    fiber.sleep(100)
    print "not reached"
  ]], function(output, code)
    assert.is_truthy(output:match("^false\t[^\n]*interrupted!\n$"), output)
    assert.equal(128 + 2, code) -- killed by signal 2
  end)

  local chained = [[
    package.cpath = package.cpath .. ";" .. os.getenv("LUA_IP_BUILD") .. "/?.so"
    local install = require "chained_handler"
  ]]

  hosts.it("chained_handler.so")("runs a handler that was installed between two waits once, and those before it",
    function()
      assertions.assert_prints("false\ttrue\n1\n", prologue .. chained .. when_blocked .. [[
        fiber.sleep(0.001)
        local runs = install()
        signal_when_blocked()
        local ok, err = pcall(sock.receive_string, sock)
        print(ok, tostring(err):find("interrupted!") ~= nil)
        print(runs())
      ]])
    end)

  check("while Lua is busy between two calls works as it does without the library", [[
    pcall(fiber.sleep, 0.001)
    local signaller = io.popen("kill -INT $PPID")
    while true do end
  ]], is_interrupted)

  it("does what it does without the library where the program was started with SIGINT ignored", function()
    if not platform.is_linux then return pending("the system does not tell the state of a process") end
    -- the standalone interpreter installs its handler whatever it inherits
    local _, plain = run_program([[
      local signaller = io.popen("kill -INT $PPID")
      while true do end
    ]], nil, "trap '' INT")
    local _, blocked = run_program(prologue .. when_blocked .. [[
      signal_when_blocked()
      sock:receive_string()
    ]], nil, "trap '' INT")
    assert.equal(plain, blocked)
  end)

  it("ignored by the process while it waits stays ignored", function()
    -- what others offer for it: Lua has nothing, and the standalone interpreter installs its handler in any case
    local ignoring
    if pcall(require, "cqueues.signal") then
      ignoring = [[ local signal = require "cqueues.signal" signal.ignore(signal.SIGINT) ]]
    elseif pcall(require, "posix.signal") then
      ignoring = [[ local signal = require "posix.signal" signal.signal(signal.SIGINT, signal.SIG_IGN) ]]
    else
      return pending("neither cqueues nor luaposix, which can ignore a signal, is installed")
    end
    assertions.assert_prints("went on\n", prologue .. ignoring .. [[
      fiber.spawn(function()
        io.popen("kill -INT $PPID"):close()
        fiber.sleep(0.002)
        sock:send_to("went on", "127.0.0.1", port)
      end)
      print((sock:receive_string()))
    ]])
  end)
end)
