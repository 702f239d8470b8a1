--- The collector in every mode, finalizers, and debug hooks that use the library.

local ip = require "ip"
local api = require "spec.fuzz.api"
local contexts = require "spec.fuzz.contexts"
local world = require "spec.fuzz.world"
local collector = require "spec.support.collector"

local actions = {}

local modes = {
  incremental = function() collectgarbage("incremental", 200, 100, 13) end,
  generational = function() collectgarbage("generational", 20, 100) end,
  ["most aggressive"] = collector.press,
  stopped = function() collectgarbage("stop") end,
}
local mode_names = { "incremental", "generational", "most aggressive", "stopped" }

--- Changes the mode of the collector.
function actions.collector_mode(r)
  local name = r:pick(mode_names)
  if world.mode == "stopped" then collectgarbage("restart") end
  world.mode = name
  world.modes[name] = (world.modes[name] or 0) + 1
  modes[name]()
  world.log("collector: %s", name)
end

function actions.collect()
  collectgarbage()
end

function actions.collect_steps(r)
  for _ = 1, r:int(1, 20) do collectgarbage("step", r:int(0, 50)) end
end

-- Lets go of what is kept for later steps, so that it is collected at any moment.
function actions.forget(r)
  local list = r:pick { world.wild, world.fds, world.handles, world.threads, world.generators, world.holders }
  for _ = 1, r:int(1, 4) do
    if #list > 0 then table.remove(list, r:int(1, #list)) end
  end
  if r:one_in(2) then collectgarbage() end
end

function actions.finalizer(r)
  contexts.finalizer(r)
  if r:one_in(3) then collectgarbage() end
end

-- --- hooks ---

local busy = false

-- What a hook does: sometimes it waits, as a program on the main thread may.
local function in_hook(r, kind)
  local entry = r:pick(world.stable)
  if kind == 1 then
    collectgarbage("step")
  elseif kind == 2 then
    local span = ip.byte_span.new(65535)
    local ok, n, truncated = world.try("try_receive", api.socket.try_receive, entry.sock, span)
    if ok and n then world.ledger:received(entry.index, span:sub(1, n), truncated, 65535) end
  elseif kind == 3 or kind == 7 then
    local ok, text, _, _, truncated = world.try("with_timeout", api.fiber.with_timeout, 0.002,
      api.socket.receive_string, entry.sock)
    if ok then world.ledger:received(entry.index, text, truncated, 65535) end
  elseif kind == 4 then
    world.try("sleep", api.fiber.sleep, 0.001)
  elseif kind == 5 then
    collectgarbage()
  else
    contexts.foreign(r)
  end
end

local function set_hook(co, r)
  local left = r:int(1, 100)
  local every = r:pick { 1, 1, 2, 5, 30 }
  local events = 0
  local fixed = r:one_in(2) and r:int(1, 7) or nil
  local function hook()
    events = events + 1
    if busy or world.ledger.busy > 0 or events % every ~= 0 then return end
    if world.recording[coroutine.running()] then world.meetings_may_lose = true end
    busy = true
    left = left - 1
    if left <= 0 then debug.sethook() end
    local ok, err = pcall(in_hook, r, fixed or r:int(1, 7))
    busy = false
    if not ok then world.check_error("a hook", err) end
  end
  local mask, count = "", r:int(50, 400)
  if r:one_in(2) then mask, count = r:pick { "c", "r", "cr" }, 0 end
  debug.sethook(co, hook, mask, count)
end

--- Sets a hook on the running coroutine, the main thread or another coroutine.
function actions.hook(r)
  local co = coroutine.running()
  if r:one_in(2) then co = world.main end
  if r:one_in(3) and #world.threads > 0 then co = r:pick(world.threads) end
  set_hook(co, r)
end

function actions.count_hook_that_collects(r)
  local left = r:int(1, 100)
  debug.sethook(function()
    left = left - 1
    if left <= 0 then debug.sethook() end
    collectgarbage("step", 10)
  end, "", r:int(1, 100))
end

return actions
