--- A long run of mixed traffic: fuzz_host spec/fuzz/soak.lua MINUTES (scripts/soak.sh). Fibers of each kind go on until
--- the time is over; in the middle of it system calls are interrupted and cut short. Every round ends with all accounts
--- compared.

local ip = require "ip"
local core = require "ip.core"
local host = require "fault_host"

local fiber = ip.fiber
local minutes = tonumber(arg[1] or 10)
local ROUND = math.min(10, minutes * 60 / 5) -- seconds
local FAULTY = 50 -- of so many system calls one fails
local TOLERANCE = 2000 -- kilobytes of resident memory, after the second round

local counts = {
  echoes = 0, batches = 0, coalesced = 0, messages = 0, churned = 0, deadlines = 0, look_ups = 0, forks = 0,
}

local function count(name)
  counts[name] = counts[name] + 1
end

local function check(condition, text)
  if not condition then error("soak: " .. text, 2) end
end

local function resident()
  local file <close> = assert(io.open("/proc/self/status"))
  return tonumber(file:read("a"):match("VmRSS:%s*(%d+)"))
end

local function descriptors()
  local stat <close> = assert(io.open("/proc/self/stat"))
  local pid = stat:read("n")
  local pipe <close> = assert(io.popen(("ls /proc/%d/fd | wc -l"):format(pid)))
  return pipe:read("n")
end

-- --- traffic: each function runs one round of its kind ---

local traffic = {}

local function pair(options)
  local a, b = ip.udp.bind("127.0.0.1", 0, options), ip.udp.bind("127.0.0.1", 0, options)
  for _, sock in ipairs { a, b } do
    sock:set_option("receive_buffer_size", 1 << 20)
    sock.receive_timeout = 20
  end
  a:connect("127.0.0.1", b.local_port)
  b:connect("127.0.0.1", a.local_port)
  return a, b
end

-- One hundred numbered datagrams, each of which comes back once, in order.
function traffic.echoes()
  local a <close>, b = pair()
  local closes <close> = b -- luacheck: ignore closes
  local echoing = fiber.spawn(function()
    local span = ip.byte_span.new(2000)
    for _ = 1, 100 do b:send(span:resize(b:receive(span:resize(2000)))) end
  end)
  for i = 1, 100 do
    local text = ("%d "):format(i):rep(1 + i % 100)
    a:send(text)
    check(a:receive_string() == text, "an echo is what was sent")
  end
  echoing:join()
end

function traffic.batches()
  local a <close>, b = pair()
  local closes <close> = b -- luacheck: ignore closes
  local out, got = ip.udp.batch.new(40, 100), ip.udp.batch.new(40, 100)
  for i = 1, 40 do out:set(i, ("entry %d"):format(i)) end
  check(a:send_many(out) == 40, "a batch is sent")
  local next = 1
  while next <= 40 do
    for i = 1, b:receive_many(got) do
      check(tostring(got[i]) == ("entry %d"):format(next), "entries come in order")
      next = next + 1
    end
  end
end

function traffic.coalesced()
  local a <close>, b = pair { coalesce = true }
  local closes <close> = b -- luacheck: ignore closes
  for i = 1, 60 do a:send(("%d"):format(i)) end
  a:flush()
  for i = 1, 60 do check(b:receive_string() == ("%d"):format(i), "queued datagrams come in order") end
end

function traffic.messages()
  local a <close>, b = pair()
  local closes <close> = b -- luacheck: ignore closes
  b:set_option("receive_packet_info", true)
  b:set_option("receive_hops", true)
  local span = ip.byte_span.new(100)
  for i = 1, 20 do
    a:send_message(("%d"):format(i), { hops = 7 })
    local n, info = b:receive_message(span)
    check(span:sub(1, n) == ("%d"):format(i) and info.hops == 7, "a message comes with what it was sent with")
  end
end

-- Sockets that are closed under those who wait.
function traffic.churned()
  local waits = {}
  for i = 1, 20 do
    local sock = ip.udp.bind("127.0.0.1", 0)
    waits[i] = fiber.spawn(pcall, sock.receive_string, sock)
    fiber.yield()
    if i % 2 == 0 then sock:close() else waits[i]:interrupt() end
  end
  for _, wait in ipairs(waits) do pcall(wait.join, wait) end
end

function traffic.deadlines()
  local sock <close> = ip.udp.bind("127.0.0.1", 0)
  for i = 1, 10 do
    local ok, err = pcall(fiber.with_timeout, i / 1e4, sock.receive_string, sock)
    check(not ok and err == ip.error.ETIMEDOUT, "a deadline ends a receive")
  end
end

function traffic.look_ups()
  check(#ip.udp.get_address_info("127.0.0.1", 53) == 1, "an address is found")
  pcall(fiber.with_timeout, 1e-4, ip.udp.get_address_info, "localhost", 53)
end

-- A process that is made by fork and ends; its copies of the descriptors disturb nobody.
function traffic.forks()
  check(os.execute("exit 0"), "a process ends well")
end

local function run_round(seconds)
  local last = fiber.now() + seconds
  local all = {}
  for name, play in pairs(traffic) do
    all[#all + 1] = fiber.spawn(function()
      while fiber.now() < last do
        fiber.with_timeout(30, play)
        count(name)
        if name == "forks" then fiber.sleep(0.05) else fiber.yield() end
      end
    end)
  end
  for _, each in ipairs(all) do each:join() end
end

local function settle()
  for _ = 1, 100 do
    collectgarbage()
    fiber.sleep(0.01)
    if core.fiber.statistics().operations == 0 then break end
  end
  collectgarbage()
  local now = core.fiber.statistics()
  now.memory, now.resident, now.descriptors = collectgarbage("count"), resident(), descriptors()
  return now
end

-- --- the run ---

local function describe()
  local parts = {}
  for name, times in pairs(counts) do parts[#parts + 1] = ("%s %d"):format(name, times) end
  table.sort(parts)
  return table.concat(parts, ", ")
end

local function compare(before, now)
  for name, value in pairs(before) do
    if name == "resident" then
      check(now.resident <= value + TOLERANCE, ("resident: %d KB, then %d KB"):format(value, now.resident))
    elseif name == "memory" then
      check(now.memory <= value * 1.1 + 100, ("memory: %.0f KB, then %.0f KB"):format(value, now.memory))
    else
      check(now[name] == value, ("%s: %s, then %s"):format(name, value, now[name]))
    end
  end
end

local start, round, before = fiber.now(), 0, nil
repeat
  round = round + 1
  local ok, err = host.play(round, FAULTY, 0, true, fiber.run, run_round, ROUND)
  if not ok then error(err, 0) end
  local now = settle()
  if round == 2 then before = now end
  if before then compare(before, now) end
  print(("%5.0f s: resident %d KB, Lua %.0f KB, %d descriptors; %s"):format(
    fiber.now() - start, now.resident, now.memory, now.descriptors, describe()))
  io.stdout:flush()
until fiber.now() - start >= minutes * 60 and round >= 3
local calls, failed = host.counts()
print(("soak: %d rounds in %.0f s, %d of %d system calls failed, nothing was lost or left"):format(
  round, fiber.now() - start, failed, calls))
