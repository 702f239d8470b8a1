-- What is promised about the beginning and the end of programs: whatever is pending, states close cleanly. Everything
-- here runs in processes of its own.
local assertions = require "spec.support.assertions"
local platform = require "spec.support.platform"
local support = require "spec.support"
local trace = require "spec.support.trace"

local assert_contains, assert_prints = assertions.assert_contains, assertions.assert_prints

-- What the programs begin with.
local prologue = [[
  local ip = require "ip"
  local fiber = ip.fiber
  local everything = require "spec.programs.everything_waiting"
  local sock, port, buffer = everything.sock, everything.sock.local_port, everything.buffer
  local leave_everything_waiting = everything.leave_waiting
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
      local path = support.write_file(prologue .. ending.program)
      local errors = os.tmpname()
      local output, code = support.read_command(("%s %s 2>%s"):format(support.interpreter, path, errors))
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
    assert_prints("", prologue .. [[
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
  end)

  it("is not held up by a finalizer that would wait, and resumes no fiber for it", function()
    assert_prints("", prologue .. [[
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
  end)

  it("leaves what is older than the library a refusal, and no crash", function()
    local expected = {}
    for _, name in ipairs { "new", "bind", "spawn", "sleep", "yield", "run", "run fn", "with_timeout", "join" } do
      expected[#expected + 1] = name .. "\truntime is closed\n"
    end
    expected[#expected + 1] = "receive\tEBADF\nsend\tEBADF\nclose\tok\ninterrupt\tok\ndetach\tok\nstatus\tok\n"
    expected[#expected + 1] = "error\tok\nspan\tok\naddress\tok\n"
    assert_prints(table.concat(expected), [[
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
    ]])
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
    assert_prints("end\n", prologue .. [[
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
  end)

  it("outlives a finalizer that closes everything in the wrong order", function()
    assert_prints("finalized\n", prologue .. [[
      leave_everything_waiting()
      FINAL = setmetatable({}, { __gc = function()
        GLOBAL:close()
        sock:close()
        sock:close()
        coroutine.close(INSIDE)
        print "finalized"
      end })
    ]])
  end)
end)

describe("the library required again after package.loaded was cleared", function()
  it("works, and what the first one made works on", function()
    assert_prints("for a\tfor b\ndone\n", [[
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
    ]])
  end)
end)

describe("several states", function()
  it("in several processes exchange datagrams, each with its own loop", function()
    assert_prints("answer to 1\nanswer to 2\nanswer to 3\n", [[
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
    ]], "'" .. support.interpreter .. "'")
  end)
end)

describe("valgrind", function()
  local it_checked = platform.it_where(platform.has_valgrind(), "valgrind, and no other tool")

  local function check(name, program, expected_code)
    it_checked("finds nothing wrong: " .. name, function()
      local output, code = trace.run_under("valgrind -q --error-exitcode=99 --leak-check=full", prologue .. program)
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
