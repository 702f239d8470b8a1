-- What ip.fiber.wait_fd promises, on FIFOs and on sockets of this library.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local places = require "spec.support.places"
local support = require "spec.support"

local fiber = ip.fiber
local wait_fd = fiber.wait_fd
local with_loop, on_main = support.with_loop, support.on_main
local error_of, bound = support.error_of, support.bound
local send = support.send
local assert_contains, assert_prints = assertions.assert_contains, assertions.assert_prints

local lfs_ok, lfs = pcall(require, "lfs")

-- The set of descriptors on a path.
local function descriptors_of(path)
  local found = {}
  for name in lfs.dir("/proc/self/fd") do
    if lfs.symlinkattributes("/proc/self/fd/" .. name, "target") == path then found[tonumber(name)] = true end
  end
  return found
end

-- Opens a file; returns it and its descriptor, which Lua does not tell but /proc does.
local function open(path, mode)
  local before = descriptors_of(path)
  local file = assert(io.open(path, mode))
  file:setvbuf("no")
  for fd in pairs(descriptors_of(path)) do
    if not before[fd] then return file, fd end
  end
  error("the descriptor was not found")
end

local function has_proc()
  local found = lfs_ok and lfs.attributes("/proc/self/fd") ~= nil
  if not found then pending("this system has no /proc/self/fd") end
  return found
end

local CAPACITY = 65536 -- of a FIFO, pipe(7)

-- A FIFO: its ends with their descriptors. Opened for both first, for which nobody has to wait.
local function fifo()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkfifo " .. path))
  local self = {}
  local keeper = assert(io.open(path, "r+"))
  self.reader, self.read_fd = open(path, "r")
  self.writer, self.write_fd = open(path, "w")
  keeper:close()
  os.remove(path)
  return setmetatable(self, { __close = function()
    self.reader:close()
    self.writer:close()
  end })
end

-- Runs `check` in a fiber, on the main thread, and in a coroutine made by others.
local function in_three_places(name, check)
  places.in_three_places(name, function()
    if has_proc() then check() end
  end)
end

