--- serve: the server that the network cannot end. A worker is written in C (src/udp/serve.c); here are the
--- configuration, and the fibers of several workers.

local core = require("ip.core")
local check = require("ip.check")
local fiber = require("ip.fiber")
local loop_config = require("ip.udp_loop_config")
local check_server, new_server, serve = core.check_server, core.new_server, core.serve
local wait_for_end = core.fiber.wait_for_end

core.own_file()

---@class ip.udp.serve_config : ip.udp.loop_config
---@field workers integer? fibers that serve at once; default 1
---@field on_error (fun(err: ip.error.value, address: ip.address?, port: integer?))? called for each error that
---does not end the server, with the sender whose answer it concerns

local udp_serve = {}

local tests = { workers = loop_config.count }
for name, test in pairs(loop_config.problems) do tests[name] = test end

local function read_config(config)
  config = loop_config.read(2, "serve", config, tests)
  if config.buffer ~= nil and (config.workers or 1) > 1 then
    check.fail(2, "serve", "option 'buffer': several workers cannot share a buffer")
  end
  return config
end

-- --- several workers ---

---@class team the fibers of one call, and how they have ended
---@field [integer] ip.fiber
---@field ending boolean they are interrupted
---@field failed boolean
---@field err any the first error
---@field reason "closed"|"stopped"|nil
---@field stopper ip.fiber? its end stops all workers
local team_class = {}
team_class.__index = team_class

function team_class:finish()
  self.ending = true
  for _, member in ipairs(self) do member:interrupt() end
  if self.stopper ~= nil then self.stopper:interrupt() end
end

-- Held by the call alone. Where the call cannot wait any more, because somebody closes its coroutine, its fibers
-- end soon after it; at the limit of nested C calls, Lua closes a coroutine without __close.
local holder_class = {}
function holder_class:__close() self.team:finish() end
holder_class.__gc = holder_class.__close

-- Notes how a worker has ended. The first error ends the others; what interrupts them is none.
function team_class:note(ok, result)
  if ok then
    self.reason = self.reason or result
  elseif not self.failed and not (self.ending and result == core.error.INTERRUPTED) then
    self.failed, self.err = true, result
    self:finish()
  end
end

local function work(team, ...)
  team:note(pcall(serve, ...))
end

local function join_all(team)
  for _, member in ipairs(team) do member:join() end
end

-- Waits until all have ended, although the caller is interrupted or its deadline is over.
local function wait_for_all(team)
  for _, member in ipairs(team) do wait_for_end(member) end
  if team.stopper == nil then return end
  team.stopper:interrupt()
  wait_for_end(team.stopper)
end

-- A stop function is asked by the worker that has served a datagram, and the others may wait: the end of a
-- fiber stops them.
local function stop_all_by(team, asks)
  local stopper = fiber.spawn(fiber.sleep, math.huge)
  team.stopper = stopper
  return function()
    if not asks() then return false end
    stopper:interrupt()
    return true
  end
end

local function serve_with_team(sock, handler, config)
  check_server(sock, true) -- before there are fibers
  local team = setmetatable({ ending = false, failed = false }, team_class)
  local holder <close> = setmetatable({ team = team }, holder_class) -- luacheck: ignore holder
  local asks, stop = loop_config.split_stop(config)
  if asks ~= nil then
    asks = stop_all_by(team, asks)
    stop = team.stopper
  end
  for i = 1, config.workers do
    local span, usable = loop_config.new_buffer(config)
    local server = new_server(sock, loop_config.max_ready(config))
    team[i] = fiber.spawn(work, team, sock, server, span, usable, stop, handler, config.on_error, asks)
  end
  local ok, err = pcall(join_all, team)
  if not ok then team:finish() end
  wait_for_all(team)
  if team.failed then error(team.err, 0) end
  if not ok then error(err, 0) end
  return team.reason
end

-- --- serve ---

--- Calls handler(span, address, port, truncated) for each datagram and sends what it returns to the sender,
--- until the socket is closed or config.stop stops the server. Errors that the network causes do not end it.
--- Suspends.
---@param handler fun(span: byte_span, address: ip.address, port: integer, truncated: boolean): ip.data?
---@param config ip.udp.serve_config?
---@return "closed"|"stopped"
function udp_serve.serve(sock, handler, config)
  check.socket("serve", sock)
  check_server(sock, false)
  check.type(1, "serve", "function", handler)
  config = read_config(config)
  if (config.workers or 1) > 1 then return serve_with_team(sock, handler, config) end
  local server = new_server(sock, loop_config.max_ready(config))
  local span, usable = loop_config.new_buffer(config)
  local asks, stop = loop_config.split_stop(config)
  return serve(sock, server, span, usable, stop, handler, config.on_error, asks)
end

return udp_serve
