-- What a fork without exec promises: the child has a loop of its own over its inherited sockets, and the parent's is
-- untouched, whatever the child does. The program forks in a C host (spec/host/fork_host.c).

local support = require "spec.support"

local build = os.getenv("LUA_IP_BUILD")
local mode = os.getenv("LUA_IP_MODE")

local PRELUDE = [[
  local host = host
  local ip = require "ip"
  local fiber = ip.fiber
  local within = function(fn, ...) return fiber.with_timeout(20, fn, ...) end

  -- Runs fn in a child, which ends its state and then itself; returns its process id.
  local function child(fn)
    local pid = host.fork()
    if pid ~= 0 then return pid end
    local ok, err = xpcall(fn, debug.traceback)
    if not ok then io.stderr:write("child: ", tostring(err), "\n") end
    os.exit(ok and 0 or 1, true)
  end

  -- A socket that a fiber waits on: it is in the loop.
  local sock = ip.udp.bind("127.0.0.1", 0)
  local port = sock.local_port
  local function send(text)
    local sender <close> = ip.udp.connect("127.0.0.1", port)
    sender:send(text)
  end
  local function signal(name, pid) os.execute(("kill -%s %d"):format(name, pid)) end
  local function wait_in_fiber() return fiber.spawn(within, sock.receive_string, sock) end
]]

-- What is lost in a child stays in its memory until its end.
local environment = mode == "sanitize" and "ASAN_OPTIONS=detect_leaks=0:exitcode=99 " or ""

-- Runs a program in the host, on a loop of the host's where `hosted` is true; returns its output and exit code.
local function run(program, hosted)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(PRELUDE, program)
  file:close()
  local pipe = assert(io.popen(("%stimeout 100 %s/fork_host %s %s 2>&1"):format(environment, build, path,
    hosted and build .. "/ip/core.so" or "")))
  local output = pipe:read("a")
  local _, _, code = pipe:close()
  os.remove(path)
  return output, code
end

local function check(expected, program, hosted)
  return function()
    local output, code = run(program, hosted)
    assert.equal(expected, output)
    assert.equal(0, code)
  end
end

local it_forks = build and support.descriptors() and it or pending

