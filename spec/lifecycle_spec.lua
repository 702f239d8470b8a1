-- What is promised about the beginning and the end of programs: whatever is pending, states close cleanly, and Ctrl-C
-- ends a program that is blocked in the library. Everything here runs in processes of its own.
local assertions = require "spec.support.assertions"
local support = require "spec.support"

local assert_contains = assertions.assert_contains
local interpreter = os.getenv("LUA_IP_LUA") or "lua5.4"
local preloaded = os.getenv("LD_PRELOAD") or ""

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

local function read_all(command)
  local pipe = assert(io.popen(command))
  local output = pipe:read("a")
  local _, how, code = pipe:close()
  return output, how == "signal" and 128 + code or code
end

local function write_program(program)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(program)
  file:close()
  return path
end

-- Runs `program` with `prefix` (shell text) before the interpreter's name.
local function run_with(prefix, program)
  local path = write_program(program)
  local output, code = read_all(("%s %s %s 2>&1"):format(prefix, interpreter, path))
  os.remove(path)
  return output, code
end

-- What the programs start with: two sockets, fibers and coroutines that wait in everything there is to wait in.
local prologue = [[
local ip = require "ip"
local fiber = ip.fiber
local sock = ip.udp.bind("127.0.0.1", 0)
local port = sock.local_port
local buffer = ip.byte_span.new(100)
io.stdout:setvbuf("no")

local function leave_everything_waiting()
  local target = fiber.spawn(fiber.sleep, math.huge)
  fiber.spawn(function() sock:receive_from(buffer) end)
  fiber.spawn(function() sock:receive_string() end)
  fiber.spawn(fiber.sleep, 100)
  fiber.spawn(target.join, target)
  fiber.spawn(fiber.with_timeout, 100, fiber.sleep, 50)
  fiber.spawn(fiber.with_timeout, 100, sock.receive, sock, buffer)
  fiber.spawn(fiber.shield, sock.receive, sock, buffer)
  fiber.spawn(function() while true do coroutine.yield() end end)
  fiber.spawn(function() while true do fiber.yield() end end):detach()
  coroutine.wrap(function() sock:receive_from(buffer) end)()
  coroutine.wrap(function() fiber.with_timeout(100, sock.receive_from, sock, buffer) end)()
  GLOBAL = ip.udp.bind("127.0.0.1", 0)
  debug.getregistry()["a spec's socket"] = ip.udp.bind("::1", 0)
  local timed = ip.udp.bind("127.0.0.1", 0)
  timed.receive_timeout = 100
  INSIDE = coroutine.create(function()
    local held = ip.udp.bind("127.0.0.1", 0)
    coroutine.yield()
    held:close()
  end)
  coroutine.resume(INSIDE)
  fiber.spawn(function() timed:receive_string() end)
  fiber.spawn(function() error "never started" end)
end
]]

