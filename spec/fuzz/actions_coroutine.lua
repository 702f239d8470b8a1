--- What others do to coroutines that wait in the library: resume, close, look at, collect.

local api = require "spec.fuzz.api"
local contexts = require "spec.fuzz.contexts"
local world = require "spec.fuzz.world"

local G = api.coroutine

local actions = {}

-- A coroutine that has run its last instruction is dead to everybody.
local function check_dead(co)
  local facts = world.all_threads[co]
  if facts and facts.finished and coroutine.status(co) == "suspended" then
    world.fault("a coroutine that has returned is suspended (" .. facts.kind .. ")")
  end
end

local function pick(r)
  local list = r:one_in(4) and world.generators or world.threads
  if #list > 0 then return r:one_in(3) and list[#list] or r:pick(list) end
  local facts = { kind = "foreign" }
  local co = coroutine.create(contexts.body_of(r, facts))
  world.note_thread(co, facts)
  return co
end

function actions.foreign_resume(r)
  local co = pick(r)
  if world.plays("check_returned") then check_dead(co) end
  if coroutine.status(co) ~= "suspended" then return end
  local facts = world.all_threads[co]
  local handle = facts and facts.handle
  if handle and handle.status == "ready" and not world.plays("resume_ready") then return end
  if facts then facts.resumed_in = world.step end
  local resume = r:one_in(3) and G.resume or coroutine.resume
  if r:one_in(2) then
    world.try("resume", resume, co)
  else
    world.try("resume", resume, co, print, "a stranger's values", nil)
  end
end

function actions.foreign_close(r)
  local co = pick(r)
  local status = coroutine.status(co)
  if status ~= "suspended" and status ~= "dead" then return end
  local facts = world.all_threads[co]
  if facts then facts.closed_in = world.step end
  world.log("closes a coroutine (%s)", facts and facts.kind)
  world.try("close", r:one_in(2) and G.close or coroutine.close, co)
end

-- Near the limit of nested C calls Lua cannot call __close methods.
function actions.deep_close(r)
  local co = pick(r)
  if coroutine.status(co) ~= "suspended" then return end
  local function deep(n)
    if n == 0 then
      if world.all_threads[co] then world.all_threads[co].deeply_closed_in = world.step end
      world.try("close", coroutine.close, co)
      return "x"
    end
    return (string.gsub("x", "x", function() return deep(n - 1) end))
  end
  local last = r:int(150, 190)
  if not world.at_limit then return pcall(deep, 120) end
  for depth = 199, last, -1 do -- the first that Lua reaches is the one at which it can call nothing more
    if coroutine.status(co) == "suspended" then pcall(deep, depth) end
  end
end

function actions.coroutine_functions(r)
  local co = pick(r)
  if G.status(co) ~= coroutine.status(co) then world.fault("two statuses of a coroutine") end
  local running, is_main = G.running()
  if running ~= coroutine.running() then world.fault("two running coroutines") end
  if G.isyieldable() ~= coroutine.isyieldable() then world.fault("two answers of isyieldable") end
  if is_main or not G.isyieldable() or r:one_in(2) then return end
  local facts = world.all_threads[running] or {}
  facts.yields = true
  G.yield("a value", nil)
  facts.yields = false
end

function actions.traceback(r)
  if #debug.traceback(pick(r)) == 0 then world.fault("no traceback") end
end

-- A coroutine that others have made and resumed, inside whatever runs: it suspends by itself.
function actions.foreign_inside(r)
  contexts.foreign(r)
end

function actions.generator_inside(r)
  local facts = { kind = "generator" }
  local co = G.create(contexts.body_of(r, facts))
  world.all_threads[co] = facts
  world.keep(world.generators, co)
  world.try("resume", G.resume, co)
end

return actions
