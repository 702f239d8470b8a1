-- What a socket promises whose descriptor others close, or watch, too.
local ip = require "ip"
local modules = require "spec.support.modules"
local support = require "spec.support"

local fiber, file_descriptor = ip.fiber, ip.file_descriptor
local with_loop, error_of, bound = support.with_loop, support.error_of, support.bound

-- An open socket, and a function that closes its descriptor as another library does.
local function shared()
  local sock, port = bound()
  local number = sock.native_handle
  return sock, function() file_descriptor.new(number):close() end, port, number
end

local function assert_lost(waiting)
  local ok, err = waiting:join()
  assert.is_false(ok)
  assert.equal(ip.error.EBADF, err)
end

local function spawn_receive(sock)
  return fiber.spawn(pcall, sock.receive_string, sock)
end

describe("a socket whose descriptor others close", function()
  it("ends waits with EBADF that have begun since the loop polled", with_loop(function()
    local sock, close = shared()
    local receiving, other = spawn_receive(sock), spawn_receive(sock)
    fiber.spawn(close)
    assert_lost(receiving)
    assert_lost(other)
    assert.equal(ip.error.EBADF, error_of(sock.send_to, sock, "x", "127.0.0.1", 1))
    assert.equal(ip.error.EBADF, error_of(sock.receive_string, sock))
    assert.equal(ip.error.EBADF, error_of(sock.release, sock))
    sock:close()
  end))

  it("leaves the number to its next owner: closes, reads and unregisters nothing of it", with_loop(function()
    local sock, close, _, number = shared()
    local receiving = spawn_receive(sock)
    fiber.spawn(close)
    assert_lost(receiving)
    local heir, port = bound()
    assert.equal(number, heir.native_handle)
    local waiting = spawn_receive(heir)
    fiber.sleep(0)
    sock:close()
    sock:close()
    fiber.sleep(0)
    bound():send_to("for the heir", "127.0.0.1", port)
    local ok, text = waiting:join()
    assert.is_true(ok, tostring(text))
    assert.equal("for the heir", text)
    heir:close()
  end))

  it("is no obstacle to a new socket with the number when it was being watched, and its waits end", with_loop(function()
    local sock, close, _, number = shared()
    local receiving = spawn_receive(sock)
    fiber.sleep(0)
    close() -- the system forgets the registration, libuv does not
    local heir, port = bound()
    assert.equal(number, heir.native_handle)
    local waiting = spawn_receive(heir)
    assert_lost(receiving)
    fiber.sleep(0)
    sock:close()
    fiber.sleep(0)
    bound():send_to("for the heir", "127.0.0.1", port)
    assert.equal("for the heir", select(2, waiting:join()))
    heir:close()
  end))

  it("ends a queue of sends with EBADF instead of waiting for ever", with_loop(function()
    local sock, close, port = shared()
    sock:set_option("coalesce", true)
    sock:send_to("queued", "127.0.0.1", port)
    close()
    fiber.sleep(0)
    fiber.sleep(0)
    assert.equal(ip.error.EBADF, error_of(function()
      for _ = 1, 3 do
        sock:send_to("x", "127.0.0.1", port)
        fiber.sleep(0)
      end
    end))
    sock:close()
  end))

  it("is reopened as usual", with_loop(function()
    local sock, close = shared()
    local receiving = spawn_receive(sock)
    fiber.spawn(close)
    assert_lost(receiving)
    sock:close()
    sock:bind("127.0.0.1", 0)
    bound():send_to("again", "127.0.0.1", sock.local_port)
    assert.equal("again", (sock:receive_string()))
    sock:close()
  end))
end)

local build = os.getenv("LUA_IP_BUILD")
local it_host = build and support.descriptors() and it or pending

-- Runs a program in a C host with a loop of its own; returns its output and exit code.
local function run_host(source)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write("local ip = require 'ip' local fiber = ip.fiber io.stdout:setvbuf('no')\n", source)
  file:close()
  local pipe = assert(io.popen(("timeout 60 %s/loop_host %s/ip/core.so %s 2>&1"):format(build, build, path)))
  local output = pipe:read("a")
  local _, _, code = pipe:close()
  os.remove(path)
  return support.without_places(output, path), code
end

describe("a host's own loop", function()
  it_host("is not aborted by a socket whose descriptor others close", function()
    local output, code = run_host [[
      local sock = ip.udp.bind("127.0.0.1", 0)
      local number = sock.native_handle
      fiber.spawn(function() print(pcall(sock.receive_string, sock)) end)
      fiber.spawn(function() ip.file_descriptor.new(number):close() end)
    ]]
    assert.equal("false\treceive_string: bad file descriptor (EBADF)\n", output)
    assert.equal(0, code)
  end)

  it_host("may watch a socket's descriptor by a handle of its own, and the socket waits all the same", function()
    local output, code = run_host [[
      local sock = ip.udp.bind("127.0.0.1", 0)
      local client = ip.udp.connect("127.0.0.1", sock.local_port)
      print(host_poll(sock.native_handle))
      fiber.spawn(function()
        for _ = 1, 3 do print("socket: " .. sock:receive_string()) end
        sock:close()
      end)
      fiber.spawn(function()
        for i = 1, 3 do
          fiber.sleep(0.005)
          client:send(tostring(i))
        end
      end)
    ]]
    local host
    output, host = output:gsub("host: readable\n", "")
    assert.equal("0\nsocket: 1\nsocket: 2\nsocket: 3\n", output)
    assert.equal(1, host)
    assert.equal(0, code)
  end)

  it_host("runs wait_fd, and ends when nobody waits any more", function()
    local output, code = run_host [[
      local sock = ip.udp.bind("127.0.0.1", 0)
      local client = ip.udp.connect("127.0.0.1", sock.local_port)
      fiber.spawn(function() print(fiber.wait_fd(sock.native_handle, "r")) end)
      fiber.spawn(function() print(pcall(fiber.with_timeout, 0.01, fiber.wait_fd, client.native_handle, "r")) end)
      fiber.spawn(function() fiber.sleep(0.02) client:send("x") end)
    ]]
    assert.equal("false\twith_timeout: connection timed out (ETIMEDOUT)\nr\n", output)
    assert.equal(0, code)
  end)
end)

describe("luv", function()
  it("and this library may watch one socket on a loop each, and closing it in luv aborts nobody", function()
    if not modules.exists("luv") then return pending("luv is not installed") end
    local output = support.run_program [[
      local ip, uv = require "ip", require "luv"
      local fiber = ip.fiber
      local theirs = uv.new_udp()
      theirs:bind("127.0.0.1", 0)
      local got
      theirs:recv_start(function(_, data) got = got or data end)
      local sock = ip.udp.socket.new()
      sock:assign("v4", theirs:fileno())
      local client = ip.udp.connect("127.0.0.1", sock.local_port)
      fiber.spawn(function() print("ip", (sock:receive_string())) end)
      fiber.sleep(0)
      client:send("1")
      fiber.sleep(0.01)
      client:send("2")
      fiber.sleep(0.01) -- the event meets nobody here
      uv.run("nowait")
      print("luv", got)
      fiber.spawn(function() print(pcall(sock.receive_string, sock)) end)
      fiber.spawn(function() theirs:close() uv.run("nowait") end)
      fiber.run()
      sock:close()
    ]]
    assert.equal("ip\t1\nluv\t2\nfalse\treceive_string: bad file descriptor (EBADF)\n", output)
  end)
end)