-- One way to end after the other; `expected` is what is printed, `code` the exit code.
local endings = {
  {
    name = "the end of the main chunk, everything still waiting",
    program = [[
      leave_everything_waiting()
      fiber.yield()
      fiber.sleep(0.002)
      print "end"
    ]],
    ignores_stderr = true,
    expected = "end\n",
    code = 0,
  },
  {
    name = "the end of the main chunk before any fiber has started",
    program = [[
      leave_everything_waiting()
      print "end"
    ]],
    expected = "end\n",
    code = 0,
  },
  {
    name = "the end of a program that did nothing with the library",
    program = [[print "end"]],
    expected = "end\n",
    code = 0,
  },
  {
    name = "os.exit(true, true) on the main thread",
    program = [[
      leave_everything_waiting()
      fiber.yield()
      print "end"
      os.exit(true, true)
    ]],
    ignores_stderr = true,
    expected = "end\n",
    code = 0,
  },
  {
    name = "os.exit(3, true) inside a fiber, with others waiting",
    program = [[
      leave_everything_waiting()
      fiber.spawn(function()
        fiber.sleep(0.002)
        print "end"
        os.exit(3, true)
      end)
      sock:receive_string()
    ]],
    ignores_stderr = true,
    expected = "end\n",
    code = 3,
  },
  {
    name = "os.exit(3, true) inside a fiber that fiber.run drives",
    program = [[
      leave_everything_waiting()
      fiber.run(function()
        fiber.yield()
        print "end"
        os.exit(3, true)
      end)
    ]],
    ignores_stderr = true,
    expected = "end\n",
    code = 3,
  },
  {
    name = "os.exit(3, true) inside a fiber that was just woken by a datagram",
    program = [[
      fiber.spawn(function()
        local text = sock:receive_string()
        print(text)
        os.exit(3, true)
      end)
      fiber.spawn(function() sock:receive_string() end)
      fiber.yield()
      sock:send_to("end", "127.0.0.1", port)
      fiber.run()
    ]],
    expected = "end\n",
    code = 3,
  },
  {
    name = "os.exit(3, true) inside with_timeout, shield and a <close> variable of a fiber",
    program = [[
      leave_everything_waiting()
      fiber.run(fiber.with_timeout, 10, fiber.shield, function()
        local guard <close> = setmetatable({}, {__close = function() print "closed" end})
        local held <close> = ip.udp.bind("127.0.0.1", 0)
        fiber.yield()
        print "end"
        os.exit(3, true)
      end)
    ]],
    ignores_stderr = true,
    expected = "end\n",
    code = 3,
  },
  {
    name = "os.exit(3, true) inside a coroutine made by others that the library has resumed",
    program = [[
      leave_everything_waiting()
      coroutine.wrap(function()
        fiber.sleep(0.002)
        print "end"
        os.exit(3, true)
      end)()
      fiber.run()
    ]],
    ignores_stderr = true,
    expected = "end\n",
    code = 3,
  },
  {
    name = "os.exit(3, true) inside a coroutine that the program has resumed itself",
    program = [[
      leave_everything_waiting()
      coroutine.wrap(function()
        print "end"
        os.exit(3, true)
      end)()
    ]],
    expected = "end\n",
    code = 3,
  },
  {
    name = "os.exit(3, true) inside the on_error handler",
    program = [[
      leave_everything_waiting()
      fiber.on_error(function()
        print "end"
        os.exit(3, true)
      end)
      fiber.spawn(error, "failure")
      fiber.run()
    ]],
    expected = "end\n",
    code = 3,
  },
  {
    name = "os.exit(3, false), with everything waiting",
    program = [[
      leave_everything_waiting()
      fiber.yield()
      print "end"
      os.exit(3, false)
    ]],
    ignores_stderr = true,
    expected = "end\n",
    code = 3,
  },
  {
    name = "an error in the main chunk, with everything waiting",
    program = [[
      leave_everything_waiting()
      fiber.yield()
      print "end"
      error "the failure"
    ]],
    ignores_stderr = true,
    expected = "end\n",
    stderr = "the failure",
    code = 1,
  },
  {
    name = "a closed state inside a running drive: objects of the library in finalizers",
    program = [[
      leave_everything_waiting()
      FINAL = setmetatable({}, {__gc = function()
        print(sock.is_open, pcall(sock.close, sock))
        for _, call in ipairs { fiber.yield, fiber.run, sock.receive_string } do pcall(call, sock, 1) end
      end})
      fiber.run(function() os.exit(3, true) end)
    ]],
    ignores_stderr = true,
    expected = "true\ttrue\n",
    code = 3,
  },
}

