--- Queues, semaphores, conditions, groups, wait_any, every. Each value of a queue is a number of its own, so that
--- none may arrive twice, or be lost, or arrive though its put has failed; permits are counted.

local ip = require "ip"
local api = require "spec.fuzz.api"
local world = require "spec.fuzz.world"

local F, Q, C, M, G = api.fiber, api.queue, api.condition, api.semaphore, api.group

local actions = {}

local MOST = 12 -- objects of a kind

world.meetings = { queues = {}, semaphores = {}, conditions = {}, groups = {} }

local function pick(r, list, make)
  if #list < 3 or #list < MOST and r:one_in(20) then
    list[#list + 1] = make(r)
    return list[#list]
  end
  return r:pick(list)
end

-- Makes a call whose result has to be noted: what interrupts this coroutine in between (a hook that waits, while
-- somebody closes it) makes the accounts uncertain.
local function noted(note, ...)
  local co = coroutine.running()
  world.recording[co] = true
  local ok, result, second = world.try(...)
  note(ok, result, second)
  world.recording[co] = nil
end

-- Waits as long as the call takes, or for a short time.
local function call(r, fn, ...)
  if r:one_in(3) then return fn, ... end
  return F.with_timeout, r:seconds(), fn, ...
end

-- --- queues ---

local function new_queue(r)
  return { queue = F.queue(r:pick { 1, 1, 2, 5, 100 }), values = {}, last = 0 }
end

local function new_unbounded_queue(r)
  if r:one_in(3) then return { queue = F.queue(), values = {}, last = 0 } end
  return new_queue(r)
end

local function pick_queue(r)
  return pick(r, world.meetings.queues, new_unbounded_queue)
end

local function new_value(entry)
  entry.last = entry.last + 1
  entry.values[entry.last] = "tried"
  return entry.last
end

local function arrived(entry, value)
  local state = entry.values[value]
  if state ~= "tried" and state ~= "put" then
    world.fault(("the value %s arrives, which is %s"):format(tostring(value), tostring(state)))
  end
  entry.values[value] = "got"
end

local function note_put(entry, value, ok, result, second)
  local state = entry.values[value]
  if ok and result ~= nil or ok and second == nil then
    if state == "tried" then entry.values[value] = "put" end
  elseif ok or getmetatable(result) == "ip.error" then -- it was refused
    if state ~= "tried" then world.fault(("a put that has failed gave the value %d: %s"):format(value, state)) end
    entry.values[value] = "refused"
  end
end

function actions.queue_put(r)
  local entry = pick_queue(r)
  local value = new_value(entry)
  noted(function(ok, err) note_put(entry, value, ok, err) end, "put", call(r, Q.put, entry.queue, value))
end

function actions.queue_try_put(r)
  local entry = pick_queue(r)
  local value = new_value(entry)
  noted(function(...) note_put(entry, value, ...) end, "try_put", Q.try_put, entry.queue, value)
end

function actions.queue_get(r)
  local entry = pick_queue(r)
  noted(function(ok, value)
    if ok and value ~= nil then arrived(entry, value) end
  end, "get", call(r, Q.get, entry.queue))
end

function actions.queue_try_get(r)
  local entry = pick_queue(r)
  noted(function(ok, value)
    if ok and value ~= nil then arrived(entry, value) end
  end, "try_get", Q.try_get, entry.queue)
end

function actions.queue_values(r)
  local entry = pick_queue(r)
  local next_value, queue = Q.values(entry.queue)
  for _ = 1, r:int(1, 5) do
    noted(function(ok, value)
      if ok and value ~= nil then arrived(entry, value) end
    end, "values", call(r, next_value, queue))
  end
end

function actions.queue_properties(r)
  local entry = pick_queue(r)
  for _, name in ipairs(api.properties.queue) do api.get("queue", entry.queue, name) end
  if #entry.queue < 0 or #tostring(entry.queue) == 0 then world.fault("a queue without length or text") end
end

function actions.queue_close(r)
  if r:one_in(8) then world.try("close", Q.close, pick_queue(r).queue) end
end

function actions.queue_odd(r)
  local queue = pick_queue(r).queue
  world.try("put", Q.put, queue, nil)
  world.try("put", Q.put, r:pick { 1, "x", F.condition() }, 1)
  world.try("queue", F.queue, r:pick { 0, -1, 1.5, "2", 1 << 40 })
end

-- --- semaphores ---

local function new_semaphore(r)
  local permits = r:int(0, 3)
  return { semaphore = F.semaphore(permits), expected = permits }
end

local function pick_semaphore(r)
  return pick(r, world.meetings.semaphores, new_semaphore)
end

function actions.semaphore_acquire(r)
  local entry = pick_semaphore(r)
  noted(function(ok)
    if ok then entry.expected = entry.expected - 1 end
  end, "acquire", call(r, M.acquire, entry.semaphore))
end

function actions.semaphore_try_acquire(r)
  local entry = pick_semaphore(r)
  noted(function(ok, taken)
    if ok and taken then entry.expected = entry.expected - 1 end
  end, "try_acquire", M.try_acquire, entry.semaphore)
end

function actions.semaphore_release(r)
  local entry = pick_semaphore(r)
  entry.expected = entry.expected + 1
  M.release(entry.semaphore)
end

-- The guard gives back what it has taken, whatever happens inside.
function actions.semaphore_hold(r)
  local entry = pick_semaphore(r)
  local seconds = r:seconds()
  world.try("hold", F.with_timeout, r:seconds(), function()
    local guard <close> = M.hold(entry.semaphore) -- luacheck: ignore guard
    if r:one_in(2) then F.sleep(seconds) end
    if r:one_in(4) then error("fuzz error: while it holds", 0) end
  end)
end

function actions.semaphore_properties(r)
  local entry = pick_semaphore(r)
  for _, name in ipairs(api.properties.semaphore) do api.get("semaphore", entry.semaphore, name) end
  world.try("semaphore", F.semaphore, r:pick { -1, 0.5, "1" })
end

-- --- conditions ---

local function pick_condition(r)
  return pick(r, world.meetings.conditions, F.condition)
end

function actions.condition_wait(r)
  world.try("wait", call(r, C.wait, pick_condition(r)))
end

function actions.condition_notify(r)
  local condition = pick_condition(r)
  local count = r:one_in(2) and C.notify_one(condition) or C.notify_all(condition)
  if count < 0 then world.fault("a negative number was woken") end
end

-- --- groups ---

-- What a member does ends soon by itself: nothing ends the wait of a group at the end of its scope before that.
local function member(r)
  local seconds = r:seconds()
  return function()
    if r:one_in(2) then F.with_timeout(0.01, F.sleep, seconds) end
    if r:one_in(3) then pcall(F.shield, F.with_timeout, 0.002, F.sleep, seconds) end
    if r:one_in(5) then error("fuzz error: in a member", 0) end
  end
end

local function spawn_member(r, group)
  local ok, handle = world.try("spawn", G.spawn, group, member(r))
  if ok then world.note_fiber(handle) end
end

function actions.group_in_scope(r)
  world.try("a group", function()
    local group <close> = F.group()
    for _ = 1, r:int(0, 4) do spawn_member(r, group) end
    if r:one_in(2) then F.yield() end
    if r:one_in(3) then G.join(group) end
    if r:one_in(5) then error("fuzz error: in a scope", 0) end
  end)
end

function actions.group_spawn(r)
  spawn_member(r, pick(r, world.meetings.groups, F.group))
end

function actions.group_join(r)
  world.try("join", call(r, G.join, pick(r, world.meetings.groups, F.group)))
end

function actions.group_interrupt(r)
  local groups = world.meetings.groups
  if #groups == 0 then return end
  local group = table.remove(groups, r:int(1, #groups)) -- the collector gets it at some time
  for _, name in ipairs(api.properties.group) do api.get("group", group, name) end
  if r:one_in(2) then G.interrupt(group) end
end

-- --- one of several ---

local function source(r)
  local kind = r:int(1, 9)
  if kind == 8 and #world.sessions > 0 then return r:pick(world.sessions).session end
  if kind == 9 and #world.listeners > 0 then return r:pick(world.listeners).listener end
  if kind <= 2 then return r:pick(world.stable).sock end
  if kind == 3 then return world.wild_socket(r) end
  if kind == 4 then return pick_queue(r).queue end
  if kind == 5 and #world.handles > 0 then return r:pick(world.handles) end
  if kind == 6 and #world.fds > 0 then return r:pick(world.fds) end
  return r:pick(world.stable).sock.native_handle
end

function actions.wait_any(r)
  local sources = {}
  for i = 1, r:int(1, 8) do sources[i] = source(r) end
  sources[#sources + 1] = pick_queue(r).queue -- whose end ends the wait, also inside a shield
  local function check(found)
    for _, one in ipairs(sources) do if rawequal(one, found) then return end end
    world.fault("wait_any returned " .. tostring(found))
  end
  if r:one_in(2) then
    local ok, found, index = world.try("wait_any", call(r, F.wait_any, sources))
    if ok then check(found) end
    if ok and not rawequal(sources[index], found) then world.fault("wait_any: index " .. tostring(index)) end
  else
    local ok, found = world.try("wait_any", call(r, F.wait_any, table.unpack(sources)))
    if ok then check(found) end
  end
end

function actions.wait_any_odd(r)
  world.try("wait_any", F.wait_any, r:pick { {}, { "x" }, "x", { ip.fiber.current() }, 99999, -1, 1.5 })
  world.try("wait_any", F.wait_any)
end

-- --- time, names, the list ---

function actions.every(r)
  local seconds, left, last = r:int(1, 2000) / 1e6, r:int(1, 4), 0
  world.try("every", F.with_timeout, r:seconds() + 0.001, function()
    for count, late in F.every(seconds) do
      if count <= last or late < 0 then world.fault(("every: %s after %s, late %s"):format(count, last, late)) end
      last, left = count, left - 1
      if left <= 0 then break end
    end
  end)
  world.try("every", F.every, r:pick { 0, -1, math.huge })
end

function actions.names(r)
  local list = F.list()
  for _, one in ipairs(list) do
    if one.status == "done" or one.status == "failed" then world.fault("a fiber in the list has ended") end
  end
  if #world.handles == 0 then return end
  local handle = r:pick(world.handles)
  if r:one_in(3) then handle.name = r:pick { "a name", "", "fiber 1" } end
  if type(handle.name) ~= "string" then world.fault("a fiber without a name") end
  if not api.handle.traceback(handle):find("^stack traceback:") then world.fault("a fiber without a traceback") end
end

-- --- the end of an epoch ---

--- Lets the waits of this page end that nobody else ends: those inside shields.
function world.end_meetings()
  for _, entry in ipairs(world.meetings.queues) do entry.queue:close() end
  for _, condition in ipairs(world.meetings.conditions) do condition:notify_all() end
  for _, group in ipairs(world.meetings.groups) do group:interrupt() end
  for _, entry in ipairs(world.meetings.semaphores) do
    entry.expected = entry.expected + 1
    entry.semaphore:release()
  end
end

--- Compares the accounts, when nothing waits any more, and forgets the objects. `lenient`: values and permits may
--- have gone with Lua's own errors.
function world.check_meetings(lenient)
  lenient = lenient or world.meetings_may_lose
  for _, entry in ipairs(world.meetings.queues) do
    for value in function() return (entry.queue:try_get()) end do arrived(entry, value) end
    for value, state in pairs(entry.values) do
      if state == "put" and not lenient then world.fault(("the value %d of a queue is lost"):format(value)) end
    end
  end
  for _, entry in ipairs(world.meetings.semaphores) do
    if entry.semaphore.permits ~= entry.expected and not lenient then
      world.fault(("%d permits are free, and not %d"):format(entry.semaphore.permits, entry.expected))
    end
  end
  world.meetings = { queues = {}, semaphores = {}, conditions = {}, groups = {} }
  world.meetings_may_lose = false
end

return actions
