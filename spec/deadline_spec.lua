-- send_timeout and receive_timeout are absolute from the start of the call, however often it wakes.

local ip = require "ip"
local netns = require "spec.support.netns"
local process = require "spec.support.process"
local support = require "spec.support"

local fiber = ip.fiber
local with_loop = support.with_loop

local mode = os.getenv("LUA_IP_MODE") or "plain"
local is_linux = io.open("/proc/self/stat") ~= nil

local function it_there(name, fn)
  if mode == "valgrind" or not netns.is_permitted() or not process.exists("tc") then
    return pending(name .. " (needs root)")
  end
  return it(name, fn)
end

-- Runs a program in a namespace whose only road takes 8 Mbit/s.
local function on_a_slow_road(program)
  return with_loop(function()
    local here <close> = netns.new()
    local peer <close> = netns.new()
    here:pair("slow0", peer, "slow1")
    here:run("ip addr add 10.9.0.1/24 dev slow0")
    peer:run("ip addr add 10.9.0.2/24 dev slow1")
    here:run("ip link set slow0 up")
    peer:run("ip link set slow1 up")
    here:run("tc qdisc add dev slow0 root tbf rate 8mbit burst 20000 limit 300000")
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write("local ip = require 'ip' local fiber = ip.fiber\n", program)
    file:close()
    local output, errors = process.run({ "sh", "-c", here:program(table.concat(process.lua(path), " ")) }, 60)
    os.remove(path)
    assert.equal("passed\n", output .. errors)
  end, 60)
end

describe("send_timeout", function()
  teardown(process.stop_all)

  it_there("bounds a send_many that the system takes in many parts", on_a_slow_road [[
    local sock = ip.udp.bind("10.9.0.1", 0, { send_buffer_size = 20000, send_timeout = 0.3 })
    local batch = ip.udp.batch.new(6000, 1000)
    for i = 1, 6000 do batch:set(i, ("x"):rep(200 + i % 700), "10.9.0.2", 7) end -- 3 seconds on this road
    local start = fiber.now()
    local ok, err = pcall(sock.send_many, sock, batch)
    local took = fiber.now() - start
    assert(not ok and err.name == "ETIMEDOUT" and err.operation == "send_many", err)
    assert(err.sent > 0 and err.sent < 6000, err.sent)
    assert(took >= 0.3 and took < 1.5, took)
    print "passed"
  ]])

  it_there("bounds each of many sends that wait behind each other", on_a_slow_road [[
    local sock = ip.udp.bind("10.9.0.1", 0, { send_buffer_size = 20000, send_timeout = 0.3 })
    local late = 0
    local fibers = {}
    for i = 1, 3000 do
      fibers[i] = fiber.spawn(function()
        local start = fiber.now()
        local ok, err = pcall(sock.send_to, sock, ("x"):rep(1000), "10.9.0.2", 7)
        if not ok then assert(err.name == "ETIMEDOUT" and fiber.now() - start >= 0.3, err) end
        late = math.max(late, fiber.now() - start)
      end)
    end
    for i = 1, 3000 do fibers[i]:join() end
    assert(late < 1.5, late)
    print "passed"
  ]])
end)

describe("receive_timeout", function()
  (is_linux and it or pending)("bounds a receive that wakes and finds nothing", with_loop(function()
    local sock <close> = ip.udp.connect("127.0.0.1", support.dead_port(),
      { receive_errors = true, receive_timeout = 0.1 })
    local over = false
    local waiting = fiber.spawn(function()
      local start = fiber.now()
      local ok, err = pcall(sock.receive_string, sock)
      over = true
      return ok, err, fiber.now() - start
    end)
    fiber.yield()
    local too_large, wakes = ("x"):rep(65528), 0
    local start = fiber.now()
    while not over and fiber.now() - start < 5 do -- each leaves an error in the socket's queue, which wakes the receive
      pcall(sock.send, sock, too_large)
      wakes = wakes + 1
      fiber.sleep(0.005)
    end
    local ok, err, took = waiting:join()
    assert.is_false(ok)
    assert.equal("ETIMEDOUT", err.name)
    assert.is_true(took >= 0.1 and took < 3, took)
    assert.is_true(wakes > 1, wakes)
  end))
end)
