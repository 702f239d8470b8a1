-- What a wait_fd leaves alone, and how it ends when its descriptor is closed.
local ip = require "ip"
local support = require "spec.support"

local fiber, file_descriptor = ip.fiber, ip.file_descriptor
local wait_fd = fiber.wait_fd
local error_of, bound = support.error_of, support.bound

local fillers = {}

local function with_loop(fn)
  return support.with_loop(function()
    fn()
    while fillers[1] do table.remove(fillers):close() end
  end)
end

local on_linux = support.descriptors() ~= nil
local it_linux = on_linux and it or pending

-- The fields of /proc/self/fdinfo.
local function flags_of(number)
  for line in io.lines(("/proc/self/fdinfo/%d"):format(number)) do
    local flags = line:match("^flags:%s*(%d+)")
    if flags then return tonumber(flags, 8) end
  end
end

local NONBLOCK <const> = 2048

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

-- The lowest number that is free: the next file gets it.
local function next_number()
  local probe = bound()
  local number = probe.native_handle
  probe:close()
  return number
end

-- A FIFO: reading end, its number, writing end. Others than this library own both.
local function fifo()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkfifo " .. path))
  local keeper = assert(io.open(path, "r+"))
  local number = next_number()
  local reader, writer = assert(io.open(path, "r")), assert(io.open(path, "w"))
  writer:setvbuf("no")
  keeper:close()
  fillers[#fillers + 1] = assert(io.open("/dev/null")) -- has the number of the keeper, which is lower
  os.remove(path)
  return reader, number, writer
end

-- A fiber whose error goes to assert_canceled.
local function spawn_wait(number, events)
  return fiber.spawn(pcall, wait_fd, number, events or "r")
end

local function assert_canceled(waiting)
  local ok, err = waiting:join()
  assert.is_false(ok)
  assert.equal(ip.error.ECANCELED, err)
  assert.equal("wait_fd", err.operation)
end

local function assert_ready(waiting)
  local ok, events = waiting:join()
  assert.is_true(ok)
  assert.equal("r", events)
end

-- Makes an owner of a descriptor; returns the number, and what closes it.
local owners = {
  ["by a socket's close"] = function()
    local sock = bound()
    return sock.native_handle, function() sock:close() end
  end,
  ["by the end of a socket's <close> variable"] = function()
    local sock = bound()
    return sock.native_handle, function() local _ <close> = sock end
  end,
  ["by the collection of a socket"] = function()
    local held = { bound() }
    return held[1].native_handle, function()
      held[1] = nil
      collectgarbage()
      collectgarbage()
    end
  end,
  ["by close of what a socket has released"] = function()
    local sock = bound()
    return sock.native_handle, function() sock:release():close() end
  end,
  ["by the end of an ip.file_descriptor's <close> variable"] = function()
    local fd = bound():release()
    return tonumber(tostring(fd):match("%d+")), function() local _ <close> = fd end
  end,
  ["by the collection of an ip.file_descriptor"] = function()
    local held = { bound():release() }
    return tonumber(tostring(held[1]):match("%d+")), function()
      held[1] = nil
      collectgarbage()
      collectgarbage()
    end
  end,
}

describe("a wait for a descriptor that is closed", function()
  for how, make in pairs(owners) do
    it(how .. " ends with ECANCELED", with_loop(function()
      for _, yields in ipairs { 0, 1, 3 } do -- before the loop polls, and after
        local number, close = make()
        local waiting = {}
        for i, events in ipairs { "r", "r" } do
          waiting[i] = spawn_wait(number, events)
        end
        fiber.yield()
        for _ = 1, yields do fiber.sleep(0) end
        close()
        for _, each in ipairs(waiting) do assert_canceled(each) end
      end
    end))
  end

  it("ends in the iteration in which it has begun", with_loop(function()
    local sock = bound()
    local waiting = spawn_wait(sock.native_handle)
    fiber.spawn(sock.close, sock)
    assert_canceled(waiting)
  end))

  it("leaves waits for other descriptors alone", with_loop(function()
    local sock, other = bound(), bound()
    local waiting, others = spawn_wait(sock.native_handle), spawn_wait(other.native_handle)
    fiber.yield()
    sock:close()
    assert_canceled(waiting)
    assert.equal("waiting", others.status)
    bound():send_to("x", "127.0.0.1", other.local_port)
    assert_ready(others)
    other:close()
  end))

  it("ends when the number is given to a new socket, for then others have closed it", with_loop(function()
    local sock = bound()
    local number = sock:release():release()
    local waiting = spawn_wait(number)
    fiber.sleep(0)
    local reader = assert(io.open("/dev/null")) -- so that the next file is not the first one
    file_descriptor.new(number) -- two owners of one number: the second is a library of others
    local other = file_descriptor.new(number)
    other:close()
    assert_canceled(waiting)
    reader:close()
  end))

  it_linux("by others neither aborts nor spins, and the next wait for the number ends it", with_loop(function()
    local reader, number, writer = fifo()
    local first = spawn_wait(number)
    fiber.yield()
    reader:close() -- before the loop polls
    fiber.sleep(0)
    assert.equal("waiting", first.status)
    assert.equal(ip.error.EBADF, error_of(wait_fd, number, "r"))
    assert_canceled(first)
    writer:close()
  end))

  it_linux("by others ends when the number means another file", with_loop(function()
    local reader, number, writer = fifo()
    local first = spawn_wait(number)
    fiber.sleep(0)
    reader:close()
    local sock, port = bound()
    assert.equal(number, sock.native_handle)
    assert_canceled(first)
    local second = spawn_wait(number)
    fiber.sleep(0)
    bound():send_to("x", "127.0.0.1", port)
    assert_ready(second)
    sock:close()
    writer:close()
  end))

  it_linux("by others, with a duplicate that lives on, costs no time", with_loop(function()
    local reader, number, writer = fifo()
    local borrowed = file_descriptor.new(number)
    local copy <close> = borrowed:dup()
    borrowed:release()
    local waiting = spawn_wait(number)
    fiber.sleep(0)
    reader:close() -- epoll keeps the file as long as its description lives
    writer:write("x")
    fiber.sleep(0)
    if waiting.status == "waiting" then waiting:interrupt() end
    waiting:join()
    local start = os.clock()
    fiber.sleep(0.1)
    assert.is_true(os.clock() - start < 0.05)
    assert.is_not_nil(copy)
    writer:close()
  end))

  it_linux("by others, with a duplicate that gets the number again, is no obstacle to the next", with_loop(function()
    local reader, number, writer = fifo()
    local borrowed = file_descriptor.new(number)
    local copy = borrowed:dup()
    borrowed:release()
    local waiting = spawn_wait(number)
    fiber.sleep(0)
    reader:close()
    local again = copy:dup() -- the same description under the same number, which epoll still has
    assert.equal("/dev/fd/" .. number, tostring(again))
    assert_canceled(waiting)
    writer:write("x")
    assert.equal("r", wait_fd(number, "r"))
    for _, each in ipairs { copy, again, writer } do each:close() end
  end))
end)

describe("waiting for a descriptor", function()
  it("keeps no socket from waiting itself, whoever is first", with_loop(function()
    local sock, port = bound()
    local client = ip.udp.connect("127.0.0.1", port)
    for _, order in ipairs { { "wait_fd", "receive" }, { "receive", "wait_fd" } } do
      local running = {}
      for _, what in ipairs(order) do
        running[what] = what == "wait_fd" and spawn_wait(sock.native_handle)
          or fiber.spawn(sock.receive_string, sock)
        fiber.sleep(0)
      end
      client:send("x")
      assert_ready(running.wait_fd)
      assert.equal("x", (running.receive:join()))
    end
    sock:close()
    client:close()
  end))

  it("leaves a socket its ears that has waited before", with_loop(function()
    local sock, port = bound()
    local client = ip.udp.connect("127.0.0.1", port)
    local first = fiber.spawn(sock.receive_string, sock)
    fiber.yield()
    client:send("1")
    first:join()
    client:send("2")
    fiber.sleep(0.005) -- the event meets nobody
    assert.equal("2", (sock:receive_string()))
    local waiting = spawn_wait(sock.native_handle)
    local receiving = fiber.spawn(fiber.with_timeout, 5, sock.receive_string, sock)
    fiber.sleep(0)
    client:send("3")
    assert_ready(waiting)
    assert.equal("3", (receiving:join()))
    sock:close()
    client:close()
  end))

  it_linux("changes nothing of the open file that others may share", with_loop(function()
    local reader, number, writer = fifo()
    local before = flags_of(number)
    assert.equal(0, before & NONBLOCK)
    local waiting = { spawn_wait(number), spawn_wait(number) }
    fiber.sleep(0)
    assert.equal(before, flags_of(number))
    writer:write("x")
    for _, each in ipairs(waiting) do assert_ready(each) end
    assert.equal(before, flags_of(number))
    reader:close()
    writer:close()
  end))

  it("keeps no port in use after its socket is closed", with_loop(function()
    local sock, port = bound()
    local receiving = fiber.spawn(pcall, sock.receive_string, sock)
    fiber.sleep(0)
    local waiting = spawn_wait(sock.native_handle)
    fiber.sleep(0)
    sock:close()
    ip.udp.bind("127.0.0.1", port):close()
    assert_canceled(waiting)
    assert.equal(ip.error.ECANCELED, select(2, receiving:join()))
  end))

  it_linux("keeps no pipe open: the other side hears of its end", function()
    local output = support.run_program([[
      local ip = require "ip"
      local fiber = ip.fiber
      local function open_numbers()
        local numbers = {}
        for number = 0, 50 do
          local ok, fd = pcall(ip.file_descriptor.new, number)
          numbers[number] = ok or nil
          if ok then fd:release() end
        end
        return numbers
      end
      pcall(fiber.wait_fd, 1000000, "r")
      local before = open_numbers()
      local pipe = io.popen("cat; echo ended >&2", "w")
      local number
      for each in pairs(open_numbers()) do
        if not before[each] then number = each end
      end
      fiber.spawn(fiber.wait_fd, number, "r"):detach()
      fiber.spawn(fiber.wait_fd, number, "r"):detach()
      fiber.sleep(0)
      pipe:close() -- waits for cat, which waits for the end of its input
    ]])
    assert.equal("ended\n", output)
  end)

  it_linux("raises what the system says when it cannot watch, and a socket's wait does", function()
    local build = os.getenv("LUA_IP_BUILD")
    local library = build and build .. "/failing_epoll.so"
    if (os.getenv("LUA_IP_MODE") or "plain") ~= "plain" or not library or not exists(library) then
      return pending("needs a plain build with IP_HOST_PROGRAMS")
    end
    local switch = os.tmpname()
    os.remove(switch)
    local output = support.run_program(([[
      local ip = require "ip"
      local fiber, path = ip.fiber, "%s"
      local function fail_with(number)
        if number == nil then return os.remove(path) end
        local file = assert(io.open(path, "w"))
        file:write(number)
        file:close()
      end
      local sock = ip.udp.bind("127.0.0.1", 0)
      local client = ip.udp.connect("127.0.0.1", sock.local_port)
      local span = ip.byte_span.new(10)
      local function try(...)
        local ok, err = pcall(...)
        print(ok, (tostring(err):gsub("'" .. sock.native_handle .. "'", "'NUMBER'")))
      end
      for _, number in ipairs { 28, 12 } do
        fail_with(number)
        try(fiber.wait_fd, sock.native_handle, "r") -- the first makes the library's own epoll
        try(sock.receive, sock, span)
        fail_with(nil)
        try(fiber.with_timeout, 0.01, fiber.wait_fd, sock.native_handle, "r")
        local receiving = fiber.spawn(try, sock.receive, sock, span)
        fiber.spawn(fail_with, number) -- after the receive has begun, before the loop polls
        receiving:join()
        try(fiber.wait_fd, sock.native_handle, "r")
        fail_with(nil)
        client:send("x")
        try(sock.receive, sock, span)
      end
      ip.udp.socket.new()
    ]]):format(switch), "", ("export LD_PRELOAD=%s FAILING_EPOLL=%s"):format(library, switch))
    os.remove(switch)
    local round = [[
false	wait_fd 'NUMBER': ERROR
false	receive: ERROR
false	with_timeout: connection timed out (ETIMEDOUT)
false	receive: ERROR
false	wait_fd 'NUMBER': ERROR
true	1
]]
    local no_space = round:gsub("ERROR", "no space left on device (ENOSPC)"):gsub(" 'NUMBER'", "", 1)
    local no_memory = round:gsub("ERROR", "not enough memory (ENOMEM)")
    assert.equal(no_space .. no_memory, output)
  end)
end)