describe("the end of a state", function()
  for _, ending in ipairs(endings) do
    it("is clean: " .. ending.name, function()
      local path = write_program(prologue .. ending.program)
      local errors = os.tmpname()
      local output, code = read_all(("%s %s 2>%s"):format(interpreter, path, errors))
      local file = assert(io.open(errors))
      local stderr = file:read("a")
      file:close()
      os.remove(path)
      os.remove(errors)
      assert.equal(ending.expected, output, stderr)
      assert.equal(ending.code, code, stderr)
      if ending.stderr then assert_contains(stderr, ending.stderr) end
      if not ending.ignores_stderr then assert.equal("", stderr) end
    end)
  end

  it("resumes no fiber: nothing runs after the end of the main chunk", function()
    local output, code = support.run_program(prologue .. [[
      fiber.spawn(function()
        local guard <close> = setmetatable({}, {__close = function() print "closed" end})
        fiber.sleep(0)
        print "resumed"
      end)
      fiber.spawn(function()
        sock:receive_string()
        print "received"
      end)
      fiber.yield()
      sock:send_to("x", "127.0.0.1", port)
    ]])
    assert.equal("", output)
    assert.equal(0, code)
  end)

  it("is not held up by a finalizer that would wait, and resumes no fiber for it", function()
    local output, code = support.run_program(prologue .. [[
      fiber.spawn(function()
        fiber.sleep(0)
        print "resumed"
      end)
      FINAL = setmetatable({}, { __gc = function()
        if collectgarbage("count") then return end -- Lua before 5.4.4 does not tell that a finalizer runs
        pcall(fiber.sleep, 0.001)
        pcall(fiber.run)
        pcall(ip.udp.bind("127.0.0.1", 0).receive_string, GLOBAL)
      end })
      GLOBAL = ip.udp.bind("127.0.0.1", 0)
    ]])
    assert.equal("", output)
    assert.equal(0, code)
  end)

  it("leaves what is older than the library a refusal, and no crash", function()
    local output, code = support.run_program [[
      OLDER = setmetatable({}, { __gc = function()
        local function try(name, fn, ...)
          local ok, err = pcall(fn, ...)
          print(name, ok and "ok" or tostring(err):match("runtime is closed") or tostring(err):match("EBADF") or err)
        end
        try("new", ip.udp.socket.new)
        try("bind", ip.udp.bind, "127.0.0.1", 0)
        try("spawn", ip.fiber.spawn, print)
        try("sleep", ip.fiber.sleep, 0)
        try("yield", ip.fiber.yield)
        try("run", ip.fiber.run)
        try("run fn", ip.fiber.run, print)
        try("with_timeout", ip.fiber.with_timeout, 1, print)
        try("join", FIBER.join, FIBER)
        try("receive", SOCK.receive_string, SOCK)
        try("send", SOCK.send_to, SOCK, "x", "127.0.0.1", 9)
        try("close", SOCK.close, SOCK)
        try("interrupt", FIBER.interrupt, FIBER)
        try("detach", FIBER.detach, FIBER)
        try("status", function() return FIBER.status .. tostring(FIBER) .. tostring(SOCK) end)
        try("error", function() return tostring(ip.error.EINVAL) .. ip.error.EINVAL.name end)
        try("span", function() return tostring(ip.byte_span.new(4)) end)
        try("address", function() return tostring(ip.address.new("::1")) end)
        collectgarbage()
      end })
      ip = require "ip"
      SOCK = ip.udp.bind("127.0.0.1", 0)
      FIBER = ip.fiber.spawn(function() SOCK:receive_string() end)
      ip.fiber.yield()
    ]]
    local expected = {}
    for _, name in ipairs { "new", "bind", "spawn", "sleep", "yield", "run", "run fn", "with_timeout", "join" } do
      expected[#expected + 1] = name .. "\truntime is closed\n"
    end
    expected[#expected + 1] = "receive\tEBADF\nsend\tEBADF\nclose\tok\ninterrupt\tok\ndetach\tok\nstatus\tok\n"
    expected[#expected + 1] = "error\tok\nspan\tok\naddress\tok\n"
    assert.equal(table.concat(expected), output)
    assert.equal(0, code)
  end)

  it("refuses what is older than the library also when that was never used", function()
    local output, code = support.run_program [[
      OLDER = setmetatable({}, { __gc = function() print(pcall(ip.udp.bind, "127.0.0.1", 0)) end })
      ip = require "ip"
    ]]
    assert_contains(output, "runtime is closed")
    assert.equal(0, code)
  end)

  it("outlives finalizers that make sockets, fibers and spans while it happens", function()
    local output, code = support.run_program(prologue .. [[
      leave_everything_waiting()
      for i = 1, 5 do
        _G["FINAL" .. i] = setmetatable({}, { __gc = function()
          local other = ip.udp.bind("127.0.0.1", 0)
          other:send_to("x", "127.0.0.1", other.local_port)
          assert(other:try_receive(buffer) == 1)
          fiber.spawn(print, "never runs")
          KEPT = { KEPT, other, ip.byte_span.new(100) }
        end })
      end
      print "end"
    ]])
    assert.equal("end\n", output)
    assert.equal(0, code)
  end)

  it("outlives a finalizer that closes everything in the wrong order", function()
    local output, code = support.run_program(prologue .. [[
      leave_everything_waiting()
      FINAL = setmetatable({}, { __gc = function()
        GLOBAL:close()
        sock:close()
        sock:close()
        coroutine.close(INSIDE)
        print "finalized"
      end })
    ]])
    assert.equal("finalized\n", output)
    assert.equal(0, code)
  end)
end)

describe("the library required again after package.loaded was cleared", function()
  it("works, and what the first one made works on", function()
    local output, code = support.run_program [[
      local first = require "ip"
      local a = first.udp.bind("127.0.0.1", 0)
      local waiting = first.fiber.spawn(function() return (a:receive_string()) end)
      first.fiber.yield()
      for name in pairs(package.loaded) do
        if name == "byte_span" or name:match("^ip%f[%z.]") then package.loaded[name] = nil end
      end
      local second = require "ip"
      local b = second.udp.bind("127.0.0.1", 0)
      local also_waiting = second.fiber.spawn(function() return (b:receive_string()) end)
      second.fiber.yield()
      b:send_to("for a", "127.0.0.1", a.local_port)
      a:send_to("for b", "127.0.0.1", b.local_port)
      print(waiting:join(), also_waiting:join())
      local c = second.fiber.spawn(first.fiber.sleep, 0.001)
      collectgarbage()
      first.fiber.run()
      print(c.status)
      a:close()
      b:close()
    ]]
    assert.equal("for a\tfor b\ndone\n", output)
    assert.equal(0, code)
  end)
end)

describe("several states", function()
  it("in several processes exchange datagrams, each with its own loop", function()
    local output, code = support.run_program([[
      local interpreter = ...
      local ip = require "ip"
      local sock = ip.udp.bind("127.0.0.1", 0)
      local child = "%s -e 'local ip = require [=[ip]=] local s = ip.udp.connect([=[127.0.0.1]=], %d) "
        .. "s:send([=[%d]=]) print((s:receive_string()))'"
      local children = {}
      for i = 1, 3 do children[i] = io.popen(child:format(interpreter, sock.local_port, i)) end
      ip.fiber.with_timeout(30, function()
        for _ = 1, 3 do
          local text, address, port = sock:receive_string()
          sock:send_to("answer to " .. text, address, port)
        end
      end)
      for i = 1, 3 do print(children[i]:read("l")) end
    ]], "'" .. interpreter .. "'")
    assert.equal("answer to 1\nanswer to 2\nanswer to 3\n", output)
    assert.equal(0, code)
  end)
end)

describe("Ctrl-C", function()
  -- A child of the program sends the signal once the program sleeps in the system.
  local when_blocked = [[
    local function signal_when_blocked()
      SIGNALLER = io.popen("pid=$PPID; while ! grep -q '^State:.S' /proc/$pid/status; do :; done; kill -INT $pid")
    end
  ]]

  local function check(name, program, expect)
    it(name, function()
      if not exists("/proc/self/status") then return pending("the system does not tell the state of a process") end
      local output, code = run_with("", prologue .. when_blocked .. program)
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

  check("while Lua is busy between two calls works as it does without the library", [[
    pcall(fiber.sleep, 0.001)
    local signaller = io.popen("kill -INT $PPID")
    while true do end
  ]], is_interrupted)

  it("does what it does without the library where the program was started with SIGINT ignored", function()
    if not exists("/proc/self/status") then return pending("the system does not tell the state of a process") end
    -- the standalone interpreter installs its handler whatever it inherits
    local _, plain = run_with("trap '' INT;", [[
      local signaller = io.popen("kill -INT $PPID")
      while true do end
    ]])
    local _, blocked = run_with("trap '' INT;", prologue .. when_blocked .. [[
      signal_when_blocked()
      sock:receive_string()
    ]])
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
    local output, code = run_with("", prologue .. ignoring .. [[
      fiber.spawn(function()
        io.popen("kill -INT $PPID"):close()
        fiber.sleep(0.002)
        sock:send_to("went on", "127.0.0.1", port)
      end)
      print((sock:receive_string()))
    ]])
    assert.equal("went on\n", output)
    assert.equal(0, code)
  end)
end)

describe("valgrind", function()
  local installed = read_all("command -v valgrind || true") ~= ""
  local function check(name, program, expected_code)
    it("finds nothing wrong: " .. name, function()
      if not installed then return pending("valgrind is not installed") end
      if preloaded ~= "" then return pending("valgrind does not run what another tool watches") end
      local output, code = run_with("valgrind -q --error-exitcode=99 --leak-check=full", prologue .. program)
      assert.is_nil(output:find("==%d+=="), output)
      assert.equal(expected_code, code)
    end)
  end

  check("the end of the main chunk with everything waiting", [[
    leave_everything_waiting()
    fiber.yield()
    fiber.sleep(0.002)
  ]], 0)

  check("os.exit inside a fiber with everything waiting", [[
    leave_everything_waiting()
    fiber.run(function()
      fiber.sleep(0.002)
      os.exit(3, true)
    end)
  ]], 3)

  check("datagrams, joins, timeouts, interruption and errors", [[
    fiber.on_error(function() end)
    for round = 1, 20 do
      local echo = fiber.spawn(function()
        while true do
          local n, address, from = sock:receive_from(buffer)
          sock:send_to(buffer:slice(1, n), address, from)
        end
      end)
      local client = ip.udp.connect("127.0.0.1", port)
      for i = 1, 5 do
        client:send(tostring(i))
        assert(client:receive_string() == tostring(i))
      end
      pcall(fiber.with_timeout, 0.001, client.receive_string, client)
      fiber.spawn(error, "failure")
      echo:interrupt()
      echo:join()
      client:close()
    end
  ]], 0)
end)
