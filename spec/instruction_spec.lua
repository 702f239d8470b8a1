-- What an echo costs in user instructions, counted by callgrind: a number that no load of the machine changes.

local ip = require "ip"
local process = require "spec.support.process"
local support = require "spec.support"

local MOST = 2000
local FEW, MANY = 500, 2500 -- echoes of two runs; their difference is free of the start and the end of a process

-- Other builds than the plain one have instructions of their own.
local mode = os.getenv("LUA_IP_MODE") or "plain"
local can_count = mode == "plain" and (os.getenv("LD_PRELOAD") or "") == "" and io.open("/proc/self/stat") ~= nil
  and process.exists("valgrind")
local it_counted = can_count and it or function(name) pending(name .. " (needs valgrind, and a plain build)") end

local server = [[
  local ip = require "ip"
  local sock = ip.udp.bind("127.0.0.1", 0)
  ip.fiber.spawn(function() -- nobody waits for ever for a server that lost its client
    ip.fiber.sleep(60)
    os.exit(1)
  end):detach()
  print(sock.local_port)
  io.stdout:flush()
  local echoes = tonumber(arg[1])
  ip.fiber.run(function()
    local buf = ip.byte_span.new(64)
    for _ = 1, echoes do
      local n, address, port = sock:receive_from(buf)
      sock:send_to(buf:resize(n), address, port)
      buf:resize(64)
    end
  end)
]]

local function write(source)
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  file:write(source)
  return path
end

-- Does the process sleep in a system call?
local function sleeps(pid)
  local file <close> = io.open(("/proc/%d/stat"):format(pid))
  return file == nil or file:read("a"):match("^%d+ %b() (%a)") == "S"
end

-- Keeps `in_flight` datagrams on their way; with one, each is sent when the server waits for it.
local function drive(port, pid, echoes, in_flight)
  local client <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 20 })
  local buf = ip.byte_span.new(64)
  for i = 1, echoes + in_flight do
    while in_flight == 1 and i <= echoes and not sleeps(pid) do ip.fiber.yield() end
    if i <= echoes then client:send("x") end
    if i > in_flight then client:receive(buf) end
  end
end

-- The instructions of a server that ends after a number of echoes.
local function count(echoes, in_flight)
  local program, counts = write(server), os.tmpname()
  local words = { "valgrind", "--tool=callgrind", "--callgrind-out-file=" .. counts }
  table.move(process.lua(program, echoes), 1, 3, #words + 1, words)
  local running <close> = process.start(words)
  drive(tonumber(running:wait_for("^(%d+)\n", 30)), running.pid, echoes, in_flight)
  assert.equal(0, running:wait(30), running:errors())
  local file <close> = assert(io.open(counts))
  local instructions = file:read("a"):match("\nsummary: (%d+)")
  os.remove(program)
  os.remove(counts)
  return assert(tonumber(instructions), "callgrind has not told")
end

local function instructions_per_echo(in_flight)
  return (count(MANY, in_flight) - count(FEW, in_flight)) / (MANY - FEW)
end

describe("user instructions", function()
  teardown(process.stop_all)

  it_counted("are at most 2000 per echo when saturated", support.with_loop(function()
    local each = instructions_per_echo(32)
    assert.is_true(each <= MOST, "instructions per echo: " .. each)
    assert.is_true(each > 100, "not all were counted: " .. each)
  end, 120))

  it_counted("are at most 2000 per echo with one datagram in flight", support.with_loop(function()
    local each = instructions_per_echo(1)
    assert.is_true(each <= MOST, "instructions per echo: " .. each)
    assert.is_true(each > 100, "not all were counted: " .. each)
  end, 120))
end)