describe("wait_fd", function()
  in_three_places("returns at once what is ready", function()
    local pipe <close> = fifo()
    assert.equal("w", wait_fd(pipe.write_fd, "w"))
    pipe.writer:write("x")
    assert.equal("r", wait_fd(pipe.read_fd, "r"))
    assert.equal("r", wait_fd(pipe.read_fd, "r")) -- it has read nothing
    assert.equal("x", pipe.reader:read(1))
  end)

  in_three_places("waits until there is something to read", function()
    local pipe <close> = fifo()
    local written = false
    fiber.spawn(function()
      fiber.sleep(0.003)
      written = true
      pipe.writer:write("x")
    end)
    assert.equal("r", wait_fd(pipe.read_fd, "r"))
    assert.is_true(written)
  end)

  in_three_places("waits until there is room to write", function()
    local pipe <close> = fifo()
    pipe.writer:write(("x"):rep(CAPACITY))
    local read = false
    fiber.spawn(function()
      fiber.sleep(0.003)
      read = true
      pipe.reader:read(CAPACITY)
    end)
    assert.equal("w", wait_fd(pipe.write_fd, "w"))
    assert.is_true(read)
  end)

  in_three_places("tells which of both it is", function()
    local sock, port = bound()
    assert.equal("w", wait_fd(sock.native_handle, "rw"))
    send(sock, port, "x")
    assert.equal("rw", wait_fd(sock.native_handle, "rw"))
    assert.equal("r", wait_fd(sock.native_handle, "r"))
    assert.equal("w", wait_fd(sock.native_handle, "w"))
    sock:close()
  end)

  in_three_places("is ready at the end of the other side", function()
    local pipe <close> = fifo()
    fiber.spawn(function()
      fiber.sleep(0.002)
      pipe.writer:close()
      pipe.writer = { close = function() end }
    end)
    assert.equal("r", wait_fd(pipe.read_fd, "r"))
    assert.is_nil(pipe.reader:read(1))
  end)

  in_three_places("is ready for writing when nobody will read any more: an error counts", function()
    local pipe <close> = fifo()
    pipe.writer:write(("x"):rep(CAPACITY))
    fiber.spawn(function()
      fiber.sleep(0.002)
      pipe.reader:close()
      pipe.reader = { close = function() end }
    end)
    assert.equal("w", wait_fd(pipe.write_fd, "w"))
  end)

  in_three_places("raises EBADF for what is not open, and EPERM for a regular file", function()
    local before = support.descriptors()
    assert.equal(ip.error.EBADF, error_of(wait_fd, 1000000, "r"))
    local path = os.tmpname()
    local file, fd = open(path, "r")
    local err = error_of(wait_fd, fd, "r")
    assert.equal(ip.error.EPERM, err)
    assert.equal("wait_fd", err.operation)
    file:close()
    os.remove(path)
    assert.equal(ip.error.EBADF, error_of(wait_fd, fd, "r"))
    assert.equal(before, support.descriptors())
  end)

  it("refuses wrong arguments before it does anything", with_loop(function()
    for _, arguments in ipairs({ {}, { 1 }, { "1", "r" }, { 1.5, "r" }, { -1, "r" }, { 2 ^ 31 | 0, "r" }, { 0, "x" },
      { 0, "" }, { 0, "wr" }, { 0, 1 }, { {}, "r" }, { io.stdin, "r" } }) do
      assert_contains(error_of(wait_fd, table.unpack(arguments)), "bad argument")
    end
  end))

  it("serves several waiters on one descriptor, and a receive on it, all at once", with_loop(function()
    local sock, port = bound()
    local fd, events = sock.native_handle, {}
    local receiving = fiber.spawn(sock.receive_string, sock)
    fiber.yield()
    local waiting = {}
    for i = 1, 5 do
      waiting[i] = fiber.spawn(function() events[i] = wait_fd(fd, "r") end)
    end
    fiber.yield()
    fiber.yield()
    assert.same({}, events)
    send(sock, port, "for all")
    assert.equal("for all", (receiving:join()))
    for i = 1, 5 do
      if waiting[i].status == "waiting" then send(sock, port, "again") end -- the receive was faster
      waiting[i]:join()
      assert.equal("r", events[i])
    end
    sock:close()
  end))

  it("leaves others waiting when one of them gives up", with_loop(function()
    if not has_proc() then return end
    local pipe <close> = fifo()
    local patient = fiber.spawn(wait_fd, pipe.read_fd, "r")
    fiber.yield()
    local other = fiber.spawn(wait_fd, pipe.read_fd, "r")
    fiber.yield()
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.002, wait_fd, pipe.read_fd, "rw"))
    patient:interrupt()
    patient:join()
    fiber.yield()
    assert.equal("waiting", other.status)
    pipe.writer:write("x")
    assert.equal("r", other:join())
  end))

  in_three_places("ends with the deadline, and holds no descriptor then", function()
    local pipe <close> = fifo()
    local before = support.descriptors()
    for _ = 1, 50 do
      local err = error_of(fiber.with_timeout, 0.0005, wait_fd, pipe.read_fd, "r")
      assert.equal(ip.error.ETIMEDOUT, err)
      assert.equal("with_timeout", err.operation)
    end
    assert.equal(before, support.descriptors())
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0, wait_fd, pipe.read_fd, "r"))
  end)

  it("is interrupted, and works again", with_loop(function()
    if not has_proc() then return end
    local pipe <close> = fifo()
    for _ = 1, 20 do
      local waiting = fiber.spawn(wait_fd, pipe.read_fd, "r")
      fiber.yield()
      waiting:interrupt()
      waiting:join()
      assert.is_true(waiting.interruption_caught)
    end
    pipe.writer:write("x")
    assert.equal("r", wait_fd(pipe.read_fd, "r"))
  end))

  it("is withdrawn by coroutine.close, and leaves no descriptor", on_main(function()
    local sock = bound()
    local before = support.descriptors()
    local receiving = coroutine.create(function() sock:receive_string() end)
    coroutine.resume(receiving)
    local waiting = coroutine.create(function() wait_fd(sock.native_handle, "r") end)
    coroutine.resume(waiting)
    assert.is_true(coroutine.close(waiting))
    fiber.yield()
    assert.equal(before, support.descriptors())
    assert.is_true(coroutine.close(receiving))
    sock:close()
  end))

  it("raises when a stranger resumes it", on_main(function()
    local sock = bound()
    local waiting = coroutine.create(function() wait_fd(sock.native_handle, "r") end)
    coroutine.resume(waiting)
    local ok, err = coroutine.resume(waiting)
    assert.is_false(ok)
    assert_contains(err, "resumed while waiting in wait_fd")
    sock:close()
  end))

  it("raises where Lua cannot suspend", with_loop(function()
    local err = error_of(table.sort, { 2, 1 }, function() wait_fd(0, "r") end)
    assert_contains(err, "cannot wait in wait_fd")
  end))

  it("ends with the socket whose descriptor it waits for", with_loop(function()
    local sock = bound()
    local receiving = fiber.spawn(sock.receive_string, sock)
    fiber.yield()
    local waiting = fiber.spawn(pcall, wait_fd, sock.native_handle, "r")
    fiber.yield()
    sock:close()
    assert.equal(ip.error.ECANCELED, error_of(receiving.join, receiving))
    local ok, err = waiting:join()
    assert.is_false(ok)
    assert.equal(ip.error.ECANCELED, err)
  end))

  it("does not spin while it waits", on_main(function()
    if not has_proc() then return end
    local pipe <close> = fifo()
    local waiting = fiber.spawn(wait_fd, pipe.read_fd, "r")
    assertions.assert_sleeps(function() fiber.sleep(0.1) end)
    waiting:interrupt()
    waiting:join()
  end))

  it("closes its descriptor at the end of a program that still waits", function()
    assert_prints("end\n", [[
      local ip = require "ip"
      local sock = ip.udp.bind("127.0.0.1", 0)
      ip.fiber.spawn(sock.receive_string, sock)
      for i = 1, 3 do ip.fiber.spawn(ip.fiber.wait_fd, sock.native_handle, "r") end
      ip.fiber.sleep(0.001)
      print("end")]])
  end)
end)
