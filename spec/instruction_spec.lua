-- What an echo costs in user instructions, counted by callgrind: a number that no load of the machine changes.

local ip = require "ip"
local process = require "spec.support.process"
local support = require "spec.support"

-- Echoes of two runs; their difference is free of the start and the end of a process. The datagrams of the longer run
-- fit the queue of a socket.
local FEW, MANY = 50, 250

-- Other builds than the plain one have instructions of their own.
local mode = os.getenv("LUA_IP_MODE") or "plain"
local can_count = mode == "plain" and (os.getenv("LD_PRELOAD") or "") == "" and io.open("/proc/self/stat") ~= nil
  and process.exists("valgrind")
local it_counted = can_count and it or function(name) pending(name .. " (needs valgrind, and a plain build)") end

-- A server that ends after arg[1] echoes. With "queued" as arg[2] it begins when a datagram comes on another socket:
-- by then all others are in its queue, and it never has to wait.
local prologue = [[
  local ip = require "ip"
  local sock, starter = ip.udp.bind("127.0.0.1", 0), ip.udp.bind("127.0.0.1", 0)
  sock:set_option("receive_buffer_size", 1 << 20)
  ip.fiber.spawn(function() -- nobody waits for ever for a server that lost its client
    ip.fiber.sleep(60)
    os.exit(1)
  end):detach()
  print(sock.local_port, starter.local_port)
  io.stdout:flush()
  local echoes = tonumber(arg[1])
  ip.fiber.run(function()
    if arg[2] == "queued" then starter:receive_string() end
]]

local servers = {
  datagrams = prologue .. [[
    for data, address, port in sock:datagrams { capacity = 64, max_ready = 64 } do
      sock:send_to(data, address, port)
      echoes = echoes - 1
      if echoes == 0 then break end
    end
  end)]],
  receive_from = prologue .. [[
    local buf = ip.byte_span.new(64)
    for _ = 1, echoes do
      local n, address, port = sock:receive_from(buf)
      sock:send_to(buf:resize(n), address, port)
      buf:resize(64)
    end
  end)]],
}

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

-- Sends all, and then lets the server begin.
local function fill_queue(port, starter, echoes)
  local client <close> = ip.udp.connect("127.0.0.1", port)
  for _ = 1, echoes do client:send("x") end
  local other <close> = ip.udp.connect("127.0.0.1", starter)
  other:send("begin")
end

-- Sends each datagram when the server waits for it.
local function ping_pong(port, pid, echoes)
  local client <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 20 })
  local buf = ip.byte_span.new(64)
  for _ = 1, echoes do
    while not sleeps(pid) do ip.fiber.yield() end
    client:send("x")
    client:receive(buf)
  end
end

-- The instructions of a server that ends after a number of echoes.
local function count(server, echoes, way)
  local program, counts = write(server), os.tmpname()
  local words = { "valgrind", "--tool=callgrind", "--callgrind-out-file=" .. counts }
  table.move(process.lua(program, echoes, way), 1, 4, #words + 1, words)
  local running <close> = process.start(words)
  running:wait_for("^(%d+)\t%d+\n", 30)
  local port, starter = running:output():match("^(%d+)\t(%d+)\n")
  if way == "queued" then
    fill_queue(tonumber(port), tonumber(starter), echoes)
  else
    ping_pong(tonumber(port), running.pid, echoes)
  end
  assert.equal(0, running:wait(30), running:errors())
  local file <close> = assert(io.open(counts))
  local instructions = file:read("a"):match("\nsummary: (%d+)")
  os.remove(program)
  os.remove(counts)
  return assert(tonumber(instructions), "callgrind has not told")
end

local function check(server, way, most)
  return support.with_loop(function()
    local each = (count(server, MANY, way) - count(server, FEW, way)) / (MANY - FEW)
    assert.is_true(each <= most, "instructions per echo: " .. each)
    assert.is_true(each > 1000, "not all were counted: " .. each)
  end, 120)
end

describe("user instructions", function()
  teardown(process.stop_all)

  it_counted("are at most 2000 per echo of a loop over datagrams", check(servers.datagrams, "queued", 2000))

  it_counted("are at most 4200 per echo by receive_from, resize and send_to, each found by its name",
    check(servers.receive_from, "queued", 4200))

  it_counted("are at most 4200 per echo where each datagram has to be waited for",
    check(servers.datagrams, "waiting", 4200))
end)
