--- One run of the fuzzer: lua5.4 spec/fuzz/run.lua SEED [STEPS [LOG]], or --list for the names of the
--- actions. scripts/fuzz.sh runs it under the sanitizers, with a low limit of descriptors and a watchdog.
---
--- A run is a sequence of epochs. In each, random actions are started in random contexts; then everything is
--- ended, and the accounts are compared with those of the first epoch. Exit code 0: no fault. FUZZ_WITHOUT
--- and FUZZ_ONLY in the environment are lists of names, with commas.

-- Finalizers that are older than the library run after the library's own when the state is closed.
local oldest = setmetatable({ threads = {}, calls = {} }, { __gc = function(self)
  for _, co in ipairs(self.threads) do
    if coroutine.status(co) == "suspended" then pcall(self.ends or coroutine.close, co) end
  end
  for _, call in ipairs(self.calls) do pcall(table.unpack(call)) end
end })

local EPOCH = 150 -- steps
local CHECKS = { -- what else has a name in FUZZ_WITHOUT
  "check_returned", "check_deadlines", "check_fibers", "resume_ready", "limit_of_c_calls", "collect_in_close",
  "check_accounts", "quiet_steps", "closed_by_others",
  "check_polls", "first_use", "dirty_end" }

local seed, steps = math.tointeger(tonumber(arg[1] or 1)), tonumber(arg[2] or 1500)

local function set_of(list)
  if list == nil or list == "" then return nil end
  local set = {}
  for name in list:gmatch("[^,]+") do set[name] = true end
  return set
end

local without, only = set_of(os.getenv("FUZZ_WITHOUT")) or {}, set_of(os.getenv("FUZZ_ONLY"))

local function plays(name)
  return not without[name] and (only == nil or only[name] == true)
end

