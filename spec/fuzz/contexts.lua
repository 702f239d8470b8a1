--- Where an action may run: on the main thread, in a fiber, in a coroutine of others, in a generator, in
--- places where Lua cannot yield, deep in C calls, in finalizers and hooks. A body is a sequence of actions
--- in layers of deadlines and shields.

local ip = require "ip"
local api = require "spec.fuzz.api"
local world = require "spec.fuzz.world"

local F, G = api.fiber, api.coroutine

local contexts = {}

local pick_action -- function(r) -> name, action; set by run.lua

function contexts.use(picker)
  pick_action = picker
end

-- A value that is closed when a body is left or closed by others, and does something then.
local function guard(r)
  local kind = r:int(1, 4)
  if not world.plays("collect_in_close") then kind = 4 end
  return setmetatable({}, { __close = function()
    if kind == 1 then
      coroutine.wrap(collectgarbage)()
    elseif kind == 2 then
      collectgarbage("step")
    elseif kind == 3 then
      world.try("a call in __close", F.sleep, 0)
    end
  end })
end

-- On the main thread each action has a deadline, for nobody else could end it.
local function act(r)
  if world.settling then error("fuzz error: the epoch is over", 0) end
  local name, action = pick_action(r)
  world.log("%s", name)
  world.acted = world.acted + 1
  if world.on_main() then
    F.with_timeout(r:int(0, 8000) / 1e6, action, r)
  else
    action(r)
  end
end

-- Where memory fails in the fuzzer itself, the deadline is over all the same.
local function restore(facts, outer, ok, ...)
  facts.deadline = outer
  if not ok then error((...), 0) end
  return ...
end

-- Deadlines that have passed while a call of this coroutine is pending are looked for when the world settles.
local function under_deadline(r, facts, fn, ...)
  local seconds = r:seconds()
  local outer = facts.deadline
  facts.deadline = math.min(outer or math.huge, F.now() + math.max(seconds, 0))
  return restore(facts, outer, pcall(world.try, "with_timeout", F.with_timeout, seconds, fn, ...))
end

-- Yields inside a deadline: somebody else resumes it, with Lua's own resume or the library's.
local function act_later(r, facts)
  if facts.kind == "foreign" and r:one_in(2) then
    facts.yields = true
    coroutine.yield()
    facts.yields = false
    world.log("goes on in its deadline")
  end
  act(r)
end

local function in_layers(r, facts)
  local kind = r:int(1, 8)
  if kind == 1 then
    world.try("shield", F.shield, act, r)
  elseif kind <= 3 then
    under_deadline(r, facts, act_later, r, facts)
  elseif kind == 4 then
    local closes <close> = guard(r) -- luacheck: ignore closes
    act(r)
  else
    act(r)
  end
end

local function one_to_three(r, facts)
  local closes <close> = r:one_in(3) and guard(r) or nil -- luacheck: ignore closes
  for _ = 1, r:int(1, 3) do
    if r:one_in(6) then
      facts.yields = true
      coroutine.yield()
      facts.yields = false
      -- whoever has resumed it: the dispatcher, or somebody else while nobody drives the loop
      if r:one_in(3) then world.try("step", api.loop.step, ip.fiber.loop) end
    end
    in_layers(r, facts)
  end
end

-- A body of one to three actions. `facts.finished` is set by its last instruction, when its guard is closed, which may
-- wait.
local function body_of(r, facts)
  return function()
    one_to_three(r, facts)
    facts.finished = true
    if r:one_in(3) then return print, "results that stay", nil end
  end
end

contexts.body_of = body_of

function contexts.fiber(r)
  local facts = { kind = "fiber" }
  local body = body_of(r, facts)
  local handle = F.spawn(function()
    world.note_thread(coroutine.running(), facts)
    return body()
  end)
  world.note_fiber(handle)
  facts.handle = handle
  if r:one_in(6) then world.try("detach", api.handle.detach, handle) end
  if r:one_in(12) then world.try("interrupt", api.handle.interrupt, handle) end
end

function contexts.foreign(r)
  local facts = { kind = "foreign" }
  local co = coroutine.create(body_of(r, facts))
  world.note_thread(co, facts)
  world.try("resume", assert, coroutine.resume(co))
end

-- A fiber in a generator, perhaps one in another. The wrap is resumed until it is dead.
local function generate(r, depth)
  local facts = { kind = "generator" }
  local body = depth > 1 and function() generate(r, depth - 1) end or body_of(r, facts)
  local co = G.create(body)
  world.all_threads[co] = facts
  if r:one_in(2) then world.keep(world.generators, co) end -- else this frame alone holds it
  local closes <close> = r:one_in(3) and guard(r) or nil -- luacheck: ignore closes
  for _ = 1, 20 do
    if not world.try("resume", G.resume, co) then return end
    if coroutine.status(co) ~= "suspended" then return end
    if r:one_in(4) then world.try("yield", F.yield) end
  end
end

local function wrapped(r)
  local facts = { kind = "generator" }
  local body = body_of(r, facts)
  local next = G.wrap(function()
    local co = coroutine.running()
    world.all_threads[co] = facts
    if r:one_in(3) then world.keep(world.generators, co) end -- else nobody but the library knows it
    body()
    facts.finished = true
  end)
  for _ = 1, 20 do
    if facts.finished or not world.try("a wrapped generator", next) then return end
  end
end

function contexts.generator(r)
  local facts = { kind = "fiber" }
  facts.handle = world.note_fiber(F.spawn(function()
    world.note_thread(coroutine.running(), facts)
    if r:one_in(2) then wrapped(r) else generate(r, r:int(1, 3)) end
    facts.finished = true
  end))
end

function contexts.main(r)
  in_layers(r, { kind = "main" })
end

-- Deep in C calls; LUAI_MAXCCALLS is 200.
local function deep(n, fn)
  if n == 0 then
    fn()
    return "x"
  end
  return (string.gsub("x", "x", function() return deep(n - 1, fn) end))
end

function contexts.deep(r)
  local depth = r:one_in(3) and r:int(150, 199) or r:int(1, 150)
  if not world.at_limit then depth = math.min(depth, 120) end
  world.log("at depth %d", depth)
  -- the dispatcher resumes coroutines there that cannot call anything: their results go with Lua's error, and the
  -- ledger's own entries, too
  world.ledger.may_lose = true
  world.try("gsub", deep, depth, function() contexts.main(r) end)
end

function contexts.comparator(r)
  world.try("sort", table.sort, { 3, 1, 2 }, function(a, b)
    act(r)
    return a < b
  end)
end

-- A finalizer; it runs when the collector comes to it.
function contexts.finalizer(r)
  setmetatable({}, { __gc = function()
    if world.ledger.busy == 0 then world.try("a finalizer", act, r) end
  end })
end

--- Everything that may run at the top of a step.
contexts.names = { "fiber", "foreign", "generator", "main", "deep", "comparator", "finalizer" }

return contexts
