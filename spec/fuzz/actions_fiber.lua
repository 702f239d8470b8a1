--- Fibers, deadlines, interruption, joins, the loop's own face.

local ip = require "ip"
local api = require "spec.fuzz.api"
local world = require "spec.fuzz.world"

local F = api.fiber

local actions = {}

function actions.sleep(r)
  world.try("sleep", F.sleep, r:seconds())
end

function actions.yield()
  world.try("yield", F.yield)
end

function actions.spawn(r)
  local seconds = r:seconds()
  local handle = F.spawn(function(...)
    if r:one_in(2) then F.sleep(seconds) end
    if r:one_in(5) then error("fuzz error: in a fiber", 0) end
    return ...
  end, r:int(1, 9), nil, "text", nil)
  world.note_fiber(handle)
end

local function pick_fiber(r)
  return #world.handles > 0 and r:pick(world.handles) or F.spawn(F.yield)
end

function actions.join(r)
  world.try("join", api.handle.join, pick_fiber(r))
end

function actions.interrupt(r)
  world.try("interrupt", api.handle.interrupt, pick_fiber(r))
end

function actions.detach(r)
  world.try("detach", api.handle.detach, pick_fiber(r))
end

function actions.fiber_properties(r)
  local handle = pick_fiber(r)
  for _, name in ipairs(api.properties.fiber) do api.get("fiber", handle, name) end
  if #tostring(handle) == 0 then world.fault("a fiber without text") end
end

function actions.clocks()
  local current = F.current()
  if current ~= nil and api.get("fiber", current, "status") ~= "running" then
    world.fault("the running fiber says that it is " .. current.status)
  end
  local before = F.now()
  if F.now() < before or F.time() < 1e18 then world.fault("a clock goes backwards") end
end

function actions.on_error(r)
  if r:one_in(3) then
    F.on_error(function(err)
      world.check_error("a fiber", err)
      if r:one_in(4) then error("fuzz error: in the handler") end
    end)
  else
    world.default_handler()
  end
end

function actions.run(r)
  local kind = r:int(1, 3)
  if kind == 1 then
    world.try("run", F.with_timeout, r:seconds(), F.run)
  else
    world.try("run", F.run, function(...)
      if kind == 2 then F.sleep(r:seconds()) end
      return ...
    end, 1, nil)
  end
end

-- --- another loop drives this one ---

function actions.step(r)
  local seconds
  if r:one_in(2) then seconds = r:seconds() end
  world.try("step", api.loop.step, ip.fiber.loop, seconds)
end

function actions.tiny_steps(r)
  for _ = 1, r:int(1, 60) do
    world.try("step", api.loop.step, ip.fiber.loop, r:pick { 1e-9, 1e-7, 1e-6, 1e-5 })
  end
end

function actions.loop_timeout()
  local ok, seconds = world.try("timeout", api.loop.timeout, ip.fiber.loop)
  local is_wrong = ok and seconds ~= nil and (seconds < 0 or seconds ~= seconds)
  if is_wrong then world.fault("timeout: " .. seconds) end
  if ip.fiber.loop.pollfd < 0 or ip.fiber.loop.events ~= "r" then world.fault("pollfd, events") end
end

function actions.spin(r)
  ip.fiber.loop.spin = r:pick { 0, 0, 0.0001, 0.002, math.huge }
end

-- --- signals ---

local signals = world.signals

function actions.wait_signal(r)
  world.try("wait_signal", F.with_timeout, r:seconds(), F.wait_signal, r:pick(signals), r:pick(signals))
end

function actions.send_signal(r)
  -- run.lua has waited for each of them once: from then on they do not end the process
  if r:one_in(4) then os.execute(("kill -%s %d"):format(r:pick(signals):sub(4), world.pid)) end
end

return actions
