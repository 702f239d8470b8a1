--- waiting.lua [ROUNDS]: what fibers cost when they wait for each other, beside cqueues, copas and bare
--- coroutines in the same process. Prints nanoseconds of processor time, the median of ROUNDS (default 7), and each
--- promise with its figure. Exit code 1: a promise is not kept.

local ip = require "ip"

local fiber = ip.fiber

local ROUNDS = tonumber(arg[1]) or 7

local function optional(name)
  local ok, module = pcall(require, name)
  return ok and module or nil
end

package.path = package.path .. ";/usr/share/lua/5.2/?.lua" -- where Debian's package of copas has its file
local cqueues, condition = optional("cqueues"), optional("cqueues.condition")
local copas = optional("copas")

-- --- what is measured: functions of a count that return how many they have done ---

local cases, order = {}, {}

local function case(name, fn)
  cases[name] = fn
  order[#order + 1] = name
end

local function in_fiber(fn)
  return function(count) return fiber.run(fn, count) end
end

case("table.insert and table.remove", function(count)
  local list, insert, remove = {}, table.insert, table.remove
  for i = 1, count do
    insert(list, i)
    remove(list)
  end
end)

case("queue: put and get without waiting", in_fiber(function(count)
  local queue = fiber.queue()
  local put, get = queue.put, queue.get
  for i = 1, count do
    put(queue, i)
    get(queue)
  end
end))

case("queue: the same by queue:put and queue:get", in_fiber(function(count)
  local queue = fiber.queue()
  for i = 1, count do
    queue:put(i)
    queue:get()
  end
end))

case("semaphore: acquire and release", in_fiber(function(count)
  local semaphore = fiber.semaphore(1)
  for _ = 1, count do
    semaphore:acquire()
    semaphore:release()
  end
end))

case("bare coroutines: resume and yield", function(count)
  local resume = coroutine.wrap(function() while true do coroutine.yield() end end)
  for _ = 1, count do resume() end
end)

case("fiber.yield", in_fiber(function(count)
  for _ = 1, count do fiber.yield() end
end))

-- A value goes from one fiber to another and back: two hand-overs, each to a fiber that waits.
case("queue: a value from fiber to fiber", in_fiber(function(count)
  local there, back = fiber.queue(), fiber.queue()
  local echo = fiber.spawn(function() for value in there:values() do back:put(value) end end)
  for i = 1, count // 2 do
    there:put(i)
    back:get()
  end
  there:close()
  echo:join()
end))

case("condition: wake the other fiber", in_fiber(function(count)
  local there, back, turns = fiber.condition(), fiber.condition(), 0
  local other = fiber.spawn(function()
    while true do
      there:wait()
      turns = turns + 1
      back:notify_one()
    end
  end)
  fiber.yield()
  for _ = 1, count // 2 do
    there:notify_one()
    back:wait()
  end
  other:interrupt()
  other:join()
end))

if condition then
  case("cqueues: wake the other coroutine by a condition", function(count)
    local controller, there, back = cqueues.new(), condition.new(), condition.new()
    local sent, seen = 0, 0
    controller:wrap(function()
      for i = 1, count // 2 do
        sent = i
        there:signal()
        while seen < i do back:wait() end
      end
    end)
    controller:wrap(function()
      for i = 1, count // 2 do
        while sent < i do there:wait() end
        seen = i
        back:signal()
      end
    end)
    assert(controller:loop())
  end)
end

-- A thread of copas waits in a socket alone; so the least that wakes one is a datagram.
if copas and copas.receivefrom then
  case("copas: wake the other thread by a datagram", function(count)
    count = math.min(count, 20000)
    local socket = require "socket"
    local a, b = socket.udp(), socket.udp()
    for _, sock in ipairs { a, b } do
      sock:setsockname("127.0.0.1", 0)
      sock:settimeout(0)
    end
    local _, a_port = a:getsockname()
    local _, b_port = b:getsockname()
    local over = false
    copas.addthread(function()
      for _ = 1, count // 2 do
        a:sendto("x", "127.0.0.1", b_port)
        copas.receivefrom(a)
      end
      over = true
    end)
    copas.addthread(function()
      for _ = 1, count // 2 do
        copas.receivefrom(b)
        b:sendto("x", "127.0.0.1", a_port)
      end
    end)
    while not over do copas.step(1) end
    a:close()
    b:close()
    return count
  end)
end

local function idle_sockets(count)
  local list = {}
  for i = 1, count do list[i] = ip.udp.bind("127.0.0.1", 0) end
  return list
end

case("wait_any over 64 idle sockets and a queue, woken by the queue", in_fiber(function(count)
  count = math.min(count, 20000)
  local queue, list = fiber.queue(), idle_sockets(64)
  list[65] = queue
  local putter = fiber.spawn(function()
    for i = 1, count do
      queue:put(i)
      fiber.yield()
      fiber.yield()
    end
  end)
  for _ = 1, count do fiber.wait_any(list):get() end
  putter:join()
  return count
end))

-- --- measuring ---

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2]
end

local COUNT = 200000

-- The cases take turns, so that what else the machine does meets all of them.
local figures = {}
for _ = 1, ROUNDS do
  for _, name in ipairs(order) do
    collectgarbage()
    local start = os.clock()
    local count = cases[name](COUNT) or COUNT
    figures[name] = figures[name] or {}
    table.insert(figures[name], (os.clock() - start) / count * 1e9)
  end
end

for _, name in ipairs(order) do
  figures[name] = median(figures[name])
  print(("%8.0f ns  %s"):format(figures[name], name))
end

-- The bytes that a fiber waiting in get takes beyond one that sleeps.
local function bytes_of_waiting()
  local queue = fiber.queue()
  local function each(wait)
    collectgarbage()
    collectgarbage()
    local list, before = {}, collectgarbage("count")
    for i = 1, 10000 do list[i] = fiber.spawn(wait) end
    fiber.yield()
    fiber.yield()
    collectgarbage()
    collectgarbage()
    local bytes = (collectgarbage("count") - before) * 1024 / 10000
    for _, one in ipairs(list) do one:interrupt() end
    for _, one in ipairs(list) do one:join() end
    return bytes
  end
  local function sleep() fiber.sleep(1000) end
  local function get() queue:get() end
  fiber.run(each, sleep)
  return fiber.run(each, get) - fiber.run(each, sleep)
end

-- --- promises ---

local kept = true

local function promise(text, figure, most)
  if figure == nil or most == nil then return print(("   -      %s: not measured"):format(text)) end
  local ok = figure <= most
  kept = kept and ok
  print(("%s  %s: %.2f, at most %.2f"):format(ok and "kept  " or "BROKEN", text, figure, most))
end

print()
promise("queue without waiting / insert and remove",
  figures["queue: put and get without waiting"] / figures["table.insert and table.remove"], 3)
local by_cqueues = figures["cqueues: wake the other coroutine by a condition"]
promise("a value from fiber to fiber / cqueues' condition",
  by_cqueues and figures["queue: a value from fiber to fiber"] / by_cqueues, 1)
promise("wait_any over 64 idle sockets, microseconds",
  figures["wait_any over 64 idle sockets and a queue, woken by the queue"] / 1000, 50)
promise("bytes of an idle get beyond its fiber", bytes_of_waiting(), 200)
os.exit(kept)
