-- What an echo costs in user instructions, counted by callgrind: a number that no load of the machine changes.

local ip = require "ip"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"

-- Echoes of two runs; their difference is free of the start and the end of a process. Lua's seed of hashes is another
-- in every process, so that these cost some thousands of instructions more or less: there are many echoes.
local FEW, MANY = 250, 2500

-- Echoes at a time of a server that never has to wait: their datagrams fit the queue of a socket.
local ROUND = 250

-- Seconds after which a server is lost: a bound for what is broken, and none for a machine that has much to do.
local PATIENCE = 300

local it_counted = platform.it_where(platform.can_count_instructions(), "valgrind, and a plain build")

-- A server that ends after arg[1] echoes. With "queued" as arg[2] each round of arg[3] echoes begins when a datagram
-- comes on another socket: by then all others are in its queue.
local prologue = [[
  local ip = require "ip"
  local sock, starter = ip.udp.bind("127.0.0.1", 0), ip.udp.bind("127.0.0.1", 0)
  print(sock.local_port, starter.local_port)
  io.stdout:flush()
  local echoes, round = tonumber(arg[1]), tonumber(arg[3])
  local function in_rounds(echo)
    ip.fiber.run(function()
      if arg[2] ~= "queued" then return echo(echoes) end
      for _ = 1, echoes, round do
        starter:receive_string()
        echo(round)
      end
    end)
  end
]]

local servers = {
  datagrams = prologue .. [[
    in_rounds(function(count)
      for data, address, port in sock:datagrams { capacity = 64, max_ready = 64 } do
        sock:send_to(data, address, port)
        count = count - 1
        if count == 0 then break end
      end
    end)]],
  -- The fastest way to write it: `send_to` is looked up once.
  fast_datagrams = prologue .. [[
    local send_to = sock.send_to
    in_rounds(function(count)
      for data, address, port in sock:datagrams { capacity = 64, max_ready = 64 } do
        send_to(sock, data, address, port)
        count = count - 1
        if count == 0 then break end
      end
    end)]],
  coalesce = prologue .. [[
    sock:set_option("coalesce", true)
    in_rounds(function(count)
      for data, address, port in sock:datagrams { capacity = 64, max_ready = 64 } do
        sock:send_to(data, address, port)
        count = count - 1
        if count == 0 then break end
      end
      sock:flush()
    end)]],
  -- The first datagram of a round waits in its handler until the others are in the queue.
  serve = prologue .. [[
    ip.fiber.run(pcall, sock.serve, sock, function(data, address, port)
      if arg[2] == "queued" and echoes % round == 0 then starter:receive_string() end
      echoes = echoes - 1
      if echoes > 0 then return data end
      sock:send_to(data, address, port)
      sock:close()
    end, { capacity = 64, max_ready = 64 })]],
  receive_from = prologue .. [[
    in_rounds(function(count)
      local buf = ip.byte_span.new(64)
      for _ = 1, count do
        local n, address, port = sock:receive_from(buf)
        sock:send_to(buf:resize(n), address, port)
        buf:resize(64)
      end
    end)]],
  session = prologue:gsub("ip.udp.bind", "ip.udp.listen", 1) .. [[
    local session
    in_rounds(function(count)
      session = session or sock:accept()
      local buf = ip.byte_span.new(64)
      for _ = 1, count do
        session:send(buf:resize(session:receive(buf)))
        buf:resize(64)
      end
    end)]],
}

-- Returns when the process sleeps in a system call, without taking from it the processor that it needs for that.
local function await_sleep(pid)
  support.wait_until(function() return process.is_asleep(pid) end)
end

local clients = {
  -- Sends all of a round, and then lets the server begin.
  queued = function(client, starter, pid, echoes)
    local other <close> = ip.udp.connect("127.0.0.1", starter)
    for _ = 1, echoes, ROUND do
      for _ = 1, ROUND do client:send("x") end
      await_sleep(pid)
      other:send("begin")
      for _ = 1, ROUND do client:receive_string() end
    end
  end,
  -- Sends each datagram when the server waits for it.
  waiting = function(client, _, pid, echoes)
    for _ = 1, echoes do
      await_sleep(pid)
      client:send("x")
      client:receive_string()
    end
  end,
}

-- The instructions of a server that ends after a number of echoes.
local function count(server, way, echoes)
  local program, counts = support.write_file(server), os.tmpname()
  local words = { "valgrind", "--tool=callgrind", "--callgrind-out-file=" .. counts }
  table.move(process.lua(program, echoes, way, ROUND), 1, 5, #words + 1, words)
  local running <close> = process.start(words)
  running:wait_for("^(%d+)\t%d+\n", PATIENCE)
  local port, starter = running:output():match("^(%d+)\t(%d+)\n")
  local client <close> = ip.udp.connect("127.0.0.1", tonumber(port))
  clients[way](client, tonumber(starter), running.pid, echoes)
  assert.equal(0, running:wait(PATIENCE), running:errors())
  local file <close> = assert(io.open(counts))
  local instructions = file:read("a"):match("\nsummary: (%d+)")
  os.remove(program)
  os.remove(counts)
  return assert(tonumber(instructions), "callgrind has not told")
end

local function count_each(server, way)
  local each = (count(server, way, MANY) - count(server, way, FEW)) / (MANY - FEW)
  assert.is_true(each > 1000, "not all were counted: " .. each)
  return each
end

local function check(server, way, most)
  return support.with_loop(function()
    local each = count_each(server, way)
    assert.is_true(each <= most, "instructions per echo: " .. each)
  end, PATIENCE)
end

local function check_ratio(name, reference, way, most)
  return support.with_loop(function()
    local base, each = count_each(servers[reference], way), count_each(servers[name], way)
    assert.is_true(each <= most * base, ("%g by %s, %g by %s"):format(each, name, base, reference))
  end, PATIENCE)
end

describe("user instructions #slow", function()
  teardown(process.stop_all)

  it_counted("are at most 2000 per echo of a loop over datagrams", check(servers.datagrams, "queued", 2000))

  it_counted("are at most 1.02 times as many per echo of serve as of the fastest loop over datagrams",
    check_ratio("serve", "fast_datagrams", "queued", 1.02))

  it_counted("are at most 3300 per echo of serve where each datagram has to be waited for",
    check(servers.serve, "waiting", 3300))

  it_counted("are at most 1.06 times as many with coalesce, where each datagram has to be waited for",
    check_ratio("coalesce", "datagrams", "waiting", 1.06))

  it_counted("are at most 4200 per echo by receive_from, resize and send_to, each found by its name",
    check(servers.receive_from, "queued", 4200))

  it_counted("are at most 4700 per echo through a session of a listener", check(servers.session, "queued", 4700))

  it_counted("are at most 7000 per echo through a session that has to wait for each datagram",
    check(servers.session, "waiting", 7000))

  it_counted("are at most 4200 per echo where each datagram has to be waited for",
    check(servers.datagrams, "waiting", 4200))
end)