-- The first call in a process that has few free descriptors.
local function first_use_with_few_descriptors(free)
  local held = {}
  while #held < 1000 do
    local file = io.open("/dev/null")
    if not file then break end
    held[#held + 1] = file
  end
  local ip = require "ip"
  if #held < 1000 then
    for _ = 1, free do table.remove(held):close() end
    local ok, err = pcall(ip.udp.bind, "127.0.0.1", 0)
    if not ok and err ~= ip.error.EMFILE then error(err) end
  end
  for _, file in ipairs(held) do file:close() end
end

-- The first calls of a process, some of which fail.
local function first_use_with_faults()
  local faults = require "spec.fuzz.faults"
  faults.begin(seed, 0, "first use")
  for i = 1, 4 do
    faults.play(seed, -i, function()
      local ip = require "ip"
      pcall(ip.fiber.run, ip.fiber.with_timeout, 0.001, ip.fiber.sleep, 10)
      pcall(ip.fiber.wait_fd, 1000000, "r")
      pcall(ip.udp.get_address_info, "localhost", 1)
      pcall(ip.fiber.with_timeout, 0.001, ip.fiber.wait_signal, "SIGUSR1")
    end)
  end
end

if arg[1] ~= "--list" and not without.first_use then
  if seed % 4 == 0 then
    package.loaded.ip = nil
    require "ip"
    first_use_with_few_descriptors(seed // 4 % 6)
  elseif seed % 4 == 1 then
    first_use_with_faults()
  end
end

local ip = require "ip"
local core = require "ip.core"
local api = require "spec.fuzz.api"
local closed_by_others = require "spec.fuzz.closed_by_others"
local contexts = require "spec.fuzz.contexts"
local faults = require "spec.fuzz.faults"
local world = require "spec.fuzz.world"

world.seed, world.acted, world.main, world.plays = seed, 0, (coroutine.running()), plays

function world.on_main()
  return coroutine.running() == world.main
end

-- --- the actions ---

local families = {
  "transfer", "fiber", "waiting", "coroutine", "collector", "descriptor", "listener", "wild", "values",
}
local WEIGHTS = { -- of what is played more often than once
  send = 30, receive = 30, receive_many = 6, send_many = 4, send_segments = 4, sleep = 4, yield = 4,
  foreign_resume = 10,
  queue_put = 8, queue_get = 8, queue_try_put = 3, queue_try_get = 3, semaphore_acquire = 4, semaphore_release = 4,
  condition_wait = 3, condition_notify = 3, wait_any = 6, group_in_scope = 2,
  foreign_close = 10, generator_inside = 3, foreign_inside = 3, toggle = 4, wild_call = 12, datagrams = 4, serve = 4,
  peer_sends = 12, accept = 6, session_receive = 12, session_send = 4,
  wild_waits = 6, join = 3, wild_close = 3, step = 2, hook = 3, wait_fd_close = 2, timeouts = 2,
  span_call = 4, queue_close = 3,
}

local all, played = {}, {}
for _, family in ipairs(families) do
  for name, action in pairs(require("spec.fuzz.actions_" .. family)) do
    all[#all + 1] = { name = name, action = action, family = family }
  end
end
table.sort(all, function(a, b) return a.name < b.name end)
for _, entry in ipairs(all) do
  if plays(entry.name) then
    for _ = 1, WEIGHTS[entry.name] or 1 do played[#played + 1] = entry end
  end
end

if arg[1] == "--list" then
  for _, entry in ipairs(all) do print(entry.family, entry.name) end
  for _, name in ipairs(CHECKS) do print("check", name) end
  os.exit(true, true)
end

contexts.use(function(r)
  local entry = r:pick(played)
  return entry.name, entry.action
end)

-- --- epochs ---

local function start_log()
  world.file = assert(io.open(arg[3] or "/dev/null", "w"))
  world.file:setvbuf("line")
  local stat <close> = assert(io.open("/proc/self/stat"))
  world.pid = stat:read("n")
end

-- From the first wait on a signal no longer ends the process.
local function catch_signals()
  for _, name in ipairs(world.signals) do pcall(ip.fiber.with_timeout, 1e-4, ip.fiber.wait_signal, name) end
end

local CONTEXT_WEIGHTS = {
  fiber = 8, foreign = 4, generator = 3, main = 5, deep = 1, comparator = 1, finalizer = 1,
}
local context_list = {}
for _, name in ipairs(contexts.names) do
  for _ = 1, CONTEXT_WEIGHTS[name] do context_list[#context_list + 1] = name end
end

-- Lets things happen: one turn, a short wait, or nothing.
local function drive(r)
  local kind = r:int(1, 4)
  if kind == 1 then
    world.try("yield", ip.fiber.yield)
  elseif kind == 2 then
    world.try("sleep", ip.fiber.sleep, r:int(1, 2000) / 1e6)
  elseif kind == 3 then
    world.try("step", ip.fiber.loop.step, ip.fiber.loop, 0)
  end
end

local function play(r)
  local context = r:pick(context_list)
  world.log("in %s", context)
  world.try(context, contexts[context], r)
  drive(r)
end

-- Where memory fails in the fuzzer itself, the step ends.
local function play_step(step)
  world.step = step
  local r = world.random(step)
  local ok, err = faults.play(seed, step, play, r)
  if not ok then world.check_error("a step", err) end
end

-- A fiber or a coroutine, with what is known of it.
local function describe(object)
  for co, facts in pairs(world.all_threads) do
    if co == object or facts.handle == object then
      local told = {}
      for name, value in pairs(facts) do told[#told + 1] = name .. "=" .. tostring(value) end
      table.sort(told)
      return ("%s, its coroutine is %s, %s, %s"):format(
        tostring(object), coroutine.status(co), table.concat(told, " "), debug.traceback(co))
    end
  end
  return tostring(object)
end

local function describe_suspended()
  local told = {}
  for co, facts in pairs(world.all_threads) do
    local was_closed = not facts.finished and facts.closed_in
    if coroutine.status(co) == "suspended" or was_closed then told[#told + 1] = "\n" .. describe(co) end
  end
  return table.concat(told)
end

-- The coroutines that the pool of operations holds: these wait, whoever knows them.
local function describe_operations()
  local told = {}
  for _, pool in pairs(debug.getregistry()) do
    for _, operation in pairs(type(pool) == "table" and pool or {}) do
      local metatable = type(operation) == "userdata" and debug.getmetatable(operation)
      local co = metatable and metatable.__name == "ip.operation" and debug.getuservalue(operation, 1)
      if co then
        told[#told + 1] = ("\noperation of %s: %s %s"):format(co, coroutine.status(co), describe(co))
      end
    end
  end
  return table.concat(told)
end

-- A loop that looks for events again and again, though there are none, does so some ten thousand times in this time.
local MOST_POLLS = 6000

local function sleep_quietly(seconds)
  ip.fiber.loop.spin = 0
  local polls = faults.polls()
  world.try("sleep", ip.fiber.sleep, seconds)
  if polls == nil or not plays("check_polls") or ip.fiber.loop.spin > 0 then return end
  polls = faults.polls() - polls
  world.most_polls = math.max(world.most_polls or 0, polls)
  if polls > MOST_POLLS then
    world.fault(("the loop looked for events %d times in %g s%s"):format(polls, seconds, describe_suspended()))
  end
end

-- No call may be pending for long after its deadline.
local function check_deadlines()
  if not plays("check_deadlines") then return end
  for _ = 1, 2 do sleep_quietly(0.05) end
  local late = ip.fiber.now() - 0.1
  for co, facts in pairs(world.all_threads) do
    local waits = coroutine.status(co) == "suspended" and not facts.yields and facts.kind ~= "generator"
    if waits and facts.deadline and facts.deadline < late then
      world.fault(("a call is pending %.1f s after its deadline: %s"):format(
        late - facts.deadline, describe(co)))
    end
  end
end

local function end_everything()
  for handle in pairs(world.all_fibers) do pcall(handle.interrupt, handle) end
  for _, entry in ipairs(world.stable) do pcall(entry.sock.cancel, entry.sock) end
  for sock in pairs(world.all_wild) do sock:close() end
  for listener in pairs(world.all_listeners) do listener:close() end
  world.end_meetings()
  for co, facts in pairs(world.all_threads) do
    if facts.kind ~= "fiber" and coroutine.status(co) == "suspended" then pcall(coroutine.close, co) end
  end
end

local function is_over()
  for handle in pairs(world.all_fibers) do
    local status = handle.status
    if status == "ready" or status == "waiting" or status == "running" then return false, handle end
  end
  for co, facts in pairs(world.all_threads) do
    local waits = facts.kind == "foreign" and coroutine.status(co) == "suspended"
    if waits and not facts.finished then return false, co end
  end
  return true
end

local function drain(entry)
  local deadline = ip.fiber.now() + 10
  local span = ip.byte_span.new(65535)
  entry.sock.receive_timeout = nil
  while true do
    local patience = world.ledger:missing(entry.index) > 0 and 1 or 0.001
    local ok, n, truncated = pcall(ip.fiber.with_timeout, patience, entry.sock.receive, entry.sock, span)
    if ok then
      world.ledger:received(entry.index, span:sub(1, n), truncated, 65535)
    elseif n == ip.error.ETIMEDOUT and n.operation == "with_timeout" then
      return
    else
      world.check_error("the last receive", n)
    end
    if ip.fiber.now() > deadline then world.fault("draining never ends") end
  end
end

local function forget()
  for _, name in ipairs {
    "wild", "fds", "spans", "batches", "handles", "threads", "generators", "holders",
    "listeners", "sessions",
  } do
    world[name] = {}
  end
  world.all_threads = setmetatable({}, { __mode = "k" })
  world.all_fibers = setmetatable({}, { __mode = "k" })
end

local function calm()
  debug.sethook()
  if world.mode == "stopped" then collectgarbage("restart") end
  world.mode = nil
  collectgarbage("incremental", 200, 100, 13)
  ip.fiber.loop.spin = 0
  world.default_handler()
end

-- Nothing is due but the step's own end: a step that misses it would block for ever, which the watchdog sees.
local function step_quietly()
  if not plays("quiet_steps") then return end
  local sock = world.stable[1].sock
  local waiting = ip.fiber.spawn(pcall, sock.receive_string, sock)
  for i = 1, world.step == steps and 1000 or 50 do
    if i % 50 == 0 then world.log("quiet steps") end
    ip.fiber.loop:step(1e-9)
  end
  waiting:interrupt()
  waiting:join()
end

-- Ends what the epoch has begun; everything that was sent has to arrive.
local function settle()
  world.log("settles")
  calm()
  check_deadlines()
  world.settling = true
  local over, left
  for _ = 1, 1000 do
    end_everything()
    pcall(ip.fiber.with_timeout, 0.001, ip.fiber.yield)
    over, left = is_over()
    if over then break end
  end
  if not over and plays("check_fibers") then world.fault("never ends: " .. describe(left) .. describe_operations()) end
  world.ledger.busy = 0 -- an error at the limit of nested C calls may have left an entry
  world.check_meetings(world.ledger.may_lose)
  world.log("drains")
  for _, entry in ipairs(world.stable) do
    for _, name in ipairs { "coalesce", "receive_offload", "receive_errors" } do
      pcall(entry.sock.set_option, entry.sock, name, false)
    end
    drain(entry)
    world.ledger:close(entry.index)
  end
  world.ledger.may_lose = nil
  step_quietly()
  if plays("closed_by_others") then closed_by_others(world.random(world.step, 2)) end
  local operations = core.fiber.statistics().operations
  if operations > 0 and plays("check_accounts") then
    world.fault(operations .. " operations are left" .. describe_operations() .. describe_suspended())
  end
  forget()
  collectgarbage()
  pcall(ip.fiber.sleep, 0.002) -- lets libuv finish what was closed
  collectgarbage()
  world.settling = false
end

-- The descriptors that the library opens for itself once, when they are needed first: the loop's, the timers', and
-- those of waits for foreign descriptors.
local function open_own_descriptors()
  ip.fiber.sleep(1e-6)
  pcall(ip.fiber.wait_fd, 1000000, "r")
end

local TOLERANCE = 300 -- kilobytes: tables that have grown, buffers that are kept for reuse

-- A look-up that was given up goes on in its thread for a while, and has descriptors of its own.
local function snapshot_like(before)
  local after = world.snapshot()
  for _ = 1, 300 do
    if after.descriptors == before.descriptors then break end
    ip.fiber.sleep(0.01)
    after = world.snapshot()
  end
  return after
end

local function compare(before)
  if not plays("check_accounts") or world.at_limit then return end
  local after = snapshot_like(before)
  for name, value in pairs(before) do
    if after[name] ~= value then
      world.fault(("%s at the start: %s, at the end of the epoch: %s\n%s"):format(
        name, value, after[name], name == "descriptors" and world.list_descriptors() or ""))
    end
  end
  local memory = collectgarbage("count")
  world.memory = world.memory or memory
  if memory > world.memory + TOLERANCE then
    world.fault(("memory: %.0f KB after the first epoch, now %.0f KB"):format(world.memory, memory))
  end
end

local function report(count)
  local parts, calls = {}, 0
  for _, name in ipairs(api.names()) do
    calls = calls + api.calls[name]
    parts[#parts + 1] = name .. " " .. api.calls[name]
  end
  local modes = {}
  for name, times in pairs(world.modes) do modes[#modes + 1] = name .. " " .. times end
  table.sort(modes)
  print("calls: " .. table.concat(parts, ", "))
  if faults.report() then print(faults.report()) end
  print(("seed %d: %d steps, %d calls, %d datagrams received, collector: %s"):format(seed, count, calls,
    world.ledger.received_count, table.concat(modes, ", ")))
end

-- The number of a pipe's descriptor that the library does not own, so that no close of its own ends the wait.
-- The pipe is closed after the library.
local function descriptor_of_others()
  local sock = ip.udp.bind("127.0.0.1", 0)
  local lowest = sock.native_handle
  sock:close()
  oldest.pipe = io.popen("exec sleep 0.1") -- its descriptor is the lowest that is free
  return lowest
end

-- Waits of every kind that last until the end, in coroutines of others and in fibers.
local function start_last_waits(r)
  local others = descriptor_of_others()
  local sock = ip.udp.bind("127.0.0.1", 0)
  local waits = {
    function() ip.fiber.sleep(100) end,
    function() ip.fiber.wait_fd(world.stable[1].sock.native_handle, "r") end,
    function() ip.fiber.wait_fd(sock:release(), "r") end,
    function() ip.fiber.wait_fd(others, "r") end,
    function() ip.fiber.wait_signal("SIGUSR1") end,
    function() ip.fiber.queue():get() end,
    function()
      local queue = ip.fiber.queue(1)
      queue:put(1)
      queue:put(2)
    end,
    function() ip.fiber.condition():wait() end,
    function() local guard <close> = ip.fiber.semaphore(0):hold() end, -- luacheck: ignore guard
    function()
      local sleeper = ip.fiber.spawn(ip.fiber.sleep, 100)
      ip.fiber.wait_any(world.stable[1].sock, ip.fiber.queue(), others, sleeper)
    end,
    function()
      local group <close> = ip.fiber.group()
      group:spawn(ip.fiber.sleep, 100)
      group:join()
    end,
    function() world.stable[2].sock:receive_string() end,
    function() ip.udp.listen("127.0.0.1", 0, { idle_timeout = 100 }):accept() end,
    function() world.stable[2].sock:receive_message(ip.byte_span.new(10)) end,
    function() world.stable[3].sock:receive_many(ip.udp.batch.new(3)) end,
    function() for _ in world.stable[3].sock:datagrams() do end end, -- luacheck: ignore
    function() ip.fiber.spawn(ip.fiber.sleep, 100):join() end,
    function() ip.udp.get_address_info("localhost", 1) end,
    function() ip.fiber.with_timeout(50, ip.fiber.sleep, 100) end,
    function() ip.fiber.shield(ip.fiber.sleep, 100) end,
  }
  for _, wait in ipairs(waits) do
    local kind = r:int(1, 3)
    local co = coroutine.create(kind == 1 and ip.fiber.coroutine.wrap(wait) or wait)
    if kind == 3 then
      ip.fiber.spawn(function()
        oldest.threads[#oldest.threads + 1] = coroutine.running()
        wait()
      end)
    else
      oldest.threads[#oldest.threads + 1] = co
      coroutine.resume(co)
    end
  end
  pcall(ip.fiber.sleep, 0.001)
end

local function begin_epoch(number)
  faults.begin(seed, number)
  world.ledger.may_lose = faults.may_lose() or nil
end

-- Goes on for a while and ends in the middle of it: what is pending meets the end of the state.
local function dirty_end(first)
  begin_epoch(first)
  for step = first, first + 60 do play_step(step) end
  calm()
  local r = world.random(first, 1)
  oldest.threads = {}
  for co in pairs(world.all_threads) do oldest.threads[#oldest.threads + 1] = co end
  start_last_waits(r)
  oldest.ends = r:one_in(2) and coroutine.close or coroutine.resume
  local sock = world.stable[1].sock
  oldest.calls = { { sock.close, sock }, { ip.udp.bind, "127.0.0.1", 0 }, { ip.fiber.spawn, print },
    { ip.fiber.sleep, 0.01 }, { ip.fiber.loop.step, ip.fiber.loop } }
  world.log("the end of the state")
end

start_log()
world.default_handler()
world.open_stable()
catch_signals()
open_own_descriptors()
settle()
local before = world.snapshot()
for step = 1, steps do
  -- At the very limit of C calls Lua skips finalizers, too, and their objects are never closed: a run comes there in
  -- its last epoch, whose accounts are not compared.
  if step == steps - EPOCH + 1 then world.at_limit = plays("limit_of_c_calls") end
  if step % EPOCH == 1 then begin_epoch(step // EPOCH) end
  play_step(step)
  if step % EPOCH == 0 or step == steps then
    settle()
    compare(before)
  end
end
report(steps)
io.stdout:flush()
if plays("dirty_end") then dirty_end(steps + 1) end
faults.play(seed, steps, os.exit, true, true) -- the end of the state, which needs memory
os.exit(true, true) -- where that call itself had none