describe("after a fork", function()
  it_forks("the parent goes on receiving when the child closes an inherited socket", check("0 after\n", [[
    local waiting = wait_in_fiber()
    fiber.sleep(0.001)
    local code = host.wait(child(function() sock:close() end))
    send("after")
    print(("%d %s"):format(code, (waiting:join())))
  ]]))

  it_forks("the parent goes on receiving when the child ends without a call", check("0 after\n", [[
    local waiting = wait_in_fiber()
    fiber.sleep(0.001)
    local code = host.wait(child(function() end))
    send("after")
    print(("%d %s"):format(code, (waiting:join())))
  ]]))

  it_forks("the child goes on receiving when the parent closes the socket", check("child after\n0\n", [[
    local waiting = wait_in_fiber()
    fiber.sleep(0.001)
    local pid = child(function() print("child " .. waiting:join()) end)
    sock:close()
    send("after")
    print(host.wait(pid))
  ]]))

  it_forks("the child receives on a socket that nobody has waited for before", check("child new\n0\n", [[
    fiber.sleep(0.001)
    local pid = child(function() print("child " .. within(sock.receive_string, sock)) end)
    send("new")
    print(host.wait(pid))
  ]]))

  it_forks("a wait that was pending is pending in both, and each datagram reaches one of them", check("0 same\n", [[
    local waiting = wait_in_fiber()
    fiber.sleep(0.001)
    local pid = child(function() assert(waiting:join() == "same") end)
    send("same")
    send("same")
    local text = waiting:join()
    print(("%d %s"):format(host.wait(pid), text))
  ]]))

  it_forks("a wait for a descriptor goes on in both", check("0 r\n", [[
    local waiting = fiber.spawn(within, fiber.wait_fd, sock.native_handle, "r")
    fiber.sleep(0.001)
    local pid = child(function() assert(waiting:join() == "r") end)
    send("for both")
    local events = waiting:join()
    print(("%d %s"):format(host.wait(pid), events))
  ]]))

  it_forks("the timers of parent and child do not touch each other", check("true true\n0\n", [[
    local asleep = fiber.spawn(function()
      local start = fiber.now()
      fiber.sleep(0.05)
      return fiber.now() - start
    end)
    fiber.sleep(0.001)
    local pid = child(function()
      assert(asleep:join() >= 0.05)
      fiber.sleep(4) -- sets the child's alarm to what is too late for the parent
    end)
    local slept = asleep:join()
    local start = fiber.now()
    for _ = 1, 20 do fiber.sleep(0.01) end
    print(("%s %s"):format(slept >= 0.05 and slept < 3, fiber.now() - start < 3))
    print(host.wait(pid))
  ]]))

  it_forks("an idle child sleeps while the parent has datagrams to read", check("0 unread\n", [[
    local waiting = fiber.spawn(pcall, sock.receive_string, sock)
    fiber.sleep(0.001)
    local code = host.wait(child(function()
      sock:close()
      send("unread")
      local used = os.clock()
      fiber.sleep(0.5)
      assert(os.clock() - used < 0.25, "spins")
    end))
    print(("%d %s"):format(code, (select(2, waiting:join()))))
  ]]))

  it_forks("the signals of the child are its own", check("child SIGUSR1\n0\nETIMEDOUT\n", [[
    pcall(fiber.with_timeout, 0.001, fiber.wait_signal, "SIGUSR1")
    local code = host.wait(child(function()
      local waiting = fiber.spawn(within, fiber.wait_signal, "SIGUSR1")
      fiber.sleep(0.001)
      signal("USR1", host.pid())
      print("child " .. waiting:join())
    end))
    print(code)
    print(select(2, pcall(fiber.with_timeout, 0.05, fiber.wait_signal, "SIGUSR1")).name)
  ]]))

  it_forks("a signal that the parent has not looked at yet is not the child's", check("0 SIGUSR1\n", [[
    pcall(fiber.with_timeout, 0.001, fiber.wait_signal, "SIGUSR1")
    signal("USR1", host.pid())
    local code = host.wait(child(function()
      local ok, err = pcall(fiber.with_timeout, 0.05, fiber.wait_signal, "SIGUSR1")
      assert(not ok and err.name == "ETIMEDOUT", "the child has got it")
    end))
    print(("%d %s"):format(code, within(fiber.wait_signal, "SIGUSR1")))
  ]]))

  it_forks("Ctrl-C ends a call of the child's main thread", check("child interrupted!\n0\n", [[
    fiber.sleep(0.001)
    print(host.wait(child(function()
      os.execute(("{ sleep 0.3; kill -INT %d; } &"):format(host.pid()))
      local ok, err = pcall(fiber.sleep, 60)
      print("child " .. tostring(err):match("interrupted!"))
    end)))
  ]]))

  it_forks("the child looks names up, whose parent did before", check("child 127.0.0.1\n0\n", [[
    within(ip.udp.get_address_v4_info, "localhost", 0)
    print(host.wait(child(function()
      print(("child %s"):format(within(ip.udp.get_address_v4_info, "localhost", 0)[1].address))
    end)))
  ]]))

  it_forks("a pending look-up ends in the child with ECANCELED, and in the parent with its result",
    check("child ECANCELED 127.0.0.1\n0 127.0.0.1\n", [[
    local looking = fiber.spawn(within, ip.udp.get_address_v4_info, "slow.test", 0)
    fiber.sleep(0.001)
    local code = host.wait(child(function()
      local ok, err = pcall(looking.join, looking)
      print(("child %s %s"):format(err.name, within(ip.udp.get_address_v4_info, "localhost", 0)[1].address))
    end))
    print(("%d %s"):format(code, looking:join()[1].address))
  ]]))

  it_forks("a child with pending and cancelled look-ups of its parent's ends at once", check("0 true\n", [[
    local names = { "slow.test", "slow.test", "slow.test" }
    for i, name in ipairs(names) do names[i] = fiber.spawn(within, ip.udp.get_address_v4_info, name, 0) end
    fiber.sleep(0.001)
    names[1]:interrupt()
    fiber.yield()
    local start = fiber.now()
    local code = host.wait(child(function() names[2]:interrupt() end))
    print(("%d %s"):format(code, fiber.now() - start < 1.5))
  ]]))

  it_forks("a child whose parent has looked names up may end without a call", check("0 7\n", [[
    within(ip.udp.get_address_v4_info, "localhost", 0)
    local code = host.wait(child(function() end))
    local pid = host.fork()
    if pid == 0 then os.exit(7, false) end
    print(("%d %d"):format(code, host.wait(pid)))
  ]]))

  it_forks("a library that was only loaded works in both", check("child hello\n0 hello\n", [[
    local pid = child(function()
      send("hello")
      print("child " .. within(sock.receive_string, sock))
    end)
    local code = host.wait(pid)
    send("hello")
    print(("%d %s"):format(code, (within(sock.receive_string, sock))))
  ]]))

  it_forks("a grandchild follows, too", check("grandchild deep\n0 0\n", [[
    local waiting = wait_in_fiber()
    fiber.sleep(0.001)
    local code
    local pid = child(function()
      local below = child(function() print("grandchild " .. waiting:join()) end)
      sock:close()
      os.exit(host.wait(below), true)
    end)
    sock:close()
    send("deep")
    print(("%d 0"):format(host.wait(pid)))
  ]]))

  it_forks("a fiber goes on in both", check("child once\n0 twice\n", [[
    within(fiber.run, function()
      fiber.sleep(0.001)
      local pid = host.fork()
      if pid == 0 then
        send("once")
        print("child " .. sock:receive_string())
        os.exit(0, true)
      end
      local code = host.wait(pid)
      send("twice")
      print(("%d %s"):format(code, (sock:receive_string())))
    end)
  ]]))

  it_forks("a child that cannot open its own loop raises, and leaves the parent's alone", check(
    "child EMFILE: fork the event loop\n0 after\n", [[
    local waiting = wait_in_fiber()
    fiber.sleep(0.001)
    local code = host.wait(child(function()
      host.limit(0)
      for _ = 1, 2 do
        local ok, err = pcall(fiber.sleep, 0.001)
        if _ == 1 then print(("child %s: %s"):format(err.name, err.operation)) else assert(err.name == "EMFILE") end
      end
      assert(not pcall(fiber.spawn, print))
      assert(not pcall(fiber.wait_signal, "SIGUSR1"))
      sock:close()
    end))
    send("after")
    print(("%d %s"):format(code, (waiting:join())))
  ]]))
end)

