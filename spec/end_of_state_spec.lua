-- What is promised when a state ends while calls are pending: objects that are older than the library may touch what it
-- has left, and the end costs no time of the processor.
local network = require "spec.support.network"
local support = require "spec.support"

-- A finalizer that runs after the library's own closes the coroutines that wait, and calls the library again.
local OLDER = [[
  local waiting, last = {}, nil
  Older = setmetatable({}, { __gc = function()
    for _, each in ipairs(waiting) do
      print(coroutine.status(each), coroutine.close(each))
    end
    print(pcall(last))
  end })
  local ip = require "ip"
  local fiber = ip.fiber
  local function wait(fn, ...)
    local co = coroutine.create(fn)
    waiting[#waiting + 1] = co
    assert(coroutine.resume(co, ...))
  end
  local function wait_thrice(fn, ...)
    local arguments = table.pack(...)
    wait(fn, ...)
    wait(fiber.with_timeout, 5, fn, ...)
    wait(function() pcall(fn, table.unpack(arguments, 1, arguments.n)) end)
  end
]]

local calls = {
  ["wait_fd"] = [[
    local sock, fd = ip.udp.bind("127.0.0.1", 0), ip.udp.bind("127.0.0.1", 0):release()
    wait_thrice(fiber.wait_fd, sock.native_handle, "r")
    wait_thrice(fiber.wait_fd, fd, "r")
    wait_thrice(fiber.wait_fd, sock.native_handle, "r")
    last = function() fiber.wait_fd(0, "r") end]],
  ["a queue"] = [[
    local queue, full = fiber.queue(), fiber.queue(1)
    full:put(1)
    wait_thrice(queue.get, queue)
    wait_thrice(full.put, full, {})
    last = function() queue:get() end]],
  ["a semaphore"] = [[
    local semaphore = fiber.semaphore(0)
    wait_thrice(semaphore.acquire, semaphore)
    wait_thrice(semaphore.hold, semaphore)
    last = function() semaphore:acquire() end]],
  ["a condition"] = [[
    local condition = fiber.condition()
    wait_thrice(condition.wait, condition)
    last = function() condition:wait() end]],
  ["a group"] = [[
    local group = fiber.group()
    group:spawn(fiber.sleep, 100)
    wait_thrice(group.join, group)
    wait_thrice(function() local closing <close> = fiber.group() closing:spawn(fiber.sleep, 9) end)
    last = function() group:join() end]],
  ["wait_any"] = [[
    local sock, queue, sleeper = ip.udp.bind("127.0.0.1", 0), fiber.queue(), fiber.spawn(fiber.sleep, 100)
    local fd = ip.udp.bind("127.0.0.1", 0):release()
    wait_thrice(fiber.wait_any, sock, queue, sleeper, fd, sock.native_handle)
    wait_thrice(fiber.wait_any, { queue, sock })
    last = function() fiber.wait_any(queue, sock) end]],
  ["wait_signal"] = [[
    wait_thrice(fiber.wait_signal, "SIGUSR1", "SIGUSR2")
    last = function() fiber.wait_signal("SIGUSR1") end]],
  ["sleep"] = [[
    wait_thrice(fiber.sleep, 10)
    last = function() fiber.sleep(0) end]],
  ["a receive"] = [[
    local sock = ip.udp.bind("127.0.0.1", 0)
    wait_thrice(sock.receive_string, sock)
    wait_thrice(sock.receive, sock, ip.byte_span.new(10))
    wait_thrice(function() for _ in sock:datagrams() do end end)
    last = function() sock:receive_string() end]],
  ["a receive on a socket whose descriptor was lost"] = [[
    local sock = ip.udp.bind("127.0.0.1", 0)
    local number = sock.native_handle
    fiber.spawn(pcall, sock.receive_string, sock)
    fiber.spawn(function() ip.file_descriptor.new(number):close() end)
    fiber.run()
    wait_thrice(fiber.sleep, 10)
    last = function() sock:receive_string() end]],
  ["a look-up"] = [[
    wait_thrice(ip.udp.get_address_info, "localhost", 53)
    wait_thrice(ip.udp.get_name_info, "127.0.0.1", 53)
    last = function() ip.udp.get_address_info("localhost", 53) end]],
  ["join"] = [[
    wait_thrice(function()
      local sleeper = fiber.spawn(fiber.sleep, 10)
      sleeper:join()
    end)
    last = function() fiber.spawn(print) end]],
  ["wait_fd on a descriptor that is closed then"] = [[
    local fd = ip.udp.bind("127.0.0.1", 0):release()
    wait_thrice(fiber.wait_fd, fd, "r")
    last = function() fd:close() error("closed", 0) end]],
}

describe("an object that is older than the library, at the end of the state,", function()
  for name, call in pairs(calls) do
    it("may close coroutines that wait in " .. name, function()
      local output, code = support.run_program(OLDER .. call)
      assert.equal(0, code, output)
      local closed, refused = 0, 0
      for line in output:gmatch("[^\n]+") do
        if line == "suspended\ttrue" then closed = closed + 1 end
        if line:find("^false\t") then refused = refused + 1 end
      end
      assert.is_true(closed >= 3 and closed % 3 == 0, output)
      assert.equal(1, refused, output)
    end)
  end
end)

describe("the end of a program", function()
  it("during a look-up that was given up waits for it, and costs no time of the processor", function()
    if not network.is_permitted() then return pending("no mount and network namespaces permitted") end
    local output, code = network.run([[
      local clock, before = os.clock, nil
      Older = setmetatable({}, { __gc = function() print(clock() - before < 0.2, "ended") end })
      local ip = require "ip"
      local fiber = ip.fiber
      local name_server = require "spec.support.name_server"
      local asked = name_server.start { ["slow.test"] = { silent = true } }
      local ok, err = pcall(fiber.with_timeout, 0.05, ip.udp.get_address_info, "slow.test", 1)
      print(ok, err == ip.error.ETIMEDOUT)
      fiber.spawn(ip.udp.get_address_info, "slow.test", 1)
      while asked["slow.test"] < 2 do fiber.sleep(0.001) end
      before = clock()
    ]], { resolv = "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n" })
    assert.equal("false\ttrue\ntrue\tended\n", output)
    assert.equal(0, code)
  end)
end)