local HOSTED = [[
  local waiting = wait_in_fiber()
  fiber.spawn(function()
    fiber.sleep(0.001)
    io.stdout:flush()
    local pid = host.fork()
    if pid == 0 then
      %s
      fiber.sleep(0.01)
      sock:close()
      print("child " .. select(2, pcall(waiting.join, waiting)).name)
      return
    end
    local code = host.wait(pid)
    send("after")
    print(("%%d %%s"):format(code, (waiting:join())))
    sock:close()
  end)
]]

describe("after a fork on a host's loop", function()
  it_forks("parent and child go on by themselves", check("child ECANCELED\n0 after\n", HOSTED:format "", true))

  it_forks("the host may have called uv_loop_fork", check("child ECANCELED\n0 after\n",
    HOSTED:format "assert(host.loop_fork() == 0)", true))

  it_forks("a pending look-up keeps neither of them from ending", check("child ECANCELED\n0 127.0.0.1\n", [[
    local looking = fiber.spawn(within, ip.udp.get_address_v4_info, "slow.test", 0)
    fiber.spawn(function()
      fiber.sleep(0.001)
      local pid = host.fork()
      if pid == 0 then
        print("child " .. select(2, pcall(looking.join, looking)).name)
        return
      end
      local code = host.wait(pid)
      print(("%d %s"):format(code, looking:join()[1].address))
    end)
  ]], true))
end)
